import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server

import pytest

from daemon.webhooks.schedule import TryAnswer
from sender import http_post
from sender.http_post import Post, retry_after_s, send
from sender.names import Names
from sender.signing import signed_fields
from tests.support.certificates import Authority
from tests.support.receiver import SECRET, Receiver

LOOPBACK = ["127.0.0.0/8", "::1/128"]


def post(url: str, allow: list[str] = LOOPBACK, tls: ssl.SSLContext | None = None, timeout_s: float = 20.0) -> TryAnswer:
    """Send a signed message."""
    body = b'{"type":"task.delivered","data":{}}'
    fields = signed_fields("msg_1", int(time.time()), body, [b"another", b"ABCDEFGHIJKLMNOPQRSTUVWX"])
    async def sent() -> TryAnswer:
        one = Post(url=url, body=body, fields=fields)
        return await send(one, Names(), allow, tls or ssl.create_default_context(), timeout_s)

    return asyncio.run(sent())


def test_receiver_finds_the_message_signed() -> None:
    """By the library of Standard Webhooks, with either secret while they are changed."""
    with Receiver(200) as receiver:
        answer = post(receiver.url)
    [received] = receiver.received
    assert (answer.status, answer.taken) == (200, True)
    assert received.verified(SECRET)["type"] == "task.delivered"
    assert received.path == "/hook?x=1"
    assert received.message_id == "msg_1"
    assert len(received.fields["webhook-signature"].split()) == 2


def test_answers_are_told_apart() -> None:
    """A redirect is not followed, and what the receiver asks for is passed on."""
    with Receiver((302, {"Location": "http://127.0.0.1/"}), (503, {"Retry-After": "7"}), 410) as receiver:
        answers = [post(receiver.url) for _ in range(3)]
    assert [(answer.status, answer.taken, answer.retry_after_s) for answer in answers] == [
        (302, False, None), (503, False, 7.0), (410, False, None)]
    assert "redirect" in answers[0].detail
    assert len(receiver.received) == 3


def test_name_that_leads_to_an_address_of_another_kind_gets_nothing() -> None:
    """However it is written: no connection is made."""
    with Receiver(200) as receiver:
        for host in ("localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "127.1"):
            answer = post(f"http://{host}:{receiver.port}/", allow=[])
            assert (answer.status, receiver.received) == (None, [])
            assert "not public" in answer.detail
        # Of several addresses only those that are allowed are tried.
        assert post(receiver.url, allow=["127.0.0.1/32"]).taken


def test_address_that_was_looked_at_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere when it is asked for again changes nothing: it is asked for once."""
    asked: list[str] = []

    async def resolve(_loop: object, host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    with Receiver(200) as receiver:
        assert post(f"http://rebound.example:{receiver.port}/").taken
    assert asked == ["rebound.example"]


def test_certificate_is_checked_for_the_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One that nobody vouches for, or that is another's, gets nothing."""
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    trusted = ssl.create_default_context(cafile=str(authority.own.certificate))
    for name, taken in (("localhost", True), ("other.example", False)):
        own = authority.issue(names=f"DNS:{name}")
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(own.certificate, own.key)
        with Receiver(200, tls=server) as receiver:
            assert post(receiver.url, tls=trusted).taken is taken
            assert post(receiver.url).detail.startswith("TLS: ")
        assert len(receiver.received) == int(taken)


@contextmanager
def speaking(data: bytes, *, and_hang: bool = False) -> Iterator[str]:
    """A server that says these bytes to whoever comes, and then closes, or stays silent."""
    server = create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(data)
            if and_hang:
                done.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    done.set()
    thread.join()
    server.close()


@pytest.mark.parametrize(("data", "detail"), [
    (b"", "no HTTP"), (b"220 mail.example ESMTP\r\n\r\n", "no HTTP"), (b"HTTP/1.1 099 x\r\n\r\n", "no HTTP"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "interim"), (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9000, "no HTTP"),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 \xff\x1b[31m\r\nRetry-After: soon\r\n\r\n", "HTTP 503")])
def test_what_comes_back_may_be_anything(data: bytes, detail: str) -> None:
    """It is told in words, and nothing of it is believed."""
    with speaking(data) as url:
        answer = post(url)
    assert detail in answer.detail
    assert "\x1b" not in answer.detail
    assert not answer.taken


def test_receiver_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the head of its answer within the time of a try; after that its answer counts."""
    monkeypatch.setattr(http_post, "_BODY_S", 0.05)
    with speaking(b"HTTP/1.1 200 ", and_hang=True) as url:
        assert post(url, timeout_s=0.2).detail == "no answer within 0.2 s"
    with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", and_hang=True) as url:
        assert post(url).taken


@pytest.mark.parametrize(("text", "seconds"), [
    (None, None), ("120", 120.0), ("9" * 30, 2.0**30), ("-1", None), ("soon", None), ("Thu, 01 Jan 1970 00:01:40 GMT", 50.0),
    ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("x" * 99, None), ("Mon, 99 Foo 1970 00:00:00 GMT", None)])
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    """Anything else counts as nothing."""
    assert retry_after_s(text, 50.0) == seconds
