"""What may be said about an upload, and what may come of it: the tables that requests are read by, and described by.

Each parameter stands here once, with what is legal; `api.uploads.request` reads it.
"""

from dataclasses import replace
from typing import Final

from api.http.description import LOCATION, Parameter, Where
from daemon.model.names import INSTANCE, INSTANCE_RULE, PROJECT, PROJECT_RULE, RELATIVE_PATH, REMOTE
from daemon.model.schema import Schema, one_of, text
from daemon.model.upload import MAX_ID, MODE

_MODE: Final = text("three or four octal digits", pattern=MODE)
_OWNER: Final = text(f"a number up to {MAX_ID}", pattern="[0-9]{1,10}")
#: What `read_flag` reads.
FLAG: Final = text("`true`, `false`, `1` or `0`", pattern="[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[01]")
_INSTANCE: Final = text(INSTANCE_RULE, pattern=f"(?:{REMOTE}:)?{INSTANCE}")
_EXISTING_KEEPS: Final = "an existing file keeps its own, a new one gets `delivery.{}`"


#: What any header may have.
_ANY: Final = r"[^\x00-\x08\x0a-\x1f\x7f]*"


def _header(
    name: str, meaning: str, schema: Schema, code: str, *, required: bool = False, without: str = "",
) -> Parameter:
    return Parameter(name=name, meaning=meaning, schema=schema, place=Where.HEADER, required=required, without=without,
                     refuses=(code,))


PROJECT_PARAMETER: Final = Parameter(name="project", meaning="the instance's project",
                                     schema=text(PROJECT_RULE, pattern=PROJECT),
                                     without="the remote's `project`", refuses=("bad_project",))
MODE_PARAMETER: Final = Parameter(name="mode", meaning="permission bits, octal", schema=_MODE,
                                  without=_EXISTING_KEEPS.format("mode"), refuses=("bad_mode",))
UID: Final = Parameter(name="uid", meaning="owner, numeric, as seen in the instance", schema=_OWNER,
                       without=_EXISTING_KEEPS.format("uid"), refuses=("bad_owner",))
GID: Final = Parameter(name="gid", meaning="group, likewise", schema=_OWNER, without=_EXISTING_KEEPS.format("gid"),
                       refuses=("bad_owner",))
MKDIRS: Final = Parameter(name="mkdirs", meaning="make missing directories, down to 128 below the root", schema=FLAG,
                          without="`delivery.mkdirs`", refuses=("bad_flag",))
#: The parameters that PUT knows.
PUT_QUERY: Final = (PROJECT_PARAMETER, MODE_PARAMETER, UID, GID, MKDIRS)

INSTANCE_IN_ADDRESS: Final = Parameter(
    name="instance", meaning="the instance; `remote:instance` names one of a remote from the configuration",
    schema=_INSTANCE, place=Where.PATH, required=True, refuses=("bad_instance", "unknown_remote"))
#: It may hold slashes, which OpenAPI cannot say of a part of an address.
PATH_IN_ADDRESS: Final = Parameter(
    name="path", meaning="where to, below the root: normalised UTF-8, no `..`, no `//`, no control characters, no"
    " `%2F`, no component over 255 bytes", schema=text("at most 4095 bytes", pattern=RELATIVE_PATH), place=Where.PATH,
    required=True, refuses=("bad_path",))

CONTAINER_NAME: Final = _header("X-Container-Name", "the instance, or `remote:instance`", _INSTANCE, "bad_instance",
                                required=True)
FILE_PATH: Final = _header(
    "X-File-Path", "where to: absolute. If it ends in `/` it is a directory, and the display name is appended",
    text("as the path of a PUT, with a slash before it", pattern=f"/(?:{RELATIVE_PATH}/?)?"), "bad_path", required=True)
HOST_PATH: Final = _header(
    "X-Host-Path", "the file's original name; its last part is the display name. A backslash separates parts after a"
    " drive letter (`C:\\`) or in a share (`\\\\server\\`), else it belongs to the name",
    text("any text", pattern=_ANY), "bad_name", without="the last part of `X-File-Path`")
FILE_MODE: Final = _header("X-File-Mode", MODE_PARAMETER.meaning, _MODE, "bad_mode", without=MODE_PARAMETER.without)
FILE_UID: Final = _header("X-File-Uid", UID.meaning, _OWNER, "bad_owner", without=UID.without)
FILE_GID: Final = _header("X-File-Gid", GID.meaning, _OWNER, "bad_owner", without=GID.without)
CREATE_DIRS: Final = _header("X-Create-Dirs", MKDIRS.meaning, FLAG, "bad_flag", without=MKDIRS.without)
#: The headers that POST /upload knows.
UPLOAD_HEADERS: Final = (CONTAINER_NAME, FILE_PATH, HOST_PATH, FILE_MODE, FILE_UID, FILE_GID, CREATE_DIRS)

IDEMPOTENCY_KEY: Final = _header(
    "Idempotency-Key", "sending the same upload again with the same key gives the same task; a different upload to the"
    " same instance with it is refused. For another instance it is another key",
    text("1 to 255 visible ASCII characters", pattern=r"[\x21-\x7e]{1,255}"), "bad_idempotency_key")
_DIGEST: Final = text("`sha-256=:BASE64:` or `sha-512=:BASE64:`; with commas, several")
REPR_DIGEST: Final = _header(
    "Repr-Digest", "a digest of the bytes (RFC 9530), which are refused when they do not have it. Other algorithms are"
    " ignored beside one of these", _DIGEST, "bad_digest")
CONTENT_DIGEST: Final = _header("Content-Digest", "likewise", _DIGEST, "bad_digest")
#: What `api.http.prefer` reads; what it cannot read is never refused.
PREFER: Final = Parameter(
    name="Prefer", meaning="with `wait=N` (RFC 7240) it is answered as soon as the outcome is known, or after N"
    " seconds, of which there are `api.max_wait_s` at most", schema=text("`wait=N`; all else is ignored"),
    place=Where.HEADER, without="it is answered at once", refuses=())
#: Whatever it is, it is never refused: its pattern is that of any header.
TRACEPARENT: Final = Parameter(
    name="traceparent", meaning="the trace that the upload belongs to (W3C Trace Context): it is kept with the task and"
    " stands in its log lines. What is no trace is passed over", schema=text("as the W3C has it", pattern=_ANY),
    place=Where.HEADER, refuses=())
#: The headers of any upload.
COMMON_HEADERS: Final = (IDEMPOTENCY_KEY, REPR_DIGEST, CONTENT_DIGEST, PREFER, TRACEPARENT)
#: The headers of any form.
FORM_HEADERS: Final = (replace(
    IDEMPOTENCY_KEY, meaning="sending the same form again with the same key gives the same tasks: the key of the first"
    " file is this one with `/0` behind it, and so on",
    schema=text("1 to 251 visible ASCII characters", pattern=r"[\x21-\x7e]{1,251}")), PREFER, TRACEPARENT)

_RATE_POLICY: Final = Parameter(name="RateLimit-Policy", meaning="the rates of who sent it, when he has any",
                                schema=text(), place=Where.HEADER)
_RATE: Final = Parameter(name="RateLimit", meaning="how much of them is left", schema=text(), place=Where.HEADER)
REPLAYED: Final = Parameter(name="Idempotency-Replayed", meaning="the key was used before: this is that upload's task",
                            schema=one_of(["true"]), place=Where.HEADER)
PREFERENCE_APPLIED: Final = Parameter(name="Preference-Applied", schema=text(), place=Where.HEADER,
                                      meaning="`wait=N`: it was heeded, for N seconds at most")
TRACE_KEPT: Final = Parameter(name="traceparent", schema=text(), place=Where.HEADER,
                              meaning="the trace that was kept, if one was told")
#: The headers of the answer to a form of which something was taken.
FORM_ANSWER_HEADERS: Final = (_RATE_POLICY, _RATE, PREFERENCE_APPLIED, TRACE_KEPT)
#: The headers of the answer to an upload that was taken.
ACCEPTED_HEADERS: Final = (LOCATION, REPLAYED, *FORM_ANSWER_HEADERS)

#: Codes of what decides about who may upload what.
RIGHTS_REFUSALS: Final = (
    "action_not_allowed", "address_not_allowed", "remote_not_allowed", "project_not_allowed", "instance_not_allowed",
    "path_not_allowed", "mkdirs_not_allowed", "mode_not_allowed", "owner_not_allowed", "size_not_allowed", "used_up",
    "rate_limited", "too_many_pending")
#: Codes with which any upload may be refused, whichever way it comes.
UPLOAD_REFUSALS: Final = (
    *RIGHTS_REFUSALS, "other_cell", "no_cell", "not_adopted", "unknown_remote", "bad_length", "bad_range",
    "wrapped_body", "bad_condition", "unchecked_digest", "digest_mismatch", "idempotency_mismatch", "incomplete_body",
    "too_slow", "too_large", "draining", "backlog_full", "too_busy", "no_room", "storage_failed", "outcome_unknown",
    "queue_unreadable", "delegation_unreadable")
