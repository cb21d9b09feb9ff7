"""What the addresses of uploads and tasks do, for people and programs; `api.routes.app` does it."""

from typing import Final

from api.http.description import Content, Description, Leads, Outcome
from api.http.response import TEXT
from api.queries.task_query import PAGE, PAGE_PARAMETERS
from api.resumable import draft_headers
from api.routes.draft_described import BEGUN, PUT_HEADERS
from api.routes.one_task import TASK_IN_ADDRESS
from api.routes.resumable import CREATION_REFUSALS
from api.uploads.fields import (
    ACCEPTED_HEADERS,
    COMMON_HEADERS,
    INSTANCE_IN_ADDRESS,
    PATH_IN_ADDRESS,
    PREFER,
    PREFERENCE_APPLIED,
    PUT_QUERY,
    UPLOAD_HEADERS,
    UPLOAD_REFUSALS,
)
from daemon.model.schema import text
from daemon.model.view import WHOLE_TASK

_UPLOADS: Final = "Uploads"
_TASKS: Final = "Tasks"
_FILE: Final = Content(media_type="application/octet-stream", meaning="the bytes of the file, as they are")
#: What a task's id in an answer leads to.
_TO_TASK: Final = Leads(operation_id="getTask", given={"task_id": "$response.body#/id"})
#: And what can be done with it.
_TO_ACTIONS: Final = tuple(Leads(operation_id=name, given=_TO_TASK.given) for name in (
    "cancelTask", "holdTask", "releaseTask", "retryTask", "deleteTask", "getContent"))
POSTING: Final = Description(
    operation_id="postUpload", group=_UPLOADS, summary="Upload a file, with its destination in headers",
    text="Header values are raw UTF-8. Refusals are plain text; the code comes last, in brackets.",
    parameters=(*UPLOAD_HEADERS, *COMMON_HEADERS), body=_FILE, outcomes={202: Outcome(
        meaning="It is safe on the disk, and will be delivered.", headers=ACCEPTED_HEADERS, content=Content(
            media_type=TEXT, schema=text(
                "`File '<display name>' queued for processing on container '<instance>'.`")))},
    refuses=(*UPLOAD_REFUSALS, "bad_query"),
    example="""curl --data-binary @report.pdf -H 'X-Container-Name: web1' -H 'X-File-Path: /srv/report.pdf' \\
     http://127.0.0.1:8420/upload""")
PUTTING: Final = Description(
    operation_id="putFile", group=_UPLOADS, summary="Upload a file",
    text="The body is the file. A form (`curl -F`) or a `Content-Encoding` is refused. With `Expect: 100-continue` a"
    " client learns of a refusal before it sends the file. With `Upload-Complete` it is resumable by the IETF's draft;"
    " [resumable.md](resumable.md) has more.",
    parameters=(INSTANCE_IN_ADDRESS, PATH_IN_ADDRESS, *PUT_QUERY, *COMMON_HEADERS, *draft_headers.OPTIONAL), body=_FILE,
    outcomes={
        201: BEGUN,
        202: Outcome(
            meaning="It is safe on the disk, and will be delivered.", headers=(*ACCEPTED_HEADERS, *PUT_HEADERS),
            leads=(_TO_TASK, *_TO_ACTIONS), content=Content(schema=WHOLE_TASK))},
    refuses=CREATION_REFUSALS, example="curl -T report.pdf"
    " 'http://127.0.0.1:8420/v1/instances/web1/files/srv/report.pdf?mode=0640&uid=1000&gid=1000&mkdirs=true'")
LISTING: Final = Description(
    operation_id="listTasks", group=_TASKS, summary="A page of tasks, newest first",
    text="This needs the right `read`. What somebody may not see is left out.", parameters=PAGE_PARAMETERS,
    outcomes={200: Outcome(meaning="A page of them.", content=Content(schema=PAGE), leads=(
        Leads(operation_id="getTask", given={"task_id": "$response.body#/tasks/0/id"}),))},
    refuses=("action_not_allowed", "address_not_allowed", "other_cell", "too_busy", "queue_unreadable", "no_room"),
    example="curl 'http://127.0.0.1:8420/v1/tasks?state=failed,held&instance=web1&limit=10'")
SHOWING: Final = Description(
    operation_id="getTask", group=_TASKS, summary="How a task stands",
    text="What somebody may not see looks as if it did not exist.", parameters=(TASK_IN_ADDRESS, PREFER), outcomes={
        200: Outcome(meaning="As it is now.", content=Content(schema=WHOLE_TASK), headers=(PREFERENCE_APPLIED,),
                     leads=_TO_ACTIONS)},
    refuses=("bad_query", "queue_unreadable", "no_room"), example="curl http://127.0.0.1:8420/v1/tasks/$ID")
