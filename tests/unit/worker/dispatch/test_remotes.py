import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from daemon.config import Config, Remote, load
from daemon.errors import Undelivered
from tests.support.depot import Depot
from tests.support.waiting import PATIENCE_S, eventually
from worker.dispatch import remotes as module
from worker.dispatch.lifecycle_feed import RemoteUnheard
from worker.dispatch.outages import Outages
from worker.dispatch.remotes import Probed, Remotes
from worker.targets.base import Target

NUMBER = 60


def many_remotes() -> Config:
    """A configuration with many remotes beside this machine's."""
    there = {f"r{number}": Remote(endpoint=f"https://192.0.2.{number}:8443") for number in range(NUMBER)}
    return load(None).model_copy(update={"remotes": there})


class Silent:
    """A target whose probe hangs until the test is over; but for one remote, which answers."""

    def __init__(self, answers: bool, over: threading.Event) -> None:
        self._answers = answers
        self._over = over

    def probe(self) -> None:
        """Hang, or answer."""
        if not self._answers:
            self._over.wait(PATIENCE_S)
            raise Undelivered("incus_unreachable")

    def follow(self, *_: Any) -> None:
        """Nothing happens there."""

    def close(self) -> None:
        """Nothing is open."""


def test_remote_that_is_back_is_found_while_many_others_hang(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe takes seconds to find nothing, and none waits for another's."""
    monkeypatch.setattr(module, "PROBE_EVERY_S", 0.0)
    over = threading.Event()
    found: list[Any] = []

    def open_target(remote: str, _config: Config) -> Any:
        return Silent(remote == f"r{NUMBER - 1}", over)

    remotes = Remotes(Outages(depot.queue), many_remotes(), open_target, found.append)
    for number in range(NUMBER):
        remotes.note_down(f"r{number}", "incus_unreachable")
    remotes.tend()
    eventually(lambda: Probed(f"r{NUMBER - 1}", None) in found)
    over.set()
    remotes.close()


class Unheard:
    """A target whose events cannot be followed, and whose probe finds nobody unless it answers."""

    answers = False

    def probe(self) -> None:
        """Answer or not."""
        if not self.answers:
            raise Undelivered("incus_unreachable")

    def follow(self, _on_event: object, _on_up: object, on_down: Callable[[str], None]) -> "Unheard":
        """Say at once that nothing is heard."""
        on_down("cut off")
        return self

    def close(self) -> None:
        """Nothing is open."""


def test_remote_that_nothing_is_delivered_to_is_found_to_be_away(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else bytes that it may have lost would go while it is away. One that answers is not away, heard or not."""
    monkeypatch.setattr(module, "UNHEARD_EVERY_S", 0.0)
    found: list[Any] = []
    there = Unheard()
    remotes = Remotes(Outages(depot.queue), many_remotes(), lambda _remote, _config: cast(Target, there), found.append)
    remotes.target("r1")
    assert found == [RemoteUnheard("r1")]
    remotes.note_unheard("r1")
    remotes.tend()
    eventually(lambda: len(found) == 2)
    away = found.pop()
    assert (remotes.answers("r1"), remotes.probed(away), remotes.answers("r1")) == (True, True, False)
    there.answers = True
    remotes.note_up("r1")
    remotes.tend()
    eventually(lambda: found[1:] == [Probed("r1", None)])
    assert remotes.answers("r1")
    remotes.note_heard("r1")
    assert (remotes.probed(away), remotes.answers("r1"), remotes.next_probe_in_s()) == (False, True, None)
    remotes.close()
