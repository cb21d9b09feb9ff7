"""The load: small uploads over keep-alive connections, as cheap for the machine as they can be.

It shares the cores with what it measures, so it is a process of its own with one epoll loop over raw sockets; a
request is put together from prepared pieces, and of an answer only what is needed is looked at. One upload costs it
some 15 µs of CPU: a server that only answers gets 30,000 of them a second.
Run as `python -m bench.load`; prints one line of JSON.
"""

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.service import ROOT

#: Where the load finds the token that it shows: arguments can be seen by every user.
TOKEN_VARIABLE: Final = "BENCH_TOKEN"


@dataclass(frozen=True)
class Load:
    """What a load run found."""

    uploads: int
    #: When the first byte was sent, as every process's perf_counter has it, and how long it took until the last answer.
    began: float
    seconds: float
    #: From the first byte sent to the last byte received, in milliseconds, sorted.
    latencies_ms: list[float]
    failures: int
    #: Seconds of CPU that the load itself used.
    cpu_s: float

    @property
    def rate(self) -> float:
        """Accepted uploads a second."""
        return self.uploads / self.seconds


def run(
    port: int, *, seconds: float, instances: Sequence[str], connections: int = 16, size: int = 1024,
    directory: str = "", one_path: bool = False, token: str = "",
) -> Load:
    """Put load on a server for so long, from a process of its own. Raises RuntimeError when uploads fail.

    Each upload has a path of its own in `directory`; with `one_path` all of them have the same. All show `token`.
    """
    options = [f"--directory={directory}", *(["--one-path"] if one_path else [])]
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "bench.load", *options, str(port), str(seconds), str(connections), str(size),
         *instances],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), TOKEN_VARIABLE: token}, capture_output=True,
        text=True, check=False, timeout=seconds + 60)
    if answer.returncode:
        raise RuntimeError(f"the load failed: {answer.stderr[-1000:]}")
    load = Load(**json.loads(answer.stdout))
    if load.failures:
        raise RuntimeError(f"{load.failures} uploads were not accepted")
    return load


@dataclass
class _Connection:
    socket: socket.socket
    began: float = 0.0
    received: bytearray = field(default_factory=bytearray)


class _Client:
    def __init__(
        self, port: int, instances: list[str], size: int, directory: str, *, one_path: bool, token: str,
    ) -> None:
        self._port = port
        self._one_path = one_path
        self._body = os.urandom(size)
        run_id = os.urandom(4).hex()
        shown = f"Authorization: Bearer {token}\r\n" if token else ""
        self._heads = [
            (f"POST /upload HTTP/1.1\r\nHost: localhost\r\nX-Container-Name: {instance}\r\nContent-Length: {size}\r\n"
             f"{shown}X-File-Path: {directory}/{run_id}-").encode() for instance in instances]
        self._sent = 0
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self.latencies_ms: list[float] = []
        self.failures = 0
        self.began = self.seconds = 0.0

    def run(self, seconds: float, connections: int) -> None:
        """Keep every connection busy for so long, and until all are answered."""
        for _ in range(connections):
            self._connect()
        self.began = time.perf_counter()
        until = self.began + seconds
        for connection in self._connections.values():
            self._send(connection)
        waiting = connections
        while waiting:
            for descriptor, _ in self._poll.poll(30):
                connection = self._connections[descriptor]
                if not self._receive(connection):
                    continue
                if time.perf_counter() < until:
                    self._send(self._connections.get(descriptor) or self._connect())
                else:
                    waiting -= 1
        self.seconds = time.perf_counter() - self.began

    def _connect(self) -> _Connection:
        opened = socket.create_connection(("127.0.0.1", self._port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(opened)
        self._connections[opened.fileno()] = connection
        self._poll.register(opened.fileno(), select.EPOLLIN)
        return connection

    def _send(self, connection: _Connection) -> None:
        head = self._heads[self._sent % len(self._heads)]
        self._sent += 1
        connection.received.clear()
        connection.began = time.perf_counter()
        number = 0 if self._one_path else self._sent
        connection.socket.sendall(b"%b%08d\r\n\r\n%b" % (head, number, self._body))

    def _receive(self, connection: _Connection) -> bool:
        """Take what came; return True when the answer is whole, and close the connection if the server does."""
        data = connection.socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed a connection in the middle of an upload")
        received = connection.received
        received += data
        head, blank, body = received.partition(b"\r\n\r\n")
        if not blank:
            return False
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(body) < length:
            return False
        self.latencies_ms.append((time.perf_counter() - connection.began) * 1000)
        self.failures += not head.startswith(b"HTTP/1.1 202")
        if b"connection: close" in lines:
            self._poll.unregister(connection.socket.fileno())
            del self._connections[connection.socket.fileno()]
            connection.socket.close()
        return True


def main() -> None:
    """Put load on a port and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("size", type=int)
    parser.add_argument("instances", nargs="+")
    parser.add_argument("--directory", default="")
    parser.add_argument("--one-path", action="store_true")
    options = parser.parse_args()
    client = _Client(options.port, options.instances, options.size, options.directory, one_path=options.one_path,
                     token=os.environ.get(TOKEN_VARIABLE, ""))
    client.run(options.seconds, options.connections)
    latencies = sorted(round(latency, 3) for latency in client.latencies_ms)
    sys.stdout.write(json.dumps({
        "uploads": len(latencies) - client.failures, "began": client.began, "seconds": client.seconds,
        "latencies_ms": latencies, "failures": client.failures, "cpu_s": time.process_time()}) + "\n")


if __name__ == "__main__":
    main()
