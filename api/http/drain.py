"""While the process is about to end: each answer asks its client to connect anew, and so to reach the next process."""

from collections.abc import Callable

from api.http.response import App, Event, Receive, Scope, Send


class Farewell:
    """An app that closes the connection after each answer, from the moment on that `leaving` is true."""

    def __init__(self, app: App, leaving: Callable[[], bool]) -> None:
        self._app = app
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_and_close(message: Event) -> None:
            if message["type"] == "http.response.start" and self._leaving():
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_and_close)
