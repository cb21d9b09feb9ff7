"""What the conformance tests do at the doors, with nothing but what the doors offer."""

from typing import Protocol

from daemon.lease import Leases
from daemon.model.task import State, Task
from daemon.model.upload import Upload
from daemon.spool import CheckedSpool, Mark, Receive
from daemon.task_queue import Append, Bytes, Change, Find, Intake, Settlement, TaskQueue
from tests.support.depot import an_upload, sealed

KEY = "local/default/c1"
#: Long after everything that happens in a test, in seconds since the epoch.
LATER_S = 4e9


class Held(Bytes):
    """A spool of which a test says what it holds."""

    def __init__(self) -> None:
        """Everything that is asked for, at first."""
        self.lost: set[str] = set()

    def holds(self, bucket: int, task_id: str) -> bool:
        """True unless the test has said otherwise."""
        return task_id not in self.lost

    def is_empty(self) -> bool:
        """True: the queue is as old as the spool."""
        return True


class QueueStore(Protocol):
    """Something that keeps one shard's queue, and can be opened again and again."""

    #: What it is the index of.
    spool: Held
    #: So many attempts stay with a task.
    attempts_kept: int

    def open(self) -> TaskQueue:
        """Open the queue as the holder of the shard's lock does."""

    def open_intake(self) -> Intake:
        """Open the queue as the API does."""

    def restart_machine(self) -> None:
        """Have the queue believe that the machine was restarted since."""

    def close(self) -> None:
        """Close what was opened."""


class SpoolStore(Protocol):
    """Something that keeps the bytes of uploads, and can be opened again and again."""

    def open(self) -> CheckedSpool:
        """Open the spool."""

    def close(self) -> None:
        """Close what was opened."""


class LeaseStore(Protocol):
    """Something that keeps the leases of three shards, for processes of several hosts."""

    def open(self) -> Leases:
        """What a process of the host takes that began last."""

    def take_over(self) -> Leases:
        """What a process of another host takes, which begins now: what the hosts before have locked it does not see."""

    def close(self) -> None:
        """Close what was opened."""


# --- the queue ---------------------------------------------------------------------------------------------


def accept(queue: Append, *uploads: Upload, supersede: bool = False) -> list[Upload]:
    """Put uploads one after the other."""
    for upload in uploads:
        queue.put_many(sealed(upload), supersede=supersede)
    return list(uploads)


def several(number: int) -> list[Upload]:
    """New uploads, each to a path of its own."""
    return [an_upload(f"/{index}") for index in range(number)]


def task_of(queue: Find, upload: Upload) -> Task:
    """How an upload stands."""
    task = queue.find(upload.task_id)
    assert task is not None, f"{upload.task_id} is not in the queue"
    return task


def state_of(queue: Find, upload: Upload) -> State:
    """The state of an upload."""
    return task_of(queue, upload).state


def claim(queue: TaskQueue, limit: int = 64) -> list[str]:
    """Claim small tasks of the one instance; return their ids."""
    return [task.task_id for task in queue.claim(KEY, limit)]


def bring(queue: TaskQueue, upload: Upload, state: State) -> Upload:
    """Put an upload and bring it into a state, on the way that leads there."""
    queue.put_many(sealed(upload), supersede=False)
    if state in {State.HELD, State.CANCELLED}:
        queue.change([Change(task=task_of(queue, upload), state=state)])
    elif state is not State.QUEUED:
        [task] = queue.claim(upload.destination.instance_key, 1)
        if state is not State.PUSHING:
            queue.settle([Settlement(order=task.order, state=state, attempts=1, due_at=LATER_S)], supersede=False)
    return upload


def ids(uploads: list[Upload]) -> list[str]:
    """Their ids."""
    return [upload.task_id for upload in uploads]


# --- the spool ---------------------------------------------------------------------------------------------


def store(spool: Receive, upload: Upload, data: bytes = b"hello") -> Upload:
    """Put an upload into the spool, and decide that it stays."""
    incoming = spool.begin()
    incoming.write(data)
    incoming.seal(upload).release()
    return upload


def kept(spool: CheckedSpool, bucket: int) -> dict[str, Mark | None]:
    """What is in a bucket."""
    return {name.task_id: name.mark for name in spool.scan(bucket)}
