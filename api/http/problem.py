"""Refusals as answers: RFC 9457 problem details, and plain text for the clients of /upload."""

from typing import Any, Final

from api.http.response import PROBLEM, Answer, json_answer, text_answer
from daemon.errors import CourierError
from daemon.model.schema import Schema, answer, text, whole_number

#: Who asks is not known, or not believed.
UNAUTHORIZED: Final = 401
#: The address whose clients read plain text.
UPLOAD: Final = "/upload"

#: What `problem` makes (RFC 9457).
PROBLEM_SCHEMA: Final[Schema] = answer("Problem", {
    "title": text("what is wrong"),
    "status": whole_number(400, 599, "as in the head of the answer"),
    "detail": text("what happened this time"),
    "code": text("stable, for programs"),
    "hint": text("what to do about it"),
})


def problem(error: CourierError, **members: Any) -> Answer:
    """The refusal as `application/problem+json`, with the stable code and what to do about it, and further members."""
    return json_answer(error.kind.status, {**describe_problem(error), **members}, *_headers(error), media_type=PROBLEM)


def describe_problem(error: CourierError) -> dict[str, Any]:
    """The refusal as JSON values, wherever it stands in an answer."""
    kind = error.kind
    return {"title": kind.title, "status": kind.status, "detail": error.detail, "code": kind.code, "hint": kind.hint}


def plain_problem(error: CourierError) -> Answer:
    """The refusal in words, as /upload answers it; the code is in brackets."""
    kind = error.kind
    return text_answer(kind.status, f"{error.detail} {kind.hint} [{kind.code}]\n", *_headers(error))


def refusal(path: str, error: CourierError) -> Answer:
    """The refusal in the manner of the address `path`."""
    return plain_problem(error) if path == UPLOAD else problem(error)


def _headers(error: CourierError) -> tuple[tuple[str, str], ...]:
    if error.kind.status == UNAUTHORIZED:
        # RFC 6750, 3.
        shown = "" if error.code == "no_credential" else ', error="invalid_token"'
        return (("WWW-Authenticate", f'Bearer realm="incus-courier"{shown}'),)
    wait_s = error.retry_after_s
    return (("Retry-After", str(wait_s)), *error.headers) if wait_s else error.headers
