"""The first start on a new state directory."""

from pathlib import Path

from tests.support.service import Service
from tests.support.waiting import eventually


def test_service_is_ready_when_a_worker_was_the_first_to_come(tmp_path: Path) -> None:
    """The worker of one shard does not make the state look as if there were one shard only."""
    with Service(tmp_path, {"queue": {"shards": 3}}) as service:
        service.begin("worker-0")
        eventually(lambda: service.events("worker.started"))
        service.start()
