"""A state directory that a test breaks by hand: uploads with and without rows, and what is left of them."""

import hashlib
import os
import time
from pathlib import Path

import uuid_utils

from daemon.errors import Rejected
from daemon.model.task import State, Task
from daemon.model.upload import Destination, Upload
from daemon.recovery.compare import Comparison
from daemon.recovery.findings import Finding
from daemon.spool import Mark
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from daemon.task_queue import Change, Settlement
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.support.depot import an_upload, sealed


class World:
    """One shard of one, without processes."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the state directory."""
        self.layout = Layout(directory)
        self.layout.create()
        self.spool = FileSpoolCheck(self.layout)
        self.queue = SqliteDoctor(self.layout, 0, self.spool)
        self.findings: list[Finding] = []

    def close(self) -> None:
        """Let go of the files."""
        self.queue.close()
        self.spool.close()

    def reopened(self) -> SqliteDoctor:
        """Open the queue's database anew."""
        self.queue.close()
        self.queue = SqliteDoctor(self.layout, 0, self.spool)
        return self.queue

    # --- making ------------------------------------------------------------------------------------------

    def write(self, path: str = "/a", instance: str = "c1", body: bytes = b"body", key: str | None = None,
              client: str | None = None, traceparent: str | None = None) -> Upload:
        """An upload in the spool, without a row."""
        destination = Destination("local", "default", instance, path)
        incoming = self.spool.begin()
        incoming.write(body)
        upload = Upload(task_id=str(uuid_utils.uuid7()), destination=destination, size=len(body), created_at=time.time(),
                        sha256=hashlib.sha256(body).hexdigest(), idempotency_key=key,
                        client=client, traceparent=traceparent)
        incoming.seal(upload).release()
        return upload

    def write_together(self, number: int = 3) -> list[Upload]:
        """Uploads of as many instances that share a file of the spool, without rows."""
        batch = [(self.spool.begin(), an_upload(f"/{index}", b"body", instance=f"c{index}")) for index in range(number)]
        for incoming, _ in batch:
            incoming.write(b"body")
        for sealed_one in self.spool.seal_all(batch):
            assert not isinstance(sealed_one, Rejected)
            sealed_one.release()
        return [upload for _, upload in batch]

    def put_together(self, number: int = 3) -> list[Upload]:
        """The same with their rows."""
        uploads = self.write_together(number)
        self.queue.put_many(sealed(*uploads), supersede=True)
        return uploads

    def put(self, path: str = "/a", instance: str = "c1", body: bytes = b"body", key: str | None = None, *,
            client: str | None = None, state: State = State.QUEUED, supersede: bool = True) -> Upload:
        """An upload with its row, in any state but `pushing`, its file marked as it should be."""
        upload = self.write(path, instance, body, key, client)
        self.queue.put_many(sealed(upload), supersede=supersede)
        if state is not State.QUEUED:
            self.settle(upload, state)
        return upload

    def settle(self, upload: Upload, state: State, *, spooled: bool = True) -> None:
        """Bring a queued task into another state, as a worker does."""
        if state is State.HELD:
            self.queue.change([Change(task=self.task(upload), state=State.HELD)])
            self.spool.mark(upload, Mark.HELD)
            return
        claimed = self.queue.claim(upload.destination.instance_key, 1000)
        self.queue.settle([
            Settlement(order=task.order, state=state if task.task_id == upload.task_id else State.QUEUED, attempts=1,
                       spooled=spooled, due_at=time.time() + 1000 if state is State.DEFERRED else None,
                       error_code="parent_not_found" if state is State.FAILED else None)
            for task in claimed], supersede=False)
        if state is State.FAILED:
            self.spool.mark(upload, Mark.FAILED)

    # --- looking -----------------------------------------------------------------------------------------

    def file(self, upload: Upload, mark: Mark = Mark.PENDING) -> Path:
        """Where the file of an upload is, by its mark."""
        return self.layout.bucket(upload.destination.bucket) / (upload.task_id + mark.value)

    def mark(self, upload: Upload) -> Mark | None:
        """What the name of the upload's file says; None when there is no file."""
        return next((mark for mark in Mark if self.file(upload, mark).exists()), None)

    def task(self, upload: Upload) -> Task:
        """The row of an upload."""
        task = self.queue.find(upload.task_id)
        assert task is not None, f"no row for {upload}"
        return task

    def state(self, upload: Upload) -> State | None:
        """The state of an upload's row; None when there is none."""
        task = self.queue.find(upload.task_id)
        return None if task is None else task.state

    def lost_found(self) -> list[str]:
        """What was set aside."""
        return sorted(os.listdir(self.layout.lost_found))

    def tallies_fit(self) -> bool:
        """True when the counts that are kept are the counts of the rows."""
        return self.queue.counts_fit()

    # --- comparing ---------------------------------------------------------------------------------------

    def compare(self, *, repair: bool = True, supersede: bool = True, thorough: bool = False) -> list[str]:
        """Compare everything; return the names of what was found."""
        self.findings = []
        comparison = Comparison(self.queue, self.spool, shards=1, supersede=supersede, report=self.findings.append,
                                repair=repair, thorough=thorough)
        for _ in comparison.everything():
            pass
        return [finding.name for finding in self.findings]
