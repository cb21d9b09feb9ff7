"""What is turned away at the door, and that nothing of it stays."""

import json
import os
import re
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from api.http.early_response import LINGER_BYTES
from api.live_config import SPARE_CONNECTIONS
from tests.integration.api.running import Api, wait_until
from tests.support.waiting import PATIENCE_S

Start = Callable[..., Api]
HEAD = "PUT /v1/instances/c1/files/root/a HTTP/1.1\r\nHost: localhost\r\n"
#: What a client is told that asked before it sends a body: it is let in.
CONTINUE = b"HTTP/1.1 100 \r\n\r\n"


def answer(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection or there is a whole head."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            break
        received += piece
    return received


def begin_upload(connection: socket.socket) -> bytes:
    """Begin an upload of five bytes, and send two of them once it is let in; return what is said to its head."""
    connection.sendall(f"{HEAD}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
    said = answer(connection)
    if said == CONTINUE:
        connection.sendall(b"ab")
    return said


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the server closes or resets the connection."""
    received = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def test_announced_length_over_the_limit_is_refused_before_the_body(start: Start) -> None:
    """413 comes although not a byte of the body was sent."""
    api = start(limits={"max_upload_bytes": 1000})
    with api.raw() as connection:
        connection.sendall(f"{HEAD}Content-Length: 1001\r\n\r\n".encode())
        assert b" 413 " in answer(connection)
    assert api.put("root/a", b"x" * 1000).status == 202


@pytest.mark.parametrize("sizes", [[1001], [1000, 1], [400_000] * 5])
def test_chunked_body_over_the_limit_is_refused_and_nothing_kept(start: Start, sizes: list[int]) -> None:
    """413 as soon as it passes the limit, and no file, named or not, is left."""
    limit = 1000 if sizes[0] < 2000 else 1_900_000
    api = start(limits={"max_upload_bytes": limit})
    reply = api.put("root/a", (b"x" * size for size in sizes))
    assert (reply.status, reply.code) == (413, "too_large")
    assert api.spooled() == []
    wait_until(lambda: api.unnamed_files() == 0, "the unnamed file is closed")


def test_no_room_is_answered_with_507(start: Start) -> None:
    """An upload that would leave less than `min_free_bytes` is refused from its head."""
    api = start(limits={"min_free_bytes": 2**60})
    with api.raw() as connection:
        connection.sendall(f"{HEAD}Content-Length: 5\r\n\r\n".encode())
        assert b" 507 " in answer(connection)
    assert api.put("root/a", iter([b"x"])).code == "no_room"
    assert api.spooled() == []


@pytest.mark.parametrize("limits", [{"max_pending_tasks": 2}, {"max_pending_bytes": 20}])
def test_full_backlog_is_answered_with_503_and_when_to_try_again(start: Start, limits: dict[str, int]) -> None:
    """The limit is exact for one client, and the answer has Retry-After."""
    api = start(limits=limits)
    assert [api.put(f"root/{n}", b"x" * 10).status for n in range(2)] == [202, 202]
    reply = api.put("root/2", b"x" * 10)
    assert (reply.status, reply.code) == (503, "backlog_full")
    assert int(reply.headers["retry-after"]) > 0
    assert len(api.spooled()) == 2


def test_upload_is_refused_when_too_many_are_running(start: Start) -> None:
    """`api.max_connections` uploads at a time; the next is told to come back, and may when one is done."""
    api = start(api={"max_connections": 2})
    with ExitStack() as stack:
        running = [stack.enter_context(api.raw()) for _ in range(2)]
        assert [begin_upload(connection) for connection in running] == [CONTINUE, CONTINUE]
        reply = api.put("root/b")
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "too_busy", "1")
        running[0].sendall(b"cde")
        assert b" 202 " in answer(running[0])
        assert api.put("root/b").status == 202


#: Who drips, and who comes later from elsewhere.
PEERS = [("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "unix"), ("unix", "127.0.0.1")]


@pytest.mark.parametrize(("greedy", "modest"), PEERS)
def test_uploads_that_drip_lock_out_nobody_else(start: Start, greedy: str, modest: str) -> None:
    """One client gets three quarters of the places; the others find the rest."""
    api = start(api={"max_connections": 8})
    with ExitStack() as stack:
        assert [begin_upload(stack.enter_context(api.raw(greedy))) for _ in range(6)] == [CONTINUE] * 6
        assert b" 503 " in upload_from(api, greedy)
        assert b" 202 " in upload_from(api, modest)
        assert begin_upload(stack.enter_context(api.raw(modest))) == CONTINUE
        assert b" 503 " in upload_from(api, modest)
        assert b" 202 " in upload_from(api, "127.0.0.3")


def upload_from(api: Api, source: str) -> bytes:
    """What an upload of one byte from there is answered."""
    with api.raw(source) as connection:
        connection.sendall(f"{HEAD}Content-Length: 1\r\n\r\nx".encode())
        return answer(connection)


def test_connections_of_one_client_lock_out_nobody_else(start: Start) -> None:
    """Heads that never end cannot pile up: the one too many is told to come back, the others go on."""
    # Long enough for a busy machine: none of them is cut off before there are enough.
    api = start(api={"max_connections": 1, "body_timeout_s": 3600.0})
    held: list[socket.socket] = []
    with ExitStack() as stack:

        def is_turned_away() -> bool:
            # It is served once before: as long as nothing of it was read it would make room for the next.
            connection = stack.enter_context(api.raw())
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if b" 200 " in answer(connection):
                connection.sendall(b"GET /healthz HTTP/1.1\r\n")
                held.append(connection)
                return False
            return True

        wait_until(is_turned_away, "one too many is turned away")
        assert len(held) >= (2 + SPARE_CONNECTIONS) * 3 // 4
        received = ask_healthz(api)
        assert b"retry-after: 1" in received
        assert b'"code": "too_busy"' in received
        assert b" 200 " in ask_healthz(api, "127.0.0.2")
        wait_until(lambda: b" 200 " in finished(held.pop()), "one that was held goes on")
    wait_until(lambda: b" 200 " in ask_healthz(api), "there is room again")


def finished(connection: socket.socket) -> bytes:
    """What comes when the head is made whole; nothing on one that made room before it was begun."""
    try:
        connection.sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")
        return until_closed(connection)
    except ConnectionError:
        return b""


def test_idle_connections_make_room_when_there_are_too_many(start: Start) -> None:
    """The one that is idle for longest is closed, and a new one is served in its place."""
    api = start(api={"max_connections": 1})
    with ExitStack() as stack:
        held = [stack.enter_context(api.raw()) for _ in range(2 + SPARE_CONNECTIONS)]
        assert b" 200 " in ask_healthz(api)
        assert until_closed(held[0]) == b""
        held[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in answer(held[-1])


def test_idle_connection_is_closed_after_its_time(start: Start) -> None:
    """A proxy needs to know for how long; a reload changes it."""
    api = start(api={"keep_alive_s": 600.0})
    with api.raw() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in answer(connection)
        api.configure(api.settings, {"api": {"keep_alive_s": 0.2}})
        api.send(signal.SIGHUP)
        api.logged("config.reloaded")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until_closed(connection)


def test_head_that_does_not_end_is_not_waited_for_as_an_idle_connection_is(start: Start) -> None:
    """Nor does a byte now and then help."""
    api = start(api={"keep_alive_s": 600.0, "body_timeout_s": 0.3})
    with api.raw() as connection:
        connection.settimeout(0.05)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        wait_until(lambda: drips_in_vain(connection), "the connection is closed")


def drips_in_vain(connection: socket.socket) -> bool:
    """Send one byte more; True when the connection is closed."""
    try:
        connection.sendall(b"X")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def ask_healthz(api: Api, source: str = "127.0.0.1") -> bytes:
    """All that comes when /healthz is asked for from there, whoever answers."""
    with api.raw(source) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return until_closed(connection)


@pytest.mark.parametrize("head", [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
])
def test_two_framings_are_refused(shared: Api, head: str) -> None:
    """Content-Length with Transfer-Encoding is 400 bad_length, and the connection is not used again."""
    with shared.raw() as connection:
        connection.sendall(f"{HEAD}{head}\r\n0\r\n\r\n".encode())
        received = until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "bad_length"' in received
    assert b"connection: close" in received.lower()


BROKEN = [
    (HEAD + "Content-Length: 5\r\nContent-Length: 6\r\n", 400, "bad_request"), (HEAD + "Content-Length: -5\r\n", 400, "bad_request"),
    (HEAD + "Transfer-Encoding: gzip\r\n", 501, "unknown_coding"), (HEAD + "broken\r\n", 400, "bad_request"),
    (HEAD + "Host: localhost\r\n", 400, "bad_request"), (HEAD + "X-Nul: a\0b\r\n", 400, "bad_request"),
    ("GET /healthz HTTP/1.1\r\n", 400, "bad_request"), ("GET /파일 HTTP/1.1\r\nHost: localhost\r\n", 400, "bad_request"),
    (HEAD + "X-Big: " + "x" * 60_000, 431, "long_head"),
    (HEAD + "Transfer-Encoding: chunked\r\n\r\nz\r\n", 400, "bad_request"),
    (HEAD + "Transfer-Encoding: chunked\r\n\r\n1\r\nxyz", 400, "bad_request"),
]


@pytest.mark.parametrize(("sent", "status", "code"), BROKEN)
def test_request_that_cannot_be_read_is_refused_with_a_code(shared: Api, sent: str, status: int, code: str) -> None:
    """A person sees what is wrong with it; nothing of it is kept, and nobody is alarmed."""
    files = shared.spooled()
    with shared.raw() as connection:
        connection.sendall(f"{sent}\r\n".encode())
        received = until_closed(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert (head.split(b" ")[1], json.loads(body)["code"]) == (str(status).encode(), code)
    assert b"connection: close" in head
    assert shared.spooled() == files
    assert not [event for event in shared.events if event["level"] == "error"]


UPLOAD = "POST /upload HTTP/1.1\r\nHost: localhost\r\nX-Container-Name: c1\r\nX-File-Path: /root/a\r\n"


@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"])
@pytest.mark.parametrize("head", [HEAD, UPLOAD, UPLOAD.replace("/upload", "http://localhost/upload?a=b")])
def test_body_that_ends_early_is_refused_as_incomplete(shared: Api, head: str, framing: str) -> None:
    """Who says that no more comes, before all has come, and still listens, is told so in the manner of the address."""
    files = shared.spooled()
    with shared.raw() as connection:
        connection.sendall(f"{head}{framing}".encode())
        connection.shutdown(socket.SHUT_WR)
        received = until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert (b"content-type: text/plain" in received) == (head is not HEAD)
    assert (b"[incomplete_body]" in received) == (head is not HEAD)
    assert (b'"code": "incomplete_body"' in received) == (head is HEAD)
    assert shared.spooled() == files


def test_upload_with_broken_chunks_is_refused_in_plain_text(shared: Api) -> None:
    """Clients of /upload read plain text, also when it is the framing of their body that is wrong."""
    with shared.raw() as connection:
        connection.sendall(f"{UPLOAD}Transfer-Encoding: chunked\r\n\r\nz\r\n".encode())
        received = until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: text/plain" in received
    assert received.endswith(b"[bad_request]\n")


def test_http_2_is_refused(shared: Api) -> None:
    """Who begins in HTTP/2 is answered in HTTP/1.1 with 505, and the connection is closed."""
    with shared.raw() as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        received = until_closed(connection)
    assert received.startswith(b"HTTP/1.1 505 ")
    assert b'"code": "http_version"' in received
    assert not [event for event in shared.events if event["level"] == "error"]


def test_upgrade_to_http_2_is_passed_over(shared: Api) -> None:
    """A request that would like HTTP/2 is answered in HTTP/1.1."""
    reply = shared.ask("GET", "/healthz", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABk")
    assert reply.status == 200


@pytest.mark.parametrize("handshake", ["", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"])
def test_websocket_is_passed_over(shared: Api, handshake: str) -> None:
    """A request that would like one is answered in HTTP, whether its handshake is legal or not, and ends like any other."""
    with shared.raw() as connection:
        connection.sendall(f"GET /upload HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{handshake}\r\n"
                           "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        received = until_closed(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"405", b"200"]


@pytest.mark.parametrize("sent", [b"", b"abc", b"x" * 700_000])
@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_client_that_goes_away_leaves_nothing(shared: Api, framing: str, sent: bytes) -> None:
    """No task, no file, one line in the log and no traceback."""
    # What stays open from the first upload on is open then.
    assert shared.put("root/before").status == 202
    descriptors, files, tasks = shared.descriptors(), shared.spooled(), shared.tasks()
    name = f"gone-{framing[:8]}-{len(sent)}"
    with shared.raw() as connection:
        if "chunked" in framing and sent:
            sent = f"{len(sent):x}\r\n".encode() + sent
        connection.sendall(f"{HEAD}{framing}\r\n\r\n".replace("/root/a", f"/root/{name}").encode() + sent)
    shared.logged_with("upload.aborted", instance="c1", path=f"/root/{name}")
    wait_until(lambda: shared.unnamed_files() == 0 and shared.descriptors() <= descriptors, "everything is closed")
    assert (shared.spooled(), shared.tasks()) == (files, tasks)
    assert not [event for event in shared.events if event["level"] == "error"]
    assert shared.other_lines == []


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_body_that_stalls_is_given_up(start: Start, framing: str) -> None:
    """After `body_timeout_s` without a byte the client is told so, and that the connection ends."""
    api = start(api={"body_timeout_s": 1.0})
    with api.raw() as connection:
        connection.sendall(f"{HEAD}{framing}\r\n\r\n".encode())
        head = answer(connection).lower()
        assert b" 408 " in head
        assert head.count(b"connection: close\r\n") == 1
    assert api.logged("upload.rejected")[0]["code"] == "too_slow"
    assert api.spooled() == []


def test_body_that_drips_is_given_up(start: Start) -> None:
    """A byte now and then keeps no upload alive: it must come at `min_rate_bytes_s`."""
    api = start(api={"body_timeout_s": 0.5, "min_rate_bytes_s": 1000})
    stop = threading.Event()
    with api.raw() as connection:
        connection.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode())

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert b" 408 " in answer(connection)
        finally:
            stop.set()
            dripping.join()


def slow_pieces(count: int, pause_s: float) -> Iterator[bytes]:
    """Pieces of 10 kB with a pause before each."""
    for _ in range(count):
        time.sleep(pause_s)
        yield b"x" * 10_000


@pytest.mark.slow
def test_body_that_is_slow_but_steady_is_taken(start: Start) -> None:
    """Only the pace counts, not the whole time."""
    # In all it takes longer than a pause may, and no pause comes near to that.
    api = start(api={"body_timeout_s": 3.0, "min_rate_bytes_s": 10_000})
    assert api.put("root/a", slow_pieces(36, 0.1)).status == 202


EARLY = [
    ("POST", "/nowhere", {}, 404),
    ("PUT", "/v1/instances/c1/files/a%2Fb", {}, 400),
    ("POST", "/upload", {"X_Container_Name": "c1"}, 400),
    ("PUT", "/v1/instances/c1/files/a", {"Content_Range": "bytes 1-2/3"}, 400),
    ("PUT", "/upload", {}, 405),
    ("PUT", "/v1/instances/c1/files/a", {"Repr_Digest": "x"}, 400),
]


@pytest.mark.parametrize(("method", "target", "headers", "status"), EARLY)
def test_client_that_writes_before_it_reads_gets_its_early_answer(
    shared: Api, method: str, target: str, headers: dict[str, str], status: int,
) -> None:
    """A refusal while megabytes are still coming reaches a client that only reads once it has written."""
    for body in (b"x" * 5_000_000, iter([b"x" * 500_000] * 10)):
        assert shared.ask(method, target, body, **headers).status == status


def test_connection_is_used_again_after_an_early_answer_to_a_short_body(shared: Api) -> None:
    """A refusal costs a well-behaved client no connection."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=PATIENCE_S)
    for _ in range(3):
        connection.request("PUT", "/v1/instances/c1/files/a%2Fb", b"x" * 300_000)
        response = connection.getresponse()
        assert (response.status, response.read() != b"") == (400, True)
        kept = connection.sock
    connection.request("PUT", "/v1/instances/c1/files/a", b"x")
    assert connection.getresponse().status == 202
    assert connection.sock is kept
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("reading", [pytest.param(True, marks=pytest.mark.full), False])
def test_a_hundred_early_answers_leak_nothing(start: Start, reading: bool) -> None:
    """Connections, descriptors and memory are back after 100 refusals in the middle of bodies that never end."""
    api = start(limits={"max_upload_bytes": 2 * LINGER_BYTES}, api={"max_connections": 200})
    api.put("root/first")
    before = api.descriptors()
    rounds: list[int] = []
    for _ in range(5):
        with ExitStack() as stack, ThreadPoolExecutor(20) as threads:
            connections = [stack.enter_context(api.raw()) for _ in range(20)]
            for connection in connections:
                connection.sendall(f"PUT /v1/instances/-/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**40}\r\n\r\n".encode())
            assert list(threads.map(lambda connection: pour(connection, reading), connections)) == ["closed"] * 20
        wait_until(lambda: api.descriptors() <= before, "the connections are closed")
        rounds.append(api.memory_bytes())
    wait_until(lambda: refused(api) == 100, "every refusal is logged or counted")
    assert rounds[-1] - rounds[0] < 20 * 2**20
    assert not [event for event in api.events if event["level"] == "error"]


def refused(api: Api) -> int:
    """How many uploads the log says were refused."""
    lines = [event for event in list(api.events) if event["event"] == "upload.rejected"]
    return sum(1 + int(line.get("left_out", 0)) for line in lines)


def pour(connection: socket.socket, reading: bool) -> str:
    """Send without end until the server closes; read the answer on the way or not at all."""
    connection.settimeout(PATIENCE_S)
    try:
        while True:
            connection.send(b"x" * 262_144)
            if reading and select.select([connection], [], [], 0)[0]:
                connection.recv(4096)
    except ConnectionError:
        return "closed"


def test_connection_is_closed_when_its_client_has_closed_it(shared: Api) -> None:
    """A client a file, one after the other, leaves no trail of half-closed connections."""
    before = shared.descriptors()

    def closed_before_their_time() -> bool:
        for _ in range(30):
            assert shared.ask("GET", "/healthz").status == 200
        # One that is idle is held for much longer.
        over = time.monotonic() + 5
        wait_until(lambda: shared.descriptors() <= before, "the connections are closed")
        return bool(time.monotonic() < over)

    # A busy machine may be late now and then, but not every time.
    assert any(closed_before_their_time() for _ in range(5))


@pytest.mark.slow
def test_connections_wait_and_the_log_stays_small_when_there_are_no_descriptors_left(api: Api) -> None:
    """One line for each try to accept, however many wait; they are served as soon as there are descriptors again."""
    before = resource.prlimit(api.pid, resource.RLIMIT_NOFILE)
    # The highest in use; a limit below it takes nothing away.
    highest = max(int(name) for name in os.listdir(f"/proc/{api.pid}/fd"))
    resource.prlimit(api.pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    with ExitStack() as stack:
        waiting = [stack.enter_context(api.raw()) for _ in range(300)]
        lines = api.logged("api.waiting", 3)
        assert {line["detail"] for line in lines} == {"No connection can be accepted: Too many open files."}
        # Each of them is a second apart from the one before; some more came while this process was waited for.
        assert len(lines) < len(waiting) / 10
        resource.prlimit(api.pid, resource.RLIMIT_NOFILE, before)
        for connection in waiting:
            connection.sendall(f"{HEAD}Content-Length: 1\r\nConnection: close\r\n\r\nx".encode())
        assert [answer(connection).split()[1] for connection in waiting] == [b"202"] * len(waiting)
    assert not [line for line in api.events if line["event"] == "api.error"]
