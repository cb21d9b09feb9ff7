"""What recovery does with a shard's queue, and nobody else: comparing it with the spool, and putting it right.

This is about what keeps the queue as it is now, rows in a database: another keeper has its own ailments, and brings a
doctor of its own. Only for the holder of the shard's lock. Whatever changes something is safe to repeat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from daemon.model.task import State, Task
from daemon.model.upload import Upload
from daemon.task_queue.capabilities import TaskQueue


class Restored(Enum):
    """What became of an upload that was found in the spool without a row."""

    #: It has a row now.
    DONE = "done"
    #: It had one after all.
    KNOWN = "known"
    #: A newer upload to its path is known: it must not be delivered.
    OUTDATED = "outdated"
    #: A newer one to its path is just being pushed: try again later.
    LATER = "later"


@dataclass(frozen=True)
class Row:
    """One row as it is on the disk. `task` is None when it is damaged; the other values may be anything then."""

    order: int
    task_id: str
    instance_key: str
    #: Who sent it, if that can be read.
    client: str | None
    state: int
    error_code: str | None
    #: Length of the upload's description, in bytes.
    meta_bytes: int
    task: Task | None


class Restore(Protocol):
    """Rows that are missing."""

    def instances_of(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Which of these ids have a row, and the keys of their instances."""

    def restore(self, found: Sequence[tuple[Upload, State]], *, supersede: bool) -> list[Restored]:
        """Give uploads that were found in the spool their rows again, older ones first, all or none, durably.

        One that was pending goes before the newer ones of its path, if those are still to be pushed and `supersede`
        is off; otherwise it is OUTDATED where newer ones are known. Dead letters and held ones always get a row.
        """


class Mend(Protocol):
    """Rows that are wrong. What is written is durable."""

    def rows(self, after_order: int, limit: int) -> list[Row]:
        """Up to `limit` rows with orders over `after_order`, damaged ones too, in order."""

    def row(self, order: int) -> Row | None:
        """One row, or None."""

    def raw(self, order: int) -> str:
        """Everything that a row holds, for people, as JSON."""

    def bury(self, order: int, state: int, code: str, message: str) -> bool:
        """Make a dead letter of a row that is in `state`; False when it has left that state."""

    def stop(self, order: int, state: int, stopped: State, message: str) -> bool:
        """Believe the mark that says of a waiting upload that it was `stopped`: failed, or held.

        False when the row has left `state`. A newer upload to its path may have been delivered and forgotten.
        """

    def note_spooled(self, order: int) -> None:
        """Remember that the bytes of a finished task are in the spool after all."""

    def mend(
        self, order: int, instance_key: str, upload: Upload, state: State, code: str | None, message: str | None,
    ) -> State:
        """Write a damaged row anew from its upload, with its order; return the state that it got.

        One that would be pushed again is a dead letter instead when a newer upload to its path is known.
        """

    def drop(self, order: int) -> None:
        """Delete a row. Only when what it held is somewhere else."""

    def counts_fit(self) -> bool:
        """True when the counts that are kept are those of the rows. Looks at every row."""

    def count_again(self) -> None:
        """Count every row anew."""


class Watch(Protocol):
    """Whether what keeps the queue is whole, while a worker works with it."""

    def replaced(self) -> bool:
        """True when others do not find any more what is open here. Raises QueueFault."""

    def require_form(self) -> None:
        """Raise QueueFault('queue_damaged') when it is made of anything but what this program makes."""

    def met_damage(self) -> bool:
        """True when a damaged row was met since this was last asked."""

    def is_suspected(self) -> bool:
        """True when somebody asks for everything to be read through."""

    def clear_suspicion(self) -> None:
        """Everything was read through, and nothing is wrong."""

    def damage(self) -> str | None:
        """What is wrong, in words, or None. Reads everything through, gives way to all others, and takes its time.

        From a thread of its own. Raises QueueFault when it cannot be read just now.
        """

    def condemn(self) -> None:
        """Note, durably, that it is damaged: the next start sets it aside. Raises OSError."""


class Doctor(TaskQueue, Restore, Mend, Watch, Protocol):
    """One shard's queue as recovery has it."""

    def end(self) -> None:
        """Close it in order: whoever opens it next finds nothing to put right. Raises QueueFault and OSError."""
