"""Who holds the places."""

from contextlib import ExitStack

import pytest

from api.http.peers import Shares, network_of
from daemon.process.shared_counts import SharedCount


@pytest.mark.parametrize(("address", "peer"), [
    ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("::1", "::/64"),
])
def test_peer_is_what_one_customer_has(address: str, peer: str) -> None:
    """One IPv4 address, or an IPv6 network of 64 bits, from which one machine takes as many addresses as it likes."""
    assert network_of(address) == peer


def taken_by(shares: Shares, stack: ExitStack, peer: str) -> int:
    """How many places `peer` gets when it takes all that it can."""
    number = 0
    while shares.admits(peer):
        stack.enter_context(shares.hold(peer))
        number += 1
    return number


def test_one_peer_gets_three_quarters_and_the_others_share_the_rest() -> None:
    """Whoever comes later finds a place, however greedy the first was."""
    shares = Shares(lambda: 512, SharedCount.alone())
    with ExitStack() as stack:
        assert taken_by(shares, stack, "greedy") == 384
        assert shares.admits("modest")
        assert [taken_by(shares, stack, peer) for peer in ("second", "third", "greedy")] == [64, 32, 0]
        assert not shares.full


def test_newcomer_finds_a_place_beside_many_greedy_ones() -> None:
    """However many there are, the last of them leaves something."""
    shares = Shares(lambda: 512, SharedCount.alone())
    with ExitStack() as stack:
        for _ in range(20):
            for peer in range(10):
                if shares.admits(str(peer)):
                    stack.enter_context(shares.hold(str(peer)))
        for peer in range(10):
            taken_by(shares, stack, str(peer))
        assert taken_by(shares, stack, "newcomer") > 0
        assert shares.admits("next")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_few_places_are_for_whoever_comes_first(limit: int) -> None:
    """There is no quarter of them to keep."""
    shares = Shares(lambda: limit, SharedCount.alone())
    with ExitStack() as stack:
        assert taken_by(shares, stack, "first") == limit
        assert not shares.admits("second")


def test_place_that_was_given_back_can_be_had_again() -> None:
    """Nothing is remembered of who held one."""
    shares = Shares(lambda: 8, SharedCount.alone())
    with ExitStack() as stack:
        assert taken_by(shares, stack, "a") == 6
    assert (shares.taken, shares.full) == (0, False)
    with ExitStack() as stack:
        assert taken_by(shares, stack, "b") == 6
