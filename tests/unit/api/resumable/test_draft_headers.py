"""What a request by the IETF's draft says, read from its head."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.parameters import Headers, collect
from api.resumable.draft_headers import (
    check_part,
    interop_of,
    is_resumable,
    limits,
    read_complete,
    read_offset,
    require_interop,
    whole_length,
)
from daemon.errors import Rejected


def head(*headers: tuple[str, str]) -> Headers:
    """The headers of a request."""
    return collect((name.lower().encode(), value.encode("latin-1")) for name, value in headers)


def refused(code: str) -> "pytest.RaisesExc[Rejected]":
    """Expect a refusal with this code."""
    return pytest.raises(Rejected, check=lambda error: error.code == code)


INTEROP = "Upload-Draft-Interop-Version"


def test_upload_is_resumable_when_its_version_is_spoken() -> None:
    """Without a number that is known it is an upload like any other, as before there was a draft."""
    for number in ("5", "6"):
        assert is_resumable(head((INTEROP, number), ("Upload-Complete", "?1")))
        assert require_interop(head((INTEROP, number))) == number.encode()
    assert not is_resumable(head((INTEROP, "6")))
    for numbers in ([], [(INTEROP, "8")], [(INTEROP, "")], [(INTEROP, "6"), (INTEROP, "6")]):
        assert interop_of(head(*numbers)) is None
        assert not is_resumable(head(*numbers, ("Upload-Complete", "?1")))
        with refused("unknown_interop"):
            require_interop(head(*numbers))


def test_half_of_a_file_is_never_taken_for_the_whole() -> None:
    """Whoever says that more comes, in a version that is not spoken, is refused."""
    with refused("unknown_interop"):
        is_resumable(head(("Upload-Complete", "?0")))
    for value in ("", "0", "true", "?2", "?1?0", "1"):
        with refused("bad_upload_header"):
            is_resumable(head(("Upload-Complete", value)))


def test_values_are_those_of_structured_fields() -> None:
    """Parameters are passed over, and nothing else is."""
    assert (read_complete(head(("Upload-Complete", "?1"))), read_complete(head(("Upload-Complete", "?0;x=1")))) == (True, False)
    assert (read_offset(head(("Upload-Offset", "12"))), read_offset(head(("Upload-Offset", "0;a")))) == (12, 0)
    for value in ("", "-1", "1.0", "+1", "1 ", "9" * 16, '"1"', "?1"):
        with refused("bad_upload_header"):
            read_offset(head(("Upload-Offset", value)))
    for headers in ([], [("Upload-Offset", "1"), ("Upload-Offset", "1")]):
        with refused("bad_upload_header"):
            read_offset(head(*headers))


@pytest.mark.parametrize(("length", "offset", "body_bytes", "complete", "whole"), [
    (None, 0, 5, True, 5), (None, 3, 5, True, 8), (None, 0, 5, False, None), (None, 0, None, True, None), ("8", 3, 5, True, 8),
    ("9", 3, 5, False, 9), ("9", 0, None, True, 9), ("0", 0, 0, True, 0),
])
def test_whole_length_is_said_by_its_header_or_by_the_last_body(
    length: str | None, offset: int, body_bytes: int | None, complete: bool, whole: int | None,
) -> None:
    """The body that ends the file says it by its own length."""
    headers = head() if length is None else head(("Upload-Length", length))
    assert whole_length(headers, offset=offset, body_bytes=body_bytes, complete=complete) == whole


@pytest.mark.parametrize(("offset", "body_bytes", "complete"), [(3, 4, True), (0, 9, True), (3, 6, False), (9, 0, False)])
def test_two_lengths_contradict_each_other(offset: int, body_bytes: int, complete: bool) -> None:
    """Of a file of 8 bytes, 9 cannot be there, and what ends it ends at 8."""
    with refused("inconsistent_length"):
        whole_length(head(("Upload-Length", "8")), offset=offset, body_bytes=body_bytes, complete=complete)


def test_part_has_its_media_type_where_the_draft_has_one() -> None:
    """It came with interop number 6."""
    check_part(head(("Content-Type", "application/partial-upload")), b"6")
    check_part(head(), b"5")
    with refused("part_type"):
        check_part(head(("Content-Type", "application/octet-stream")), b"6")


def test_limits_are_a_dictionary() -> None:
    """The age is told where there is one."""
    assert limits(max_bytes=10, max_age_s=60) == "max-size=10, max-age=60"
    assert limits(max_bytes=10, max_age_s=None) == "max-size=10"


@given(st.sampled_from(["Upload-Complete", "Upload-Offset", "Upload-Length", INTEROP]), st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])))
def test_headers_are_read_or_refused(name: str, value: str) -> None:
    """Nothing that a header can hold is more than an error of its sender."""
    headers = head((name, value))
    for read in (is_resumable, read_complete, read_offset, lambda given: whole_length(given, offset=0, body_bytes=None, complete=False)):
        try:
            read(headers)
        except Rejected:
            continue
