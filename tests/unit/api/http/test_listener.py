"""Who takes a connection, of several processes that listen at one door."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from api.http import listener
from api.http.listener import LEFT_FOR_S, TAKES_FOR_S, Listener
from tests.support.waiting import PATIENCE_S


class Balance:
    """Says who holds fewer connections, and what time it is; and is the event loop."""

    def __init__(self) -> None:
        self.has_fewest = True
        self.now = 1000.0
        self._soon: list[Callable[[], None]] = []

    def call_soon(self, action: Callable[[], None]) -> None:
        """Have it done in the next turn."""
        self._soon.append(action)

    def turn(self) -> None:
        """Turn, up to where sockets are asked for."""
        soon, self._soon = self._soon, []
        for action in soon:
            action()


@pytest.fixture
def balance(monkeypatch: pytest.MonkeyPatch) -> Balance:
    """The only clock that the listeners of this test look at, and what they are told of others."""
    balance = Balance()
    monkeypatch.setattr(listener, "time", SimpleNamespace(monotonic=lambda: balance.now))
    return balance


@pytest.fixture
def listening(balance: Balance) -> Iterator[Listener]:
    """A listener at which two clients wait."""
    with socket.create_server(("127.0.0.1", 0)) as door, Listener.of(
            door, lambda: balance.has_fewest, balance.call_soon) as listening:
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
    """Until that one had time to take it: then it is busy, or gone, and nobody shall wait for it, nor the next ones."""
    balance.has_fewest = False
    for wait_s in (0.0, LEFT_FOR_S * 0.4, LEFT_FOR_S * 0.5):
        balance.now += wait_s
        assert not takes_one(listening)
        balance.turn()
    balance.now += LEFT_FOR_S * 0.2
    assert takes_one(listening)
    balance.turn()
    balance.turn()
    assert takes_one(listening)


@pytest.mark.parametrize("meanwhile", ["another process took it", "this process took it"])
def test_each_connection_is_left_for_as_long(listening: Listener, balance: Balance, meanwhile: str) -> None:
    """However short after the one before it comes."""
    balance.has_fewest = False
    assert not takes_one(listening)
    balance.turn()
    balance.now += LEFT_FOR_S * 1.1
    if meanwhile == "another process took it":
        balance.turn()
    else:
        balance.has_fewest = True
        assert takes_one(listening)
        balance.has_fewest = False
    assert not takes_one(listening)


def test_process_that_holds_more_takes_connections_again_after_a_while_only(
    listening: Listener, balance: Balance,
) -> None:
    """Who was gone may be there again."""
    balance.has_fewest = False
    assert not takes_one(listening)
    balance.now += LEFT_FOR_S * 1.1
    assert takes_one(listening)
    balance.now += TAKES_FOR_S * 1.1
    balance.turn()
    balance.turn()
    assert not takes_one(listening)


def test_door_that_another_process_has_shut_is_nobody_at_the_door(listening: Listener) -> None:
    """It is no error: this process is about to be told to end."""
    listening.shutdown(socket.SHUT_RDWR)
    assert not takes_one(listening)


def test_as_many_may_wait_whatever_asyncio_says(listening: Listener) -> None:
    """It means how many are accepted in a turn; the sockets of other processes would be made shorter, too."""
    listening.listen(1)
    name = listening.getsockname()
    with contextlib.ExitStack() as waiting:
        for _ in range(20):
            waiting.enter_context(socket.create_connection(name, timeout=PATIENCE_S))


def test_listener_that_has_ended_accepts_nobody(listening: Listener) -> None:
    """Who waits is for the next process."""
    listening.end()
    assert not takes_one(listening)
