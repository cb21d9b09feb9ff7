"""What goes wrong while the service runs, and what its workers do about it without being asked."""

import os
import shutil
from pathlib import Path

import pytest

from daemon.model.task import State
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.integration.recovery.restarting import is_ready, keep_running
from tests.support import rows
from tests.support.foreign import plant
from tests.support.service import Service
from tests.support.waiting import eventually


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service of one shard that is not started yet."""
    return Service(tmp_path)


def _put(service: Service, path: str, body: bytes, **headers: str) -> str:
    answer = service.client.put("c1", path, body, headers=headers)
    assert answer is not None
    assert answer.status == 202, answer.body
    return answer.task_id


@pytest.mark.slow
def test_upload_is_delivered_when_its_api_died_before_its_row_was_written(service: Service) -> None:
    """No answer was given, so all of it or nothing is right; the file is there, so it is all of it, within seconds."""
    with service:
        service.start()
        eventually(lambda: service.events("fsck.done"), what="the first comparison")
        service.kill("api")
        service.begin("api", "spool.dirsync=kill@1")
        service.wait_ready()
        assert service.client.put("c1", "/a", b"whole") is None
        service.kill("api")
        service.begin("api")
        eventually(lambda: service.delivered("c1", "/a") == b"whole", what="the delivery")
        service.wait_quiet()
        assert [found["finding"] for found in service.events("fsck.finding")] == ["row_missing"]


@pytest.mark.slow
@pytest.mark.parametrize("all_of_it", [True, False])
def test_worker_starts_anew_when_its_database_is_removed_under_it(service: Service, all_of_it: bool) -> None:
    """It notices, ends, and its next start fills a new database from the spool; the API follows."""
    with service:
        service.start()
        _put(service, "/a", b"before")
        service.wait_quiet()
        worker = service.processes["worker-0"]
        if all_of_it:
            shutil.rmtree(service.layout.shard(0))
        else:
            service.layout.database(0).unlink()
        eventually(lambda: worker.status() is not None, what="the end of the worker")
        assert worker.status() == 1
        _put(service, "/b", b"after")
        keep_running(service, lambda: service.delivered("c1", "/b") == b"after")
        assert service.delivered("c1", "/a") == b"before"


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["api", "worker-0"])
def test_uploads_are_delivered_when_a_log_is_removed_under_all_and_one_of_them_dies(
        service: Service, killed: str) -> None:
    """Whoever opens the database then reads too little while another still has it open: that one lets go of it."""
    with service:
        service.start()
        sent = {f"/a{number}": b"before" for number in range(20)}
        for path, body in sent.items():
            _put(service, path, body)
        service.layout.log(0).unlink()
        service.kill(killed)

        def all_sent() -> bool:
            answer = service.client.put("c1", f"/b{len(sent)}", b"after")
            if answer is not None and answer.status == 202:
                sent[f"/b{len(sent)}"] = b"after"
            return len(sent) == 40

        keep_running(service, all_sent)
        keep_running(service, lambda: {path: service.delivered("c1", path) for path in sent} == sent)


@pytest.mark.slow
def test_worker_sets_its_database_aside_when_it_meets_damage(service: Service) -> None:
    """A page that cannot be read ends the worker; the next one rebuilds, and nothing that was accepted is lost."""
    with service:
        service.start()
        service.kill("worker-0")
        bodies = {f"/f{number}": b"%d" % number for number in range(300)}
        for path, body in bodies.items():
            _put(service, path, body)
        service.stop("api")
        with SqliteDoctor(service.layout, 0) as queue:
            # Too large to be read through at the start.
            rows.add_ballast(queue, 40_000_000)
            queue.compact()
            place = rows.place_of(queue, "tasks_lane")
        _spoil(service, place)
        keep_running(service, lambda: all(service.delivered("c1", path) == body for path, body in bodies.items()))
        assert len(service.events("queue.set_aside")) == 1


def _spoil(service: Service, place: tuple[int, int]) -> None:
    """Write over a part of the database: from which byte on, and how many."""
    start, size = place
    with service.layout.database(0).open("r+b") as file:
        assert file.seek(0, os.SEEK_END) > start
        file.seek(start)
        file.write(os.urandom(size))


@pytest.mark.slow
def test_worker_reads_its_database_through_when_it_is_suspected(service: Service) -> None:
    """Damage that nothing has met yet is found on request, and by itself now and then."""
    with service:
        service.start()
        _put(service, "/a", b"x")
        service.wait_quiet()
        worker = service.processes["worker-0"]
        service.layout.suspect(0).touch()
        eventually(lambda: not service.layout.suspect(0).exists(), what="the all-clear")
        assert worker.status() is None
        with SqliteDoctor(service.layout, 0) as queue:
            rows.add_ballast(queue, 9000)
            queue.compact()
            place = rows.last_place(queue)
        _spoil(service, place)
        service.layout.suspect(0).touch()
        keep_running(service, lambda: service.events("queue.set_aside"))


def test_foreign_trigger_does_not_outlive_the_worker_that_meets_it(service: Service) -> None:
    """It would say of uploads that they are delivered: the worker notices it while it runs, and the queue is rebuilt."""
    with service:
        service.start()
        _put(service, "/a", b"before")
        service.wait_quiet()
        plant(service.layout.database(0), "trigger")
        keep_running(service, lambda: service.events("queue.set_aside") and is_ready(service))
        _put(service, "/b", b"after")
        eventually(lambda: service.delivered("c1", "/b") == b"after", what="the delivery")


def test_damaged_row_is_mended_and_delivered_while_the_worker_runs(service: Service) -> None:
    """A row that cannot be read stands in nobody's way, and its upload arrives all the same."""
    with service:
        service.start()
        service.kill("worker-0")
        damaged = _put(service, "/a", b"damaged")
        _put(service, "/b", b"fine")
        with SqliteDoctor(service.layout, 0) as queue:
            rows.damage(queue, damaged)
        service.begin("worker-0")
        eventually(lambda: service.delivered("c1", "/b") == b"fine", what="the other delivery")
        eventually(lambda: service.delivered("c1", "/a") == b"damaged", what="the mended delivery")


def test_dead_letter_stands_for_bytes_that_were_removed(service: Service) -> None:
    """Bytes that a person removed are missed before their push, with the reason, and stop nothing else."""
    with service:
        service.start()
        service.kill("worker-0")
        task_id = _put(service, "/a", b"x")
        _put(service, "/b", b"y")
        next(path for path in service.layout.spool.rglob(task_id)).unlink()
        service.begin("worker-0")
        eventually(lambda: service.delivered("c1", "/b") == b"y", what="the other delivery")
        eventually(lambda: [task for task in service.tasks() if task.state is State.FAILED], what="the dead letter")
        assert service.client.task(task_id)["error"]["code"] == "bytes_missing"
