"""The tables of errors and log events against the code: nothing is used that is not in them, nothing is in vain."""

import ast
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from daemon.errors import ERRORS, Action, CourierError, ErrorKind, Scope
from daemon.log.events import EVENTS, LogEvent

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for room in ("daemon", "api", "worker", "sender", "client") for path in (ROOT / room).rglob("*.py"))


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
    names = [name.value for row in table.args
             for name in (row.elts if isinstance(row, ast.Tuple) else row.args if isinstance(row, ast.Call) else [])[:1]
             if isinstance(name, ast.Constant) and isinstance(name.value, str)]
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


@pytest.mark.parametrize(("code", "scope"), [
    ("target_full", Scope.TASK), ("parent_not_found", Scope.TASK), ("verify_failed", Scope.TASK),
    ("instance_not_found", Scope.INSTANCE), ("instance_stopped", Scope.INSTANCE), ("agent_down", Scope.INSTANCE),
    ("incus_unreachable", Scope.REMOTE), ("incus_refused", Scope.REMOTE),
])
def test_scope_is_what_is_unavailable(code: str, scope: Scope) -> None:
    """A full disk concerns one task, a stopped instance all of its tasks, an Incus that is away everything."""
    assert ERRORS[code].scope is scope


@pytest.mark.parametrize("kind", ERRORS.values(), ids=ERRORS)
def test_only_what_is_waited_for_or_tried_again_concerns_more_than_its_task(kind: ErrorKind) -> None:
    """A dead letter, or a refusal, of one task never stops the tasks beside it."""
    assert kind.scope is Scope.TASK or kind.action in {Action.WAIT, Action.RETRY}


@pytest.mark.parametrize(("code", "status"), [
    ("bad_config", 78), ("unsafe_listen", 78), ("shard_taken", 75), ("no_state", 1), ("queue_damaged", 1), ("no_room", 1),
])
def test_exit_status_says_whether_a_restart_helps(code: str, status: int) -> None:
    """78 keeps the service manager from starting the process again; 75 and 1 let it."""
    assert ERRORS[code].exit_status == status


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
