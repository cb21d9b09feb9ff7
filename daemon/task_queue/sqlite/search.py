"""Looking for tasks by what no index has: a bounded number of rows at a time, window by window."""

import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from daemon.model.glob import path_matches
from daemon.model.task import FINISHED, State, Task
from daemon.model.upload import first_id_of
from daemon.task_queue.sqlite.base import COLUMNS, TASK_ID, QueueBase, decode_or_none
from daemon.task_queue.sqlite.batches import chunks, values
from daemon.task_queue.sqlite.schema import TABLE, index_for
from daemon.task_queue.values import MOST_LOOKED_AT, FoundTasks, TaskQuestion

#: So many windows are looked through before it is told what was found.
_WINDOWS: Final = 8
#: A row that is read as a task costs as much as so many that are passed over.
_DECODED: Final = 4
#: Rows that are read at once: what is in damaged ones may be large.
_STEP: Final = 100
#: Greater than every id.
_PAST_ALL_IDS: Final = "g"
_WAITING: Final = tuple(sorted(frozenset(State) - FINISHED - {State.FAILED}))


class QueueSearch(QueueBase):
    """Questions whose answers are looked for."""

    def search(
        self, question: TaskQuestion, before: str | None, limit: int, most: int = MOST_LOOKED_AT,
    ) -> FoundTasks:
        """Up to `limit` tasks, newest id first, with ids under `before`, among about `most` that are looked at."""
        since = "" if question.since is None else first_id_of(question.since)
        ends = [text for text in (before, None if question.until is None else first_id_of(question.until))
                if text is not None]
        until = min(ends, default=_PAST_ALL_IDS)
        # The tasks of an instance, and those of a client, are in order by state.
        everything = question.instance_key is None and question.client is None
        states: Sequence[State | None] = [*(question.states or (() if everything else State))] or [None]
        narrow = question.path is not None or question.error is not None
        window = max(limit, most // (_WINDOWS * len(states)))
        fits = _fits(question.path)
        found: list[Task] = []
        looked_at = 0
        while since < until and len(found) < limit and looked_at < most:
            step = min(limit - len(found), _STEP)
            first = max(since, *(self._window(question, state, since, until, window) for state in states)) if (
                narrow) else since
            rows = [self._rows(question, state, first, until, step) for state in states]
            # Of a state that is not read to its end, nothing is known from its last row on.
            cut = [some[-1][TASK_ID] for some in rows if len(some) == step]
            looked_at += narrow * (_DECODED * sum(map(len, rows)) if cut else window * len(states))
            until = max([first, *cut])
            tasks = [decode_or_none(row) for some in rows for row in some if row[TASK_ID] >= until]
            found += sorted((task for task in tasks if task is not None and fits(task)),
                            key=lambda task: task.task_id, reverse=True)
        if len(found) > limit:
            found = found[:limit]
            until = found[-1].task_id
        return FoundTasks(tuple(found), until if since < until else None)

    def _window(self, question: TaskQuestion, state: State | None, since: str, until: str, rows: int) -> str:
        """The id from which on there are so many tasks of that state; '' where there are fewer."""
        where, values = _where(question, state, since, until)
        found = self.read(f"SELECT task_id FROM {TABLE} {where} ORDER BY task_id DESC LIMIT 1 OFFSET ?",
                          (*values, rows - 1))
        return str(found[0][0]) if found else ""

    def _rows(self, question: TaskQuestion, state: State | None, since: str, until: str, limit: int) -> list[Any]:
        where, values = _where(question, state, since, until)
        hint = None if question.path is None else _hint(question.path)
        for condition, value in ((" AND error_code = ?", question.error), (" AND instr(data, ?)", hint)):
            if value is not None:
                where, values = where + condition, [*values, value]
        return self.read(f"SELECT {COLUMNS} FROM {TABLE} {where} ORDER BY task_id DESC LIMIT ?", (*values, limit))

    def ages(
        self, instance_keys: Sequence[str], bounds_s: Sequence[float], now: float, most: int,
    ) -> list[tuple[int, ...]]:
        """For each of these instances, how many of its tasks that are not finished are how old; at most `most` each."""
        # A task's id says when it was accepted: each span is a range of an index.
        edges = [_PAST_ALL_IDS, *(first_id_of(now - bound) for bound in bounds_s), ""]
        spans = [value for span in enumerate(pairwise(edges)) for value in (span[0], *span[1])]
        counted: dict[tuple[str, int], int] = {}
        for some in chunks(instance_keys):
            rows = self.read(
                f"SELECT asked.column1, span.column1, {_IN_SPAN} FROM ({values(len(some), 1)}) AS asked"
                f" CROSS JOIN ({values(len(edges) - 1, 3)}) AS span", (*[most] * len(_WAITING), *some, *spans))
            counted |= {(key, number): min(tasks, most) for key, number, tasks in rows}
        return [tuple(counted[key, number] for number in range(len(edges) - 1)) for key in instance_keys]


#: How many tasks of an instance are in a span of ids, in SQL; of each state no more than a parameter says.
_IN_SPAN: Final = " + ".join(
    f"(SELECT count(*) FROM (SELECT 1 FROM {TABLE} INDEXED BY tasks_by_instance WHERE instance = asked.column1"
    f" AND status = {int(state)} AND task_id < span.column2 AND task_id >= span.column3 LIMIT ?))"
    for state in _WAITING)


def _where(question: TaskQuestion, state: State | None, since: str, until: str) -> tuple[str, list[object]]:
    """The tasks of a state in a range of ids, by an index that has them in order; and the values."""
    conditions = {"task_id >= ?": since, "task_id < ?": until, "status = ?": state,
                  "instance = ?": question.instance_key, "client = ?": question.client}
    used = {text: value for text, value in conditions.items() if value is not None}
    index = "" if state is None else f"INDEXED BY {index_for(question.instance_key, question.client)} "
    return f"{index}WHERE {' AND '.join(used)}", list(used.values())


def _is_glob(path: str) -> bool:
    return path.startswith("/") and path.endswith("*")


def _hint(path: str) -> str:
    """What is in every row whose task is meant: a part of its upload as JSON."""
    if not _is_glob(path):
        return _in_json(path)
    fixed = re.split(r"[*?]", path, maxsplit=1)[0]
    return f'"path":"{_in_json(fixed)}'


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _fits(path: str | None) -> Callable[[Task], bool]:
    if path is None:
        return lambda _: True
    if _is_glob(path):
        return lambda task: path_matches(path, task.destination.path)
    return lambda task: path in task.destination.path
