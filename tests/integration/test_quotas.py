"""Rates and amounts of callers, in a service of two API processes."""

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon.process.shared_counts import create
from tests.support.callers_api import HEADER
from tests.support.client import Answer, Client
from tests.support.processes import Spawned, end
from tests.support.service import Service
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[list[str]]:
    """Where two API processes of one service listen, each at an address of its own."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    counts = create(2)
    with Service(tmp_path) as service:
        processes = [
            Spawned(["tests.support.callers_api", "--config", str(service.config), "--listen-fd", str(door.fileno()),
                     "--counts", f"{counts}:{row}"], {}, service.log, (door.fileno(), counts))
            for row, door in enumerate(doors)]
        try:
            yield [f"127.0.0.1:{door.getsockname()[1]}" for door in doors]
        finally:
            ends = [end(process, signal.SIGTERM) for process in processes]
            for door in doors:
                door.close()
            os.close(counts)
        assert ends == [0, 0]
        assert not service.mistakes()


def put(address: str, body: Any, **links: Mapping[str, object]) -> Answer:
    """Upload as the caller of these links; return the answer."""
    headers = {HEADER.decode(): json.dumps(links)} if links else {}
    answer = Client(address).request("PUT", "/v1/instances/c1/files/a", body, headers)
    assert answer is not None
    return answer


def test_limits_of_a_caller_hold_for_both_processes_and_for_nobody_else(addresses: list[str]) -> None:
    """Those that are refused get 429 and are told when to come back; those that are accepted how much is left."""
    first, second = addresses
    slow = {"max_uploads_s": 0.001}
    accepted, refused = put(first, b"x", slow=slow), put(second, b"x", slow=slow)
    assert (accepted.status, accepted.headers["ratelimit-policy"]) == (202, '"uploads";q=1;w=1000')
    assert accepted.headers["ratelimit"].startswith('"uploads";r=0;t=')
    assert (refused.status, refused.code) == (429, "rate_limited")
    wait_s = int(refused.headers["retry-after"])
    assert 0 < wait_s <= 1000
    assert refused.headers["ratelimit"] == f'"uploads";r=0;t={wait_s}'
    # What was handed on counts for who handed it on.
    assert put(first, b"x", child={}, slow=slow).code == "rate_limited"

    # Chunks are counted when they are there.
    narrow = {"max_bytes_s": 1.0}
    assert put(first, iter([b"x" * 1000] * 3), narrow=narrow).headers["ratelimit"].startswith('"bytes";r=0;t=')
    refused = put(second, b"x", narrow=narrow)
    assert (refused.code, int(refused.headers["retry-after"]) > 1000) == ("rate_limited", True)

    few = {"max_pending_tasks": 1}
    with socket.create_connection(("127.0.0.1", int(first.rpartition(":")[2])), PATIENCE_S) as connection:
        connection.sendall(b"PUT /v1/instances/c1/files/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                           b"Expect: 100-continue\r\n%s: %s\r\n\r\n" % (HEADER, json.dumps({"few": few}).encode()))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        refused = put(second, b"x", few=few)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "too_many_pending", "10")
        connection.sendall(b"hello")
        assert connection.recv(100).startswith(b"HTTP/1.1 202")

    for address in addresses:
        answer = put(address, b"x")
        assert (answer.status, "ratelimit" in answer.headers) == (202, False)
