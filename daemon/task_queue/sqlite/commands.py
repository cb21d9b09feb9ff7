"""What people ask of tasks: durable rows that the shard's worker works off, and what became of each."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from daemon.errors import QueueFault
from daemon.model.counters import Key, finished
from daemon.model.task import OUTCOMES, State, Task
from daemon.model.upload import first_id_of
from daemon.task_queue.sqlite import audit
from daemon.task_queue.sqlite.base import COLUMNS, TASK_ID, QueueBase, decode_all
from daemon.task_queue.sqlite.counters import count
from daemon.task_queue.sqlite.schema import OUTAGE, TABLE, index_for
from daemon.task_queue.sqlite.selection import selection_in
from daemon.task_queue.values import Change, Command, CommandAnswer, Selection


class QueueCommands(QueueBase):
    """Asking, working off, answering."""

    def ask(self, commands: Iterable[Command]) -> list[int]:
        """Record what a person asks for, durably, and return the numbers; the worker does it, even much later.

        Raises QueueFault, also when the database was replaced meanwhile.
        """
        asked, now = list(commands), time.time()
        with self.write(self.durable, "queue.commit") as connection:
            actions = audit.record(connection, asked, now)
            numbers = [int(connection.execute(
                "INSERT INTO commands (verb, task_id, filter, force, asked_at, asked_by, action)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (c.verb, c.task_id, json.dumps(asdict(c.selection)) if c.selection else None, c.force,
                 c.asked_at or now, c.asked_by, action)).fetchone()[0])
                for c, action in zip(asked, actions, strict=True)]
        if self.replaced():
            raise QueueFault("queue_failed", f"The database of shard {self.shard} was replaced just now; ask again.")
        return numbers

    def commands(self, limit: int) -> list[Command]:
        """The oldest commands that are not done yet. One that cannot be read has the verb ''."""
        rows = self.read("SELECT id, verb, task_id, filter, force, asked_at, asked_by FROM commands"
                         " WHERE done_at IS NULL ORDER BY id LIMIT ?", (limit,))
        return [_command(*row) for row in rows]

    def pending_commands(self) -> int:
        """How many commands are not done yet."""
        return int(self.read("SELECT count(*) FROM commands WHERE done_at IS NULL")[0][0])

    def answers(self, numbers: Sequence[int]) -> dict[int, CommandAnswer]:
        """What became of those of these commands that are still known, by their numbers."""
        found = {}
        for start in range(0, len(numbers), 500):
            some = numbers[start:start + 500]
            rows = self.read("SELECT id, changed, refused, reason, done_at IS NOT NULL FROM commands"
                             f" WHERE id IN ({','.join('?' * len(some))})", some)
            for number, changed, refused, reason, done in rows:
                found[number] = CommandAnswer(
                    number=number, changed=changed, refused=refused, reason=reason, done=bool(done))
        return found

    def asked(self, at: float, by: str) -> dict[str, int]:
        """The numbers of the commands of exactly that time and name that are still known, by the ids of their tasks."""
        return dict(self.read("SELECT task_id, id FROM commands WHERE asked_at = ? AND asked_by = ?"
                              " AND task_id IS NOT NULL ORDER BY id", (at, by)))

    def select(self, selection: Selection, state: State, after: str, limit: int) -> tuple[list[Task], str | None]:
        """Up to `limit` of the selected tasks in one state, in the order of their ids, with ids over `after`.

        With them comes what to put for `after` to get more; None when there are no more.
        """
        conditions, values = ["status = ?", "task_id > ?"], [state, after]
        before = None if selection.accepted_before is None else first_id_of(selection.accepted_before)
        for text, value in (("instance = ?", selection.instance_key), ("client = ?", selection.client),
                            ("task_id < ?", before), ("_id <= ?", selection.up_to_order)):
            if value is not None:
                conditions.append(text)
                values.append(value)
        index = index_for(selection.instance_key, selection.client)
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY {index} WHERE {' AND '.join(conditions)}"
                         " ORDER BY task_id LIMIT ?", (*values, limit))
        return decode_all(rows), rows[-1][TASK_ID] if len(rows) == limit else None

    def newest_order(self) -> int:
        """The highest order that was ever given."""
        rows = self.read("SELECT seq FROM sqlite_sequence WHERE name = ?", (TABLE,))
        return int(rows[0][0]) if rows else 0

    def change(self, changes: Sequence[Change], answers: Sequence[CommandAnswer] = ()) -> int:
        """Change states as people asked and answer their commands, in one durable transaction.

        A task that meanwhile left the state it was read in is not changed. Returns how many were.
        """
        now = time.time()
        changed = 0
        finishing: Counter[Key] = Counter()
        with self.write(self.durable, "queue.settle") as connection:
            for change in changes:
                task = change.task
                if change.when_settled:
                    changed += connection.execute(f"UPDATE {TABLE} SET wish = ? WHERE _id = ? AND status = 2",
                                                  (change.state, task.order)).rowcount
                    continue
                order = task.order
                if change.anew:
                    order = connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = ? RETURNING seq",
                                               (TABLE,)).fetchone()[0]
                done = connection.execute(
                    f"UPDATE {TABLE} SET _id = ?, status = ?, updated_at = ?, due_at = NULL, outrun = outrun AND NOT ?,"
                    " attempts = CASE WHEN status = 9 THEN 0 ELSE attempts END,"
                    f" age_base = CASE WHEN status = 9 THEN ? - {OUTAGE} ELSE age_base END"
                    " WHERE _id = ? AND status = ?",
                    (order, change.state, now, change.anew, now, *task.destination.clocks, task.order, task.state),
                ).rowcount
                changed += done
                if done and change.state in OUTCOMES:
                    finishing[finished(change.state)] += 1
            count(connection, finishing)
            connection.executemany(
                "UPDATE commands SET changed = changed + ?, refused = refused + ?, reason = coalesce(reason, ?),"
                " done_at = CASE WHEN ? THEN ? END WHERE id = ?",
                [(a.changed, a.refused, a.reason, a.done, now, a.number) for a in answers])
            if answers:
                audit.note_answers(connection, answers, now)
        return changed

    def forget_answers(self, before: float) -> None:
        """Forget the commands that were done before that time."""
        if self.read("SELECT 1 FROM commands WHERE done_at < ? LIMIT 1", (before,)):
            with self.write(self.quick, "queue.claim") as connection:
                connection.execute("DELETE FROM commands WHERE done_at < ?", (before,))


def _command(number: int, verb: str, task_id: str | None, text: str | None, force: int, at: float, by: str) -> Command:
    try:
        return Command(number=number, verb=verb, task_id=task_id, force=bool(force), asked_at=at, asked_by=by,
                       selection=None if text is None else selection_in(text))
    except (ValueError, TypeError, KeyError):
        return Command(number=number, verb="", asked_by=by)
