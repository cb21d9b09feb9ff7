"""What whoever serves a shard can rely on: nobody else does, and he finds out when that ends."""

from collections.abc import Callable

import pytest

from daemon.errors import CannotStart
from daemon.lease import Lease
from tests.unit.daemon.conformance.doors import LeaseStore


def refusal(ask: Callable[[], object]) -> str:
    """Why something is refused."""
    with pytest.raises(CannotStart) as caught:
        ask()
    return caught.value.code


def is_held(lease: Lease) -> bool:
    """Whether its holder may go on, whichever way he asks."""
    asked: set[str] = set()
    for ask in (lease.check, lease.check_storage, lease.renew):
        try:
            ask()
        except CannotStart as error:
            asked.add(error.code)
        else:
            asked.add("held")
    [answer] = asked
    assert answer in {"held", "state_lost"}
    return answer == "held"


def test_shard_has_one_holder_at_a_time(lease_store: LeaseStore) -> None:
    """Whether the same process asks again or another one; the other shards are free."""
    one, two = lease_store.open(), lease_store.open()
    lease = one.lease(0)
    assert {refusal(lambda: one.lease(0)), refusal(lambda: two.lease(0))} == {"shard_taken"}
    other = two.lease(1)
    assert (lease.shard, other.shard) == (0, 1)
    assert is_held(lease)
    assert is_held(other)


def test_release_lets_the_next_one_in(lease_store: LeaseStore) -> None:
    """In no earlier epoch; who has released it holds it no more, and takes it from nobody by doing so again."""
    one, two = lease_store.open(), lease_store.open()
    before = one.lease(0)
    before.release()
    after = two.lease(0)
    before.release()
    assert not is_held(before)
    assert is_held(after)
    assert after.epoch >= before.epoch
    assert refusal(lambda: one.lease(0)) == "shard_taken"


def test_holder_that_was_taken_over_finds_out_before_it_does_more(lease_store: LeaseStore) -> None:
    """The next one has a higher epoch, and keeps what it has, whatever the one before still does."""
    mine = lease_store.open()
    before, other = mine.lease(0), mine.lease(1)
    theirs = lease_store.take_over()
    assert not is_held(before)
    after = theirs.lease(0)
    assert after.epoch > before.epoch
    assert not is_held(before)
    assert not is_held(other)
    assert refusal(lambda: mine.lease(2)) == "state_lost"
    before.release()
    mine.close()
    assert is_held(after)
    assert refusal(lambda: lease_store.open().lease(0)) == "shard_taken"


def test_leases_end_with_what_was_closed_in_order(lease_store: LeaseStore) -> None:
    """Who begins afterwards gets each of them."""
    one = lease_store.open()
    one.lease(0).release()
    one.close()
    one.close()
    assert is_held(lease_store.open().lease(0))
