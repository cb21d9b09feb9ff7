"""Refusals as answers."""

import json

import pytest

from api.http.problem import plain_problem, problem
from api.http.response import as_http
from daemon.errors import ERRORS, Action, Rejected


@pytest.mark.parametrize("code", sorted(code for code, kind in ERRORS.items() if kind.action is Action.REJECT))
def test_every_refusal_has_both_forms(code: str) -> None:
    """Each row of the table that a client can meet makes a problem and a plain text, with its own status."""
    error = Rejected(code, "What happened.")
    described, plain = problem(error), plain_problem(error)
    assert described.status == plain.status == ERRORS[code].status
    assert described.media_type == "application/problem+json"
    assert json.loads(described.body) == {
        "title": error.kind.title, "status": error.kind.status, "detail": "What happened.", "code": code,
        "hint": error.kind.hint}
    assert plain.body.decode().startswith("What happened. ")
    assert plain.body.decode().endswith(f"[{code}]\n")


@pytest.mark.parametrize(("code", "wait_s"), [
    ("backlog_full", 10), ("too_busy", 1), ("draining", 2), ("storage_failed", 5),
])
def test_refusal_that_passes_says_when_to_come_back(code: str, wait_s: int) -> None:
    """Retry-After goes with 503 only."""
    assert ERRORS[code].status == 503
    assert problem(Rejected(code)).headers == (("Retry-After", str(wait_s)),)


def test_refusal_that_knows_better_says_so() -> None:
    """Its own time replaces that of the table, and its own headers go with it, in both forms."""
    error = Rejected("rate_limited", retry_after_s=7, headers=[("RateLimit", '"uploads";r=0;t=7')])
    assert problem(error).headers == plain_problem(error).headers == (
        ("Retry-After", "7"), ("RateLimit", '"uploads";r=0;t=7'))


def test_refusal_that_stays_names_no_time() -> None:
    """Who would only be refused again is not asked to come back."""
    assert problem(Rejected("bad_path")).headers == ()


def test_refusal_of_a_request_that_does_not_come_ends_the_connection() -> None:
    """In both forms (RFC 9110, 15.5.9)."""
    error = Rejected("too_slow")
    assert problem(error).headers == plain_problem(error).headers == (("Connection", "close"),)


def test_answer_goes_over_the_wire_whole() -> None:
    """The head says how long the body is."""
    answer = problem(Rejected("too_busy"))
    head, _, body = as_http(answer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"content-length: {len(body)}".encode() in head
    assert body == answer.body
