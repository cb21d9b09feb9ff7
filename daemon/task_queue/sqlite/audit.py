"""What people did to tasks: a row for each action, written with its commands, and with what becomes of them."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from daemon.model.action_id import first_action_id, is_action_id, new_action_id
from daemon.model.names import is_client
from daemon.model.upload import END_OF_TIME_S
from daemon.task_queue.sqlite.base import QueueBase
from daemon.task_queue.sqlite.selection import selection_in
from daemon.task_queue.values import ActionRecord, Command, CommandAnswer

_COLUMNS: Final = "action_id, asked_at, asked_by, verb, what, tasks, changed, refused, done_at"
#: Actions that are read at once: what is in damaged rows may be large.
_STEP: Final = 100
_LONGEST_WORD: Final = 128


def record(connection: sqlite3.Connection, commands: Iterable[Command], now: float) -> list[str]:
    """Keep what is asked for, as part of the transaction that asks for it; return the actions' ids, one a command."""
    ids: list[str] = []
    first: dict[str, Command] = {}
    tasks: Counter[str] = Counter()
    for command in commands:
        action_id = command.action_id or new_action_id(command.asked_at or now)
        ids.append(action_id)
        first.setdefault(action_id, command)
        tasks[action_id] += command.selection is None
    connection.executemany(
        "INSERT INTO actions (action_id, asked_at, asked_by, verb, what, tasks) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (action_id) DO UPDATE SET tasks = tasks + excluded.tasks, done_at = NULL",
        [(action_id, command.asked_at or now, command.asked_by, command.verb, _what(command), tasks[action_id])
         for action_id, command in first.items()])
    return ids


def _what(command: Command) -> str:
    if command.selection is not None:
        return json.dumps({"filter": asdict(command.selection)})
    if command.selection_id is not None:
        return json.dumps({"selection": command.selection_id})
    return json.dumps({"task_id": command.task_id})


def note_answers(connection: sqlite3.Connection, answers: Sequence[CommandAnswer], now: float) -> None:
    """Add what became of commands to their actions, as part of the transaction that answers them."""
    of = {number: (action_id, narrow) for number, action_id, narrow in connection.execute(
        "SELECT id, action, filter IS NULL FROM commands WHERE id IN (SELECT value FROM json_each(?))"
        " AND action IS NOT NULL", (json.dumps([answer.number for answer in answers]),))}
    grown: dict[str, list[int]] = {}
    for answer in answers:
        if answer.number in of:
            action_id, narrow = of[answer.number]
            sums = grown.setdefault(action_id, [0, 0, 0])
            sums[0] += answer.changed
            sums[1] += answer.refused
            # How many tasks a filter means is known when they are worked off.
            sums[2] += 0 if narrow else answer.changed + answer.refused
    connection.executemany(
        "UPDATE actions SET changed = changed + ?, refused = refused + ?, tasks = tasks + ?,"
        f" done_at = iif({_IS_DONE}, ?, NULL) WHERE action_id = ?",
        [(*sums, now, action_id) for action_id, sums in grown.items()])


#: In SQL: nothing of an action is still to be done.
_IS_DONE: Final = ("NOT EXISTS (SELECT 1 FROM commands INDEXED BY commands_of_action"
                   " WHERE commands.action = actions.action_id AND commands.done_at IS NULL)")
#: Puts the time of that on what is done and does not say so.
CLOSE: Final = f"UPDATE actions SET done_at = ? WHERE done_at IS NULL AND {_IS_DONE}"


class QueueAudit(QueueBase):
    """Reading what people did, and letting go of what is old."""

    def actions(self, before: str | None, limit: int, by: str | None = None) -> list[ActionRecord]:
        """Up to `limit` actions, newest first, with ids under `before`. Damaged rows are left out."""
        conditions = {"asked_by = ?": by, "action_id < ?": before}
        index = "" if by is None else "INDEXED BY actions_by_name"
        found: list[ActionRecord] = []
        while True:
            used = {text: value for text, value in conditions.items() if value is not None}
            where = f"WHERE {' AND '.join(used)}" if used else ""
            step = min(limit, _STEP)
            rows = self.read(f"SELECT {_COLUMNS} FROM actions {index} {where} ORDER BY action_id DESC LIMIT ?",
                             (*used.values(), step))
            found += [action for row in rows if (action := action_of(row)) is not None]
            if len(rows) < step or len(found) >= limit:
                return found[:limit]
            conditions["action_id < ?"] = rows[-1][0]

    def forget_actions(self, before: float, keep_most: int, limit: int) -> int:
        """Forget up to `limit` actions from before then, or beyond the newest `keep_most`; return how many."""
        rows = self.read("SELECT number FROM actions WHERE action_id < ? ORDER BY action_id LIMIT ?",
                         (first_action_id(before), limit))
        rows += self.read("SELECT number FROM actions WHERE number <= (SELECT max(number) FROM actions) - ?"
                          " ORDER BY number LIMIT ?", (keep_most, limit))
        doomed = sorted({number for (number,) in rows})[:limit]
        if doomed:
            with self.write(self.quick, "queue.claim") as connection:
                connection.execute("DELETE FROM actions WHERE number IN (SELECT value FROM json_each(?))",
                                   (json.dumps(doomed),))
        return len(doomed)


def action_of(row: Sequence[Any]) -> ActionRecord | None:
    """The action of a row of the table, or None when the row is damaged."""
    action_id, at, by, verb, what, tasks, changed, refused, done_at = row
    if not all(isinstance(text, str) for text in (action_id, by, verb, what)):
        return None
    if not (is_action_id(action_id) and len(verb) <= _LONGEST_WORD and (by == "" or is_client(by))):
        return None
    if not (_is_time(at) and (done_at is None or _is_time(done_at))):
        return None
    if not all(isinstance(number, int) and 0 <= number < 2**53 for number in (tasks, changed, refused)):
        return None
    try:
        about = json.loads(what)
        chosen = about.get("filter")
        made = ActionRecord(
            action_id=action_id, at=at, by=by, verb=verb, task_id=about.get("task_id"),
            selection_id=about.get("selection"), filter=None if chosen is None else selection_in(json.dumps(chosen)),
            tasks=tasks, changed=changed, refused=refused, done_at=done_at)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return made if _is_word(made.task_id) and _is_word(made.selection_id) else None


def _is_word(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _LONGEST_WORD)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < END_OF_TIME_S
