"""Who takes a connection, of several processes that listen at one door."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from api.http import listener
from api.http.listener import LEFT_FOR_S, Listener


class Balance:
    """Says who holds fewer connections, and what time it is."""

    def __init__(self) -> None:
        self.has_fewest = True
        self.now = 1000.0


@pytest.fixture
def balance(monkeypatch: pytest.MonkeyPatch) -> Balance:
    """The only clock that the listeners of this test look at, and what they are told of others."""
    balance = Balance()
    monkeypatch.setattr(listener, "time", SimpleNamespace(monotonic=lambda: balance.now))
    return balance


@pytest.fixture
def listening(balance: Balance) -> Iterator[Listener]:
    """A listener at which two clients wait."""
    with socket.create_server(("127.0.0.1", 0)) as door, Listener.of(door, lambda: balance.has_fewest) as listening:
        door.setblocking(False)
        with socket.create_connection(door.getsockname()), socket.create_connection(door.getsockname()):
            yield listening


def takes_one(listening: Listener) -> bool:
    """Whether somebody who waits is accepted."""
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_process_with_the_fewest_connections_takes_the_next_one_at_once(listening: Listener) -> None:
    """So does one that is alone."""
    assert takes_one(listening)


def test_connection_is_left_to_a_process_that_holds_fewer(listening: Listener, balance: Balance) -> None:
    """Until that one had time to take it: then it is busy, or gone, and nobody shall wait for it."""
    balance.has_fewest = False
    assert not takes_one(listening)
    balance.now += LEFT_FOR_S * 0.9
    assert not takes_one(listening)
    balance.now += LEFT_FOR_S * 0.2
    assert takes_one(listening)
    assert takes_one(listening)


@pytest.mark.parametrize("meanwhile", ["a pause", "a turn of its own"])
def test_each_connection_is_left_for_as_long(listening: Listener, balance: Balance, meanwhile: str) -> None:
    """What was seen a while ago, or before this process had a turn, was another one."""
    balance.has_fewest = False
    assert not takes_one(listening)
    if meanwhile == "a pause":
        balance.now += 1.0
    else:
        balance.has_fewest = True
        assert takes_one(listening)
        balance.has_fewest = False
        balance.now += LEFT_FOR_S * 1.1
    assert not takes_one(listening)


def test_listener_that_has_ended_accepts_nobody(listening: Listener) -> None:
    """Who waits is for the next process."""
    listening.end()
    assert not takes_one(listening)
