"""The body of a request that is a part of a file: pure functions of its head, whatever the protocol."""

from typing import Final

from api.http.parameters import Headers
from api.http.request_reader import DIGEST_FIELDS
from api.uploads.digests import Digest, announced
from api.uploads.request import check_wholeness
from daemon.errors import Rejected

_PART_DIGEST: Final = b"content-digest"
_TRAILING_CHECKSUM: Final = b"upload-checksum"


def part_bytes(headers: Headers) -> int | None:
    """The length of the body, or None when it comes in chunks; 0 when there is none.

    Raises Rejected: what refuses the body of any upload, and 'unchecked_digest' when its checksum comes after it.
    """
    check_wholeness(headers)
    if any(_TRAILING_CHECKSUM in field.lower() for field in headers.get(b"trailer", ())):
        raise Rejected("unchecked_digest", "A checksum that comes after the part is not checked: send it before.")
    return None if b"transfer-encoding" in headers else int(headers.get(b"content-length", [b"0"])[0])


def refuse_digests(headers: Headers) -> None:
    """Raise Rejected('unchecked_digest') when a digest is announced with a part: of those, checksums are compared."""
    if not DIGEST_FIELDS.isdisjoint(headers):
        raise Rejected("unchecked_digest", "With a part, Upload-Checksum is compared, as tus has it, and nothing else.")


def whole_digests(headers: Headers) -> frozenset[Digest]:
    """The digests that the whole file must have, as they are announced with its first part.

    Raises Rejected('bad_digest' or 'unchecked_digest').
    """
    if _PART_DIGEST in headers:
        raise Rejected("unchecked_digest", "Content-Digest is not compared here: send Repr-Digest for the whole file.")
    return announced(headers)
