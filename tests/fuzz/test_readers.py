"""What reads what clients send: whatever comes, it is read to something legal, or refused with a code."""

import base64
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.framing import fault_around_body
from api.http.multipart import EndOf, MultipartReader
from api.http.parameters import Headers, collect
from api.http.plain_request import plain_request
from api.http.request_reader import MAX_HEAD_BYTES, RequestReader
from api.queries.task_query import read_question
from api.resumable import draft_headers, tus_headers
from api.resumable.parts import part_bytes, whole_digests
from api.uploads.form import Fields, read_file, read_head, read_part, read_target
from api.uploads.request import UploadRequest, read_put, read_upload
from daemon.config import Config
from daemon.errors import ERRORS, Rejected
from daemon.model.names import check_instance, check_path
from daemon.model.text import json_text
from tests.fuzz.conftest import Fuzz
from tests.fuzz.strategies import (
    conversations,
    cut,
    cuts,
    forms,
    heads,
    metadata,
    plain_requests,
    queries,
    resumable_heads,
    spoils,
    text,
)
from tests.support.plain_requests import as_h11_reads

pytestmark = [pytest.mark.fuzz, pytest.mark.full]
P = ParamSpec("P")
T = TypeVar("T")
CONFIG = Config()
_MOST_LENGTH = 10**18


def check_request(request: UploadRequest) -> None:
    """All of it can be kept, compared and told."""
    check_path(request.destination.path)
    check_instance(request.destination.instance)
    json_text([request.destination.path, request.display_name, request.idempotency_key]).encode()


def test_heads(fuzz: Fuzz) -> None:
    """However they are cut, the same requests are found, or none after the same refusal."""
    @given(sent=conversations, places=cuts)
    def examine(sent: bytes, places: list[int]) -> None:
        whole, in_pieces = events_of([sent]), events_of(cut(sent, places))
        assert whole == in_pieces

    fuzz(examine)


def events_of(pieces: list[bytes]) -> list[object]:
    """What is found before the end or a refusal: heads, the bytes of bodies, ends, and the code."""
    reader, found = RequestReader(), list[object]()
    try:
        for piece in pieces:
            reader.receive_data(piece)
            while isinstance(event := reader.next_event(), h11.Event):
                _add(found, event)
                if isinstance(event, h11.EndOfMessage):
                    break
    except h11.RemoteProtocolError:
        assert reader.code in ERRORS
        found.append(reader.code)
    return found


def _add(found: list[object], event: h11.Event) -> None:
    if not isinstance(event, h11.Data):
        found.append(event)
    elif found and isinstance(found[-1], bytes):
        found[-1] += bytes(event.data)
    else:
        found.append(bytes(event.data))


def test_plain_requests(fuzz: Fuzz) -> None:
    """What is recognised at once is what the other reader finds, and nothing that it refuses."""
    @given(sent=st.one_of(plain_requests, spoils(plain_requests), conversations))
    def examine(sent: bytes) -> None:
        if (found := plain_request(sent)) is not None:
            assert (found, b"1.1") == as_h11_reads(sent)

    fuzz(examine)


def test_heads_of_uploads(fuzz: Fuzz) -> None:
    """Whatever is in its headers, address and query, an upload is legal or refused."""
    @given(head=heads, query=st.one_of(queries, spoils(queries)), instance=text, path=text)
    def examine(head: bytes, query: bytes, instance: str, path: str) -> None:
        reader = RequestReader()
        with contextlib.suppress(h11.RemoteProtocolError):
            reader.receive_data(head)
            request = reader.next_event()
            if isinstance(request, h11.Request):
                headers = collect(request.headers)
                with contextlib.suppress(Rejected):
                    check_request(read_upload(headers, CONFIG))
                with contextlib.suppress(Rejected):
                    read_head(headers)
                with contextlib.suppress(Rejected):
                    check_request(read_put(_as_sent(instance), _as_sent(path), query, headers, CONFIG))
        with contextlib.suppress(Rejected):
            read_question(query, CONFIG)

    fuzz(examine)


def _as_sent(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def test_metadata_of_tus(fuzz: Fuzz) -> None:
    """Whatever it says, it is refused, or read to what says the same when it is written again."""
    @given(sent=metadata)
    def examine(sent: bytes) -> None:
        with contextlib.suppress(Rejected, UnicodeDecodeError):
            found = tus_headers.read_metadata(sent.decode("ascii"))
            again = ",".join(f"{key} {base64.b64encode(value).decode()}" for key, value in found.items())
            assert tus_headers.read_metadata(again) == found

    fuzz(examine)


def test_heads_of_resumable_uploads(fuzz: Fuzz) -> None:
    """Whatever stands in them, each is read to something legal, or refused."""
    @given(sent=resumable_heads)
    def examine(sent: bytes) -> None:
        reader = RequestReader()
        with contextlib.suppress(h11.RemoteProtocolError):
            reader.receive_data(sent)
            request = reader.next_event()
            if isinstance(request, h11.Request):
                check_resumable(request.method.decode(), collect(request.headers))

    fuzz(examine)


def check_resumable(method: str, headers: Headers) -> None:
    """What either protocol reads from a head can be kept, and no number in it is out of bounds."""
    meant = said(tus_headers.method_of, method, headers)
    assert meant in {None, method, "PATCH", "DELETE"}
    creation = said(tus_headers.read_creation, headers, CONFIG)
    if creation is not None:
        check_request(creation.request)
        assert creation.metadata.isprintable()
    body_bytes = said(part_bytes, headers)
    for number in (said(tus_headers.read_late_length, headers), said(tus_headers.read_offset, headers), body_bytes):
        assert number is None or 0 <= number < _MOST_LENGTH
    checksum = said(tus_headers.read_checksum, headers)
    assert checksum is None or len(checksum.digest) == tus_headers.CHECKSUMS[checksum.algorithm]
    said(whole_digests, headers)
    for check in (tus_headers.check_version, tus_headers.check_part):
        said(check, headers)
    said(draft_headers.is_resumable, headers)
    interop, offset = said(draft_headers.require_interop, headers), said(draft_headers.read_offset, headers)
    complete = said(draft_headers.read_complete, headers)
    if interop is not None:
        said(draft_headers.check_part, headers, interop)
    if offset is not None and complete is not None and body_bytes is not None:
        with contextlib.suppress(Rejected):
            whole = draft_headers.whole_length(headers, offset=offset, body_bytes=body_bytes, complete=complete)
            assert whole is None or whole >= offset + body_bytes


def said(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What is read, or None where that is refused."""
    try:
        return read(*args, **kwargs)
    except Rejected:
        return None


def test_forms(fuzz: Fuzz) -> None:
    """However a form is cut, the same files come out of it, each legal or refused."""
    @given(sent=forms, places=cuts)
    def examine(sent: bytes, places: list[int]) -> None:
        whole, in_pieces = files_of([sent]), files_of(cut(sent, places))
        assert whole == in_pieces

    fuzz(examine)


def files_of(pieces: list[bytes]) -> list[object]:
    """What a form comes to: its files with their bytes, and the codes of what was refused."""
    reader, fields, found = MultipartReader(b"B", max_parts=20), Fields(), list[object]()
    end = None
    try:
        for piece in pieces:
            reader.feed(piece)
    except Rejected as refusal:
        end = refusal.code
    part, value = None, b""
    for event in reader.events:
        try:
            if isinstance(event, bytes):
                value += event
            elif event is EndOf.PART and part is not None:
                if part.filename is None:
                    fields.check(part, late=False)
                    fields.add(part, value)
                else:
                    request = read_file(read_target(fields.values, "k", CONFIG), part, len(found), ())
                    check_request(request)
                    found.append((request, value))
            elif not isinstance(event, EndOf):
                part, value = None, b""
                part = read_part(event)
        except Rejected as refusal:
            found.append(refusal.code)
    return [*found, end]


def test_chunk_lines(fuzz: Fuzz) -> None:
    """What stands around chunks is legal or refused."""
    @given(spoils(st.just(b"5;a=b\r\n")))
    def examine(line: bytes) -> None:
        assert fault_around_body(line) in {None, "bad_request"}
        assert len(unquote_to_bytes(line)) <= MAX_HEAD_BYTES

    fuzz(examine)
