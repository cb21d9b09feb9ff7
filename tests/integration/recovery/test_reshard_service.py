"""Another number of shards at a restart, with real processes that all start at once."""

from functools import partial
from pathlib import Path

import pytest

from daemon.model.task import State
from daemon.state import shard_count
from daemon.state.shard_count import ShardCount
from tests.integration.recovery.restarting import is_ready, keep_running
from tests.support.follower import Follower
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service of four shards that is not started yet."""
    return Service(tmp_path, {"queue": {"shards": 4}})


def _configure(service: Service, shards: int) -> None:
    service.shards = shards
    service.settings["queue"]["shards"] = shards
    service.write_config()


def _upload(service: Service, numbers: range) -> dict[tuple[str, str], bytes]:
    sent = {}
    for number in numbers:
        where = (f"i{number % 9}", f"/f{number % 3}")
        sent[where] = b"%d" % number
        answer = service.client.put(*where, sent[where])
        assert answer is not None
        assert answer.status == 202, answer.body
    return sent


def _wait_said(service: Service, event: str, words: str) -> None:
    """Wait until the log says what is waited for; others may have waited before, for something else."""
    eventually(lambda: any(words in str(fields.get("reason", fields.get("detail"))) for fields in service.events(event)),
               what=f"{event} with {words!r}")


@pytest.mark.full
def test_backlog_is_delivered_under_another_number_of_shards(service: Service) -> None:
    """Down to one and up to eight at a restart: the newest bytes of every path arrive, and dead letters stay.

    Who follows is told each time that he may have missed something.
    """
    with service, Follower(service.address) as follower:
        service.start()
        eventually(lambda: follower.last_id)
        failed = service.client.put("c1", "/no/parent", b"x", mkdirs="false")
        assert failed is not None
        eventually(lambda: [task for task in service.tasks() if task.state is State.FAILED], what="the dead letter")
        service.kill("worker-0", "worker-1", "worker-2", "worker-3")
        sent = _upload(service, range(60))
        service.stop()
        for number, shards in enumerate((1, 8), start=1):
            _configure(service, shards)
            keep_running(service, lambda: is_ready(service))
            eventually(partial(follower.was_reset, number))
            service.wait_quiet()
            assert {where: service.delivered(*where) for where in sent} == sent
            assert service.client.task(failed.task_id)["state"] == "failed"
            assert shard_count.read(service.layout) == ShardCount(shards)
            service.kill(*(name for name in service.processes if name.startswith("worker")))
            sent = _upload(service, range(shards * 100, shards * 100 + 60))
            service.kill()
        keep_running(service, lambda: is_ready(service))
        service.wait_quiet()
        assert {where: service.delivered(*where) for where in sent} == sent
        assert len(service.events("queue.resharded")) == 2


def test_move_waits_until_the_processes_of_the_old_number_have_ended(service: Service) -> None:
    """A worker with another number says what it waits for, keeps off, and goes on by itself."""
    with service:
        service.start()
        service.kill("worker-0")
        _configure(service, 2)
        worker = service.begin("worker-0")
        _wait_said(service, "worker.waiting", "API")
        service.stop("api")
        _wait_said(service, "worker.waiting", "Shard 1")
        service.stop("worker-1", "worker-2", "worker-3")
        eventually(lambda: service.events("queue.resharded"), what="the move")
        assert worker.status() is None
        keep_running(service, lambda: is_ready(service))
        sent = _upload(service, range(20))
        service.wait_quiet()
        assert {where: service.delivered(*where) for where in sent} == sent


def test_uploads_wait_in_the_api_until_the_move_is_done(service: Service) -> None:
    """An API with the new number takes nothing before the queue has that number, and says so."""
    with service:
        service.start()
        service.kill()
        _configure(service, 1)
        service.begin("api")
        _wait_said(service, "api.waiting", "has 4 shards")
        service.begin("worker-0")
        service.wait_ready()
        sent = _upload(service, range(10))
        service.wait_quiet()
        assert {where: service.delivered(*where) for where in sent} == sent


def test_move_that_was_killed_is_finished_by_the_next_start(service: Service) -> None:
    """SIGKILL in the middle of the move costs nothing."""
    with service:
        service.start()
        service.kill("worker-0", "worker-1", "worker-2", "worker-3")
        sent = _upload(service, range(300))
        service.stop()
        _configure(service, 3)
        service.begin("worker-1")
        eventually(lambda: (found := shard_count.read(service.layout)) is not None and found != ShardCount(4),
                   what="the begin of the move")
        service.kill("worker-1")
        keep_running(service, lambda: is_ready(service))
        service.wait_quiet()
        assert {where: service.delivered(*where) for where in sent} == sent


def test_second_worker_of_a_shard_says_who_holds_it(service: Service) -> None:
    """It ends with the exit code for that, and disturbs nobody."""
    with service:
        service.start()
        first = service.processes.pop("worker-2")
        second = service.begin("worker-2")
        eventually(lambda: second.status() is not None, what="the end of the second worker")
        assert second.status() == 75
        service.processes["worker-2"] = first
        assert f"Shard 2 is served by process {first.pid}" in service.log.read_text()
        assert first.status() is None
