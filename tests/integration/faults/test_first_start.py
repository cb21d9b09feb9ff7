"""The first start on a new state directory."""

from pathlib import Path

import pytest

from daemon.process.exit_status import EXIT_FAILED
from tests.support.service import Service
from tests.support.waiting import eventually


def test_service_is_ready_when_a_worker_was_the_first_to_come(tmp_path: Path) -> None:
    """The worker of one shard does not make the state look as if there were one shard only."""
    with Service(tmp_path, {"queue": {"shards": 3}}) as service:
        service.begin("worker-0")
        eventually(lambda: service.events("worker.started"))
        service.start()


@pytest.mark.parametrize(("name", "file"), [("api", "append"), ("worker-0", "shard-00")])
def test_process_says_in_a_sentence_what_is_in_its_way_when_it_cannot_begin(tmp_path: Path, name: str, file: str) -> None:
    """A file that cannot be opened ends it with its name and the reason, and a restart may find that mended."""
    with Service(tmp_path) as service:
        service.layout.create()
        (service.layout.locks / file).mkdir()
        process = service.begin(name)
        eventually(lambda: process.status() is not None)
        assert process.status() == EXIT_FAILED
        assert f"{service.layout.locks / file}: not a plain file of the service's own" in service.log.read_text()
        assert service.events() == []
