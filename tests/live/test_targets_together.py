"""Many files that are delivered together, whatever the way to deliver."""

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from daemon.config import Remote
from daemon.errors import Undelivered
from daemon.model.upload import Destination
from tests.live.host import Host
from tests.live.proxy import Proxy
from tests.live.ways import ALL
from tests.live.world import TRAILER, World
from worker.targets.base import Ended, Parcel, Patience
from worker.targets.incus.target import IncusTarget

#: The timeout where no answer is to come.
SILENT_S = 1.0
MIB = 2**20


def a_parcel(world: World, name: str, data: bytes, before_rename: Callable[[], None] = lambda: None,
             **changes: object) -> Parcel:
    """A file for the test's own directory."""
    return Parcel(delivery=world.delivery(f"{world.home}/{name}", data, **changes), source=io.BytesIO(data + TRAILER),
                  before_rename=before_rename)


def code(ended: Ended) -> str:
    """How it ended: an error's code, or none."""
    return ended.error.code if isinstance(ended.error, Undelivered) else repr(ended.error) if ended.error else ""


@pytest.mark.parametrize("way", ALL)
class TestTogether:
    """Files of all kinds side by side."""

    def test_each_is_what_it_was_to_be(self, world: World) -> None:
        """Small ones and large ones, over what is there, in directories that are not there yet, and through links."""
        world.make_file(f"{world.home}/old", b"old", 0o640)
        world.make_file(f"{world.home}/led-to", b"old", 0o600)
        world.make_link(f"{world.home}/link", "led-to")
        sizes = {"empty": 0, "small": 3, "old": 10, "link": 20, "large": MIB, "d/e/first": 5, "d/e/second": 6}
        data = {name: bytes([number]) * size for number, (name, size) in enumerate(sizes.items())}
        parcels = [a_parcel(world, name, data[name], mkdirs=True) for name in sizes]
        parcels += [a_parcel(world, f"more-{number}", b"x" * number, mode=0o600) for number in range(40)]
        with contextlib.closing(world.open()) as session:
            found = {ended.parcel.delivery.task_id: code(ended) for ended in session.deliver_all(parcels)}
        assert found == {parcel.delivery.task_id: "" for parcel in parcels}
        assert {name: world.facts(f"{world.home}/{'led-to' if name == 'link' else name}").data for name in sizes} == data
        assert (world.facts(f"{world.home}/old").mode, world.facts(f"{world.home}/led-to").mode) == (0o640, 0o600)
        assert world.facts(f"{world.home}/more-7").mode == 0o600
        assert world.host_path(f"{world.home}/link").is_symlink()
        assert not list(world.host_path(world.home).rglob(".courier-*"))

    def test_each_fails_alone(self, world: World) -> None:
        """One that is refused, one that is cancelled, one whose bytes are gone: the others are there."""
        world.make_directory(f"{world.home}/directory")

        def refuse() -> None:
            raise InterruptedError("cancelled")

        short = Parcel(delivery=world.delivery(f"{world.home}/short", b"longer"), source=io.BytesIO(b"lon"),
                       before_rename=lambda: None)
        parcels = [a_parcel(world, "a", b"a"), a_parcel(world, "directory", b"x"), a_parcel(world, "b", b"b"),
                   a_parcel(world, "cancelled", b"x", refuse), a_parcel(world, "no/parent", b"x"), short,
                   a_parcel(world, "c", b"c")]
        with contextlib.closing(world.open()) as session:
            found = {ended.parcel.delivery.destination.path.removeprefix(f"{world.home}/"): code(ended)
                     for ended in session.deliver_all(parcels)}
            assert not session.broken
        errors = {name: code for name, code in found.items() if code}
        assert len(found) == len(parcels)
        assert errors == {"directory": "target_is_directory", "cancelled": "InterruptedError('cancelled')",
                          "no/parent": "parent_not_found", "short": errors["short"]}
        assert {name: world.facts(f"{world.home}/{name}").data for name in "abc"} == {"a": b"a", "b": b"b", "c": b"c"}
        if world.way != "files_api":
            assert errors["short"] == "bytes_damaged"
            assert world.names(world.home) == ["a", "b", "c", "directory"]

    def test_each_is_asked_for_at_its_own_last_moment(self, world: World) -> None:
        """What is cancelled while others are on their way does not appear."""
        cancelled: set[str] = set()

        def ask(name: str) -> None:
            if name in cancelled:
                raise InterruptedError(name)
            cancelled.add("last")

        parcels = [a_parcel(world, name, b"x", partial(ask, name)) for name in ("first", "last")]
        with contextlib.closing(world.open()) as session:
            found = [code(ended) for ended in session.deliver_all(parcels)]
        assert sorted(found) == ["", "InterruptedError('last')"]
        assert world.names(world.home) == ["first"]


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
@pytest.mark.parametrize("ends", ["stalled", "connection_lost"])
def test_connection_that_ends_is_the_matter_of_one_of_those_on_their_way(
    world: World, incus: Host, tmp_path: Path, ends: str,
) -> None:
    """All are told of it, each whether it may have left something; the others had nothing to do with it."""
    patience = Patience(SILENT_S)
    with Proxy(tmp_path / "s", incus.socket) as proxy:
        target = IncusTarget("local", Remote(endpoint=proxy.path))
        first = [a_parcel(world, f"first-{number}", b"x") for number in range(3)]
        then = [a_parcel(world, f"then-{number}", b"x", proxy.stall if ends == "stalled" else proxy.cut)
                for number in range(5)]
        with contextlib.closing(target.open(Destination("local", "default", world.instance, "/"), "push", patience)) as session:
            assert [code(ended) for ended in session.deliver_all(first)] == [""] * 3
            found = list(session.deliver_all(then))
            assert session.broken
    assert {(code(ended), ended.left_part) for ended in found} == {(ends, True)}
    assert sorted(ended.bystander for ended in found) == [False, True, True, True, True]
    assert patience.hurried is (ends == "stalled")
    assert [name for name in world.names(world.home) if not name.startswith(".courier-")] == [f"first-{number}" for number in range(3)]
