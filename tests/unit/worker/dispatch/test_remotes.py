import threading
from typing import Any

import pytest

from daemon.config import Config, Remote, load
from daemon.errors import Undelivered
from tests.support.depot import Depot
from tests.support.waiting import PATIENCE_S, eventually
from worker.dispatch import remotes as module
from worker.dispatch.outages import Outages
from worker.dispatch.remotes import Probed, Remotes

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
