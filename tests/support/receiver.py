"""A receiver of webhooks: a real HTTP or HTTPS server that answers as it is told, and remembers what came."""

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self

import standardwebhooks

#: A secret of 24 bytes.
SECRET: Final = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"


class Received(NamedTuple):
    """One request."""

    path: str
    fields: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        """The id of the message."""
        return self.fields["webhook-id"]

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """What stands in it, if the library of Standard Webhooks finds it signed with the secret."""
        found: dict[str, Any] = standardwebhooks.Webhook(secret).verify(self.body, self.fields)
        return found


class Receiver:
    """Answers each request with the next of `answers`, the last one again and again: a status and fields."""

    def __init__(self, *answers: int | tuple[int, dict[str, str]], tls: ssl.SSLContext | None = None) -> None:
        """Listen on loopback."""
        self.received: list[Received] = []
        #: Called before each answer.
        self.before: Callable[[], object] = lambda: None
        self.answers = [*answers] or [204]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                outer.received.append(Received(self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                outer.before()
                status, fields = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in {"Content-Length": "2", **fields}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self._scheme}://localhost:{self.port}/hook?x=1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
