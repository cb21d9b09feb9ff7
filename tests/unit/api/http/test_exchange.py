"""Plain requests are served as all others are: the app and the client notice nothing of it."""

import asyncio
import gc
import os
import re
import weakref
from collections.abc import AsyncGenerator, Callable

import pytest

from api.http import connection
from api.http.client_gone import until_gone
from api.http.exchange import Exchange
from api.http.plain_request import plain_request
from api.http.response import (
    ASKER,
    CLOSE,
    JSON,
    NOTHING,
    UNCHANGED,
    Answer,
    App,
    Receive,
    Scope,
    Send,
    StreamedAnswer,
    send_answer,
    text_answer,
)
from tests.fuzz.strategies import cut
from tests.support.apps import hello
from tests.support.connections import Served, answer_on, converse, serving
from tests.support.waiting import PATIENCE_S

_BODY = b"x" * 5
_GET = b"GET /a%2fb?c=d HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"
_PUT = b"PUT /%ED%95%9C HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n" + _BODY
_HEAD = _GET.replace(b"GET", b"HEAD")
_LAST = _PUT.replace(b"Host: a", b"Host: a\r\nConnection: close")
_SENT = {"get": _GET, "put": _PUT, "head": _HEAD, "last": _LAST}


def otherwise(sent: bytes) -> bytes:
    """The same request, not as plain: it is read by h11."""
    return sent.replace(b"Host: a", b"Host:  a")


def answering(answer: Answer) -> App:
    """An app that always answers so."""
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, answer)

    return app


async def read(receive: Receive) -> bytes:
    """The whole body."""
    body, more = b"", True
    while more:
        event = await receive()
        body += event["body"]
        more = event["more_body"]
    return body


def streaming(*pieces: bytes, headers: tuple[tuple[str, str], ...] = (), fails: bool = False) -> App:
    """An app that answers piece by piece, and makes a mistake at the end if it `fails`."""
    async def all_pieces() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece
        if fails:
            raise ValueError("a mistake")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await send_answer(send, StreamedAnswer(200, JSON, all_pieces(), headers))

    return app


async def repeating(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was sent."""
    await send_answer(send, Answer(200, JSON, await read(receive), (("X-Told", scope["path"].encode("unicode_escape").decode()),)))


async def informing(scope: Scope, receive: Receive, send: Send) -> None:
    """Say something before the answer, and nothing that the client waits for."""
    asker = scope["state"][ASKER]
    assert not asker.waits
    await asker.inform(104, ("Location", "a"))
    await send_answer(send, text_answer(200, "hello"))


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""
    await read(receive)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """Make a mistake before the answer."""
    await read(receive)
    raise ValueError("a mistake")


async def beginning(scope: Scope, receive: Receive, send: Send) -> None:
    """Say no more than a head."""
    await read(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})


APPS: dict[str, App] = {
    "whole": hello, "empty": answering(Answer(200, JSON, b"")), "nothing": answering(NOTHING),
    "unchanged": answering(Answer(UNCHANGED, JSON, b"", (("ETag", '"a"'),))), "closing": answering(text_answer(200, "bye", ("Connection", "close"))),
    "empty header": answering(text_answer(200, "a", ("X-Empty", ""))), "repeating": repeating, "informing": informing, "silent": silent, "failing": failing,
    "beginning": beginning, "in pieces": streaming(b"a", b"", b"bc" * 100), "in no pieces": streaming(), "of a length": streaming(b"a", b"bc", headers=(("Content-Length", "3"),)),
    "cut off": streaming(b"a", headers=(("Content-Length", "3"),), fails=True), "cut off in pieces": streaming(b"a", fails=True),
}


def without_date(answer: bytes) -> bytes:
    """What was sent, whenever that was."""
    return re.sub(rb"\r\ndate: [^\r]*", b"\r\ndate: now", answer)


@pytest.mark.parametrize("sent", _SENT.values(), ids=_SENT)
@pytest.mark.parametrize("name", APPS)
def test_client_gets_the_same_bytes(name: str, sent: bytes) -> None:
    """Whether its request was recognised at once or not, and whatever the app does."""
    assert plain_request(sent) is not None
    assert plain_request(otherwise(sent)) is None
    at_once, by_h11 = map(without_date, asyncio.run(converse(sent, otherwise(sent), app=APPS[name])))
    assert at_once == by_h11


@pytest.mark.parametrize("sent", _SENT.values(), ids=_SENT)
def test_app_is_told_the_same(sent: bytes) -> None:
    """All that is known of the request; its asker is one that never waits."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope["state"][ASKER]
        scopes.append(scope)
        await hello(scope, receive, send)

    asyncio.run(converse(sent, otherwise(sent), app=app))
    at_once, by_h11 = scopes
    assert at_once == {**by_h11, "state": {**by_h11["state"], "via": at_once["state"]["via"]}}


@pytest.mark.parametrize("ahead", [b"", _GET], ids=["nothing", "a request"])
def test_last_request_of_a_connection_is_the_last(ahead: bytes) -> None:
    """The connection ends with its answer, whatever was sent after it."""
    [answer] = asyncio.run(converse(_LAST + ahead))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\n%b: %b\r\n" % CLOSE in answer.lower()


class Noting:
    """An app that answers with what was sent, and notes whether it was asked about the whole request."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.was_whole: list[bool] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.was_whole.append(isinstance(scope["state"][ASKER], Exchange))
        self.begun.set()
        await repeating(scope, receive, send)


async def seen(served: Served) -> None:
    """Come back when all that was sent before has been read."""
    streams = await served.connect()
    streams[1].write(_GET)
    await answer_on(streams)
    streams[1].close()


@pytest.mark.parametrize("places", [[len(_PUT) - 5], [len(_PUT) - 5, len(_PUT) - 2]])
def test_body_that_follows_its_head_at_once_is_served_with_it(monkeypatch: pytest.MonkeyPatch, places: list[int]) -> None:
    """As many clients send it; so it costs no more than one that came whole."""
    monkeypatch.setattr(connection, "REST_S", PATIENCE_S)

    async def ask() -> tuple[bytes, list[bool]]:
        app = Noting()
        async with serving(app) as served:
            streams = await served.connect()
            for piece in cut(_PUT, places):
                streams[1].write(piece)
                await seen(served)
            answer = await answer_on(streams)
            streams[1].close()
        return answer, app.was_whole[-1:]

    answer, was_whole = asyncio.run(ask())
    assert answer.endswith(_BODY)
    assert was_whole == [True]


@pytest.mark.parametrize("there", [0, 2])
def test_app_is_asked_about_a_head_whose_body_does_not_follow(there: int) -> None:
    """So that a client that waits for its refusal gets it; and the body may come later."""
    async def ask() -> tuple[bytes, list[bool]]:
        app = Noting()
        async with serving(app) as served:
            streams = await served.connect()
            streams[1].write(_PUT[:len(_PUT) - 5 + there])
            await asyncio.wait_for(app.begun.wait(), PATIENCE_S)
            streams[1].write(_PUT[len(_PUT) - 5 + there:])
            answer = await answer_on(streams)
            streams[1].close()
        return answer, app.was_whole

    answer, was_whole = asyncio.run(ask())
    assert answer.endswith(_BODY)
    assert was_whole == [False]


def test_client_that_ends_while_its_body_is_waited_for_is_told() -> None:
    """That its body is not whole, as later on."""
    async def ask() -> bytes:
        async with serving(repeating) as served:
            reader, writer = await served.connect()
            writer.write(_PUT[:-2])
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
            writer.close()
        return answer

    answer = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"incomplete_body" in answer


def test_body_that_is_waited_for_is_served_while_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head was there before: the connection is not idle."""
    monkeypatch.setattr(connection, "REST_S", PATIENCE_S)

    async def ask() -> bytes:
        async with serving(repeating) as served:
            streams = await served.connect()
            streams[1].write(_PUT[:-5])
            await seen(served)
            ending = asyncio.create_task(served.connections.end())
            await asyncio.sleep(0)
            streams[1].write(_BODY)
            answer = await answer_on(streams)
            streams[1].close()
            await ending
        return answer

    assert asyncio.run(ask()).endswith(_BODY)


def test_mistake_of_the_app_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and with the place where it was made; the connection of its request is closed, and nothing else."""
    told: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(connection, "log", lambda event, **about: told.append((event, about)))
    [answer] = asyncio.run(converse(_PUT, app=failing))
    assert answer.startswith(b"HTTP/1.1 500 ")
    [(event, about)] = told
    assert (event, about["error"]) == ("api.error", "ValueError('a mistake')")
    assert "in failing" in about["traceback"]


@pytest.mark.parametrize("headers", [[(b"x", b"a\r\nb: c")], [(b"x y", b"a")], [(b"x", b"a\nb")]])
def test_header_that_is_two_is_not_sent(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever got into it: that is a mistake of ours."""
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    [answer] = asyncio.run(converse(_GET, app=app))
    assert answer.startswith(b"HTTP/1.1 500 \r\ncontent-length: 0\r\n")


@pytest.mark.parametrize("pieces", [(b"ab",), (b"abcd",), (b"a", b"bcd")])
def test_body_of_another_length_than_was_said_leaves_no_connection(pieces: tuple[bytes, ...]) -> None:
    """The client would take its end for the next answer."""
    [answer] = asyncio.run(converse(_GET + _GET, app=streaming(*pieces, headers=(("Content-Length", "3"),))))
    assert answer.count(b"HTTP/1.1") <= 1
    assert len(answer.partition(b"\r\n\r\n")[2]) < 3


def test_connection_serves_whole_requests_and_others_in_turn() -> None:
    """However they follow each other, and however many come at once."""
    partial = [_PUT[:-2], _PUT[-2:]]

    async def ask() -> list[bytes]:
        async with serving(repeating) as served:
            streams = await served.connect()
            answers = []
            for pieces, number in ([_PUT], 1), (partial, 1), ([_PUT + _PUT + _GET], 3), ([_GET], 1), ([otherwise(_PUT)], 1), ([b"\r\n", _PUT], 1), ([_GET], 1):
                for piece in pieces:
                    streams[1].write(piece)
                    await asyncio.sleep(0)
                answers += [(await answer_on(streams)).partition(b"\r\n\r\n")[2] for _ in range(number)]
            streams[1].close()
            return answers

    assert asyncio.run(ask()) == [_BODY, _BODY, _BODY, _BODY, b"", b"", _BODY, _BODY, b""]


class Waiting:
    """An app that waits until its client is gone or `go_on` is set, at the first request, and answers the others."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.waits.is_set():
            await hello(scope, receive, send)
            return
        assert (await receive())["type"] == "http.request"
        gone = asyncio.create_task(until_gone(receive))
        gone.add_done_callback(lambda _: self.go_on.set())
        self.waits.set()
        await self.go_on.wait()
        if gone.done():
            self.gone.set()
        else:
            gone.cancel()
            await send_answer(send, text_answer(200, "time is over"))


@pytest.mark.parametrize("go", [asyncio.StreamWriter.close, asyncio.StreamWriter.write_eof, lambda writer: writer.transport.abort()], ids=["close", "eof", "abort"])
def test_app_that_waits_is_told_that_the_client_is_gone(go: Callable[[asyncio.StreamWriter], None]) -> None:
    """However that goes; and who is gone is sent nothing."""
    async def ask() -> bytes:
        app = Waiting()
        async with serving(app) as served:
            reader, writer = await served.connect()
            writer.write(_PUT)
            await app.waits.wait()
            go(writer)
            await asyncio.wait_for(app.gone.wait(), PATIENCE_S)
            told = await reader.read()
            writer.close()
        return told

    assert asyncio.run(ask()) == b""


def test_app_that_waits_is_told_that_the_client_of_a_last_request_is_gone() -> None:
    """Whatever came after the request: nobody looks at it, and it hides nothing."""
    async def ask() -> None:
        app = Waiting()
        async with serving(app) as served:
            _, writer = await served.connect()
            writer.write(_LAST)
            await app.waits.wait()
            for piece in b"\r\n", _GET:
                writer.write(piece)
                await seen(served)
            writer.close()
            await asyncio.wait_for(app.gone.wait(), PATIENCE_S)

    asyncio.run(ask())


@pytest.mark.parametrize("ahead", [_GET, _GET + _GET, _PUT[:-2]], ids=["a request", "two", "a part"])
def test_what_was_sent_ahead_is_served_afterwards(ahead: bytes) -> None:
    """While the app waits for the client to go, what comes is not lost, and no reason to go on."""
    async def ask() -> list[bytes]:
        app = Waiting()
        async with serving(app) as served:
            streams = await served.connect()
            streams[1].write(_GET)
            await app.waits.wait()
            streams[1].write(ahead)
            # Who is answered after that has seen it come.
            other = await served.connect()
            other[1].write(_GET)
            await answer_on(other)
            other[1].close()
            app.go_on.set()
            answers = [await answer_on(streams)]
            if ahead == _PUT[:-2]:
                streams[1].write(_PUT[-2:])
            answers += [await answer_on(streams) for _ in range(max(1, ahead.count(b"GET")))]
            streams[1].close()
        return [answer.partition(b"\r\n\r\n")[2] for answer in answers]

    first, *others = asyncio.run(ask())
    assert first == b"time is over"
    assert set(others) == {b"hello"}


def test_waiting_app_that_is_answered_for_leaves_no_task() -> None:
    """The look-out for the client ends with the answer."""
    async def ask() -> int:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            waiting = asyncio.create_task(until_gone(receive))
            await asyncio.sleep(0)
            await hello(scope, receive, send)
            await waiting

        async with serving(app) as served:
            streams = await served.connect()
            before = len(asyncio.all_tasks())
            for _ in range(3):
                streams[1].write(_PUT)
                await answer_on(streams)
            left = len(asyncio.all_tasks()) - before
            streams[1].close()
        return left

    assert asyncio.run(ask()) == 1  # that of the connection


def test_nothing_of_a_request_stays_after_its_answer() -> None:
    """An idle connection is small, and there is no garbage to be collected."""
    async def ask() -> bool:
        kept: list[weakref.ref[object]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            kept.append(weakref.ref(scope["state"][ASKER]))
            await hello(scope, receive, send)

        async with serving(app) as served:
            streams = await served.connect()
            gc.disable()
            try:
                streams[1].write(_PUT)
                await answer_on(streams)
                return kept[0]() is None
            finally:
                gc.enable()
                streams[1].close()

    assert asyncio.run(ask())


def test_idle_connection_keeps_nothing_of_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a request was waited for, and then read by h11 because another one came with its end."""
    monkeypatch.setattr(connection, "REST_S", PATIENCE_S)
    # What other tests have left in memory holds nothing of it.
    half = os.urandom(50_000)
    sent = _PUT.removesuffix(_BODY).replace(b": 5", b": 100000")

    async def ask() -> list[object]:
        async with serving(repeating) as served:
            streams = await served.connect()
            for piece in sent + half, half + _GET:
                streams[1].write(piece)
                await seen(served)
            for _ in range(2):
                await answer_on(streams)
            kept: list[object] = [held for held in gc.get_objects() if type(held) is list
                    and any(isinstance(piece, bytes) and half in piece for piece in held)]
            streams[1].close()
        return kept

    assert asyncio.run(ask()) == []


def test_answer_closes_its_connection_while_the_process_is_about_to_end() -> None:
    """On a connection that was idle then, too; however the request is read."""
    async def ask() -> list[bytes]:
        async with serving() as served:
            both = [await served.connect() for _ in range(2)]
            for reader, writer in both:
                writer.write(_GET)
                assert b"connection" not in await answer_on((reader, writer))
            served.connections.take_leave()
            for (_, writer), sent in zip(both, [_GET, otherwise(_GET)], strict=True):
                writer.write(sent)
            answers = [await asyncio.wait_for(reader.read(), PATIENCE_S) for reader, _ in both]
            for _, writer in both:
                writer.close()
        return answers

    at_once, by_h11 = map(without_date, asyncio.run(ask()))
    assert at_once == by_h11
    assert b"\r\n%s: %s\r\n" % CLOSE in at_once
