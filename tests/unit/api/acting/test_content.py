"""Bytes that are handed out: under a safe name, in pieces, and never damaged without the client's notice."""

import asyncio
import hashlib
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.acting.content import PIECE_BYTES, disposition, explained, headers_of, pieces_of
from api.http.response import CutOff, Event
from daemon.errors import Undelivered
from daemon.model.upload import Upload
from tests.support.depot import an_upload

BODY = bytes(range(256)) * (PIECE_BYTES // 100)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    """What reads."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def of(body: bytes) -> Upload:
    """An upload of those bytes."""
    return replace(an_upload("/x"), size=len(body), sha256=hashlib.sha256(body).hexdigest())


def fetch(threads: ThreadPoolExecutor, source: io.BytesIO, upload: Upload, *, gone: bool = False) -> tuple[bytes, bool]:
    """What a client gets, and whether it was cut off."""

    async def receive() -> Event:
        if not gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def read() -> tuple[bytes, bool]:
        got = b""
        async with aclosing(pieces_of(source, upload, threads, receive)) as pieces:
            try:
                async for piece in pieces:
                    got += piece
            except CutOff:
                return got, True
        return got, False

    return asyncio.run(read())


def test_all_bytes_come_and_no_others(threads: ThreadPoolExecutor) -> None:
    """What follows them in the file is not theirs; an empty file has none."""
    source = io.BytesIO(BODY + b"what follows")
    assert fetch(threads, source, of(BODY)) == (BODY, False)
    assert source.closed
    assert fetch(threads, io.BytesIO(b"what follows"), of(b"")) == (b"", False)


@pytest.mark.parametrize("damaged", [BODY[:-1] + b"!", b"!" + BODY[1:], BODY[:-1], b""])
def test_bytes_that_are_others_never_come_to_their_end(threads: ThreadPoolExecutor, damaged: bytes) -> None:
    """The client has fewer than it was told of."""
    got, cut = fetch(threads, io.BytesIO(damaged), of(BODY))
    assert cut
    assert len(got) < len(BODY)


def test_nothing_more_is_read_for_a_client_that_is_gone(threads: ThreadPoolExecutor) -> None:
    """A large file would be read to its end for nobody."""
    source = io.BytesIO(BODY)
    got, cut = fetch(threads, source, of(BODY), gone=True)
    assert cut
    assert len(got) < len(BODY)
    assert source.closed


@pytest.mark.parametrize(("name", "header"), [
    ("report.pdf", 'attachment; filename="report.pdf"'),
    ("a\\b/c", 'attachment; filename="a_b_c"; filename*=UTF-8\'\'a_b_c'),
    ("", 'attachment; filename="file"'), ("..", 'attachment; filename="file"'), (" . ", 'attachment; filename="file"'),
    ('x"\r\nSet-Cookie: a=b', 'attachment; filename="x___Set-Cookie_ a=b"; filename*=UTF-8\'\'x%22__Set-Cookie%3A%20a%3Db'),
    ("\u202egnp.exe", 'attachment; filename="_gnp.exe"'),
    ("\u65e5\u672c.txt", 'attachment; filename="__.txt"; filename*=UTF-8\'\'%E6%97%A5%E6%9C%AC.txt'),
])
def test_a_name_is_told_so_that_it_is_no_more_than_a_name(name: str, header: str) -> None:
    """No path, no header of its own, nothing that shows as something else."""
    assert disposition(name) == header.replace("; filename*=UTF-8''a_b_c", "")


@given(st.text(max_size=400))
def test_any_name_gives_a_legal_header(name: str) -> None:
    """Whatever a client once called its file."""
    header = disposition(name)
    assert re.fullmatch(r"attachment; filename=\"[A-Za-z0-9._ ()+,=@-]{1,255}\"(; filename\*=UTF-8''[A-Za-z0-9%!#$&+.^_`|~-]+)?",
                        header)


def test_what_is_told_of_the_bytes_makes_nobody_show_them() -> None:
    """They are stored, and can be checked."""
    told = dict(headers_of(replace(of(b"x"), display_name="page.html")))
    assert told["X-Content-Type-Options"] == "nosniff"
    assert told["Content-Disposition"] == 'attachment; filename="page.html"'
    assert told["Content-Length"] == "1"
    assert told["Repr-Digest"] == "sha-256=:LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=:"


def test_missing_bytes_are_told_apart_from_damaged_ones() -> None:
    """The first will not come back."""
    assert [explained(Undelivered(code)).kind.status for code in ("bytes_missing", "bytes_damaged", "io_error")] == [
        410, 503, 503]
