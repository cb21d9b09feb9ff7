"""Refusals as answers: RFC 9457 problem details, and plain text for the clients of /upload."""

from typing import Any, Final

from api.http.response import PROBLEM, Answer, json_answer, text_answer
from daemon.errors import CourierError
from daemon.model.schema import Schema, answer, text, whole_number

#: Who asks is not known, or not believed.
UNAUTHORIZED: Final = 401
#: The rest of the request did not come.
REQUEST_TIMEOUT: Final = 408
#: The address whose clients read plain text.
UPLOAD: Final = "/upload"
#: Where tus 1.0 is spoken: each answer says so.
TUS: Final = "/v1/tus/"
TUS_RESUMABLE: Final = ("Tus-Resumable", "1.0.0")
#: Where those that came by the IETF's draft go on.
RESUMABLE: Final = "/v1/resumable/"
#: The status of what another request has, or what cannot be read just now.
LOCKED: Final = 423
#: The status of a refusal that sends a client elsewhere with the same request (RFC 9110, 15.4.8).
REDIRECT: Final = 307
_TOO_MANY_REQUESTS: Final = 429

#: What `problem` makes (RFC 9457).
PROBLEM_SCHEMA: Final[Schema] = answer("Problem", {
    "title": text("what is wrong"),
    "status": whole_number(REDIRECT, 599, "as in the head of the answer"),
    "detail": text("what happened this time"),
    "code": text("stable, for programs"),
    "hint": text("what to do about it"),
    "cell": text("the cell that answers instead"),
    "address": text("where that cell is"),
}, maybe=["cell", "address"])


def problem(
    error: CourierError, *, status: int | None = None, kind_of: str | None = None, **members: Any,
) -> Answer:
    """The refusal as `application/problem+json`, with the stable code, what to do about it, and further members.

    `status` counts instead of the error's own; `kind_of` is its `type`, where somebody else has given it one.
    """
    told = error.kind.status if status is None else status
    kind = {} if kind_of is None else {"type": kind_of}
    return json_answer(told, {**kind, **describe_problem(error), "status": told, **members}, *_headers(error),
                       media_type=PROBLEM)


def describe_problem(error: CourierError) -> dict[str, Any]:
    """The refusal as JSON values, wherever it stands in an answer."""
    kind = error.kind
    return {"title": kind.title, "status": kind.status, "detail": error.detail, "code": kind.code, "hint": kind.hint,
            **error.members}


def plain_problem(error: CourierError) -> Answer:
    """The refusal in words, as /upload answers it; the code is in brackets."""
    kind = error.kind
    return text_answer(kind.status, f"{error.detail} {kind.hint} [{kind.code}]\n", *_headers(error))


def refusal(path: str, error: CourierError, method: str = "") -> Answer:
    """The refusal in the manner of the address `path`."""
    if path == UPLOAD:
        return plain_problem(error)
    asks_how_it_stands = method == "HEAD" and path.startswith((TUS, RESUMABLE))
    answer = problem(error, status=LOCKED if asks_how_it_stands and passes(error) else None)
    return answer.plus(TUS_RESUMABLE) if path.startswith(TUS) else answer


def passes(error: CourierError) -> bool:
    """True when it says nothing about what was asked for, and may be otherwise in a moment."""
    return error.is_ours or error.kind.status == _TOO_MANY_REQUESTS


def _headers(error: CourierError) -> tuple[tuple[str, str], ...]:
    if error.kind.status == UNAUTHORIZED:
        # RFC 6750, 3.
        shown = "" if error.code == "no_credential" else ', error="invalid_token"'
        return (("WWW-Authenticate", f'Bearer realm="incus-courier"{shown}'),)
    wait_s = error.retry_after_s
    headers = (("Retry-After", str(wait_s)), *error.headers) if wait_s else error.headers
    # Nobody knows where the next request would begin (RFC 9110, 15.5.9).
    return (*headers, ("Connection", "close")) if error.kind.status == REQUEST_TIMEOUT else headers
