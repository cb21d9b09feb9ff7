"""What happened, as the database keeps it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import QueueFault
from daemon.task_queue import Position
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.schema import EPOCH_FACT
from tests.support.depot import a_state, an_upload, sealed

LATER_S = 4e9


@pytest.fixture
def queue(quick_path: Path) -> Iterator[SqliteDoctor]:
    """A queue in which three things happened."""
    with SqliteDoctor(a_state(quick_path), 0) as made:
        made.put_many(sealed(*(an_upload(f"/{number}") for number in range(3))), supersede=False)
        yield made


def test_events_that_are_forgotten_while_they_are_read_are_missed(
    queue: SqliteDoctor, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever reads what came after them does not believe that nothing was before."""
    read, start = queue.read, queue.position()
    later = start.seq - 3

    def forgetting(sql: str, values: Sequence[object] = ()) -> list[Any]:
        rows = read(sql, values)
        with monkeypatch.context() as once:
            once.setattr(queue, "read", read)
            queue.forget_events(before=LATER_S, keep_most=9, limit=1)
        return rows

    monkeypatch.setattr(queue, "read", forgetting)
    happened = queue.happened(Position(start.epoch, later), 9)
    assert happened.lost or [event.seq for event in happened.events] == [later + 1, later + 2, later + 3]


@pytest.mark.parametrize("change", [
    "status = 77", "at = 9e999", "at = -1", "at = 'x'", "code = x'00'", "task_id = x'00'",
])
def test_damaged_event_is_passed_over(queue: SqliteDoctor, change: str) -> None:
    """Of the others none is missing."""
    newest = queue.position()
    before = Position(newest.epoch, newest.seq - 3)
    with queue.write(queue.durable, "queue.settle") as connection:
        connection.execute(f"UPDATE events SET {change} WHERE seq = ?", (before.seq + 2,))
    happened = queue.happened(before, 9)
    assert [event.seq - before.seq for event in happened.events] == [1, 3]
    assert happened.position == newest


@pytest.mark.parametrize("epoch", ["", "x" * 12, "0" * 4096, "0\n0000000000"])
def test_epoch_that_is_none_is_damage(queue: SqliteDoctor, epoch: str) -> None:
    """It would be told to everybody who follows."""
    queue.remember(EPOCH_FACT, epoch)
    with pytest.raises(QueueFault):
        queue.position()
