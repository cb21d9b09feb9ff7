"""A queue's rows behind its back: what tests damage, force or watch. The only SQL of the tests that are about other things."""

from typing import Any

from daemon.model.task import State
from daemon.task_queue.sqlite.base import QueueBase


def write(queue: QueueBase, which: str | None = None, /, **columns: object) -> None:
    """Write into columns of the row with that task id, or of every row, whatever they may hold."""
    assigned = ", ".join(f"{column} = ?" for column in columns)
    queue.durable.execute(f"UPDATE tasks_v1 SET {assigned} WHERE task_id = coalesce(?, task_id)",
                          (*columns.values(), which))


def damage(queue: QueueBase, *task_ids: str) -> None:
    """Make rows unreadable."""
    for task_id in task_ids:
        write(queue, task_id, data="{")


def describe(queue: QueueBase, task_id: str, key: str, value: object) -> None:
    """Say something else in the upload that a row describes: `key` is one of its JSON, or a path of keys with dots."""
    queue.durable.execute("UPDATE tasks_v1 SET data = json_set(data, '$.' || ?, ?) WHERE task_id = ?", (key, value, task_id))


def move_to(queue: QueueBase, task_id: str, instance_key: str) -> None:
    """Say in a row, and in the counts, that it belongs to another instance."""
    write(queue, task_id, instance=instance_key)
    queue.durable.execute("INSERT INTO tally VALUES (1, ?, 1, 1)", (instance_key,))


def read(queue: QueueBase, *columns: str) -> list[Any]:
    """These columns of every row, in order."""
    return queue.read(f"SELECT {', '.join(columns)} FROM tasks_v1 ORDER BY _id")


def tallies(queue: QueueBase) -> dict[tuple[str, State], tuple[int, int]]:
    """The counts that are kept: tasks and bytes of each instance in each state."""
    return {(instance, State(status)): (tasks, size) for instance, status, tasks, size in queue.read(
        "SELECT instance, status, tasks, bytes FROM tally WHERE tasks > 0")}


def watch(queue: QueueBase) -> None:
    """Write down every change of a state from now on that this queue makes, beside its database."""
    for connection in (queue.durable, queue.quick):
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS seen (was INTEGER, became INTEGER)")
        connection.execute(
            "CREATE TEMP TRIGGER IF NOT EXISTS spy AFTER UPDATE OF status ON main.tasks_v1 WHEN OLD.status <> NEW.status"
            " BEGIN INSERT INTO seen VALUES (OLD.status, NEW.status); END")


def seen(queue: QueueBase) -> set[tuple[State, State]]:
    """The changes that were written down."""
    return {(State(was), State(became)) for connection in (queue.durable, queue.quick)
            for was, became in connection.execute("SELECT DISTINCT was, became FROM seen")}


def add_ballast(queue: QueueBase, size: int) -> None:
    """Make the database larger by facts that nobody reads."""
    queue.durable.executemany("INSERT INTO facts VALUES ('ballast' || ?, zeroblob(100000))",
                              [(number,) for number in range(-(-size // 100_000))])


def last_place(queue: QueueBase) -> tuple[int, int]:
    """Where the last page of the database is in the file: from which byte on, and how many. It has what was added last."""
    size, pages = (queue.read(f"PRAGMA {name}")[0][0] for name in ("page_size", "page_count"))
    return (pages - 1) * size, size


def place_of(queue: QueueBase, name: str) -> tuple[int, int]:
    """Where the first page of a table or index is in the file: from which byte on, and how many."""
    size = queue.read("PRAGMA page_size")[0][0]
    return (queue.read("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))[0][0] - 1) * size, size
