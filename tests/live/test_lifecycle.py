"""Following the lifecycle events of a real Incus."""

import itertools
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.config import Config, Remote
from tests.live.host import Host
from tests.live.proxy import Proxy
from tests.support.waiting import PATIENCE_S
from worker.targets.incus.endpoints import Endpoints
from worker.targets.incus.lifecycle import Lifecycle, next_pause_s
from worker.targets.registry import open_target


class Follower:
    """A Lifecycle and what it said."""

    def __init__(self, endpoint: str) -> None:
        self.said: queue.Queue[tuple[str, ...]] = queue.Queue()
        self._lifecycle = Lifecycle(
            Endpoints("local", Remote(endpoint=endpoint)), lambda *event: self.said.put(event), lambda: self.said.put(("up",)),
            lambda reason: self.said.put(("down",)))

    def wait_for(self, *wanted: str) -> None:
        """Return when it said that, whatever came before."""
        while self.said.get(timeout=PATIENCE_S) != wanted:
            pass

    def close(self) -> None:
        """End it."""
        self._lifecycle.close()


@pytest.fixture
def follower(incus: Host) -> Iterator[Follower]:
    """One that follows the real Incus."""
    follower = Follower(incus.socket)
    follower.wait_for("up")
    yield follower
    follower.close()


@pytest.mark.live
def test_events_of_an_instance_are_told(incus: Host, follower: Follower) -> None:
    """An instance that is made, started and deleted is told at once."""
    with incus.container(running=False) as container:
        follower.wait_for("default", container.name, "instance-created")
        container.start()
        follower.wait_for("default", container.name, "instance-started")
    follower.wait_for("default", container.name, "instance-deleted")


@pytest.mark.live
def test_events_of_every_project_are_told(incus: Host, follower: Follower) -> None:
    """The project comes with the event."""
    with incus.project() as project, incus.container(running=False, project=project) as container:
        follower.wait_for(project, container.name, "instance-created")


@pytest.mark.live
def test_connection_that_is_cut_comes_back(incus: Host, tmp_path: Path) -> None:
    """Down and up are told, each once, when the connection goes and comes."""
    with Proxy(tmp_path / "s", incus.socket) as proxy:
        follower = Follower(proxy.path)
        try:
            follower.wait_for("up")
            proxy.cut()
            follower.wait_for("down")
            follower.wait_for("up")
        finally:
            follower.close()


def test_socket_that_is_missing_is_told_once(tmp_path: Path) -> None:
    """An Incus that is not there is told once, and closing ends the waiting."""
    follower = Follower(str(tmp_path / "s"))
    assert follower.said.get(timeout=PATIENCE_S) == ("down",)
    follower.close()
    assert follower.said.empty()


def test_directory_has_no_events() -> None:
    """Where a directory stands in for Incus there is nothing to follow."""
    config = Config.model_validate({"target": {"kind": "directory"}})
    assert open_target("local", config).follow(lambda *event: None, lambda: None, lambda reason: None) is None


def test_connection_that_ends_at_once_each_time_is_made_ever_more_seldom() -> None:
    """What comes with each, a look at every instance that is down, comes once a second at most; after a long one soon."""
    pauses = list(itertools.accumulate(range(6), lambda pause_s, _: next_pause_s(pause_s, 0.01), initial=0.0))
    assert pauses == sorted(pauses)
    assert pauses[-2:] == [1.0, 1.0]
    assert next_pause_s(pauses[-1], 60.0) < 1.0
