import os
import select
from collections.abc import Iterator

import pytest

from daemon.state.doorbell import Doorbell, ring
from daemon.state.layout import Layout
from tests.support.plants import PLANTS, Plant


@pytest.fixture
def bell(layout: Layout) -> Iterator[Doorbell]:
    """The worker's end of the bell of shard 0."""
    made = Doorbell(layout, 0)
    yield made
    made.close()


def rung(bell: Doorbell) -> bool:
    """True when the bell was rung and not answered."""
    poll = select.poll()
    poll.register(bell.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_ring_is_noticed_until_it_is_answered(layout: Layout, bell: Doorbell) -> None:
    """One answer is enough for any number of rings."""
    assert not rung(bell)
    for _ in range(3):
        ring(layout, 0)
    assert rung(bell)
    bell.answer()
    assert not rung(bell)


def test_ring_is_for_one_shard(layout: Layout, bell: Doorbell) -> None:
    """Another shard's bell wakes nobody here."""
    other = Doorbell(layout, 1)
    ring(layout, 1)
    assert not rung(bell)
    assert rung(other)
    other.close()


def test_ring_without_a_listener_does_nothing(layout: Layout) -> None:
    """Before the worker's first start, and while it is down, ringing is no error and does not block."""
    ring(layout, 0)
    Doorbell(layout, 0).close()
    ring(layout, 0)


def test_ring_never_blocks_when_nobody_answers(layout: Layout, bell: Doorbell) -> None:
    """A full bell has been rung often enough."""
    while select.select([], [bell.fileno()], [], 0)[1]:
        os.write(bell.fileno(), b"!" * 4096)
    ring(layout, 0)
    assert rung(bell)
    bell.answer()
    assert not rung(bell)


def test_bell_of_a_dead_worker_serves_the_next(layout: Layout) -> None:
    """The FIFO stays, and so do its rights: for the owner, never for everyone."""
    Doorbell(layout, 0).close()
    again = Doorbell(layout, 0)
    ring(layout, 0)
    assert rung(again)
    assert os.stat(layout.bell(0)).st_mode & 0o777 == 0o600
    again.close()


@pytest.mark.parametrize("plant", [plant for name, plant in PLANTS.items() if name != "fifo"])
def test_bell_replaces_what_is_no_bell(layout: Layout, plant: Plant) -> None:
    """A plain file of that name would keep the worker awake for ever; a bell holds nothing worth keeping."""
    plant(layout.bell(0))
    made = Doorbell(layout, 0)
    assert not rung(made)
    ring(layout, 0)
    assert rung(made)
    made.close()
