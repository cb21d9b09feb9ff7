"""What the addresses of tus do, for people and programs; `api.routes.tus` does it."""

from typing import Final

from api.http.description import LOCATION, Content, Description, Leads, Outcome, Parameter, Where
from api.resumable import tus_headers
from api.routes.resumable import (
    CREATION_REFUSALS,
    END_REFUSALS,
    LENGTH,
    LOOK_REFUSALS,
    LOOK_STATUSES,
    OFFSET,
    PART_REFUSALS,
    PART_STATUSES,
    TASK,
    UPLOAD_IN_ADDRESS,
)
from api.uploads.fields import IDEMPOTENCY_KEY, PREFER, PREFERENCE_APPLIED, REPR_DIGEST, TRACE_KEPT, TRACEPARENT
from daemon.model.schema import one_of, text, whole_number

_GROUP: Final = "Resumable uploads: tus"
_SHELL: Final = "curl -H 'Tus-Resumable: 1.0.0'"
_ADDRESS: Final = "http://127.0.0.1:8420/v1/tus/"
_SPOKEN: Final = Parameter(name="Tus-Resumable", meaning="the version of tus", schema=one_of([tus_headers.VERSION]),
                           place=Where.HEADER, required=True)
_EXPIRES: Final = Parameter(name="Upload-Expires", meaning="when it is forgotten unless more comes; not once complete",
                            schema=text(), place=Where.HEADER)
_STANDS: Final = (_SPOKEN, OFFSET, _EXPIRES, TASK, TRACE_KEPT)
_PART: Final = tus_headers.PART.decode()
#: Where an upload that was made goes on.
_THERE: Final = {"upload_id": "$response.header.Location"}
_NEXT: Final = Leads(operation_id="appendToTusUpload",
                     given={**_THERE, "Upload-Offset": "$response.header.Upload-Offset"})
CREATING: Final = Description(
    operation_id="createTusUpload", group=_GROUP, summary="Make an upload, maybe with its first bytes",
    text="Send one of `Upload-Length` and `Upload-Defer-Length`. At each address of tus a `POST` with"
    " `X-HTTP-Method-Override` stands for a `PATCH` or a `DELETE`. [resumable.md](resumable.md) has more.",
    parameters=(tus_headers.SPEAKS, tus_headers.METADATA, tus_headers.LENGTH, tus_headers.DEFER_LENGTH,
                tus_headers.CHECKSUM, IDEMPOTENCY_KEY, REPR_DIGEST, PREFER, TRACEPARENT),
    body=Content(media_type=_PART, meaning="the first bytes", refuses=("part_type",), required=False),
    outcomes={201: Outcome(
        meaning="It is made. `Location` is its name below this address.",
        headers=(LOCATION, *_STANDS, PREFERENCE_APPLIED), leads=(
            Leads(operation_id="getTusUpload", given=_THERE), _NEXT,
            Leads(operation_id="deleteTusUpload", given=_THERE)))},
    refuses=(*CREATION_REFUSALS, "bad_override"),
    example=f"""{_SHELL} -i -X POST -H 'Upload-Length: 2000' \\
     -H "Upload-Metadata: instance $(printf web1 | base64),path $(printf /srv/a | base64)" {_ADDRESS}""")
TELLING: Final = Description(
    operation_id="getTus", group=_GROUP, summary="What is spoken here", for_everybody=True, outcomes={
        200: Outcome(meaning="The versions, extensions, algorithms and limits.", headers=(
            _SPOKEN,
            Parameter(name="Tus-Version", meaning="the versions", schema=text(), place=Where.HEADER, required=True),
            Parameter(name="Tus-Extension", meaning="the extensions", schema=text(), place=Where.HEADER, required=True),
            Parameter(name="Tus-Max-Size", meaning="the largest file, in bytes", schema=whole_number(0),
                      place=Where.HEADER, required=True),
            Parameter(name="Tus-Checksum-Algorithm", meaning="the algorithms of checksums", schema=text(),
                      place=Where.HEADER, required=True)))},
    example=f"curl -i -X OPTIONS {_ADDRESS}")
TELLING_THERE: Final = Description(
    operation_id="getTusOfUpload", group=_GROUP, summary=TELLING.summary, for_everybody=True,
    text="The same for each upload, whether it is there or not.",
    parameters=(Parameter(name="upload_id", meaning="any", schema=text(), place=Where.PATH, required=True,
                          refuses=()),), outcomes=TELLING.outcomes, example=f"curl -i -X OPTIONS {_ADDRESS}$UPLOAD")
LOOKING: Final = Description(
    operation_id="getTusUpload", group=_GROUP, summary="How an upload stands",
    text="Ask by `HEAD`. The request that sends to it is ended first. Another's upload looks as if it did not exist.",
    parameters=(UPLOAD_IN_ADDRESS, tus_headers.SPEAKS), outcomes={200: Outcome(meaning="As it is now.", headers=(
        *_STANDS, LENGTH,
        Parameter(name="Upload-Defer-Length", meaning="the length is not known yet", schema=one_of(["1"]),
                  place=Where.HEADER),
        Parameter(name="Upload-Metadata", meaning="as it was sent", schema=text(), place=Where.HEADER)))},
    refuses=LOOK_REFUSALS, statuses=LOOK_STATUSES, example=f"{_SHELL} -I {_ADDRESS}$UPLOAD")
ADDING: Final = Description(
    operation_id="appendToTusUpload", group=_GROUP, summary="Send a part of a file",
    text="The request that sends to the same upload is ended first. `wrong_offset` comes with `Upload-Offset`, where it"
    " stands.", parameters=(UPLOAD_IN_ADDRESS, tus_headers.SPEAKS, tus_headers.OFFSET, tus_headers.LATE_LENGTH,
                            tus_headers.CHECKSUM, PREFER),
    body=Content(media_type=_PART, meaning="the next bytes", refuses=("part_type",)), outcomes={204: Outcome(
        meaning="The part is on the disk; with `Task-Id` it was the last one.",
        headers=(*_STANDS, PREFERENCE_APPLIED))},
    refuses=PART_REFUSALS, statuses=PART_STATUSES,
    example=f"""{_SHELL} -X PATCH -H 'Upload-Offset: 0' \\
     -H 'Content-Type: {_PART}' --data-binary @part {_ADDRESS}$UPLOAD""")
ENDING: Final = Description(
    operation_id="deleteTusUpload", group=_GROUP, summary="End an upload",
    text="The task of a complete one is cancelled, while it waits.",
    parameters=(UPLOAD_IN_ADDRESS, tus_headers.SPEAKS),
    outcomes={204: Outcome(meaning="It is gone.", headers=(_SPOKEN,))}, refuses=END_REFUSALS,
    example=f"{_SHELL} -X DELETE {_ADDRESS}$UPLOAD")
