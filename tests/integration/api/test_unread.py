"""Clients that ask and do not read the answer."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from api.routes.app import PAGES_AT_ONCE
from api.uploads.backlog import MAX_AGE_S
from tests.integration.api.running import Api, wait_until
from tests.support.waiting import PATIENCE_S

#: The answer is of half a megabyte, with the tasks below.
ASK = b"GET /v1/tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
DEEP = "/".join("d" * 250 for _ in range(15))
TASKS = 120
#: At the least, all answers of a round together.
ANSWERS_BYTES = 17 * 2**20


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API process with many tasks that take much room in an answer."""
    with Api(tmp_path_factory.mktemp("full"), {"api": {"body_timeout_s": 1.0, "min_rate_bytes_s": 1000}}, {}) as api:
        api.started()
        assert {api.put(f"{DEEP}/{number}").status for number in range(TASKS)} == {202}
        yield api


def unread(api: Api) -> int:
    """How many clients were cut off so far."""
    return sum(event["event"] == "answer.unread" for event in api.events)


@contextmanager
def connected(api: Api, family: socket.AddressFamily) -> Iterator[socket.socket]:
    """A connection to the Unix socket or to the TCP port."""
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(str(api.socket_path) if family == socket.AF_UNIX else ("127.0.0.1", api.port))
        yield connection


@pytest.mark.parametrize(("family", "clients", "answers", "gone"), [
    # Over TCP the kernel takes a few answers for each connection.
    (socket.AF_UNIX, 40, 1, False), (socket.AF_UNIX, 5, 10, True), (socket.AF_INET, 5, 12, False),
])
@pytest.mark.slow
def test_clients_that_never_read_are_cut_off(
    full: Api, family: socket.AddressFamily, clients: int, answers: int, gone: bool,
) -> None:
    """Their connections and what waits in them go after `body_timeout_s`; others are served all the while."""
    before = full.descriptors()

    def kept_bytes() -> int:
        """How much the process grows by one round of such clients."""
        memory_bytes, already = full.memory_bytes(), unread(full)
        with ExitStack() as stack:
            for _ in range(clients):
                connection = stack.enter_context(connected(full, family))
                connection.sendall(ASK * answers)
                if gone:
                    connection.shutdown(socket.SHUT_WR)
            assert full.put("root/a").status == 202
            full.logged("answer.unread", already + clients)
            wait_until(lambda: full.descriptors() <= before, "the connections are closed")
        return full.memory_bytes() - memory_bytes

    # A process grows once, in the first rounds or in a later one: only what is never let go of costs the same each time.
    assert any(kept_bytes() < ANSWERS_BYTES // 2 for _ in range(5))
    assert not [event for event in full.events if event["level"] == "error"]
    assert full.other_lines == []


def test_upload_does_not_wait_for_questions(full: Api) -> None:
    """Counts of the backlog that are too old are taken anew while many questions wait."""

    def overtakes() -> bool:
        stale_at = time.monotonic() + MAX_AGE_S
        wait_until(lambda: time.monotonic() > stale_at, "the counts are old")
        with ExitStack() as stack:
            asking = [stack.enter_context(connected(full, socket.AF_UNIX)) for _ in range(40)]
            for connection in asking:
                connection.sendall(ASK)
            assert full.put("root/a").status == 202
            answered, _, _ = select.select(asking, [], [], 0)
        return len(answered) < len(asking)

    # Where this process has to wait for its turn all may be answered before it can look, but not every time.
    assert any(overtakes() for _ in range(5))


@pytest.mark.slow
def test_answers_that_nobody_reads_fill_no_memory(full: Api) -> None:
    """So many are made and no more; who comes too late is told so, and others still have theirs."""
    with ExitStack() as stack:
        asking = [stack.enter_context(connected(full, socket.AF_UNIX)) for _ in range(150)]
        for connection in asking:
            connection.sendall(ASK)
        waiting = list(asking)
        while waiting:
            # All are answered at once, or with the first bytes of what they do not read.
            answered, _, _ = select.select(waiting, [], [], PATIENCE_S)
            assert answered
            waiting = [connection for connection in waiting if connection not in answered]
        statuses = [connection.recv(12, socket.MSG_PEEK) for connection in asking]
        assert statuses.count(b"HTTP/1.1 503") >= len(asking) - PAGES_AT_ONCE
        assert full.ask("GET", "/v1/tasks?limit=1").status == 200


def test_client_that_takes_its_time_has_its_answer(full: Api) -> None:
    """Who reads, reads to the end."""

    def read() -> tuple[int, int, int]:
        already = unread(full)
        with connected(full, socket.AF_UNIX) as connection:
            connection.sendall(ASK * 2 + ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            received = bytearray()
            while piece := connection.recv(100_000):
                received += piece
        return received.count(b"HTTP/1.1 200 "), received.count(DEEP.encode()), unread(full) - already

    # Where this process has to wait for its turn it takes too much time, but not every time.
    assert (3, 3 * TASKS, 0) in (read() for _ in range(5))
