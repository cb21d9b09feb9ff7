import pytest

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.model.upload import Destination
from tests.support.depot import Depot
from worker.dispatch import outages as module
from worker.dispatch.outages import Outages

HERE = Destination("local", "default", "c1", "/")
EU = Destination("eu", "default", "c1", "/")


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def outages(depot: Depot, clock: Clock) -> Outages:
    """The clocks of a shard."""
    return Outages(depot.queue, clock)


def test_outage_counts_from_its_beginning_to_its_end(outages: Outages, clock: Clock) -> None:
    """Once, however often it is noticed."""
    outages.begin("local")
    clock.now += 10
    outages.begin("local")
    clock.now += 10
    assert outages.seconds(HERE) == 20
    outages.end("local")
    outages.end("local")
    clock.now += 10
    assert outages.seconds(HERE) == 20
    outages.begin("local")
    clock.now += 5
    assert outages.seconds(HERE) == 25


def test_outage_is_of_what_it_names(outages: Outages, clock: Clock) -> None:
    """Another remote, or another instance of the same one, ages as ever."""
    outages.begin("eu")
    outages.begin("local/default/c1")
    clock.now += 10
    other = Destination("local", "default", "c2", "/")
    assert (outages.seconds(HERE), outages.seconds(EU), outages.seconds(other)) == (10, 10, 0)


def test_outage_outlives_the_worker(depot: Depot, outages: Outages, clock: Clock) -> None:
    """What the clocks show is written down while they run, at most a few seconds late."""
    outages.begin("local")
    for _ in range(12):
        clock.now += 1
        outages.tend()
    assert 5 <= depot.queue.outage_s(HERE) <= 12
    assert outages.seconds(HERE) == 12
    outages.end("local")
    clock.now += 5
    outages.tend()
    assert depot.queue.outage_s(HERE) == outages.seconds(HERE) == 12


def test_many_clocks_are_written_down_some_at_a_time(
    depot: Depot, outages: Outages, clock: Clock, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn of the main loop writes no more of them than it has time for, and the next one goes on."""
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    instances = [Destination("local", "default", f"c{number}", "/") for number in range(5)]
    for to in instances:
        outages.begin(to.instance_key)
    clock.now += 10
    written = []
    for _ in range(4):
        outages.tend()
        written.append(sum(depot.queue.outage_s(to) == 10 for to in instances))
    assert written == [2, 4, 5, 5]


def test_outage_is_not_lost_when_it_cannot_be_written_down(depot: Depot, outages: Outages, clock: Clock) -> None:
    """It is written down later, and counts meanwhile."""
    outages.begin("local")
    clock.now += 10
    failpoints.arm("queue.claim=EIO")
    with pytest.raises(QueueFault):
        outages.tend()
    failpoints.arm("")
    assert outages.seconds(HERE) == 10
    clock.now += 5
    outages.tend()
    assert depot.queue.outage_s(HERE) == outages.seconds(HERE) == 15
