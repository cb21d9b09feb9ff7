"""Rates and amounts of callers, in a service of two API processes."""

import itertools
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.process.shared_counts import create
from tests.support.client import Answer, Client
from tests.support.processes import Spawned, end
from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow
_NUMBERS = itertools.count()


#: The tokens of the service, and the limits of each.
LIMITS: dict[str, dict[str, Any]] = {
    "slow": {"max_uploads_s": 0.001}, "child": {"under": "slow"}, "narrow": {"max_bytes_s": 1.0},
    "few": {"max_pending_tasks": 1}, "some": {"max_pending_bytes": 10}, "a": {"under": "some"}, "b": {"under": "some"},
    "free": {},
}


class TwoProcesses:
    """Two API processes of one service, each at an address of its own, and who may send there."""

    def __init__(self, addresses: list[str], tokens: dict[str, str]) -> None:
        self.addresses = addresses
        self.tokens = tokens

    def put(self, process: int, body: Any, name: str) -> Answer:
        """Upload to a path of its own with a token; return the answer."""
        shown = {"Authorization": f"Bearer {self.tokens[name]}"}
        answer = Client(self.addresses[process]).request("PUT", f"/v1/instances/c1/files/{next(_NUMBERS)}", body, shown)
        assert answer is not None
        return answer


@pytest.fixture
def service(tmp_path: Path) -> Iterator[TwoProcesses]:
    """Two processes that count together."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    counts = create(2)
    with Service(tmp_path) as service:
        tokens = {name: make_token(service.config, name, may=["upload"], **limits) for name, limits in LIMITS.items()}
        processes = [
            Spawned(["api", "--config", str(service.config), "--listen", f"fd://{door.fileno()}",
                     "--counts", f"{counts}:{row}"], {}, service.log, (door.fileno(), counts))
            for row, door in enumerate(doors)]
        try:
            yield TwoProcesses([f"127.0.0.1:{door.getsockname()[1]}" for door in doors], tokens)
        finally:
            ends = [end(process, signal.SIGTERM) for process in processes]
            for door in doors:
                door.close()
            os.close(counts)
        assert ends == [0, 0]
        assert not service.mistakes()


def test_limits_of_a_caller_hold_for_both_processes_and_for_nobody_else(service: TwoProcesses) -> None:
    """Those that are refused get 429 and are told when to come back; those that are accepted how much is left."""
    put = service.put
    accepted, refused = put(0, b"x", "slow"), put(1, b"x", "slow")
    assert (accepted.status, accepted.headers["ratelimit-policy"]) == (202, '"uploads";q=1;w=1000')
    assert accepted.headers["ratelimit"].startswith('"uploads";r=0;t=')
    assert (refused.status, refused.code) == (429, "rate_limited")
    wait_s = int(refused.headers["retry-after"])
    assert 0 < wait_s <= 1000
    assert refused.headers["ratelimit"] == f'"uploads";r=0;t={wait_s}'
    # What was handed on counts for who handed it on.
    assert put(0, b"x", "child").code == "rate_limited"

    # Chunks are counted when they are there.
    assert put(0, iter([b"x" * 1000] * 3), "narrow").headers["ratelimit"].startswith('"bytes";r=0;t=')
    refused = put(1, b"x", "narrow")
    assert (refused.code, int(refused.headers["retry-after"]) > 1000) == ("rate_limited", True)

    with socket.create_connection(("127.0.0.1", int(service.addresses[0].rpartition(":")[2])), PATIENCE_S) as connection:
        connection.sendall(b"PUT /v1/instances/c1/files/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                           b"Expect: 100-continue\r\nAuthorization: Bearer %s\r\n\r\n" % service.tokens["few"].encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        refused = put(1, b"x", "few")
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "too_many_pending", "10")
        connection.sendall(b"hello")
        assert connection.recv(100).startswith(b"HTTP/1.1 202")
    # It waits in the queue now, and so does what is sent under it.
    assert [put(process, b"x", "few").code for process in range(2)] == ["too_many_pending"] * 2
    assert put(0, b"x" * 6, "a").status == 202
    assert put(1, b"x" * 4, "b").status == 202
    assert put(0, b"x", "some").code == "too_many_pending"
    assert put(1, iter([b"x"]), "some").code == "too_many_pending"

    for process in range(2):
        answer = put(process, b"x", "free")
        assert (answer.status, "ratelimit" in answer.headers) == (202, False)
