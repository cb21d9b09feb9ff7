"""What the addresses of resumable uploads have in common, whatever the protocol: how trouble that passes is told.

Clients for browsers go on where they were, begin anew or give up by the status alone (seen in tus-js-client 4.3.1).
Asked how an upload stands, anything but 423 makes them begin anew. Sending a part, they give up at 4xx but 409 and 423.
"""

from collections.abc import Awaitable
from typing import Final

from api.following.outcomes import Headers, Outcomes
from api.http.description import Parameter, Where
from api.http.problem import LOCKED, REQUEST_TIMEOUT, passes, problem
from api.http.response import Answer, Receive, Scope
from api.resumable.values import Progress
from api.uploads.fields import RIGHTS_REFUSALS, UPLOAD_REFUSALS
from daemon.errors import ERRORS, Rejected
from daemon.model.schema import text, whole_number

#: How an upload stands is asked anew each time.
NO_STORE: Final = ("Cache-Control", "no-store")
_SERVICE_UNAVAILABLE: Final = 503
_TOO_MANY_REQUESTS: Final = 429

UPLOAD_IN_ADDRESS: Final = Parameter(name="upload_id", meaning="the upload", schema=text(), place=Where.PATH,
                                     required=True, refuses=("upload_not_found",))
#: Headers of answers.
OFFSET: Final = Parameter(name="Upload-Offset", meaning="so many bytes are on the disk", schema=whole_number(0),
                          place=Where.HEADER, required=True)
LENGTH: Final = Parameter(name="Upload-Length", meaning="the length of the whole file, once it is known",
                          schema=whole_number(0), place=Where.HEADER)
TASK: Final = Parameter(name="Task-Id", meaning="the task that it became, once it is complete", schema=text(),
                        place=Where.HEADER)


def _never_too_many(codes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(code for code in codes if ERRORS[code].status != _TOO_MANY_REQUESTS)


_STORE: Final = ("storage_failed", "no_room")
_HELD: Final = ("upload_busy", "upload_not_found", *_STORE)
#: Codes of the making of an upload, with its first bytes.
CREATION_REFUSALS: Final = (*UPLOAD_REFUSALS, *_HELD, "bad_query", "too_many_partials", "inconsistent_length",
                            "beyond_length", "upload_completed", "wrong_offset")
#: Codes of a part, and the statuses that some have.
PART_REFUSALS: Final = _never_too_many(CREATION_REFUSALS)
PART_STATUSES: Final = {"too_slow": _SERVICE_UNAVAILABLE}
#: Codes of the question how an upload stands, and the statuses that some have.
LOOK_REFUSALS: Final = ("bad_query", *_HELD)
LOOK_STATUSES: Final = dict.fromkeys(_STORE, LOCKED)
#: Codes of the end of an upload.
END_REFUSALS: Final = _never_too_many((
    *RIGHTS_REFUSALS, *_HELD, "bad_query", "not_cancellable", "unknown_remote", "digest_mismatch",
    "idempotency_mismatch", "outcome_unknown", "queue_unreadable", "delegation_unreadable", "commands_full"))


async def wait(outcomes: Outcomes, scope: Scope, receive: Receive, progress: Progress) -> Headers:
    """Wait for what becomes of an upload that is complete, as its request prefers; headers for the answer."""
    if progress.task_id is None:
        return ()
    return await outcomes.wait(scope, receive, progress.task_id)


async def looked(answer: Awaitable[Answer]) -> Answer:
    """The answer to the question how an upload stands."""
    try:
        return await answer
    except Rejected as error:
        if passes(error):
            return problem(error, status=LOCKED)
        raise


async def added(answer: Awaitable[Answer]) -> Answer:
    """The answer to a part."""
    try:
        return await answer
    except Rejected as error:
        # A line that stood still may go on, and what came is kept.
        if error.kind.status == REQUEST_TIMEOUT:
            return problem(error, status=_SERVICE_UNAVAILABLE)
        raise
