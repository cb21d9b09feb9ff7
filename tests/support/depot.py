"""A state directory with uploads in it, without any process: for tests of what is done to them."""

import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import uuid_utils

from daemon.model.task import State, Task
from daemon.model.upload import Destination, Upload
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from daemon.task_queue import Put, Settlement
from daemon.task_queue.sqlite.doctor import SqliteDoctor


def new_id() -> str:
    """An id like those that the API gives."""
    return str(uuid_utils.uuid7())


def an_upload(path: str = "/x", data: bytes = b"hello", *, instance: str = "c1", **values: Any) -> Upload:
    """What the API makes of an upload of `data`."""
    to = Destination(values.pop("remote", "local"), values.pop("project", "default"), instance, path)
    made = {"task_id": new_id(), "destination": to, "size": len(data), "created_at": time.time(),
            "sha256": hashlib.sha256(data).hexdigest()}
    return Upload(**{**made, **values})


class JustSealed(NamedTuple):
    """An upload as the spool seals it, without bytes."""

    upload: Upload


def sealed(*uploads: Upload) -> list[JustSealed]:
    """Uploads as the queue takes them."""
    return [JustSealed(upload) for upload in uploads]


def a_state(directory: Path) -> Layout:
    """A new state directory in `directory`."""
    made = Layout(directory / "state")
    made.create()
    return made


class Depot:
    """One shard: its spool and its queue."""

    def __init__(self, directory: Path, shard: int = 0) -> None:
        """Make the state directory."""
        self.layout = Layout(directory)
        self.layout.create()
        self.shard = shard
        self.spool = FileSpoolCheck(self.layout)
        self.queue = SqliteDoctor(self.layout, shard, self.spool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self.queue.close()
        self.spool.close()

    def reopen(self) -> None:
        """Close and open everything, as a new process would."""
        self.close()
        self.spool = FileSpoolCheck(self.layout)
        self.queue = SqliteDoctor(self.layout, self.shard, self.spool)

    def seal(self, upload: Upload, data: bytes = b"hello") -> None:
        """Put an upload into the spool alone."""
        incoming = self.spool.begin()
        incoming.write(data)
        incoming.seal(upload).release()

    def put(self, upload: Upload, data: bytes = b"hello", *, supersede: bool = True) -> Put:
        """Put an upload into the spool and the queue."""
        self.seal(upload, data)
        return self.queue.put_many(sealed(upload), supersede=supersede)[0]

    def accept(self, path: str = "/x", data: bytes = b"hello", **values: Any) -> Upload:
        """Put a new upload into the spool and the queue."""
        upload = an_upload(path, data, **values)
        self.put(upload, data)
        return upload

    def task(self, upload: Upload) -> Task:
        """How an upload stands."""
        task = self.queue.find(upload.task_id)
        assert task is not None, f"{upload.task_id} has no row"
        return task

    def state(self, upload: Upload) -> State:
        """The state of an upload."""
        return self.task(upload).state

    def claim(self, instance: str = "c1", limit: int = 64) -> list[Task]:
        """Claim small tasks of an instance of the local remote."""
        return self.queue.claim(f"local/default/{instance}", limit)

    def settle(self, upload: Upload, state: State, **values: Any) -> None:
        """Claim what can be claimed, and settle one of them; the others are queued again."""
        claimed = self.claim(upload.destination.instance)
        assert upload.task_id in {task.task_id for task in claimed}, f"{upload.task_id} could not be claimed"
        for task in claimed:
            settlement = Settlement(order=task.order, state=State.QUEUED)
            if task.task_id == upload.task_id:
                settlement = Settlement(order=task.order, state=state, attempts=task.attempts + 1, **values)
            self.queue.settle([settlement], supersede=False)

    def failed(self, path: str = "/x", data: bytes = b"hello", **values: Any) -> Upload:
        """A dead letter."""
        upload = self.accept(path, data, **values)
        self.settle(upload, State.FAILED, error_code="parent_not_found", error_message="no such directory")
        return upload
