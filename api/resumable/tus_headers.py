"""What tus 1.0 says in headers: pure functions that refuse what is not legal.

Guarantees: one request means one thing, so a header or a key that is given twice is an error; metadata is given back
as it was sent. Source: the protocol's text, https://tus.io/protocols/resumable-upload, version 1.0.0.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.http.description import Parameter, Where
from api.http.parameters import Headers, header, read_flag, read_instance, read_mode, read_owner
from api.resumable.parts import whole_digests
from api.resumable.values import Checksum
from api.uploads.request import UploadRequest, displayed, idempotency_key, last_part, traceparent
from daemon.config import Config
from daemon.errors import Rejected
from daemon.model.names import check_path, check_project, printable
from daemon.model.schema import one_of, text
from daemon.model.upload import Destination

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,creation-defer-length,termination,checksum,expiration"
#: The algorithms of checksums, and the bytes of each.
CHECKSUMS: Final = {"sha1": 20, "sha256": 32}
#: The media type of a part.
PART: Final = b"application/offset+octet-stream"

#: What each request has to say.
SPEAKS: Final = Parameter(name="Tus-Resumable", meaning="the version of tus", schema=one_of([VERSION]),
                          place=Where.HEADER, required=True, refuses=("tus_version",))
_BYTES: Final = text("a number of bytes", pattern="[0-9]{1,18}")
LENGTH: Final = Parameter(
    name="Upload-Length", meaning="the length of the whole file", schema=_BYTES, place=Where.HEADER,
    refuses=("bad_upload_header", "too_large", "inconsistent_length"), without="`Upload-Defer-Length`")
DEFER_LENGTH: Final = Parameter(name="Upload-Defer-Length", meaning="the length comes later", schema=one_of(["1"]),
                                place=Where.HEADER, refuses=("bad_upload_header",), without="`Upload-Length`")
LATE_LENGTH: Final = Parameter(
    name="Upload-Length", meaning="the length of the whole file, where it was not said before", schema=_BYTES,
    place=Where.HEADER, refuses=LENGTH.refuses)
OFFSET: Final = Parameter(name="Upload-Offset", meaning="where the part begins", schema=_BYTES, place=Where.HEADER,
                          required=True, refuses=("bad_upload_header", "wrong_offset"))
CHECKSUM: Final = Parameter(
    name="Upload-Checksum", meaning="what the part has to have: nothing of it counts otherwise",
    schema=text("`sha1` or `sha256`, a space, the digest in base64", pattern="(?:sha1|sha256) [A-Za-z0-9+/]+={0,2}"),
    place=Where.HEADER, refuses=("bad_checksum", "checksum_mismatch"))
METADATA: Final = Parameter(
    name="Upload-Metadata", meaning="where the file goes: `instance` and `path`; see docs/resumable.md for more",
    schema=text("keys, each with a space and its value in base64; commas in between"), place=Where.HEADER,
    required=True, refuses=("bad_metadata", "bad_instance", "bad_project", "unknown_remote", "bad_path", "bad_name",
                            "bad_mode", "bad_owner", "bad_flag"))

#: A number of so many digits is the same to everybody, in 64 bits.
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
#: A key: visible ASCII without a comma.
_KEY: Final = re.compile(r"[!-+\--~]+")
_OVERRIDE: Final = b"x-http-method-override"
_OVERRIDDEN: Final = frozenset({"PATCH", "DELETE"})
#: What JavaScript makes of a value that is not there.
_NO_VALUE: Final = frozenset({"", "null", "undefined"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TusCreation:
    """What a request says that creates an upload."""

    #: Its `length` is that of the whole file; None: it comes later.
    request: UploadRequest
    #: As it was sent.
    metadata: str


def method_of(method: str, headers: Headers) -> str:
    """The method that a request means: a POST may stand for a PATCH or a DELETE. Raises Rejected('bad_override')."""
    if method != "POST" or _OVERRIDE not in headers:
        return method
    meant = (header(headers, _OVERRIDE, "bad_override") or "").upper()
    if meant not in _OVERRIDDEN:
        raise Rejected("bad_override")
    return meant


def check_version(headers: Headers) -> None:
    """Raise Rejected('tus_version') unless the request speaks this version."""
    if headers.get(b"tus-resumable") != [VERSION.encode()]:
        raise Rejected("tus_version", headers=[("Tus-Version", VERSION)])


def check_part(headers: Headers) -> None:
    """Raise Rejected('part_type') unless the body is a part."""
    if headers.get(b"content-type") != [PART]:
        raise Rejected("part_type", f"The body of a part is of the type {PART.decode()}.")


def read_creation(headers: Headers, config: Config) -> TusCreation:
    """Read a POST that creates an upload. Raises Rejected."""
    if b"upload-concat" in headers:
        raise Rejected("bad_upload_header", "Uploads are not put together here: leave Upload-Concat out.")
    length = _creation_length(headers)
    metadata = header(headers, b"upload-metadata", "bad_metadata") or ""
    request = _request_of(read_metadata(metadata), length, config)
    request = request._replace(digests=whole_digests(headers), idempotency_key=idempotency_key(headers),
                               traceparent=traceparent(headers))
    return TusCreation(request=request, metadata=metadata)


def _creation_length(headers: Headers) -> int | None:
    length, deferred = _number(headers, "Upload-Length"), header(headers, b"upload-defer-length", "bad_upload_header")
    if (length is None) == (deferred is None) or deferred not in {None, "1"}:
        raise Rejected("bad_upload_header", "Send either Upload-Length, or Upload-Defer-Length: 1.")
    return length


def read_late_length(headers: Headers) -> int | None:
    """The length of the whole file when a later request says it, or None."""
    return _number(headers, "Upload-Length")


def read_offset(headers: Headers) -> int:
    """Where the part begins."""
    offset = _number(headers, "Upload-Offset")
    if offset is None:
        raise Rejected("bad_upload_header", "Send Upload-Offset.")
    return offset


def _number(headers: Headers, name: str) -> int | None:
    text = header(headers, name.lower().encode(), "bad_upload_header")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise Rejected("bad_upload_header", f"{name} is not a number of bytes.")
    return int(text)


def read_checksum(headers: Headers) -> Checksum | None:
    """The checksum that the part must have, or None. Raises Rejected('bad_checksum')."""
    text = header(headers, b"upload-checksum", "bad_checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.partition(" ")
    digest = _decoded(encoded, "bad_checksum", "The checksum")
    if len(digest) != CHECKSUMS.get(algorithm):
        raise Rejected("bad_checksum")
    return Checksum(algorithm, digest)


def read_metadata(text: str) -> Mapping[str, bytes]:
    """The values of the metadata by their keys; empty ones where there are none. Raises Rejected('bad_metadata')."""
    values: dict[str, bytes] = {}
    for pair in text.split(",") if text.strip(" ") else ():
        key, _, encoded = pair.strip(" ").partition(" ")
        if not _KEY.fullmatch(key):
            raise Rejected("bad_metadata", "A key of the metadata is empty or not ASCII.")
        if key in values:
            raise Rejected("bad_metadata", f"The key {printable(key)!r} of the metadata is given twice.")
        values[key] = _decoded(encoded, "bad_metadata", f"The value of {printable(key)!r}")
    return values


def _decoded(encoded: str, code: str, what: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise Rejected(code, f"{what} is not base64.") from error


def _request_of(values: Mapping[str, bytes], length: int | None, config: Config) -> UploadRequest:
    remote, instance = read_instance(_text(values, "instance", "bad_instance") or "")
    project = _text(values, "project", "bad_project")
    path, name = _text(values, "path", "bad_path") or "", _text(values, "filename", "bad_name") or ""
    if path.endswith("/"):
        path += _below(name, _text(values, "relativePath", "bad_path") or "")
    return UploadRequest(
        destination=Destination(
            remote, config.project_of(remote) if project is None else check_project(project), instance,
            check_path(path)),
        display_name=displayed(last_part(name) or path.rsplit("/", 1)[-1]),
        mode=read_mode(_text(values, "mode", "bad_mode")), uid=read_owner(_text(values, "uid", "bad_owner")),
        gid=read_owner(_text(values, "gid", "bad_owner")), mkdirs=read_flag(_text(values, "mkdirs", "bad_flag")),
        idempotency_key=None, digests=frozenset(), length=length)


def _below(name: str, relative: str) -> str:
    """What stands below the directory: the path within a folder that was sent, or the file's own name."""
    if relative not in _NO_VALUE:
        return relative.removeprefix("/")
    last = last_part(name)
    if last in {"", ".", ".."}:
        raise Rejected("bad_name", "The path is a directory, and neither filename nor relativePath names the file.")
    return last


def _text(values: Mapping[str, bytes], key: str, code: str) -> str | None:
    if key not in values:
        return None
    try:
        return values[key].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(code, f"The value of {key!r} in the metadata is not UTF-8.") from error
