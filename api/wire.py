"""What a request says, read from its headers and its address alone: pure functions, nothing is waited for.

Guarantees: the text that comes out is UTF-8, every name in it is legal, and one request means one thing: a
header or parameter that is given twice, or that is not known, is an error. Refusals are raised as Rejected.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from api.digests import announced
from daemon.config import LOCAL, Config
from daemon.errors import Rejected
from daemon.model.names import check_instance, check_path, check_project, check_remote, printable
from daemon.model.upload import Destination

#: The parameters that PUT knows.
PUT_PARAMETERS: Final = frozenset({"project", "mode", "uid", "gid", "mkdirs"})

_MODE: Final = re.compile(r"0?[0-7]{3}|[0-7]{4}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
#: Content-Encodings that change nothing.
_PLAIN_CODINGS: Final = {b"identity", b""}
_FORM: Final = b"multipart/form-data"
#: Headers that make a PUT depend on what is there (RFC 9110, 13.1).
_CONDITIONS: Final = frozenset({b"if-match", b"if-none-match", b"if-unmodified-since"})
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False}
#: The largest uid and gid; 2**32 - 1 means "leave it" to chown.
MAX_OWNER: Final = 2**32 - 2
#: A display name is cut to this many characters.
MAX_DISPLAY_NAME: Final = 255

Headers = Mapping[bytes, list[bytes]]


@dataclass(frozen=True, kw_only=True)
class UploadRequest:
    """All that a request says about its upload before the first byte of the body."""

    destination: Destination
    #: The file's name at the sender, for people.
    display_name: str
    mode: int | None
    uid: int | None
    gid: int | None
    mkdirs: bool
    idempotency_key: str | None
    #: Hexadecimal sha256 digests that the body must have.
    digests: frozenset[str]
    #: Content-Length, or None for a chunked body.
    length: int | None


def collect(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of an ASGI scope by their lower-case names, with all the values of each."""
    collected: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        collected.setdefault(name, []).append(value)
    return collected


def read_upload(headers: Headers, config: Config) -> UploadRequest:
    """Read a POST /upload: everything is in its headers."""
    remote, instance = read_instance(_header(headers, b"x-container-name", "bad_instance") or "", config)
    path = _header(headers, b"x-file-path", "bad_path") or ""
    offered = (_header(headers, b"x-host-path", "bad_name") or "").rsplit("/", 1)[-1]
    if path.endswith("/"):
        if offered in {"", ".", ".."}:
            raise Rejected("bad_name")
        path += offered
    return UploadRequest(
        destination=Destination(remote, _project_of(remote, config), instance, check_path(path)),
        display_name=_displayed(offered or path.rsplit("/", 1)[-1]),
        mode=read_mode(_header(headers, b"x-file-mode", "bad_mode")),
        uid=read_owner(_header(headers, b"x-file-uid", "bad_owner")),
        gid=read_owner(_header(headers, b"x-file-gid", "bad_owner")),
        mkdirs=read_flag(_header(headers, b"x-create-dirs", "bad_flag"), config.delivery.mkdirs),
        idempotency_key=_idempotency_key(headers), digests=_digests(headers), length=read_length(headers))


def read_put(instance: str, path: str, query: bytes, headers: Headers, config: Config) -> UploadRequest:
    """Read a PUT /v1/instances/{instance}/files/{path}; both parts as they stand in the address, undecoded."""
    remote, name = read_instance(unescape(instance, "bad_instance"), config)
    parameters = read_query(query, PUT_PARAMETERS)
    project = parameters.get("project")
    return UploadRequest(
        destination=Destination(
            remote, _project_of(remote, config) if project is None else check_project(project),
            name, check_path("/" + unescape(path, "bad_path"))),
        display_name=unescape(path.rsplit("/", 1)[-1], "bad_path"),
        mode=read_mode(parameters.get("mode")),
        uid=read_owner(parameters.get("uid")), gid=read_owner(parameters.get("gid")),
        mkdirs=read_flag(parameters.get("mkdirs"), config.delivery.mkdirs),
        idempotency_key=_idempotency_key(headers), digests=_digests(headers), length=read_length(headers))


def read_instance(text: str, config: Config) -> tuple[str, str]:
    """Split `instance` or `remote:instance` into the names of a configured remote and an instance."""
    remote, colon, instance = text.rpartition(":")
    if not colon:
        return LOCAL, check_instance(instance)
    if config.remote(check_remote(remote)) is None:
        raise Rejected("unknown_remote", f"The remote {remote!r} is not configured.")
    return remote, check_instance(instance)


def read_query(query: bytes, known: frozenset[str]) -> dict[str, str]:
    """The parameters of a query string; every one must be `known` and be given once."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError as error:
        raise Rejected("bad_query", "The query string cannot be read.") from error
    parameters = dict(pairs)
    unknown = parameters.keys() - known
    if unknown:
        raise Rejected("bad_query", f"The parameter {printable(min(unknown))!r} is not known here.")
    if len(parameters) != len(pairs):
        raise Rejected("bad_query", "A parameter is given twice.")
    return parameters


def refuse_parameters(query: bytes) -> None:
    """For an address that has headers for them: refuse the options of an upload in its query; ignore all else there."""
    found = PUT_PARAMETERS.intersection(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if found:
        raise Rejected("bad_query", f"The parameter {min(found)!r} is not known here: send it as a header.")


def read_length(headers: Headers) -> int | None:
    """The length of the body as announced, or None when it comes in chunks."""
    lengths, encodings = headers.get(b"content-length", []), headers.get(b"transfer-encoding", [])
    if lengths and encodings:
        raise Rejected("bad_length", "Content-Length and Transfer-Encoding contradict each other.")
    _check_wholeness(headers)
    if encodings:
        return None
    if not lengths:
        # An empty body by mistake would empty the file.
        raise Rejected("bad_length", "The length of the body is not stated.")
    if len(set(lengths)) > 1 or not lengths[0].isdigit():
        raise Rejected("bad_length", "Content-Length is not one number.")
    return int(lengths[0])


def _check_wholeness(headers: Headers) -> None:
    """Refuse a body that is not the file itself, and an upload that is only wanted under a condition."""
    if b"content-range" in headers:
        raise Rejected("bad_range")
    if not {coding.lower() for coding in headers.get(b"content-encoding", [])} <= _PLAIN_CODINGS:
        raise Rejected("wrapped_body", "The body has a Content-Encoding.")
    if any(kind.lower().startswith(_FORM) for kind in headers.get(b"content-type", [])):
        raise Rejected("wrapped_body", "The body is a form.")
    if not _CONDITIONS.isdisjoint(headers):
        raise Rejected("bad_condition")


def read_mode(text: str | None) -> int | None:
    """Permission bits from octal digits, or None."""
    if text is None:
        return None
    if not _MODE.fullmatch(text):
        raise Rejected("bad_mode", f"The mode {printable(text)!r} is not legal.")
    return int(text, 8)


def read_owner(text: str | None) -> int | None:
    """A uid or gid, or None."""
    if text is None:
        return None
    if not (_NUMBER.fullmatch(text) and int(text) <= MAX_OWNER):
        raise Rejected("bad_owner", f"The uid or gid {printable(text)!r} is not legal.")
    return int(text)


def read_flag(text: str | None, default: bool) -> bool:
    """A yes/no value: true, false, 1 or 0."""
    if text is None:
        return default
    flag = _FLAGS.get(text.lower())
    if flag is None:
        raise Rejected("bad_flag", f"{printable(text)!r} is neither true nor false.")
    return flag


def unescape(text: str, code: str) -> str:
    """Undo the percent-encoding of a part of an address; raise Rejected(code) unless it is sound UTF-8.

    An encoded slash or NUL and a bare '#' are refused: whoever checked the address before us may have read it
    differently.
    """
    raw = text.encode("ascii")
    if b"#" in raw:
        raise Rejected(code, "A '#' in the address must be written %23.")
    if _BROKEN_ESCAPE.search(raw):
        raise Rejected(code, "A percent sign in the address is not followed by two hexadecimal digits.")
    if b"%2f" in raw.lower() or b"%00" in raw:
        raise Rejected(code, "An encoded slash or NUL is not allowed in the address.")
    try:
        return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(code, "The address is not UTF-8.") from error


def _displayed(name: str) -> str:
    shown = "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in name)
    return shown[:MAX_DISPLAY_NAME]


def _project_of(remote: str, config: Config) -> str:
    described = config.remote(remote)
    return check_project(described.project if described else "default")


def _header(headers: Headers, name: bytes, code: str) -> str | None:
    values = headers.get(name)
    if values is None:
        return None
    label = name.decode("ascii")
    if len(values) > 1:
        raise Rejected(code, f"The header {label} is given twice.")
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(code, f"The header {label} is not UTF-8.") from error


def _idempotency_key(headers: Headers) -> str | None:
    key = _header(headers, b"idempotency-key", "bad_idempotency_key")
    if key is not None and not _KEY.fullmatch(key):
        raise Rejected("bad_idempotency_key")
    return key


def _digests(headers: Headers) -> frozenset[str]:
    fields = headers.get(b"repr-digest", []) + headers.get(b"content-digest", [])
    return announced(field.decode("latin-1") for field in fields)
