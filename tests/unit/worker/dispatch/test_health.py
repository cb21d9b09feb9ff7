import pytest

from daemon.model.upload import Destination
from tests.support.depot import Depot
from worker.dispatch import health as module
from worker.dispatch.health import Health
from worker.dispatch.lane import Lane
from worker.dispatch.outages import Outages

NOW = 2e9


@pytest.fixture
def health(depot: Depot) -> Health:
    """Nothing is known yet."""
    return Health(Outages(depot.queue))


def lane(instance: str = "c1", remote: str = "local") -> Lane:
    """A lane to an instance."""
    return Lane(Destination(remote, "default", instance, "/"), most_bulk=1)


def test_instance_has_answered_until_it_is_down(health: Health) -> None:
    """Who was never tried has not; who came back has."""
    to = lane()
    assert not health.has_answered(to.key)
    health.note_up(to.destination)
    assert health.has_answered(to.key)
    health.note_down(to, "stalled", NOW)
    assert not health.has_answered(to.key)
    assert health.note_up(to.destination)
    assert health.has_answered(to.key)


def test_instances_that_answered_are_remembered_up_to_a_number(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that answered last: the others are only tried first again."""
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    lanes = [lane(f"c{number}") for number in range(3)]
    for to in (lanes[0], lanes[1], lanes[0], lanes[2]):
        health.note_up(to.destination)
    assert [health.has_answered(to.key) for to in lanes] == [True, False, True]


def test_instance_that_is_down_is_due_once_when_its_time_has_come(health: Health) -> None:
    """However often the main loop asks."""
    to = lane()
    health.note_down(to, "stalled", NOW + 10)
    assert (health.is_due(to.key, NOW), health.take_due(NOW, 9), health.next_at()) == (False, [], NOW + 10)
    assert (health.is_due(to.key, NOW + 10), health.take_due(NOW + 10, 9), health.take_due(NOW + 11, 9)) == (True, [to.key], [])


@pytest.mark.parametrize(("code", "may"), [
    ("stalled", True), ("agent_down", True), ("instance_stopped", True),
    ("connection_lost", False), ("file_server_lost", False), ("instance_busy", False)])
def test_instance_may_be_paused_when_nobody_answers_there(health: Health, code: str, may: bool) -> None:
    """Not when it broke off a connection: then it is left alone, also when a snapshot has paused and resumed it."""
    to = lane()
    assert not health.may_be_paused(to.key)
    health.note_down(to, code, NOW + 10)
    assert health.may_be_paused(to.key) is may


def test_instance_that_failed_again_is_due_at_its_last_time(health: Health) -> None:
    """The times before do not count any more."""
    to = lane()
    health.note_down(to, "stalled", NOW + 10)
    health.note_down(to, "stalled", NOW + 20)
    assert health.take_due(NOW + 10, 9) == []
    assert health.take_due(NOW + 20, 9) == [to.key]


def test_instance_that_came_back_is_not_due(health: Health) -> None:
    """It gets its tasks like any other."""
    to = lane()
    health.note_down(to, "stalled", NOW)
    health.note_up(to.destination)
    assert health.take_due(NOW, 9) == []


def test_instances_of_a_remote_are_due_at_once_when_it_is_followed_again(health: Health) -> None:
    """Those of other remotes are left alone."""
    here, there = lane(), lane(remote="eu")
    health.note_down(here, "stalled", NOW + 10)
    health.note_down(there, "stalled", NOW + 10)
    health.try_remote_again("eu")
    assert health.take_due(NOW, 9) == [there.key]


def test_many_instances_that_are_due_at_once_are_taken_some_at_a_time(health: Health) -> None:
    """A turn of the main loop looks at no more of them than it asks for, and leaves the others for the next."""
    lanes = [lane(f"c{number}") for number in range(5)]
    for to in lanes:
        health.note_down(to, "stalled", NOW)
    taken = [health.take_due(NOW, 2) for _ in range(4)]
    assert [len(some) for some in taken] == [2, 2, 1, 0]
    assert sorted(key for some in taken for key in some) == [to.key for to in lanes]


def test_instance_with_something_to_do_is_not_forgotten(health: Health, depot: Depot) -> None:
    """A try that takes long is still about an instance that is down."""
    idle, busy = lane(), lane("c2")
    busy.sweep([depot.task(depot.accept())])
    for to in (idle, busy):
        health.note_down(to, "stalled", NOW)
    health.take_due(NOW, 9)
    health.take_due(NOW + 86400, 9)
    assert health.down() == [busy]
