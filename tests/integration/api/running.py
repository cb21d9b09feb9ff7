"""A real API process for a test: started, spoken to over real sockets, and looked into."""

import http.client
import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from daemon.spool.file_format import portion_of, read_meta
from tests.support.described import undescribed
from tests.support.processes import Forked, Launcher
from tests.support.tokens import without_tokens
from tests.support.waiting import PATIENCE_S, eventually


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Return the first true value of `condition`; fail when there is none in time."""
    return eventually(condition, patience_s, what)


class Api:
    """One `python -m api` process with a state directory of its own."""

    def __init__(self, directory: Path, settings: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str],
                 launch: Launcher = Forked) -> None:
        self.state = directory / "state"
        self.file = directory / "config.toml"
        self.socket_path = directory / "sock"
        self.events: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self._changed = threading.Condition()
        self.configure({"api": {"listen": ["127.0.0.1:0", f"unix:{self.socket_path}"], "drain_s": 5.0, "processes": 1},
                        "state": {"directory": str(self.state)}, "limits": {"min_free_bytes": 0}}, settings)
        log = Path(tempfile.mkdtemp(dir=directory)) / "log"
        os.mkfifo(log)
        # Without waiting for anybody; from then on the log ends when the last writer has, and we are one of them.
        reading = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        self._writer: int | None = os.open(log, os.O_WRONLY)
        os.set_blocking(reading, True)
        self._reading = threading.Thread(target=self._read_log, args=(reading,), daemon=True)
        self._reading.start()
        self._process = launch(["api", "--config", str(self.file)], environment, log)
        self.pid = self._process.pid

    def configure(self, *layers: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the configuration file; later layers override earlier ones."""
        merged: dict[str, dict[str, Any]] = {}
        for layer in layers:
            for section, values in layer.items():
                merged.setdefault(section, {}).update(values)
        self.settings = merged
        self.file.write_text("".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            for section, values in merged.items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.end()

    def send(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        self._process.send(number)

    def end(self) -> int:
        """Wait for the end of the process; return its exit status (negative: the signal that killed it)."""
        wait_until(lambda: self._process.status() is not None, "the end of the process")
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
        # All that it said is read, too.
        self._reading.join()
        without_tokens("\n".join([*map(json.dumps, self.events), *self.other_lines]))
        return self._process.status() or 0

    def _read_log(self, descriptor: int) -> None:
        with open(descriptor, encoding="utf-8") as log:
            for line in log:
                with self._changed:
                    if line.startswith("{"):
                        # A process that is killed may leave half of its last one.
                        self.events += [json.loads(line)] if line.endswith("\n") else []
                    else:
                        self.other_lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def logged(self, event: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait until `event` was logged `number` times, and return those lines."""
        def lines() -> list[dict[str, Any]]:
            return [line for line in self.events if line["event"] == event]

        with self._changed:
            came = self._changed.wait_for(lambda: len(lines()) >= number, PATIENCE_S)
        assert came, f"{event} was not logged {number} times: {self.events} {self.other_lines}"
        return lines()

    def started(self) -> Self:
        """Wait until it takes uploads."""
        self.listens_on = self.logged("api.started")[0]["listen"].split(", ")
        return self

    def logged_with(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait until `event` was logged with these fields, and return its newest line."""
        def lines() -> list[dict[str, Any]]:
            return [line for line in self.events if line["event"] == event and fields.items() <= line.items()]

        with self._changed:
            came = self._changed.wait_for(lines, PATIENCE_S)
        assert came, f"{event} was not logged with {fields}: {self.events} {self.other_lines}"
        return lines()[-1]

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(next(a for a in self.listens_on if a.startswith("127.")).rpartition(":")[2])

    def ask(self, method: str, target: str, body: bytes | Iterator[bytes] | None = None,
            **headers: str | bytes) -> "Reply":
        """Send one request on a connection of its own and read the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            chunked = not (body is None or isinstance(body, bytes))
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            elif isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body)))
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value.encode() if isinstance(value, str) else value)
            connection.endheaders(body, encode_chunked=chunked)
            response = connection.getresponse()
            reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
        # Whatever a test is about: what clients get is what they were told that they may get.
        assert undescribed(method, target, reply.status, reply.headers, reply.body) is None
        return reply

    def put(self, path: str, body: bytes | Iterator[bytes] = b"x", query: str = "", **headers: str) -> "Reply":
        """PUT `body` to `path`, as it stands in the address, in the instance c1."""
        return self.ask("PUT", f"/v1/instances/c1/files/{path}{'?' if query else ''}{query}", body, **headers)

    def post(self, path: str, body: bytes = b"x", **headers: str | bytes) -> "Reply":
        """POST `body` to /upload for `path` in the instance c1."""
        return self.ask("POST", "/upload", body, X_File_Path=path, X_Container_Name="c1", **headers)

    @contextmanager
    def raw(self, source: str = "127.0.0.1") -> Iterator[socket.socket]:
        """A TCP connection from the loopback address `source`, or one to the Unix socket if that is "unix"."""
        if source == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE_S)
                connection.connect(str(self.socket_path))
                yield connection
            return
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, (source, 0)) as connection:
            yield connection

    def spooled(self) -> list[Path]:
        """The files in the spool."""
        return sorted(path for path in (self.state / "spool").rglob("*") if path.is_file())

    def stored(self, reply: "Reply") -> bytes:
        """The bytes in the spool of the upload that was answered with `reply`."""
        (path,) = (self.state / "spool").rglob(reply.task_id)
        with path.open("rb") as file:
            portion = portion_of(file.fileno(), path.stat().st_size, reply.task_id)
            file.seek(portion.start)
            return file.read(read_meta(file.fileno(), portion).size)

    def task(self, reply: "Reply") -> Any:
        """The task that was made with `reply`."""
        return self.ask("GET", reply.headers["location"]).json()

    def tasks(self) -> list[dict[str, Any]]:
        """The newest tasks."""
        tasks: list[dict[str, Any]] = self.ask("GET", "/v1/tasks?limit=1000").json()["tasks"]
        return tasks

    def descriptors(self) -> int:
        """How many descriptors the process has open, but for those of directories: a bucket's is opened once, and stays."""
        return sum(not link.is_dir() for link in Path(f"/proc/{self.pid}/fd").iterdir())

    def unnamed_files(self) -> int:
        """How many spool files without a name the process has open."""
        links = Path(f"/proc/{self.pid}/fd")
        count = 0
        for link in links.iterdir():
            try:
                count += "/#" in os.readlink(link).partition("/spool/")[2]
            except FileNotFoundError:
                continue
        return count

    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.send(number)
        return self.end()


class Reply:
    """An answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def task_id(self) -> str:
        """The id of the task that it leads to."""
        return self.headers["location"].rpartition("/")[2]

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        if self.headers["content-type"] == "application/problem+json":
            return str(self.json()["code"])
        return self.body.decode().rpartition("[")[2].rstrip("]\n")
