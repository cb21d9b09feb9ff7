"""One large upload."""

import os
import socket
import time
from pathlib import Path
from typing import Final

from bench import storage
from bench.figures import Figure, Goal, Section, alternate, median
from bench.plan import Plan
from bench.service import Service

TITLE: Final = "Accepting one large file"
METHOD: Final = """\
One `PUT` of a file of random bytes, sent with sendfile(2), from the first byte to the 202. Beside it, in alternating
rounds: the same bytes written to a file in pieces of 1 MiB with one fsync; and read and hashed with sha256, which the
API does besides. Each side's file is removed before its next round. Before each round the machine is synced, and a
file of the same size is written and removed, so that the page cache has memory at hand: a virtual machine's host takes
back what was free for a while, and gives it page by page, which takes longer than to write a file.
"""


def run(plan: Plan) -> Section:
    """Measure it."""
    directory = plan.directory("large")
    source = make_file(directory / "source", plan.large_bytes)
    target = directory / "bare"
    with Service(directory / "state", target="directory") as service:
        service.start_api()

        def settle() -> None:
            os.sync()
            # The page cache gives so much memory free that it will take again.
            make_file(directory / "memory", plan.large_bytes).unlink()

        def bare() -> float:
            target.unlink(missing_ok=True)
            settle()
            return storage.bare_write_s(source, target)

        def upload() -> float:
            _empty_spool(service)
            settle()
            return upload_s(service.port, "/v1/instances/large/files/root/large", source)

        found = alternate(plan.rounds, {"upload": upload, "bare": bare, "sha256": lambda: storage.sha256_s(source)})
    mib = plan.large_bytes / 2**20
    rates = {name: mib / median(some) for name, some in found.items()}
    return Section(title=TITLE, method=METHOD, figures=[
        Figure(what=f"{mib:.0f} MiB accepted", value=rates["upload"], unit="MiB/s", peer="bare write and fsync",
               peer_value=rates["bare"], goals=[Goal("ratio", ">=", 0.6)]),
        Figure(what=f"{mib:.0f} MiB accepted", value=rates["upload"], unit="MiB/s", peer="sha256 alone",
               peer_value=rates["sha256"]),
    ])


def make_file(path: Path, size: int) -> Path:
    """A file of random bytes."""
    with path.open("wb") as file:
        for _ in range(size // 2**20):
            file.write(os.urandom(2**20))
    return path


def upload_s(port: int, address: str, source: Path) -> float:
    """Seconds for uploading a file. Raises RuntimeError when it is not accepted."""
    with source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
            connection.sendall(f"PUT {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n"
                               "Connection: close\r\n\r\n".encode())
            connection.sendfile(file)
            answer = connection.recv(65536)
        seconds = time.perf_counter() - began
    if not answer.startswith(b"HTTP/1.1 202"):
        raise RuntimeError(f"not accepted: {answer[:300]!r}")
    return seconds


def _empty_spool(service: Service) -> None:
    """Make room: nobody will deliver these."""
    for path in service.layout.spool.glob("??/*"):
        path.unlink()
