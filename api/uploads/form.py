"""What a form says of its files, read from its head, its fields and the headers of its parts. Pure functions.

Guarantees as in `api.uploads.request`. What is wrong with one file is told apart from what is wrong with all of them:
`read_head`, `Fields` and `read_target` refuse the form, `read_file` one file of it.

Sources: RFC 7578; the HTML standard, "multipart/form-data encoding algorithm", for the names of files.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from api.http.parameters import Headers, read_flag, read_instance, read_mode, read_owner
from api.uploads.digests import announced
from api.uploads.fields import FILE_PATH, INSTANCE_IN_ADDRESS, PUT_QUERY
from api.uploads.form_body import MAX_FILES
from api.uploads.request import (
    WINDOWS_PATH,
    UploadRequest,
    displayed,
    idempotency_key,
    last_part,
    read_form_length,
    traceparent,
)
from daemon.config import Config
from daemon.errors import Rejected
from daemon.model.names import CONTROL, MAX_PATH_BYTES, check_path, check_project, printable
from daemon.model.schema import many, request, saying
from daemon.model.upload import Destination

#: The fields that a form may have, by their names.
_FIELDS: Final = {
    "instance": saying(INSTANCE_IN_ADDRESS.schema, INSTANCE_IN_ADDRESS.meaning),
    "path": saying(FILE_PATH.schema, "where to: absolute. If it ends in `/` it is a directory; files keep their names"),
    **{parameter.name: saying(parameter.schema, parameter.meaning) for parameter in PUT_QUERY},
}
FIELDS: Final = _FIELDS.keys()
#: A form, as far as that can be said.
FORM: Final = request("Form", {
    **_FIELDS, "file": saying(many({"type": "string", "format": "binary"}, least=1, most=MAX_FILES),
                              "the files, after all else; their fields may have any other name, too"),
}, required=["instance", "path", "file"])
#: No field has more bytes.
MAX_FIELD_BYTES: Final = MAX_PATH_BYTES
#: What follows the key of a form, to tell the keys of its files apart.
_MAX_SUFFIX: Final = len(f"/{MAX_FILES - 1}")
_MAX_KEY: Final = 255 - _MAX_SUFFIX

_TYPE: Final = re.compile(r"multipart/form-data[ \t]*(;.*)?", re.IGNORECASE)
_DISPOSITION: Final = re.compile(r"form-data[ \t]*(;.*)?", re.IGNORECASE)
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: A parameter of a header. A browser writes a backslash as it is, other clients put one before a quote.
_PARAMETER: Final = re.compile(rf';[ \t]*({_TOKEN})=(?:"((?:[^"\\]|\\.)*)"|"([^"]*)"|([^;" \t]*))[ \t]*(?=;|\Z)')
_ESCAPED: Final = re.compile(r'\\(["\\])')
#: What browsers write for what would end a name.
_BROWSER_ESCAPE: Final = re.compile("%(22|0D|0A)", re.IGNORECASE)
_ENCODED_NAME: Final = re.compile(r"utf-8'[A-Za-z0-9-]*'(.*)", re.IGNORECASE)
#: Codings of a part that change nothing.
_PLAIN_CODINGS: Final = frozenset({b"", b"identity", b"7bit", b"8bit", b"binary"})
_CODINGS: Final = (b"content-encoding", b"content-transfer-encoding")


@dataclass(frozen=True, kw_only=True)
class FormHead:
    """What the head of a request says of its form."""

    boundary: bytes
    #: Of the whole form; None for a chunked body.
    length: int | None
    idempotency_key: str | None
    traceparent: str | None


def read_head(headers: Headers) -> FormHead:
    """Read the head of a form. Raises Rejected."""
    types = headers.get(b"content-type", [])
    found = _TYPE.fullmatch(types[0].decode("latin-1")) if len(types) == 1 else None
    if found is None:
        raise Rejected("not_a_form")
    if announced(headers):
        raise Rejected("unchecked_digest", "Digests are checked of files alone: send each with the part of its file.")
    key = idempotency_key(headers)
    if key is not None and len(key) > _MAX_KEY:
        raise Rejected("bad_idempotency_key", f"The key of a form has at most {_MAX_KEY} characters.")
    boundary = _parameters(found[1] or "").get("boundary", "")
    return FormHead(boundary=boundary.encode("latin-1"), length=read_form_length(headers), idempotency_key=key,
                    traceparent=traceparent(headers))


def _parameters(text: str) -> dict[str, str]:
    """The parameters of a header's value, which all have to be legal. Raises Rejected('bad_form')."""
    found, end = dict[str, str](), 0
    while end < len(text):
        match = _PARAMETER.match(text, end)
        if match is None or match[1].lower() in found:
            raise Rejected("bad_form", f"The parameters {printable(text)!r} are not legal.")
        found[match[1].lower()] = next((value for value in match.groups()[1:] if value is not None), "")
        end = match.end()
    return found


@dataclass(frozen=True)
class PartHead:
    """What a part says of itself."""

    #: The field's name.
    name: str
    #: The file's name as it was sent; None: it is no file.
    filename: str | None
    headers: Headers


def read_part(headers: Headers) -> PartHead:
    """Read the headers of a part. Raises Rejected('bad_form')."""
    values = headers.get(b"content-disposition", [])
    # What is not UTF-8 may be a name, and is refused as one.
    found = _DISPOSITION.fullmatch(values[0].decode("utf-8", "surrogateescape")) if len(values) == 1 else None
    if found is None:
        raise Rejected("bad_form", "A part of the form has no legal Content-Disposition.")
    parameters = _parameters(found[1] or "")
    filename = parameters.get("filename")
    return PartHead(
        name=_unescaped(parameters.get("name", "")),
        filename=_decoded(parameters.get("filename*")) if filename is None else _unescaped(filename), headers=headers)


def _unescaped(text: str) -> str:
    """What was meant by the text between two quotes, of whichever client."""
    # On Windows no name has a backslash: there it separates, and not everybody doubles it.
    plain = text if WINDOWS_PATH.match(text) else _ESCAPED.sub(r"\1", text)
    return _BROWSER_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), plain)


def _decoded(text: str | None) -> str | None:
    """A name as RFC 8187 has it: forms should not, but there are clients that send it and nothing besides."""
    found = _ENCODED_NAME.fullmatch(text or "")
    if found is None:
        return text
    return unquote_to_bytes(found[1].encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


@dataclass
class Fields:
    """The fields of a form, as they come."""

    values: dict[str, str] = field(default_factory=dict)

    def check(self, part: PartHead, *, late: bool) -> None:
        """Raise Rejected('bad_field') unless a field may come now; `late`: there was a file already."""
        if any(kind.lower().startswith(b"multipart/") for kind in part.headers.get(b"content-type", [])):
            raise Rejected("bad_field", "Parts within a part are not read: send each file as a part of its own.")
        if part.name not in FIELDS:
            known = ", ".join(sorted(FIELDS))
            raise Rejected("bad_field", f"The field {printable(part.name)!r} is not known here; known are {known}.")
        if late:
            raise Rejected("bad_field", f"The field {part.name!r} comes after a file.")
        if part.name in self.values:
            raise Rejected("bad_field", f"The field {part.name!r} is given twice.")

    def add(self, part: PartHead, value: bytes) -> None:
        """Take the value of a field. Raises Rejected('bad_field')."""
        if len(value) > MAX_FIELD_BYTES:
            raise Rejected("bad_field", f"The field {part.name!r} has more than {MAX_FIELD_BYTES} bytes.")
        try:
            self.values[part.name] = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Rejected("bad_field", f"The field {part.name!r} is not UTF-8.") from error


@dataclass(frozen=True, kw_only=True)
class FormTarget:
    """Where the files of a form go, and how."""

    remote: str
    project: str
    instance: str
    #: A directory's ends in a slash.
    path: str
    mode: int | None
    uid: int | None
    gid: int | None
    mkdirs: bool | None
    idempotency_key: str | None
    traceparent: str | None = None


def read_target(fields: Mapping[str, str], key: str | None, config: Config) -> FormTarget:
    """What the fields say; one that was left empty is not there. Raises Rejected."""
    given = {name: value for name, value in fields.items() if value}
    remote, instance = read_instance(given.get("instance", ""))
    path, project = given.get("path", ""), given.get("project")
    check_path(f"{path}x" if path.endswith("/") else path)
    return FormTarget(
        remote=remote, project=config.project_of(remote) if project is None else check_project(project),
        instance=instance, path=path, mode=read_mode(given.get("mode")), uid=read_owner(given.get("uid")),
        gid=read_owner(given.get("gid")), mkdirs=read_flag(given.get("mkdirs")), idempotency_key=key)


def read_file(target: FormTarget, part: PartHead, number: int, taken: Collection[str]) -> UploadRequest:
    """What the file that is the `number`th of its form asks for, from 0; `taken` are the paths of those before.

    Raises Rejected.
    """
    name = last_part(part.filename or "")
    path = target.path
    if path.endswith("/"):
        if name in {"", ".", ".."} or CONTROL.search(name) or not _is_unicode(name):
            raise Rejected("bad_name", f"{printable(name)!r} cannot be the name of a file.")
        path += name
    if path in taken:
        raise Rejected("same_path")
    _check_codings(part.headers)
    return UploadRequest(
        destination=Destination(target.remote, target.project, target.instance, check_path(path)),
        display_name=displayed(name if name and _is_unicode(name) else path.rsplit("/", 1)[-1]),
        mode=target.mode, uid=target.uid, gid=target.gid, mkdirs=target.mkdirs,
        idempotency_key=None if target.idempotency_key is None else f"{target.idempotency_key}/{number}",
        digests=announced(part.headers), length=None, traceparent=target.traceparent, in_form=True)


def _check_codings(headers: Headers) -> None:
    """Refuse bytes that are not those of the file."""
    if any(coding.lower() not in _PLAIN_CODINGS for name in _CODINGS for coding in headers.get(name, [])):
        raise Rejected("wrapped_body", "The file is encoded.")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
