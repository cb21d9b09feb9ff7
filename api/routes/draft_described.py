"""What the addresses of the IETF's draft do, for people and programs; `api.routes.draft` does it."""

from dataclasses import replace
from typing import Final

from api.http.description import LOCATION, Content, Description, Outcome, Parameter, Where
from api.resumable import draft_headers
from api.routes import resumable
from api.routes.resumable import (
    CREATION_REFUSALS,
    END_REFUSALS,
    LOOK_REFUSALS,
    LOOK_STATUSES,
    PART_REFUSALS,
    PART_STATUSES,
    UPLOAD_IN_ADDRESS,
)
from api.uploads.fields import (
    ACCEPTED_HEADERS,
    IDEMPOTENCY_KEY,
    INSTANCE_IN_ADDRESS,
    PATH_IN_ADDRESS,
    PREFER,
    PUT_QUERY,
    REPR_DIGEST,
    TRACEPARENT,
)
from daemon.model.schema import answer, one_of, text
from daemon.model.view import WHOLE_TASK

_GROUP: Final = "Resumable uploads: the IETF's draft"
_SHELL: Final = "curl -H 'Upload-Draft-Interop-Version: 6'"
_FILE: Final = "http://127.0.0.1:8420/v1/instances/web1/files/srv/report.pdf"
_COMPLETE: Final = Parameter(name="Upload-Complete", meaning="`?1` once its task is in the queue",
                             schema=one_of(["?0", "?1"]), place=Where.HEADER, required=True)
_LIMIT: Final = Parameter(
    name="Upload-Limit", meaning="`max-size`: the largest file, in bytes; `max-age`: so many seconds it is kept",
    schema=text(), place=Where.HEADER)
_STANDS: Final = (_COMPLETE, resumable.OFFSET, resumable.LENGTH, _LIMIT, resumable.TASK)
_ENDED_HEADERS: Final = (*ACCEPTED_HEADERS, _COMPLETE, resumable.OFFSET, resumable.TASK)
#: Headers that the answer to a PUT has when it was resumable.
PUT_HEADERS: Final = tuple(replace(header, required=False) for header in _ENDED_HEADERS[len(ACCEPTED_HEADERS):])
#: The answer to the beginning of a file.
BEGUN: Final = Outcome(
    meaning="It is the beginning of a file. `Location`, relative to this address, says where it goes on.",
    headers=(LOCATION, *_STANDS))
BEGINNING: Final = Description(
    operation_id="postFile", group=_GROUP, summary="Upload a file, or its beginning",
    text="As the `PUT` with these headers. `104` comes before the answer and has `Location`, where the upload can go on"
    " if it is cut off.",
    parameters=(INSTANCE_IN_ADDRESS, PATH_IN_ADDRESS, *PUT_QUERY, draft_headers.IS_COMPLETE, draft_headers.SPEAKS,
                draft_headers.LENGTH, draft_headers.INTERIM, IDEMPOTENCY_KEY, REPR_DIGEST, PREFER,
                TRACEPARENT),
    body=Content(media_type="application/octet-stream", meaning="the bytes of the file, or its first ones"), outcomes={
        201: BEGUN, 202: Outcome(meaning="All of it is safe on the disk, and will be delivered.",
                                 headers=_ENDED_HEADERS, content=Content(schema=WHOLE_TASK))},
    refuses=(*CREATION_REFUSALS, "method_not_allowed"),
    example=f"""{_SHELL} -H 'Upload-Complete: ?0' --data-binary @first \\
     {_FILE}""")
LIMITS: Final = Description(
    operation_id="getUploadLimits", group=_GROUP, summary="Which parts are taken, and how much",
    parameters=tuple(replace(part, schema=text(), refuses=()) for part in (INSTANCE_IN_ADDRESS, PATH_IN_ADDRESS)),
    outcomes={204: Outcome(meaning="Uploads here may be resumable.", headers=(
        Parameter(name="Accept-Patch", meaning="the media type of a part", schema=text(), place=Where.HEADER,
                  required=True),
        Parameter(name="Allow", meaning="the methods", schema=text(), place=Where.HEADER, required=True),
        replace(_LIMIT, required=True)))},
    example=f"curl -i -X OPTIONS {_FILE}")
LOOKING: Final = Description(
    operation_id="getResumableUpload", group=_GROUP, summary="How an upload stands",
    text="Ask by `HEAD`. The request that sends to it is ended first. Another's upload looks as if it did not exist.",
    parameters=(UPLOAD_IN_ADDRESS,), outcomes={204: Outcome(meaning="As it is now.", headers=_STANDS)},
    refuses=LOOK_REFUSALS, statuses=LOOK_STATUSES, example="curl -I http://127.0.0.1:8420/v1/resumable/$UPLOAD")
ADDING: Final = Description(
    operation_id="appendToResumableUpload", group=_GROUP, summary="Send a part of a file",
    text="The request that sends to the same upload is ended first. `wrong_offset` comes with `Upload-Offset`, where it"
    " stands.", parameters=(UPLOAD_IN_ADDRESS, draft_headers.OFFSET, draft_headers.IS_COMPLETE, draft_headers.SPEAKS,
                            draft_headers.LENGTH, PREFER),
    body=Content(media_type=draft_headers.PART.decode(), meaning="the next bytes", refuses=("part_type",)), outcomes={
        202: Outcome(meaning="All of it is safe on the disk, and will be delivered.", headers=_ENDED_HEADERS,
                     content=Content(schema={"anyOf": [WHOLE_TASK, answer("ForgottenTask", {"id": text(
                         "of a task of which nothing more is known")})]})),
        204: Outcome(meaning="The part is on the disk.", headers=_STANDS)},
    refuses=PART_REFUSALS, statuses=PART_STATUSES,
    example=f"""{_SHELL} -X PATCH -H 'Upload-Offset: 1000' -H 'Upload-Complete: ?1' \\
     -H 'Content-Type: application/partial-upload' --data-binary @rest http://127.0.0.1:8420/v1/resumable/$UPLOAD""")
ENDING: Final = Description(
    operation_id="deleteResumableUpload", group=_GROUP, summary="End an upload",
    text="The task of a complete one is cancelled, while it waits.", parameters=(UPLOAD_IN_ADDRESS,),
    outcomes={204: Outcome(meaning="It is gone.")}, refuses=END_REFUSALS,
    example="curl -X DELETE http://127.0.0.1:8420/v1/resumable/$UPLOAD")
