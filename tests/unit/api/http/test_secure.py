"""Connections on which TLS is spoken, served in this process: what the app learns, and what is bounded."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from api.http.connection import READ_BYTES, Connections
from api.http.pace import Pace
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.response import CERTIFICATE, App, Receive, Scope, Send, send_answer, text_answer
from daemon.config import Config
from daemon.model.certificate import ShownCertificate
from daemon.process.listeners import open_doors
from daemon.process.shared_counts import Column, SharedCounts
from daemon.process.tls import read_tls
from tests.support.apps import hello
from tests.support.certificates import Authority, Pair
from tests.support.waiting import PATIENCE_S

ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
#: More than the kernel and the server's own buffers hold.
BODY_BYTES = 64 * 2**20
PATIENT = Pace(30.0, 0, 30.0)


class Gate:
    """An app that tells what it knows of its client, and takes a body once it is let."""

    def __init__(self) -> None:
        self.shown: list[ShownCertificate | None] = []
        self.schemes: list[str] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.received = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and take the body of a PUT first."""
        self.shown.append(scope["state"][CERTIFICATE])
        self.schemes.append(scope["scheme"])
        self.begun.set()
        if scope["method"] == "PUT":
            await self.open.wait()
            more = True
            while more:
                event = await receive()
                self.received += len(event.get("body", b""))
                more = event.get("more_body", False)
        await send_answer(send, text_answer(200, "hello"))


@pytest.fixture
def tls(authority: Authority) -> dict[str, str]:
    """A certificate for the service."""
    return authority.issue().tls


@asynccontextmanager
async def serving(app: App, config: Config, pace: Pace = PATIENT) -> AsyncIterator[tuple[Connections, int]]:
    """Serve `app` at a TLS port; yield the connections and the port."""
    read = read_tls(config)
    connections = Connections(
        app, Shares(lambda: 10, SharedCounts(), Column.CONNECTIONS), lambda: pace, lambda: read, RefusalLog())
    [door] = open_doors(["tls:127.0.0.1:0"], allow_anonymous=False)
    server = await asyncio.start_server(partial(connections.serve, door), sock=door.socket, limit=READ_BYTES)
    yield connections, door.socket.getsockname()[1]
    server.close()
    await asyncio.wait_for(connections.end(), PATIENCE_S)


def client_context(authority: Authority, own: Pair | None = None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """What a client knows and shows."""
    context = ssl.create_default_context(cafile=str(authority.own.certificate))
    context.maximum_version = newest
    context.set_alpn_protocols(["h2", "http/1.1"])
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


def conversation(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bytes, ssl.SSLSession | None, bool]:
    """Ask once, in a thread: the answer, the session, and whether that was taken up again."""
    with (socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
          context.wrap_socket(plain, server_hostname="localhost", session=session) as connection):
        assert connection.selected_alpn_protocol() == "http/1.1"
        connection.sendall(LAST)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer, connection.session, bool(connection.session_reused)


def asked(authority: Authority, config: Config, ask: Callable[[int], Any]) -> tuple[Gate, Any]:
    """Do `ask(port)` in a thread while a gate is served; return the gate and what came of it."""

    async def run() -> tuple[Gate, Any]:
        gate = Gate()
        async with serving(gate, config) as (_, port):
            return gate, await asyncio.to_thread(ask, port)

    return asyncio.run(run())


def test_app_knows_the_certificate_of_its_client(authority: Authority, tls: dict[str, str], tmp_path: Path) -> None:
    """Its fingerprint, its subject and who vouches for it; nothing where none was shown, or none was asked for."""
    signed, lonely = authority.issue("/O=A, B/CN=web"), authority.self_signed("/CN=lonely")
    known = tmp_path / "known.crt"
    known.write_text(authority.own.certificate.read_text() + lonely.certificate.read_text())
    ca = str(authority.own.certificate)
    config = Config.model_validate({
        "tls": {**tls, "client_ca": str(known)}, "certificates": [{"name": "web", "ca": ca, "subject": "CN=web", "may": ["read"]}]})

    def ask(port: int) -> None:
        for own in (signed, lonely, None):
            assert conversation(port, client_context(authority, own))[0].startswith(b"HTTP/1.1 200 ")

    gate, _ = asked(authority, config, ask)
    assert gate.shown == [
        ShownCertificate(fingerprint=signed.fingerprint, subject=r"CN=web,O=A\, B", expires_at=signed.expires_at,
                         authorities=frozenset({ca})),
        ShownCertificate(fingerprint=lonely.fingerprint, subject="CN=lonely", expires_at=lonely.expires_at), None]
    assert set(gate.schemes) == {"https"}
    gate, _ = asked(authority, Config.model_validate({"tls": tls}), lambda port: conversation(port, client_context(authority, signed)))
    assert gate.shown == [None]


def test_connections_are_read_into_the_same_memory(authority: Authority, tls: dict[str, str]) -> None:
    """Else each would keep 256 KiB, and ten thousand that only wait more than there is."""
    async def run() -> None:
        gate = Gate()
        async with serving(gate, Config.model_validate({"tls": tls})) as (connections, port):
            clients = [await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context(authority), server_hostname="localhost") for _ in range(3)]
            protocols = [connection.outflow._beneath.get_protocol() for connection in connections._open.values()
                         if connection.outflow._beneath is not None]
            buffers = [cast(asyncio.BufferedProtocol, protocol).get_buffer(-1) for protocol in protocols]
            assert len({id(cast(memoryview, buffer).obj) for buffer in buffers}) == 1
            for number, (_, writer) in enumerate(clients):
                writer.write(ASK.replace(b"Host: a", b"Host: %d" % number))
            for reader, writer in clients:
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
                writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_that_is_taken_up_again_keeps_the_certificate(authority: Authority, tls: dict[str, str], newest: ssl.TLSVersion) -> None:
    """Nothing is verified anew then; who vouches for it is still known."""
    ca = str(authority.own.certificate)
    config = Config.model_validate({
        "tls": {**tls, "client_ca": ca}, "certificates": [{"name": "web", "ca": ca, "subject": "CN=web", "may": ["read"]}]})

    def ask(port: int) -> bool:
        context = client_context(authority, authority.issue("/CN=web"), newest=newest)
        session = conversation(port, context)[1]
        return conversation(port, context, session)[2]

    gate, reused = asked(authority, config, ask)
    assert reused
    assert [shown.authorities if shown else None for shown in gate.shown] == [frozenset({ca})] * 2


def test_certificate_that_cannot_be_verified_is_let_in_by_no_handshake(
    authority: Authority, tls: dict[str, str], tmp_path: Path,
) -> None:
    """One that has expired, one of another authority, one that nobody signed."""
    config = Config.model_validate({"tls": {**tls, "client_ca": str(authority.own.certificate)}})
    wrong = [authority.expired("/CN=late"), Authority(tmp_path, "Other").issue("/CN=web"), authority.self_signed("/CN=me")]

    def ask(port: int) -> None:
        for own in wrong:
            try:
                assert conversation(port, client_context(authority, own))[0] == b""
            except (ssl.SSLError, ConnectionError):
                continue

    gate, _ = asked(authority, config, ask)
    assert gate.shown == []


def test_body_waits_at_the_client_while_nobody_reads_it(authority: Authority, tls: dict[str, str]) -> None:
    """What has come and was not taken is bounded, whatever the client sends; none of it is lost."""
    sent = 0
    # So much may wait in the kernel for either side: that is the machine's matter.
    in_the_kernel = sum(int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2]) for name in ("tcp_rmem", "tcp_wmem"))

    def send(port: int) -> bytes:
        nonlocal sent
        with (socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
              client_context(authority).wrap_socket(plain, server_hostname="localhost") as connection):
            connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
            piece = bytes(65536)
            while sent < BODY_BYTES:
                sent += connection.send(piece)
            return connection.recv(100)

    async def run() -> None:
        gate = Gate()
        async with serving(gate, Config.model_validate({"tls": tls})) as (_, port):
            sending = asyncio.create_task(asyncio.to_thread(send, port))
            await gate.begun.wait()
            still = 0
            # Nothing more is sent for a while: the client waits.
            while still < 20 and sent < BODY_BYTES:
                before = sent
                await asyncio.sleep(0.01)
                still = still + 1 if sent == before else 0
            assert sent < in_the_kernel + BODY_BYTES // 16
            gate.open.set()
            assert (await sending).startswith(b"HTTP/1.1 200 ")
            assert gate.received == BODY_BYTES

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


class Much:
    """An app that answers with more than the kernel takes."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        self.asked.set()
        await send_answer(send, text_answer(200, "x" * 2**24))


@pytest.mark.parametrize("ask", [ASK, LAST])
def test_client_that_does_not_read_is_cut_off(authority: Authority, tls: dict[str, str], ask: bytes) -> None:
    """Also when its connection is being closed; the answer waits in more than one place by then."""

    async def run() -> None:
        app = Much()
        async with serving(app, Config.model_validate({"tls": tls}), Pace(0.5, 0, 30.0)) as (connections, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(authority), server_hostname="localhost", limit=2**10)
            writer.write(ask)
            await app.asked.wait()
            while connections.count:
                await asyncio.sleep(0.01)
            writer.transport.abort()

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_slow_reader_gets_all_of_the_last_answer(authority: Authority, tls: dict[str, str]) -> None:
    """The connection is closed once it has everything, and nobody waits for its farewell."""

    async def run() -> None:
        async with serving(Much(), Config.model_validate({"tls": tls})) as (connections, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(authority), server_hostname="localhost", limit=2**16)
            writer.write(LAST)
            received = 0
            while piece := await reader.read(2**20):
                received += len(piece)
                await asyncio.sleep(0)
            assert received > 2**24
            writer.transport.abort()
            while connections.count:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_client_that_never_says_farewell_is_not_waited_for(authority: Authority, tls: dict[str, str]) -> None:
    """The answer is there, the connection is closed, and the place is free, although the client stays."""
    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")

            def until_done(step: Callable[[], Any]) -> Any:
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        plain.sendall(outgoing.read())
                        incoming.write(plain.recv(65536))

            until_done(session.do_handshake)
            session.write(LAST)
            assert b"hello" in b"".join(iter(partial(until_done, partial(session.read, 65536)), b""))
            # The server has closed the connection beneath as well, without a word from here.
            return plain.recv(1)

    async def run() -> None:
        async with serving(hello, Config.model_validate({"tls": tls})) as (_, port):
            assert await asyncio.to_thread(ask, port) == b""

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_handshake_that_hangs_holds_a_place_until_it_is_cut_off(authority: Authority, tls: dict[str, str]) -> None:
    """Or until the service ends."""

    async def run(pace: Pace) -> None:
        async with serving(hello, Config.model_validate({"tls": tls}), pace) as (connections, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if pace.timeout_s < 1:
                assert await reader.read() == b""
            while connections.count != (pace.timeout_s > 1):
                await asyncio.sleep(0.01)
        writer.close()

    for timeout_s in (0.1, 2 * PATIENCE_S):
        asyncio.run(asyncio.wait_for(run(Pace(timeout_s, 0, 30.0)), PATIENCE_S))
