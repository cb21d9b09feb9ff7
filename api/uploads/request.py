"""What a request says, read from its headers and its address alone: pure functions, nothing is waited for.

Guarantees: the text that comes out is UTF-8, every name in it is legal, and one request means one thing: a
header or parameter that is given twice, or that is not known, is an error. Refusals are raised as Rejected.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from api.http.description import Parameter, names
from api.http.parameters import (
    Headers,
    header,
    read_flag,
    read_instance,
    read_mode,
    read_owner,
    read_query,
    unescape,
)
from api.uploads.digests import Digest, announced
from api.uploads.fields import (
    CONTAINER_NAME,
    CREATE_DIRS,
    FILE_GID,
    FILE_MODE,
    FILE_PATH,
    FILE_UID,
    HOST_PATH,
    IDEMPOTENCY_KEY,
    PUT_QUERY,
)
from daemon.config import Config
from daemon.errors import Rejected
from daemon.model.names import CONTROL, check_path, check_project
from daemon.model.upload import Destination, is_traceparent

#: The parameters that PUT knows.
PUT_PARAMETERS: Final = names(PUT_QUERY)

_KEY: Final = re.compile(IDEMPOTENCY_KEY.schema["pattern"])
#: Content-Encodings that change nothing.
_PLAIN_CODINGS: Final = {b"identity", b""}
_FORM: Final = b"multipart/form-data"
#: Headers that make a PUT depend on what is there (RFC 9110, 13.1).
_CONDITIONS: Final = frozenset({b"if-match", b"if-none-match", b"if-unmodified-since"})
#: A path as Windows has it: after a drive's letter, or of another machine (UNC).
WINDOWS_PATH: Final = re.compile(r"[A-Za-z]:[/\\]|\\\\")
#: A display name is cut to this many characters.
MAX_DISPLAY_NAME: Final = 255


class UploadRequest(NamedTuple):
    """All that a request says about its upload before the first byte of the body."""

    destination: Destination
    #: The file's name at the sender, for people.
    display_name: str
    mode: int | None
    uid: int | None
    gid: int | None
    #: None: as it is configured.
    mkdirs: bool | None
    idempotency_key: str | None
    #: Digests that the body must have.
    digests: frozenset[Digest]
    #: Content-Length, or None for a chunked body and in a form.
    length: int | None
    #: The name of the identity that sends it; None for an anonymous one.
    client: str | None = None
    #: The trace that the sender told.
    traceparent: str | None = None
    #: True for a file of a form, whose length nobody can state.
    in_form: bool = False


def read_upload(headers: Headers, config: Config) -> UploadRequest:
    """Read a POST /upload: everything is in its headers."""
    remote, instance = read_instance(_given(headers, CONTAINER_NAME) or "")
    path = _given(headers, FILE_PATH) or ""
    offered = last_part(_given(headers, HOST_PATH) or "")
    if path.endswith("/"):
        if offered in {"", ".", ".."}:
            raise Rejected("bad_name")
        path += offered
    return UploadRequest(
        destination=Destination(remote, config.project_of(remote), instance, check_path(path)),
        display_name=displayed(offered or path.rsplit("/", 1)[-1]),
        mode=read_mode(_given(headers, FILE_MODE)),
        uid=read_owner(_given(headers, FILE_UID)),
        gid=read_owner(_given(headers, FILE_GID)),
        mkdirs=read_flag(_given(headers, CREATE_DIRS)),
        idempotency_key=idempotency_key(headers), digests=announced(headers), length=read_length(headers),
        traceparent=traceparent(headers))


def read_put(instance: str, path: str, query: bytes, headers: Headers, config: Config) -> UploadRequest:
    """Read a PUT /v1/instances/{instance}/files/{path}; both parts as they stand in the address, undecoded."""
    remote, name = read_instance(unescape(instance, "bad_instance"))
    parameters = read_query(query, PUT_PARAMETERS)
    project = parameters.get("project")
    return UploadRequest(
        destination=Destination(
            remote, config.project_of(remote) if project is None else check_project(project),
            name, check_path("/" + unescape(path, "bad_path"))),
        display_name=unescape(path.rsplit("/", 1)[-1], "bad_path"),
        mode=read_mode(parameters.get("mode")),
        uid=read_owner(parameters.get("uid")), gid=read_owner(parameters.get("gid")),
        mkdirs=read_flag(parameters.get("mkdirs")),
        idempotency_key=idempotency_key(headers), digests=announced(headers), length=read_length(headers),
        traceparent=traceparent(headers))


def refuse_parameters(query: bytes) -> None:
    """For an address that has headers for them: refuse the options of an upload in its query; ignore all else there."""
    if not query:
        return
    found = PUT_PARAMETERS.intersection(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if found:
        raise Rejected("bad_query", f"The parameter {min(found)!r} is not known here: send it as a header.")


def read_length(headers: Headers) -> int | None:
    """The length of the body as announced, or None when it comes in chunks; `api.http.framing` let in one of both."""
    kinds = headers.get(b"content-type")
    if kinds and any(kind.lower().startswith(_FORM) for kind in kinds):
        raise Rejected("wrapped_body", "The body is a form.")
    return read_form_length(headers)


def read_form_length(headers: Headers) -> int | None:
    """The same for the body of a form."""
    lengths, encodings = headers.get(b"content-length", []), headers.get(b"transfer-encoding", [])
    check_wholeness(headers)
    if encodings:
        return None
    if not lengths:
        # An empty body by mistake would empty the file.
        raise Rejected("bad_length", "The length of the body is not stated.")
    return int(lengths[0])


def check_wholeness(headers: Headers) -> None:
    """Refuse a body that is not the file itself, and an upload that is only wanted under a condition."""
    if b"content-range" in headers:
        raise Rejected("bad_range")
    codings = headers.get(b"content-encoding")
    if codings and not {coding.lower() for coding in codings} <= _PLAIN_CODINGS:
        raise Rejected("wrapped_body", "The body has a Content-Encoding.")
    if not _CONDITIONS.isdisjoint(headers):
        raise Rejected("bad_condition")


def _given(headers: Headers, field: Parameter) -> str | None:
    return header(headers, field.field, field.refuses[0]) if field.field in headers else None


def last_part(host_path: str) -> str:
    """The name of a file at its sender. Outside Windows a backslash is a letter like any other."""
    path = host_path.replace("\\", "/") if WINDOWS_PATH.match(host_path) else host_path
    return path.rsplit("/", 1)[-1]


def displayed(name: str) -> str:
    """The name of a file as it is kept, for people."""
    return CONTROL.sub("\ufffd", name)[:MAX_DISPLAY_NAME]


def idempotency_key(headers: Headers) -> str | None:
    """The key of a request, or None. Raises Rejected('bad_idempotency_key')."""
    key = _given(headers, IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise Rejected("bad_idempotency_key")
    return key


def traceparent(headers: Headers) -> str | None:
    """The trace that a request belongs to, or None: what is no trace is passed over."""
    given = headers.get(b"traceparent", ())
    if len(given) != 1:
        return None
    text = given[0].decode("latin-1")
    return text if is_traceparent(text) else None
