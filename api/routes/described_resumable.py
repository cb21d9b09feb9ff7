"""What the addresses of resumable uploads do, for people and programs; `api.routes.tus` and `draft` do it."""

from typing import Final

from api.http.description import LOCATION, Content, Description, Outcome, Parameter, Where
from api.resumable import draft_headers, tus_headers
from api.uploads.fields import INSTANCE_IN_ADDRESS, PATH_IN_ADDRESS, PUT_QUERY, UPLOAD_REFUSALS
from daemon.model.schema import text, whole_number
from daemon.model.view import WHOLE_TASK

_TUS: Final = "Resumable uploads (tus)"
_DRAFT: Final = "Resumable uploads (the IETF's draft)"
_MOST: Final = 10**18 - 1
_FIND: Final = ("upload_not_found", "upload_busy", "bad_query", "storage_failed", "queue_unreadable", "no_room")
_END: Final = (*_FIND, "not_cancellable", "draining")
_PART: Final = (
    *UPLOAD_REFUSALS, *_FIND, "part_type", "bad_upload_header", "wrong_offset", "upload_completed",
    "inconsistent_length", "beyond_length", "too_many_partials")


def _header(
    name: str, meaning: str, *refuses: str, number: bool = False, required: bool = False, **schema: object,
) -> Parameter:
    return Parameter(name=name, meaning=meaning, schema={**(whole_number(0, _MOST) if number else text()), **schema},
                     place=Where.HEADER, required=required, refuses=refuses)


_UPLOAD: Final = Parameter(name="upload_id", meaning="the id of the upload, as `Location` has it", schema=text(),
                           place=Where.PATH, required=True, refuses=("upload_not_found",))
_OFFSET: Final = _header("Upload-Offset", "where the part begins", "bad_upload_header", number=True, required=True)
_STANDS: Final = _header("Upload-Offset", "so many bytes are on the disk", number=True, required=True)
_TASK: Final = _header("Task-Id", "the task that it became, once it is complete")
_EXPIRES: Final = _header("Upload-Expires", "when it is forgotten unless more comes")
_NEVER_KEPT: Final = _header("Cache-Control", "`no-store`", required=True)
_VERSION: Final = _header("Tus-Resumable", "the version that is spoken", "tus_version", required=True,
                          enum=[tus_headers.VERSION])
_SAYS_VERSION: Final = _header("Tus-Resumable", "the version that is spoken", required=True)
_OVERRIDE: Final = _header("X-HTTP-Method-Override", "the method that a POST stands for", "bad_override",
                           enum=["PATCH", "DELETE"])
_METADATA: Final = _header("Upload-Metadata", "keys and values in base64, with commas in between", "bad_metadata")
_CHECKSUM: Final = _header("Upload-Checksum", "algorithm and digest of the part, in base64", "bad_checksum",
                           "checksum_mismatch")
_LATE_LENGTH: Final = _header("Upload-Length", "the length of the whole file", "bad_upload_header", number=True)
_DEFERRED: Final = _header("Upload-Defer-Length", "`1`: its length comes later", "bad_upload_header", enum=["1"])
_TUS_ANSWER: Final = (_STANDS, _EXPIRES, _TASK, _NEVER_KEPT, _SAYS_VERSION)
_TUS_PART: Final = Content(media_type=tus_headers.PART.decode(), meaning="bytes of the file", required=False)

TUS_OPTIONS: Final = Description(
    operation_id="askTus", group=_TUS, summary="What is spoken here", for_everybody=True,
    outcomes={200: Outcome(meaning="Version, extensions, limits and algorithms.", headers=tuple(
        _header(name, "as in tus", required=True)
        for name in ("Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm")))},
    example="curl -X OPTIONS -i http://127.0.0.1:8420/v1/tus/")
TUS_OPTIONS_ONE: Final = Description(
    operation_id="askTusUpload", group=_TUS, summary="What is spoken here", for_everybody=True, parameters=(_UPLOAD,),
    outcomes=TUS_OPTIONS.outcomes,
    example="curl -X OPTIONS -i http://127.0.0.1:8420/v1/tus/$UPLOAD")
TUS_POST: Final = Description(
    operation_id="createTusUpload", group=_TUS, summary="Make an upload, and send its first part",
    text="[resumable.md](resumable.md) has the keys of the metadata, and examples for clients.",
    parameters=(_VERSION, _OVERRIDE, _LATE_LENGTH, _DEFERRED, _METADATA, _CHECKSUM), body=_TUS_PART,
    outcomes={201: Outcome(meaning="It is made; its address is told relative to this one.",
                           headers=(LOCATION, *_TUS_ANSWER))},
    refuses=(*_PART, "bad_instance", "bad_path", "bad_name", "bad_project", "bad_mode", "bad_owner", "bad_flag"),
    example="curl -i -X POST -H 'Tus-Resumable: 1.0.0' -H 'Upload-Length: 3' -H 'Upload-Metadata: instance "
    "d2ViMQ==,path L3Nydi9h' http://127.0.0.1:8420/v1/tus/")
TUS_HEAD: Final = Description(
    operation_id="getTusUpload", group=_TUS, summary="How an upload stands", parameters=(_UPLOAD, _VERSION),
    text="Trouble that passes by itself is answered with `423`.", outcomes={200: Outcome(
        meaning="So far it is.", headers=(*_TUS_ANSWER, _LATE_LENGTH, _DEFERRED, _METADATA))},
    refuses=(*_FIND, "bad_override"),
    example="curl -I -H 'Tus-Resumable: 1.0.0' http://127.0.0.1:8420/v1/tus/$UPLOAD")
TUS_PATCH: Final = Description(
    operation_id="patchTusUpload", group=_TUS, summary="Send a part",
    parameters=(_UPLOAD, _VERSION, _OFFSET, _LATE_LENGTH, _CHECKSUM), body=_TUS_PART,
    outcomes={204: Outcome(meaning="It is on the disk.", headers=_TUS_ANSWER)}, refuses=_PART,
    example="curl -X PATCH -H 'Tus-Resumable: 1.0.0' -H 'Upload-Offset: 0' -H 'Content-Type: "
    "application/offset+octet-stream' --data abc http://127.0.0.1:8420/v1/tus/$UPLOAD")
TUS_DELETE: Final = Description(
    operation_id="endTusUpload", group=_TUS, summary="End an upload", parameters=(_UPLOAD, _VERSION),
    text="The task of a complete one is cancelled.",
    outcomes={204: Outcome(meaning="It is gone.", headers=(_SAYS_VERSION, _NEVER_KEPT))}, refuses=_END,
    example="curl -X DELETE -H 'Tus-Resumable: 1.0.0' http://127.0.0.1:8420/v1/tus/$UPLOAD")

_INTEROP: Final = _header(draft_headers.INTEROP, "the version of the draft", "unknown_interop", required=True,
                          enum=["5", "6"])
_COMPLETE: Final = _header("Upload-Complete", "`?1` when the file ends with the body, else `?0`", "bad_upload_header",
                           required=True, enum=["?0", "?1"])
_IS_COMPLETE: Final = _header("Upload-Complete", "`?1` when nothing more is wanted", required=True)
_LIMIT: Final = _header("Upload-Limit", "the largest file, and for how many seconds it is kept")
_DRAFT_ANSWER: Final = (_IS_COMPLETE, _STANDS, _TASK, _LIMIT)
_DRAFT_PART: Final = Content(media_type=draft_headers.PART.decode(), meaning="bytes of the file", required=False)
_ENDED: Final = Outcome(meaning="It is complete, and will be delivered.", content=Content(schema=WHOLE_TASK),
                        headers=(LOCATION, *_DRAFT_ANSWER))

DRAFT_POST: Final = Description(
    operation_id="createUpload", group=_DRAFT, summary="Upload a file, or its beginning",
    text="A `PUT` with these headers is the same. `104` tells before the answer where it can go on.",
    parameters=(INSTANCE_IN_ADDRESS, PATH_IN_ADDRESS, *PUT_QUERY, _INTEROP, _COMPLETE, _LATE_LENGTH),
    body=Content(media_type="application/octet-stream", meaning="bytes of the file", required=False), outcomes={
        201: Outcome(meaning="It is not complete; where it goes on is told relative to this address.",
                     headers=(LOCATION, *_DRAFT_ANSWER)), 202: _ENDED},
    refuses=(*_PART, "bad_instance", "bad_path", "bad_project"),
    example="curl -H 'Upload-Draft-Interop-Version: 6' -H 'Upload-Complete: ?1' -T a "
    "http://127.0.0.1:8420/v1/instances/web1/files/srv/a")
DRAFT_OPTIONS: Final = Description(
    operation_id="askUpload", group=_DRAFT, summary="Whether uploads are resumable, and their limits",
    parameters=(INSTANCE_IN_ADDRESS, PATH_IN_ADDRESS), outcomes={204: Outcome(meaning="They are.", headers=(
        _header("Allow", "the methods", required=True), _header("Accept-Patch", "the type of a part", required=True),
        _LIMIT))},
    example="curl -X OPTIONS -i http://127.0.0.1:8420/v1/instances/web1/files/srv/a")
DRAFT_HEAD: Final = Description(
    operation_id="getUpload", group=_DRAFT, summary="How an upload stands", parameters=(_UPLOAD,),
    text="Trouble that passes by itself is answered with `423`.",
    outcomes={204: Outcome(meaning="So far it is.", headers=(*_DRAFT_ANSWER, _LATE_LENGTH, _NEVER_KEPT))},
    refuses=_FIND,
    example="curl -I http://127.0.0.1:8420/v1/resumable/$UPLOAD")
DRAFT_PATCH: Final = Description(
    operation_id="patchUpload", group=_DRAFT, summary="Send a part",
    parameters=(_UPLOAD, _INTEROP, _COMPLETE, _OFFSET, _LATE_LENGTH), body=_DRAFT_PART, outcomes={
        202: _ENDED, 204: Outcome(meaning="It is on the disk.", headers=_DRAFT_ANSWER)}, refuses=_PART,
    example="curl -X PATCH -H 'Upload-Draft-Interop-Version: 6' -H 'Upload-Complete: ?1' -H 'Upload-Offset: "
    "0' -H 'Content-Type: application/partial-upload' --data abc "
    "http://127.0.0.1:8420/v1/resumable/$UPLOAD")
DRAFT_DELETE: Final = Description(
    operation_id="endUpload", group=_DRAFT, summary="End an upload", parameters=(_UPLOAD,),
    text="The task of a complete one is cancelled.",
    outcomes={204: Outcome(meaning="It is gone.", headers=(_NEVER_KEPT,))}, refuses=_END,
    example="curl -X DELETE http://127.0.0.1:8420/v1/resumable/$UPLOAD")
