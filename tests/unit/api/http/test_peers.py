"""Who is at the other end, and who holds the places."""

import os
import socket
from asyncio import StreamWriter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, cast

import pytest

from api.http.peers import Shares, Via, is_local, network_of, via_of
from daemon.access.peers import Credentials
from daemon.process.shared_counts import Column, SharedCounts, create


@pytest.mark.parametrize(("address", "peer"), [
    ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("::1", "::/64"),
])
def test_peer_is_what_one_customer_has(address: str, peer: str) -> None:
    """One IPv4 address, or an IPv6 network of 64 bits, from which one machine takes as many addresses as it likes."""
    assert network_of(address) == peer


def places(limit: int) -> Shares:
    """So many places, of a process that is alone."""
    return Shares(lambda: limit, SharedCounts(), Column.UPLOADS)


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Counts for two processes."""
    made = create(2)
    yield made
    os.close(made)


def take(shares: Shares, stack: ExitStack, peer: str) -> bool:
    """Take a place until the end of `stack`, if there is one."""
    taken = shares.take(peer)
    if taken:
        stack.callback(shares.give_back, peer)
    return taken


def taken_by(shares: Shares, stack: ExitStack, peer: str) -> int:
    """How many places `peer` gets when it takes all that it can."""
    number = 0
    while take(shares, stack, peer):
        number += 1
    return number


def test_one_peer_gets_three_quarters_and_the_others_share_the_rest() -> None:
    """Whoever comes later finds a place, however greedy the first was."""
    shares = places(512)
    with ExitStack() as stack:
        assert taken_by(shares, stack, "greedy") == 384
        assert [taken_by(shares, stack, peer) for peer in ("second", "third", "greedy")] == [64, 32, 0]
        assert not shares.full


def test_newcomer_finds_a_place_beside_many_greedy_ones() -> None:
    """However many there are, the last of them leaves something."""
    shares = places(512)
    with ExitStack() as stack:
        for _ in range(20):
            for peer in range(10):
                take(shares, stack, str(peer))
        for peer in range(10):
            taken_by(shares, stack, str(peer))
        assert taken_by(shares, stack, "newcomer") > 0
        assert take(shares, stack, "next")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_few_places_are_for_whoever_comes_first(limit: int) -> None:
    """There is no quarter of them to keep."""
    shares = places(limit)
    with ExitStack() as stack:
        assert taken_by(shares, stack, "first") == limit
        assert not take(shares, stack, "second")


def test_place_that_was_given_back_can_be_had_again() -> None:
    """Nothing is remembered of who held one."""
    shares = places(8)
    with ExitStack() as stack:
        assert taken_by(shares, stack, "a") == 6
    assert (shares.taken, shares.full) == (0, False)
    with ExitStack() as stack:
        assert taken_by(shares, stack, "b") == 6


def test_one_peer_gets_three_quarters_of_all_processes_together(descriptor: int) -> None:
    """It does not matter which of them it comes to, and what one gives back another may have."""
    first, second = (Shares(lambda: 32, SharedCounts(descriptor, row), Column.CONNECTIONS) for row in (0, 1))
    with ExitStack() as stack:
        assert [take(shares, stack, "greedy") for _ in range(12) for shares in (first, second)] == [True] * 24
        assert [taken_by(shares, stack, "greedy") for shares in (first, second)] == [0, 0]
        assert taken_by(second, stack, "modest") == 4
        first.give_back("greedy")
        assert second.take("modest")
        second.give_back("modest")
        first.count("greedy")


def test_processes_do_not_overlook_one_another_at_the_last_place(descriptor: int) -> None:
    """One asks in the middle of the other's decision: never do both get it."""
    got: list[bool] = []

    def interrupted() -> int:
        got.append(second.take("you"))
        return 1

    first = Shares(interrupted, SharedCounts(descriptor, 0), Column.UPLOADS)
    second = Shares(lambda: 1, SharedCounts(descriptor, 1), Column.UPLOADS)
    got.append(first.take("me"))
    assert (sum(got), first.taken) == (1, 1)


def test_place_that_is_not_due_is_not_taken() -> None:
    """Whoever is refused holds nothing; whoever comes in the place of another does, for a moment one too many."""
    shares = places(1)
    assert [shares.take("a"), shares.take("a"), shares.taken] == [True, False, 1]
    shares.count("a")
    assert (shares.taken, shares.full) == (2, True)


class Ends(NamedTuple):
    """The two ends of a connection, as a writer has the first."""

    here: socket.socket
    there: socket.socket

    def get_extra_info(self, name: str) -> Any:
        """See asyncio.StreamWriter."""
        return self.here if name == "socket" else self.here.getpeername()


def seen(ends: Ends) -> Via:
    """What is seen of the other end."""
    with ends.here, ends.there:
        return via_of(cast(StreamWriter, ends))


def test_user_at_a_unix_socket_is_seen_with_his_groups() -> None:
    """As he was when he connected."""
    via = seen(Ends(*socket.socketpair()))
    assert via == Via(None, Credentials(os.geteuid(), os.getegid(), frozenset(os.getgroups())))
    assert via.peer == f"uid:{os.geteuid()}"


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_loopback_is_of_this_machine(family: socket.AddressFamily, address: str) -> None:
    """Whoever comes from there may be any user of it."""
    with socket.create_server((address, 0), family=family) as server, socket.create_connection(server.getsockname()[:2]) as there:
        via = seen(Ends(server.accept()[0], there))
    assert via == Via(address, is_local=True)


def test_address_of_this_machine_is_its_own_and_no_other_is() -> None:
    """Local users reach each listener from it, also one on loopback."""
    elsewhere = "203.0.113.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # A machine that has no way to another one has no address towards it: 0.0.0.0 is said then.
        with suppress(OSError):
            probe.connect((elsewhere, 9))
        own = probe.getsockname()[0]
    with socket.socket() as connection:
        assert [is_local(connection, (address, 1)) for address in (own, "0.0.0.0", elsewhere)] == [True, True, False]
    with socket.socket(socket.AF_INET6) as connection:
        assert [is_local(connection, (f"::ffff:{address}", 1, 0, 0)) for address in (own, elsewhere)] == [True, False]
