"""The tables of errors and log events against the code: nothing is used that is not in them, nothing is in vain."""

import ast
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from daemon.errors import ERRORS, Action, CourierError
from daemon.log.events import EVENTS, LogEvent
from worker.targets import error_codes

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for room in ("daemon", "api", "worker") for path in (ROOT / room).rglob("*.py"))


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    """All of the code."""
    return [(path, node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """Every call of something of that name, in all of the code."""
    for path, node in nodes():
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == name:
            yield path, node


def texts() -> set[str]:
    """Every text in the code, apart from the two tables."""
    tables = {ROOT / "daemon" / "errors.py", ROOT / "daemon" / "log" / "events.py"}
    return {node.value for path, node in nodes()
            if path not in tables and isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_event_that_is_logged_is_in_the_table() -> None:
    """A log line with a name of its own would be found by nobody."""
    for path, call in calls("log"):
        event = call.args[0] if call.args else None
        if isinstance(event, ast.Constant) and isinstance(event.value, str):
            assert event.value in EVENTS, f"{path.relative_to(ROOT)}:{call.lineno}"


def test_every_event_of_the_table_is_logged() -> None:
    """The table promises nothing that never comes."""
    assert set(EVENTS) - texts() == set()


@pytest.mark.parametrize("row", EVENTS.values(), ids=EVENTS)
def test_event_has_a_level_a_sentence_and_an_id(row: LogEvent) -> None:
    """Each row is complete, in the form that the journal and people expect."""
    room, _, what = row.name.partition(".")
    assert room.isidentifier()
    assert what.isidentifier()
    assert row.level in {"debug", "info", "warning", "error"}
    assert row.message[0].isupper()
    assert row.message[-1] not in ".:"
    assert uuid.UUID(row.message_id).version == 5


@pytest.mark.parametrize(("file", "rows"), [("errors.py", ERRORS), ("log/events.py", EVENTS)])
def test_no_row_of_a_table_hides_another(file: str, rows: dict[str, object]) -> None:
    """Each name stands in its table once."""
    path = ROOT / "daemon" / file
    [table] = [call for where, call in calls("_table") if where == path]
    names = [row.elts[0].value for row in table.args
             if isinstance(row, ast.Tuple) and isinstance(row.elts[0], ast.Constant)]
    assert sorted(names) == sorted(rows)


def test_event_ids_differ() -> None:
    """One kind of event is found by its id."""
    assert len({event.message_id for event in EVENTS.values()}) == len(EVENTS)


def test_event_id_never_changes() -> None:
    """People have these ids in their scripts."""
    assert EVENTS["push.delivered"].message_id == "d12610eb98f0557ca5e07edf20dc40c5"


def raised() -> Iterator[tuple[str, str]]:
    """Where an error of the table is made, and its code."""
    for name in ("CourierError", "Rejected", "Undelivered", "CannotStart", "QueueFault", "Refused"):
        for path, call in calls(name):
            code = call.args[0] if call.args else None
            if isinstance(code, ast.Constant) and isinstance(code.value, str) and name != "Refused":
                yield f"{path.relative_to(ROOT)}:{call.lineno}", code.value


def test_every_error_that_is_raised_is_in_the_table() -> None:
    """A code without a row would be a KeyError instead of an answer."""
    assert [where for where, code in raised() if code not in ERRORS] == []


def test_every_error_of_the_table_is_used() -> None:
    """The table promises nothing that never comes."""
    assert set(ERRORS) - texts() == set()


def test_every_verdict_about_a_delivery_is_in_the_table() -> None:
    """Whatever a target says, the worker knows what to do about it."""
    codes = set(error_codes.SCOPE)
    assert codes <= set(ERRORS)


@pytest.mark.parametrize("code", ERRORS)
def test_error_is_complete(code: str) -> None:
    """Each row says what is wrong and what to do about it, in sentences, and has a status if a client can meet it."""
    kind = ERRORS[code]
    assert code == kind.code == code.lower()
    assert kind.title.endswith(".")
    assert kind.hint.endswith(".")
    assert kind.status == 0 or (400 <= kind.status < 600 and kind.action is Action.REJECT)


def test_error_says_its_title_when_nothing_else_is_known() -> None:
    """An error always has something to say."""
    assert CourierError("no_room").detail == ERRORS["no_room"].title
    assert CourierError("no_room", "The disk is full.").detail == "The disk is full."
