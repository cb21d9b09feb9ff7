"""A killed push leaves its part file in the instance: it goes when its task is not pushed again, and nothing else does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.task_queue import Command
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.support.processes import Forked, end
from tests.support.service import Service
from tests.support.waiting import eventually


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that runs."""
    with Service(tmp_path) as made:
        yield made.start()
        assert not made.mistakes()


def cut_off(service: Service) -> str:
    """Upload, and end the worker just before the file gets its name; return the task's id."""
    worker = service.processes["worker-0"]
    assert isinstance(worker, Forked)
    worker.arm("push.rename=kill")
    answer = service.client.put("c1", "/x", b"older")
    assert answer is not None
    eventually(lambda: worker.status() is not None)
    end(worker)
    del service.processes["worker-0"]
    assert service.part_files() == [str(service.layout.instances / f"c1/.courier-{answer.task_id}.part")]
    return answer.task_id


def ask(service: Service, verb: str, task_id: str) -> None:
    """A person asks for something."""
    with SqliteDoctor(service.layout, 0) as queue:
        queue.ask([Command(verb=verb, task_id=task_id)])


def wait_swept(service: Service, task_id: str) -> None:
    """Wait until the part file of that task, and no other, was removed by a sweep; another push may be under way."""
    eventually(lambda: service.events("target.swept"))
    assert [event["task_id"] for event in service.events("target.swept")] == [task_id]
    assert not [path for path in service.part_files() if task_id in path]


def test_part_file_of_an_overtaken_task_is_removed(service: Service) -> None:
    """A newer upload came while the worker was down: the older is not pushed again, and the newer is delivered."""
    older = cut_off(service)
    assert service.client.put("c1", "/x", b"newer") is not None
    service.start()
    wait_swept(service, older)
    service.wait_quiet()
    assert service.delivered("c1", "/x") == b"newer"
    assert service.part_files() == []


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("hold", "held")])
def test_part_file_is_removed_when_a_person_does_not_want_the_task_pushed(service: Service, verb: str, state: str) -> None:
    """What was asked for while the worker was down is done at its start; no attempt is counted for the sweep."""
    task_id = cut_off(service)
    ask(service, verb, task_id)
    service.start()
    wait_swept(service, task_id)
    task = service.client.task(task_id)
    assert (task["state"], task["attempts"]) == (state, 0)
    assert service.delivered("c1", "/x") is None


def test_part_file_of_a_dead_letter_is_removed(service: Service) -> None:
    """The next attempt finds something in the way: it takes away what the last one left before that, and the row says so."""
    task_id = cut_off(service)
    (service.layout.instances / "c1/x").mkdir()
    service.start()
    eventually(lambda: service.client.task(task_id)["state"] == "failed")
    assert service.client.task(task_id)["error"]["code"] == "target_is_directory"
    assert service.part_files() == []
    with SqliteDoctor(service.layout, 0) as queue:
        eventually(lambda: queue.next_with_parts("") is None)


def test_task_is_delivered_after_its_part_file_was_removed(service: Service) -> None:
    """One that a person held back is swept, and pushed from the start when it is released."""
    task_id = cut_off(service)
    ask(service, "hold", task_id)
    service.start()
    wait_swept(service, task_id)
    ask(service, "release", task_id)
    service.wait_quiet()
    assert service.delivered("c1", "/x") == b"older"
    assert service.client.task(task_id)["attempts"] == 1


def test_nothing_is_swept_when_the_task_is_pushed_again(service: Service) -> None:
    """The next attempt deals with the part file itself; a file with another task's name is left alone."""
    cut_off(service)
    other = service.layout.instances / "c1/.courier-0198c2f0-0000-7000-8000-000000000001.part"
    other.write_bytes(b"not ours")
    service.start()
    service.wait_quiet()
    assert service.delivered("c1", "/x") == b"older"
    with SqliteDoctor(service.layout, 0) as queue:
        assert queue.next_with_parts("") is None
    assert service.part_files() == [str(other)]
    assert service.events("target.swept") == []
