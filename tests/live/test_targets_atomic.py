"""The old file or the new one, and the part files between them, whatever the way to deliver."""

import contextlib
import io
import os
import shutil
import threading
from dataclasses import replace

import pytest

from daemon.errors import Undelivered
from tests.live.ways import ALL, ATOMIC, Watched, refused
from tests.live.world import World
from worker.targets.base import Delivery

MIB = 2**20


@pytest.mark.parametrize("way", ATOMIC)
class TestAtomic:
    """The old file or the new one, and never anything between them."""

    def test_receipt_says_how_it_was_done(self, world: World) -> None:
        """The receipt names the way and that it is atomic."""
        receipt = world.deliver(f"{world.home}/f", b"x")
        assert (receipt.atomic, receipt.way, receipt.unchanged) == (True, world.way, False)

    def test_pipe_is_its_own_error(self, world: World) -> None:
        """A named pipe is not replaced."""
        os.mkfifo(world.host_path(f"{world.home}/pipe"))
        assert refused(world, f"{world.home}/pipe") == "target_not_regular"
        assert world.names(world.home) == ["pipe"]

    @pytest.mark.parametrize("size", [3, MIB])
    def test_nothing_is_left_when_the_last_word_is_no(self, world: World, size: int) -> None:
        """What `before_rename` raises ends the delivery; the old file stays, and no part file."""
        world.make_file(f"{world.home}/f", b"old")

        def refuse() -> None:
            assert len(world.names(world.home)) == 2
            raise InterruptedError("cancelled")

        with contextlib.closing(world.open()) as session:
            delivery = world.delivery(f"{world.home}/f", b"x" * size)
            with pytest.raises(InterruptedError):
                session.deliver(delivery, io.BytesIO(b"x" * size), refuse)
            assert not session.left_part
        assert world.names(world.home) == ["f"]
        assert world.facts(f"{world.home}/f").data == b"old"

    def test_session_says_when_a_part_file_may_be_left(self, world: World) -> None:
        """It could not be removed: something else is at its name. The next delivery is judged for itself."""
        delivery = world.delivery(f"{world.home}/f", b"x")

        def spoil() -> None:
            part = world.host_path(f"{world.home}/{delivery.part_name}")
            part.unlink()
            part.mkdir()
            (part / "x").touch()
            raise InterruptedError("cancelled")

        with contextlib.closing(world.open()) as session:
            with pytest.raises(InterruptedError):
                session.deliver(delivery, io.BytesIO(b"x"), spoil)
            assert session.left_part
            session.deliver(world.delivery(f"{world.home}/g", b"y"), io.BytesIO(b"y"), lambda: None)
            assert not session.left_part

    @pytest.mark.parametrize("mode", [0o600, 0o644])
    def test_part_file_that_is_taken_away_is_not_the_fault_of_the_path(self, world: World, mode: int) -> None:
        """Something in the instance tidied it up, or a late rename of an earlier attempt took it: the next one works."""
        delivery = world.delivery(f"{world.home}/f", b"x", mode=mode)

        def take_away() -> None:
            part = world.host_path(f"{world.home}/{delivery.part_name}")
            shutil.rmtree(part) if part.is_dir() else part.unlink()

        with contextlib.closing(world.open()) as session:
            with pytest.raises(Undelivered) as caught:
                session.deliver(delivery, io.BytesIO(b"x"), take_away)
            assert caught.value.code == "verify_failed"
            session.deliver(delivery, io.BytesIO(b"x"), lambda: None)
        assert world.names(world.home) == ["f"]

    def test_part_file_is_private_while_it_grows(self, world: World) -> None:
        """Before a large file is whole, nobody but its maker may read it."""
        seen: list[int] = []
        source = Watched(os.urandom(2 * MIB), lambda: seen.extend(
            path.stat().st_mode & 0o777 for path in world.host_path(world.home).glob(".courier-*.part")))
        with contextlib.closing(world.open()) as session:
            session.deliver(world.delivery(f"{world.home}/f", source.getvalue()), source, lambda: None)
        assert seen
        assert set(seen) == {0o600}

    def test_left_over_part_file_is_removed(self, world: World) -> None:
        """The part file of an attempt that was killed is no obstacle for the next."""
        delivery = world.delivery(f"{world.home}/f", b"new")
        world.make_file(f"{world.home}/{delivery.part_name}", b"half of the", 0o644)
        with contextlib.closing(world.open()) as session:
            session.deliver(delivery, io.BytesIO(b"new"), lambda: None)
        assert world.names(world.home) == ["f"]
        assert world.facts(f"{world.home}/f").data == b"new"

    @pytest.mark.parametrize("files", [50, pytest.param(200, marks=pytest.mark.full)])
    def test_reader_never_sees_half_a_file(self, world: World, files: int) -> None:
        """While files of 8 MiB replace each other, every reading is one of them and whole."""
        path = f"{world.home}/f"
        versions = [bytes([65 + number]) * (8 * MIB) for number in range(4)]
        world.deliver(path, versions[0])
        wrong: list[str] = []
        readings = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                data = world.host_path(path).read_bytes()
                readings.append(len(data))
                if len(data) != 8 * MIB or data.count(data[:1]) != 8 * MIB:
                    wrong.append(f"{len(data)} bytes")

        reader = threading.Thread(target=read)
        reader.start()
        try:
            with contextlib.closing(world.open()) as session:
                for number in range(files):
                    data = versions[number % 4]
                    session.deliver(world.delivery(path, data), io.BytesIO(data), lambda: None)
        finally:
            done.set()
            reader.join()
        assert readings
        assert wrong == []

    def test_recheck_leaves_the_right_file_alone(self, world: World) -> None:
        """A file that is there already with the right bytes, mode and owner is not written again."""
        world.deliver(f"{world.home}/f", b"right", mode=0o640)
        before = world.host_path(f"{world.home}/f").stat().st_ino
        receipt = world.deliver(f"{world.home}/f", b"right", mode=0o640, recheck=True)
        assert receipt.unchanged
        assert world.host_path(f"{world.home}/f").stat().st_ino == before

    @pytest.mark.parametrize("there", [b"wrong", b"longer than right", b""])
    def test_recheck_mends_the_wrong_file(self, world: World, there: bytes) -> None:
        """A file with other bytes is pushed again."""
        world.make_file(f"{world.home}/f", there)
        receipt = world.deliver(f"{world.home}/f", b"right", recheck=True)
        assert not receipt.unchanged
        assert world.facts(f"{world.home}/f").data == b"right"

    def test_recheck_mends_the_wrong_mode(self, world: World) -> None:
        """A file with another mode than was asked for is pushed again."""
        world.make_file(f"{world.home}/f", b"right", 0o777)
        assert not world.deliver(f"{world.home}/f", b"right", mode=0o600, recheck=True).unchanged
        assert world.facts(f"{world.home}/f").mode == 0o600


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
@pytest.mark.parametrize("through_link", [False, True])
def test_late_rename_of_the_last_attempt_takes_nothing_of_the_next(world: World, through_link: bool) -> None:
    """Its part file has another name, also when the last one did not get as far as to make one."""
    path = f"{world.home}/{'link' if through_link else 'd/f'}"
    world.make_directory(f"{world.home}/d")
    world.make_link(f"{world.home}/link", "d/f")
    first = world.delivery(path, b"new", left_part=True)
    second = replace(first, other_name=True)

    def names_while_pushing(left: list[Delivery]) -> list[str]:
        for each in left:
            world.make_file(f"{world.home}/d/{each.part_name}", b"half of the")
        seen: list[str] = []
        with contextlib.closing(world.open()) as session:
            session.deliver(first, io.BytesIO(b"new"), lambda: seen.extend(world.names(f"{world.home}/d")))
        assert world.names(f"{world.home}/d") == ["f"]
        assert world.facts(f"{world.home}/d/f").data == b"new"
        return [name for name in seen if name != "f"]

    assert names_while_pushing([first]) == [second.part_name]
    assert names_while_pushing([]) == [second.part_name]
    assert names_while_pushing([second]) == [first.part_name]


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp", "files_api"])
@pytest.mark.parametrize("other_name", [False, True])
def test_part_file_is_swept_by_either_name(world: World, other_name: bool) -> None:
    """Nobody knows which attempt was the last."""
    delivery = world.delivery(f"{world.home}/f", b"new")
    world.make_file(f"{world.home}/{replace(delivery, other_name=other_name).part_name}", b"half of the")
    with contextlib.closing(world.open()) as session:
        assert session.sweep(delivery)
        assert not session.sweep(delivery)
    assert world.names(world.home) == []


@pytest.mark.parametrize("way", ALL)
class TestSweeping:
    """Part files of tasks that are not delivered any more."""

    def test_left_over_part_file_is_swept(self, world: World) -> None:
        """The part file of a task that is not delivered any more is removed on request, and nothing else is."""
        world.make_directory(f"{world.home}/d")
        world.make_link(f"{world.home}/link", "d/f")
        for path, place in ((f"{world.home}/f", world.home), (f"{world.home}/link", f"{world.home}/d")):
            delivery = world.delivery(path, b"new")
            world.make_file(f"{place}/{delivery.part_name}", b"half of the", 0o644)
            with contextlib.closing(world.open()) as session:
                assert session.sweep(delivery)
                assert not session.sweep(delivery)
        assert world.names(world.home) == ["d", "link"]
        assert world.names(f"{world.home}/d") == []

    def test_sweeping_makes_no_directories(self, world: World) -> None:
        """Not even for a task that was to make them."""
        with contextlib.closing(world.open()) as session:
            assert not session.sweep(world.delivery(f"{world.home}/no/f", b"x", mkdirs=True))
        assert world.names(world.home) == []

    def test_nothing_is_swept_where_there_is_no_directory(self, world: World) -> None:
        """A directory that is gone took its part files with it."""
        with contextlib.closing(world.open()) as session:
            assert not session.sweep(world.delivery(f"{world.home}/no/f", b"x"))


@pytest.mark.parametrize("way", ALL)
def test_what_was_made_apart_is_swept_wherever_that_was(world: World) -> None:
    """What is made in a directory of its own, on the way to its place, is removed with that."""
    world.make_directory(f"{world.home}/d")
    for place in (world.home, f"{world.home}/d"):
        for filled in (True, False):
            delivery = world.delivery(f"{world.home}/d/f", b"new")
            world.make_directory(f"{place}/{delivery.staging_name}", 0o700)
            if filled:
                world.make_directory(f"{place}/{delivery.staging_name}/{delivery.staging_name}", 0o700)
            with contextlib.closing(world.open()) as session:
                assert session.sweep(delivery)
                assert not session.sweep(delivery)
    assert world.names(world.home) == ["d"]
    assert world.names(f"{world.home}/d") == []


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
def test_what_is_in_the_way_of_directories_that_are_made_apart_is_removed(world: World) -> None:
    """Also where nobody knows any more that an earlier attempt left something."""
    delivery = world.delivery(f"{world.home}/d/f", b"new", mkdirs=True)
    world.make_directory(f"{world.home}/{delivery.staging_name}", 0o700)
    world.make_file(f"{world.home}/{delivery.staging_name}/{delivery.staging_name}", b"", 0o600)
    with contextlib.closing(world.open()) as session:
        session.deliver(delivery, io.BytesIO(b"new"), lambda: None)
        assert not session.left_part
    assert world.names(world.home) == ["d"]


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
@pytest.mark.parametrize("mkdirs", [False, True])
def test_next_attempt_removes_directories_that_the_last_one_was_making(world: World, mkdirs: bool) -> None:
    """They are where it was made apart, all of them; also when another upload has made them by now."""
    world.make_directory(f"{world.home}/a")
    world.give(f"{world.home}/a", 1000, 0o755)
    world.make_directory(f"{world.home}/a/b/c", 0o755)
    delivery = world.delivery(f"{world.home}/a/b/c/f", b"new", mkdirs=mkdirs, left_part=True)
    world.make_directory(f"{world.home}/{delivery.staging_name}/{delivery.staging_name}/c", 0o700)
    with contextlib.closing(world.open()) as session:
        session.deliver(delivery, io.BytesIO(b"new"), lambda: None)
    assert world.names(world.home) == ["a"]
    assert world.names(f"{world.home}/a/b/c") == ["f"]
