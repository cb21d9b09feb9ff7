"""Cells of the fault matrix, carried out: a fault at a step of an upload, in real processes."""

import hashlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon import failpoints
from daemon.model.task import PENDING, State, Task
from daemon.model.upload import BUCKETS
from daemon.spool.inspect import FileSpoolCheck
from tests.support.client import Answer
from tests.support.follower import Follower
from tests.support.processes import Forked
from tests.support.service import Service
from tests.support.waiting import eventually

ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")
FAULTS = (*ERRORS, "kill")
#: Steps that the API takes; the others are the worker's.
API_STEPS = frozenset(failpoints.STEPS[:failpoints.STEPS.index("queue.claim")])
#: Steps behind a pause that grows after an error: one fault is enough for a service.
BARRIER_STEPS = frozenset({"barrier.sync", "spool.unlink", "spool.gonesync", "spool.unlinked"})
#: The step that each task takes once.
CLAIM_STEP = "queue.claim"
#: The step that only a dead letter takes.
DEAD_LETTER_STEP = "spool.mark"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a row is carried out."""

    size: int
    #: The fault happens when the step is taken for the n-th time.
    nth: int = 1


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of one cell, after the faults were over and the service had been started again."""

    answer: Answer | None
    fired: bool
    #: Delivered, or a dead letter, before anything was started again.
    settled_alone: bool
    sent: bytes
    delivered: bytes | None
    task: Task | None
    #: Files of this upload that are left in the spool.
    left: Sequence[str]

    @property
    def outcome(self) -> str:
        """The cell in the words of the table: what the client was told, and what became of its bytes."""
        return f"{self._told} {self._became}"

    @property
    def _told(self) -> str:
        if self.answer is None:
            return "silence"
        return "unknown" if self.answer.code == "outcome_unknown" else str(self.answer.status)

    @property
    def _became(self) -> str:
        if self.task is not None and self.task.state in PENDING:
            return "stuck"
        if self.task is not None and self.task.state is State.FAILED:
            return "kept" if self.task.error_code and len(self.left) == 1 else "lost"
        if self.left:
            return "left over"
        if self.delivered is None:
            return "nothing"
        return "whole" if self.delivered == self.sent else "torn"


def carry_out(cells: Sequence[tuple[str, str]], variant: Variant, directory: Path) -> dict[tuple[str, str], Seen]:
    """Meet each fault at its step with an upload, then end and start the service; return what was seen of each."""
    with Service(directory) as service, Follower(service.address) as follower:
        service.start()
        eventually(lambda: follower.last_id)
        meetings = {(step, fault): _Cell(service, step, fault, variant) for step, fault in cells}
        for (_, fault), meeting in meetings.items():
            meeting.meet()
            if fault == "kill":
                service.start()
                # Nothing of this upload may be left to meet the next one's fault.
                _wait_for(service.idle)
        service.stop()
        service.start()
        _wait_for(service.quiet)
        follower.check({task.task_id: task.state.label for task in service.tasks()})
        service.stop()
        assert not service.mistakes(), service.mistakes()
        assert not service.part_files(), service.part_files()
        return {cell: meeting.look() for cell, meeting in meetings.items()}


class _Cell:
    """One upload that meets one fault."""

    def __init__(self, service: Service, step: str, fault: str, variant: Variant) -> None:
        self._service = service
        self._victim = "api" if step in API_STEPS else "worker-0"
        self._step, self._fault, self._nth = step, fault, variant.nth
        self._instance = f"{step}-{fault}".lower().replace(".", "-")
        # A file where a directory should be makes a dead letter of the upload.
        self._path = "/file/x" if step == DEAD_LETTER_STEP else "/x"
        self._sent = (hashlib.sha256(f"{step} {fault}".encode()).digest() * (variant.size // 32 + 1))[:variant.size]
        self._answer: Answer | None = None
        self._fired = self._settled_alone = False

    def meet(self) -> None:
        """Send the upload while the fault waits for it."""
        if self._step == DEAD_LETTER_STEP:
            assert self._service.client.put(self._instance, "/file", b"in the way") is not None
            eventually(lambda: self._service.delivered(self._instance, "/file"))
        process = self._service.processes[self._victim]
        assert isinstance(process, Forked)
        process.arm(f"{self._step}={self._fault}@{self._nth}")
        if self._step == CLAIM_STEP:
            # A task is claimed once: others take the step before it.
            for number in range(1, self._nth):
                assert self._service.client.put(self._instance, f"/before-{number}", b"before") is not None
                eventually(partial(self._service.delivered, self._instance, f"/before-{number}"))
        self._answer = self._service.client.put(self._instance, self._path, self._sent)
        if self._fault == "kill":
            self._fired = _wait_for(lambda: process.status() is not None)
            if self._fired:
                assert process.status() == -signal.SIGKILL
                del self._service.processes[self._victim]
                return
        else:
            self._fired = _wait_for(lambda: process.fired() > 0)
        if self._answer is not None and self._answer.status == 202:
            self._settled_alone = _wait_for(self._settled)
        process.arm("")
        # A process that met an error is still there.
        self._service.wait_ready()

    def _settled(self) -> bool:
        assert self._answer is not None
        return self._service.client.task(self._answer.task_id)["state"] in {"delivered", "failed"}

    def look(self) -> Seen:
        """What was seen, and what is there now."""
        tasks = [task for task in self._service.tasks()
                 if (task.destination.instance, task.destination.path) == (self._instance, self._path)]
        assert len(tasks) <= 1, tasks
        return Seen(
            answer=self._answer, fired=self._fired, settled_alone=self._settled_alone, sent=self._sent,
            delivered=self._service.delivered(self._instance, self._path), task=tasks[0] if tasks else None,
            left=_spooled_for(self._service, self._instance, self._path))


def _spooled_for(service: Service, instance: str, path: str) -> list[str]:
    spool = FileSpoolCheck(service.layout)
    try:
        uploads = [(name, spool.examine(name)) for bucket in range(BUCKETS) for name in spool.scan(bucket)]
        return [name.file for name, upload in uploads
                if (upload.destination.instance, upload.destination.path) == (instance, path)]
    finally:
        spool.close()


def _wait_for(condition: Callable[[], bool]) -> bool:
    try:
        return eventually(condition)
    except AssertionError:
        return False
