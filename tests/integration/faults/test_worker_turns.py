"""One turn of the worker's main loop meets trouble in the middle of what it was told."""

import errno
import hashlib
import io
import itertools
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon import failpoints
from daemon.config import Config, DeliverySection, Denied, Retry, StateSection, TargetSection
from daemon.errors import QueueFault, Undelivered
from daemon.lease import open_leases
from daemon.model.task import State, Task
from daemon.model.upload import Destination, Upload
from daemon.spool import Opened
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from daemon.state.reserve import Reserve
from daemon.state.tenure import this_host
from daemon.task_queue import Settlement
from daemon.task_queue.sqlite import base
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.faults import commit
from tests.support.depot import sealed
from tests.support.plants import directory
from tests.support.waiting import PATIENCE_S, eventually
from worker import loop
from worker.assembly import assemble
from worker.dispatch.runner import PushOutcome
from worker.loop import Parts, Worker
from worker.targets.base import Receipt
from worker.targets.directory.session import DirectorySession
from worker.targets.directory.target import DirectoryTarget
from worker.upkeep.sync_barrier import Unspooled

UPLOAD = Upload(task_id="0198c2f0-0000-7000-8000-000000000001", destination=Destination("local", "default", "c1", "/x"),
                size=0, sha256=hashlib.sha256().hexdigest(), created_at=time.time())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration for a directory as target."""
    return Config(state=StateSection(directory=str(tmp_path)), target=TargetSection(kind="directory"), delivery=DeliverySection(mkdirs=True),
                  retry=Retry(first_delay_s=0.01))


@pytest.fixture
def parts(config: Config) -> Iterator[Parts]:
    """A worker's parts on an empty queue; the process's signals are as before afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    layout = Layout(config.state.path)
    layout.create()
    with SqliteDoctor(layout, 0) as queue:
        leases = open_leases(layout, this_host(), 1)
        made = assemble(layout, queue, FileSpoolCheck(layout), Reserve(layout, 0, 0), config, leases.lease(0))
        yield made
        made.remotes.close()
        made.lease.release()
        leases.close()
    failpoints.arm("")
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def doctor_of(parts: Parts) -> SqliteDoctor:
    """The queue of a worker as it is behind the door."""
    assert isinstance(parts.queue, SqliteDoctor)
    return parts.queue


def run_until(worker: Worker, condition: Callable[[], bool]) -> None:
    """Run the main loop in this thread until the condition holds; fail when it does not within a while."""
    held: list[bool] = []
    ended = threading.Event()

    def watch() -> None:
        try:
            held.append(eventually(lambda: ended.is_set() or condition()))
        finally:
            # A worker that ended by itself does not take the signal any more: it would end the tests.
            if not ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        worker.run()
    finally:
        ended.set()
        watcher.join()
    assert held


def claim(parts: Parts) -> Task:
    """Put the upload and claim its task."""
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    return parts.queue.claim(UPLOAD.destination.instance_key, 1)[0]


def state(parts: Parts) -> State | None:
    """The state of the upload's task."""
    task = parts.queue.find(UPLOAD.task_id)
    return task.state if task else None


def test_outcome_is_settled_when_the_queue_failed_for_the_message_before_it(parts: Parts, config: Config) -> None:
    """An outcome that waits behind bytes whose removal cannot be written down is not forgotten."""
    task = claim(parts)
    parts.inbox.put(Unspooled((task.order + 1,)))
    parts.inbox.put(PushOutcome(task, None))
    failpoints.arm("queue.unspool=EIO@1")
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.DELIVERED)


def test_outcome_is_settled_when_the_queue_failed_while_it_was_decided(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outcome whose task's age could not be read is decided later, not forgotten."""
    ask = parts.queue.outage_s
    answers = iter([QueueFault("queue_failed")])

    def fail_once(destination: Destination) -> float:
        for fault in answers:
            raise fault
        return ask(destination)

    monkeypatch.setattr(parts.queue, "outage_s", fail_once)
    parts.inbox.put(PushOutcome(claim(parts), "parent_not_found"))
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.FAILED)


def test_task_is_delivered_when_the_commit_of_its_claim_failed_after_it_had_reached_the_disk(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same worker takes back what it does not know to have claimed: it waits for no restart."""
    doubtful = iter([QueueFault("queue_failed", certainly_failed=False)])

    def fail_once(connection: sqlite3.Connection, directory: Path) -> None:
        commit(connection, directory)
        if connection is doctor_of(parts).quick and state(parts) is State.PUSHING:
            for fault in doubtful:
                raise fault

    monkeypatch.setattr(base, "commit", fail_once)
    FileSpoolCheck(doctor_of(parts).layout).begin().seal(UPLOAD).release()
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.DELIVERED)
    assert list(doubtful) == []


def test_newer_upload_replaces_a_task_whose_claim_is_in_doubt(parts: Parts, config: Config) -> None:
    """What came while nobody knew whether the older was claimed counts as it always does."""
    newer = replace(UPLOAD, task_id="0198c2f0-0000-7000-8000-000000000002")
    failpoints.arm("queue.claimed=EIO")
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    with pytest.raises(OSError, match="Input/output error"):
        parts.queue.claim(UPLOAD.destination.instance_key, 1)
    failpoints.arm("")
    FileSpoolCheck(doctor_of(parts).layout).begin().seal(newer).release()
    parts.queue.put_many(sealed(newer), supersede=True)
    assert state(parts) is State.PUSHING
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.SUPERSEDED)


def test_task_is_tried_again_when_the_runner_that_pushed_it_made_a_mistake(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistake of ours ends a thread, not the task and not the worker."""
    mistakes = iter([ValueError("a mistake")])

    def fail_once(upload: Upload) -> Opened:
        for mistake in mistakes:
            raise mistake
        return io.BytesIO()

    monkeypatch.setattr(FileSpoolCheck, "open_pending", lambda _spool, upload: fail_once(upload))
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.DELIVERED)


def test_nothing_is_counted_when_a_connection_is_lost_because_the_remote_went_away(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A push that broke off together with its Incus waits like all others."""
    lost = iter([Undelivered("connection_lost")])
    away = iter([Undelivered("incus_unreachable")])
    deliver = DirectorySession.deliver

    def fail_once(*arguments: Any) -> Receipt:
        for error in lost:
            raise error
        return deliver(*arguments)

    def probe(_target: DirectoryTarget) -> None:
        for error in away:
            raise error

    monkeypatch.setattr(DirectorySession, "deliver", fail_once)
    monkeypatch.setattr(DirectoryTarget, "probe", probe)
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    FileSpoolCheck(doctor_of(parts).layout).begin().seal(UPLOAD).release()
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.DELIVERED)
    task = parts.queue.find(UPLOAD.task_id)
    assert task is not None
    assert task.attempts == 1


def test_next_try_waits_whatever_happens_when_the_queue_cannot_be_written(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a full disk each failed turn lets go of bytes, and that they are gone does not begin the next one."""
    tried_at: list[float] = []

    def fail(_orders: tuple[int, ...]) -> None:
        tried_at.append(time.monotonic())
        raise QueueFault("queue_full")

    parts.queue.settle([Settlement(order=claim(parts).order, state=State.DELIVERED)])
    monkeypatch.setattr(parts.queue, "unspool", fail)
    run_until(Worker(parts, config, lambda: None), lambda: len(tried_at) > 3)
    waited_s = [after - before for before, after in itertools.pairwise(tried_at[:4])]
    assert min(waited_s) >= 0.45, waited_s


def test_signal_is_heeded_when_the_one_before_it_failed(parts: Parts, config: Config) -> None:
    """A reload that fails takes no request to stop with it."""
    failing = iter([OSError(errno.EIO, "the configuration's disk")])

    def reload() -> Config | None:
        for fault in failing:
            raise fault
        return None

    worker = Worker(parts, config, reload)
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    worker.run()
    assert list(failing) == []


def test_worker_that_rests_heeds_all_but_uploads(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After it gave out tasks it lets more of them come; neither a signal nor an outcome waits for that."""
    monkeypatch.setattr(loop, "_REST_S", 10 * PATIENCE_S)
    monkeypatch.setattr(loop, "_REST_TURNS", 1e9)
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    run_until(Worker(parts, config, lambda: None), lambda: state(parts) is State.FAILED)
    assert parts.lanes.runners == 0


def test_service_manager_is_told_of_the_end_of_a_reload_that_failed(
    parts: Parts, config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    """It waits for that, and takes the worker for one that hangs otherwise."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)

        def reload() -> Config | None:
            raise OSError(errno.EIO, "the configuration's disk")

        worker = Worker(parts, config, reload)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        worker.run()
        said = [manager.recv(4096).decode() for _ in range(2)]
    assert said[0].startswith("RELOADING=1")
    assert said[1] == "READY=1"


def test_what_was_queued_before_a_reload_is_held_against_the_ceiling_of_after_it(parts: Parts, config: Config) -> None:
    """It becomes a dead letter that names the rule, and nothing of its instance is touched."""
    parts.queue.put_many(sealed(UPLOAD), supersede=True)
    delivery = config.delivery.model_copy(update={"deny": Denied(instances=["C*"])})
    signal.raise_signal(signal.SIGHUP)
    run_until(Worker(parts, config, lambda: config.model_copy(update={"delivery": delivery})),
              lambda: state(parts) is State.FAILED)
    task = parts.queue.find(UPLOAD.task_id)
    assert task
    assert (task.error_code, task.error_message) == ("not_allowed", "delivery.deny.instances has C*")
    assert not list(config.state.path.glob("instances/*"))


def test_reload_goes_on_where_a_directory_has_the_name_of_the_reserve(parts: Parts, config: Config) -> None:
    """Another size is wanted from then on, and the directory is out of the way."""
    layout = doctor_of(parts).layout
    directory(layout.reserves(0, 1)[0])
    limits = config.limits.model_copy(update={"reserve_bytes": 8192})
    signal.raise_signal(signal.SIGHUP)
    run_until(Worker(parts, config, lambda: config.model_copy(update={"limits": limits})),
              layout.reserves(0, 1)[0].is_file)
    assert layout.reserves(0, 1)[0].stat().st_size == 8192
