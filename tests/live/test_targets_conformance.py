"""What every way to deliver promises: SFTP and the files API of a real Incus, and the directory."""

import contextlib
import io
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import Undelivered
from tests.live.world import World
from worker.targets.sftp_part import HIDDEN
from worker.targets.sftp_wire import Wire

LIVE = pytest.mark.live
ATOMIC = [pytest.param("sftp", marks=LIVE), "directory"]
ALL = [*ATOMIC, pytest.param("files_api", marks=LIVE)]
IN_INCUS = [pytest.param("sftp", marks=LIVE), pytest.param("files_api", marks=LIVE)]
MIB = 2**20


@pytest.fixture
def world(make_world: Callable[[str], World], way: str) -> World:
    """The world of the way that the test is run for."""
    return make_world(way)


def refused(world: World, path: str, data: bytes = b"new", **changes: object) -> str:
    """Deliver to a destination that refuses it; return the code."""
    with pytest.raises(Undelivered) as caught:
        world.deliver(path, data, **changes)
    return caught.value.code


@pytest.mark.parametrize("way", ALL)
class TestBytes:
    """What arrives."""

    @pytest.mark.parametrize("size", [0, 1, 255 * 1024, 255 * 1024 + 1, 8 * MIB])
    def test_file_arrives_whole_without_the_bytes_that_follow_it_in_the_spool(self, world: World, size: int) -> None:
        """A file of any size arrives, and not a byte more than its size."""
        data = os.urandom(size)
        world.deliver(f"{world.home}/f", data)
        assert world.facts(f"{world.home}/f").data == data

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB])
    def test_file_is_compared_by_digest_when_asked(self, world: World, size: int) -> None:
        """With verify = "digest" the bytes are read back, and the right ones pass."""
        data = os.urandom(size)
        world.deliver(f"{world.home}/f", data, verify="digest")
        assert world.facts(f"{world.home}/f").data == data

    def test_bytes_that_are_not_those_accepted_are_refused_when_asked_to_compare(self, world: World) -> None:
        """With verify = "digest" a spool file that has changed is told apart from an instance that has."""
        assert refused(world, f"{world.home}/f", verify="digest", sha256="0" * 64) == "bytes_damaged"
        data, path = os.urandom(3 * MIB), f"{world.home}/g"

        def spoil() -> None:
            for written in (*world.host_path(world.home).glob(".courier-*"), world.host_path(path)):
                if written.exists() and written.stat().st_size > MIB:
                    with written.open("r+b") as file:
                        file.write(bytes([data[0] ^ 1]))

        source = Watched(data, spoil)
        with contextlib.closing(world.open()) as session, pytest.raises(Undelivered) as caught:
            session.deliver(world.delivery(path, data, verify="digest"), source, lambda: None)
        assert caught.value.code == "verify_failed"

    def test_shorter_file_replaces_a_longer_one(self, world: World) -> None:
        """Nothing of the old file's end stays."""
        world.make_file(f"{world.home}/f", b"old and long")
        world.deliver(f"{world.home}/f", b"new")
        assert world.facts(f"{world.home}/f").data == b"new"

    def test_empty_file_replaces_a_full_one(self, world: World) -> None:
        """An empty upload empties the file."""
        world.make_file(f"{world.home}/f", b"old")
        world.deliver(f"{world.home}/f", b"")
        assert world.facts(f"{world.home}/f").data == b""

    def test_source_that_ends_too_early_is_damaged(self, world: World) -> None:
        """A spool file with too few bytes is never delivered."""
        delivery = world.delivery(f"{world.home}/f", b"x" * 100)
        with contextlib.closing(world.open()) as session, pytest.raises(Undelivered) as caught:
            session.deliver(delivery, io.BytesIO(b"short"), lambda: None)
        assert caught.value.code == "bytes_damaged"

    @pytest.mark.parametrize("name", ["한글 이름.txt", "emoji 😀👍", "a  b", "-rf", "x?y#z&project=nope%2e", "가" * 85, "x" * 255])
    def test_name_of_any_script_arrives_as_it_is(self, world: World, name: str) -> None:
        """Names are bytes to the instance: Korean, emoji, spaces and 255 bytes all arrive unchanged."""
        world.deliver(f"{world.home}/{name}", b"data")
        assert world.names(world.home) == [name]

    def test_path_of_4095_bytes_arrives(self, world: World) -> None:
        """The longest path that Linux takes is delivered, its directories made."""
        above = world.home + "/" + "/".join(["d" * 249] * 16)
        path = f"{above}/{'f' * (4094 - len(above))}"
        assert len(path) == 4095
        world.deliver(path, b"x", mkdirs=True)
        with contextlib.closing(world.open()) as session:
            delivery = world.delivery(path, b"x", recheck=True)
            assert session.deliver(delivery, io.BytesIO(b"x"), lambda: None).unchanged

    def test_name_of_256_bytes_is_too_long(self, world: World) -> None:
        """A name that the filesystem cannot hold has its own error."""
        assert refused(world, f"{world.home}/{'x' * 256}") == "name_too_long"

    def test_one_session_delivers_many_files(self, world: World) -> None:
        """A session goes on after a success and after a refusal."""
        with contextlib.closing(world.open()) as session:
            for number in range(20):
                session.deliver(world.delivery(f"{world.home}/{number}", b"x"), io.BytesIO(b"x"), lambda: None)
                with pytest.raises(Undelivered):
                    session.deliver(world.delivery(f"{world.home}/no/{number}", b"x"), io.BytesIO(b"x"), lambda: None)
            assert not session.broken
        assert len(world.names(world.home)) == 20


@pytest.mark.parametrize("way", ALL)
class TestModeAndOwner:
    """Exact, on new files and on old ones."""

    def test_new_file_has_the_mode_and_owner_that_were_asked(self, world: World) -> None:
        """A new file gets exactly what was asked for."""
        uid, gid = world.owner
        world.deliver(f"{world.home}/f", b"secret", mode=0o600, uid=uid, gid=gid)
        facts = world.facts(f"{world.home}/f")
        assert (facts.mode, facts.uid, facts.gid) == (0o600, uid, gid)

    def test_existing_file_gets_the_mode_and_owner_that_were_asked(self, world: World) -> None:
        """What was there before does not matter when mode and owner are given."""
        uid, gid = world.owner
        world.make_file(f"{world.home}/f", b"old", 0o666)
        world.deliver(f"{world.home}/f", b"new", mode=0o640, uid=uid, gid=gid)
        facts = world.facts(f"{world.home}/f")
        assert (facts.data, facts.mode, facts.uid, facts.gid) == (b"new", 0o640, uid, gid)

    def test_existing_file_keeps_its_own_when_nothing_was_asked(self, world: World) -> None:
        """Without a mode and an owner an existing file keeps those it had."""
        world.make_file(f"{world.home}/f", b"old", 0o751, world.owner)
        world.deliver(f"{world.home}/f", b"new")
        facts = world.facts(f"{world.home}/f")
        assert (facts.data, facts.mode, (facts.uid, facts.gid)) == (b"new", 0o751, world.owner)

    def test_existing_file_keeps_its_owner_when_only_a_mode_was_asked(self, world: World) -> None:
        """Mode and owner are kept or changed each for itself."""
        world.make_file(f"{world.home}/f", b"old", 0o751, world.owner)
        world.deliver(f"{world.home}/f", b"new", mode=0o600)
        facts = world.facts(f"{world.home}/f")
        assert (facts.data, facts.mode, (facts.uid, facts.gid)) == (b"new", 0o600, world.owner)

    def test_new_file_has_the_default_mode_when_nothing_was_asked(self, world: World) -> None:
        """Without a mode a new file gets the configured one."""
        world.deliver(f"{world.home}/f", b"new", default_mode=0o604)
        assert world.facts(f"{world.home}/f").mode == 0o604

    @pytest.mark.parametrize("mode", [0o000, 0o400, 0o777])
    def test_mode_is_exact_whatever_the_umask(self, world: World, mode: int) -> None:
        """Every permission bit is as asked, none is masked."""
        world.deliver(f"{world.home}/f", b"x", mode=mode)
        assert world.facts(f"{world.home}/f").mode == mode


@pytest.mark.parametrize("way", ATOMIC)
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6750, 0o1644])
def test_special_bits_survive_the_owner_and_the_bytes(world: World, mode: int) -> None:
    """Setuid and setgid are set last, for a write or a change of owner would take them away."""
    uid, gid = world.owner
    world.deliver(f"{world.home}/f", b"x" * 100, mode=mode, uid=uid, gid=gid)
    assert world.facts(f"{world.home}/f").mode == mode


@pytest.mark.live
@pytest.mark.parametrize("way", ["files_api"])
def test_special_bits_are_refused_without_sftp(world: World) -> None:
    """The files API cannot set setuid, so such a file is refused rather than delivered without it."""
    assert refused(world, f"{world.home}/f", mode=0o4755) == "permission_denied"


@pytest.mark.parametrize("way", ALL)
class TestParents:
    """The directories above the destination."""

    def test_missing_parent_is_its_own_error(self, world: World) -> None:
        """Without mkdirs a missing directory is not made."""
        assert refused(world, f"{world.home}/no/such/f") == "parent_not_found"
        assert world.names(world.home) == []

    def test_missing_parents_are_made_with_mode_and_owner(self, world: World) -> None:
        """With mkdirs each missing directory gets the asked mode and the file's owner."""
        uid, gid = world.owner
        world.deliver(f"{world.home}/가/b c/f", b"x", mkdirs=True, dir_mode=0o2750, uid=uid, gid=gid)
        for made in (f"{world.home}/가", f"{world.home}/가/b c"):
            found = world.host_path(made).stat()
            assert (found.st_mode & 0o777, found.st_uid - world.shift, found.st_gid - world.shift) == (0o750, uid, gid)
        assert world.facts(f"{world.home}/가/b c/f").data == b"x"

    def test_existing_parents_are_left_as_they_are(self, world: World) -> None:
        """With mkdirs a directory that is there keeps its mode."""
        world.make_directory(f"{world.home}/d", 0o700)
        world.deliver(f"{world.home}/d/e/f", b"x", mkdirs=True)
        assert world.host_path(f"{world.home}/d").stat().st_mode & 0o7777 == 0o700

    def test_parents_are_made_by_several_sessions_at_once(self, world: World) -> None:
        """Pushes that make the same directories at the same time do not disturb each other."""
        with ThreadPoolExecutor(4) as pool:
            for round_number in range(5):
                paths = [f"{world.home}/{round_number}/a/b/c/{number}" for number in range(4)]
                list(pool.map(lambda path: world.deliver(path, b"x", mkdirs=True), paths))
        assert [len(world.names(f"{world.home}/{number}/a/b/c")) for number in range(5)] == [4] * 5

    @pytest.mark.parametrize("mkdirs", [False, True])
    def test_parent_that_is_a_file_is_its_own_error(self, world: World, mkdirs: bool) -> None:
        """A file cannot be a directory, asked to make one or not."""
        world.make_file(f"{world.home}/file", b"x")
        assert refused(world, f"{world.home}/file/f", mkdirs=mkdirs) == "parent_not_directory"
        assert refused(world, f"{world.home}/file/d/f", mkdirs=mkdirs) == "parent_not_directory"

    def test_link_to_a_directory_is_a_parent(self, world: World) -> None:
        """A directory may be reached through a link."""
        world.make_directory(f"{world.home}/real")
        world.make_link(f"{world.home}/link", "real")
        world.deliver(f"{world.home}/link/new/f", b"x", mkdirs=True)
        assert world.facts(f"{world.home}/real/new/f").data == b"x"


@pytest.mark.parametrize("way", ALL)
class TestWhatIsThere:
    """Destinations that are something else than a file."""

    def test_directory_is_its_own_error(self, world: World) -> None:
        """A directory is not replaced by a file, and nothing is left beside or in it."""
        world.make_directory(f"{world.home}/d")
        assert refused(world, f"{world.home}/d") == "target_is_directory"
        assert world.names(world.home) == ["d"]
        assert world.names(f"{world.home}/d") == []

    @pytest.mark.parametrize("target", ["../{leaf}/real", "{home}/real", "./second"])
    def test_link_is_followed_within_the_instance(self, world: World, target: str) -> None:
        """Relative, absolute and chained links are written through, and stay links."""
        world.make_file(f"{world.home}/real", b"old", 0o640)
        world.make_link(f"{world.home}/second", "real")
        world.make_link(f"{world.home}/link", target.format(leaf=world.home.rpartition("/")[2], home=world.home))
        world.deliver(f"{world.home}/link", b"new")
        assert world.host_path(f"{world.home}/link").is_symlink()
        assert (world.facts(f"{world.home}/real").data, world.facts(f"{world.home}/real").mode) == (b"new", 0o640)

    def test_dangling_link_is_followed_to_a_new_file(self, world: World) -> None:
        """A link that leads nowhere leads to the new file."""
        world.make_directory(f"{world.home}/d")
        world.make_link(f"{world.home}/link", "d/new")
        world.deliver(f"{world.home}/link", b"new")
        assert world.facts(f"{world.home}/d/new").data == b"new"

    def test_link_to_a_missing_directory_is_a_missing_parent(self, world: World) -> None:
        """A link into a directory that is not there has a missing parent."""
        world.make_link(f"{world.home}/link", "no/new")
        assert refused(world, f"{world.home}/link") == "parent_not_found"

    def test_link_to_a_directory_is_a_directory(self, world: World) -> None:
        """Writing through a link to a directory is refused like the directory itself."""
        world.make_directory(f"{world.home}/d")
        world.make_link(f"{world.home}/link", "d")
        assert refused(world, f"{world.home}/link") == "target_is_directory"

    def test_links_in_a_circle_are_their_own_error(self, world: World) -> None:
        """Links that lead to each other end in an error, not in a hang."""
        world.make_link(f"{world.home}/a", "b")
        world.make_link(f"{world.home}/b", "a")
        assert refused(world, f"{world.home}/a") == "too_many_links"
        assert refused(world, f"{world.home}/a/f") == "too_many_links"

    @pytest.mark.parametrize("target", ["real", "nowhere", "link"])
    def test_link_is_replaced_when_asked(self, world: World, target: str) -> None:
        """With symlinks = "replace" a file takes the link's place and what it led to stays as it was."""
        world.make_file(f"{world.home}/real", b"old", 0o600)
        world.make_link(f"{world.home}/link", target)
        world.deliver(f"{world.home}/link", b"new", symlinks="replace")
        facts = world.facts(f"{world.home}/link")
        assert (facts.data, facts.mode) == (b"new", 0o644)
        assert world.facts(f"{world.home}/real").data == b"old"

    def test_absolute_link_stays_inside_the_instance(self, world: World) -> None:
        """An absolute link counts from the instance's root, and no number of dots leads above it."""
        world.make_link(f"{world.home}/link", f"/../../../../..{world.home}/inside")
        world.deliver(f"{world.home}/link", b"new")
        assert world.facts(f"{world.home}/inside").data == b"new"


@pytest.mark.parametrize("way", ATOMIC)
def test_path_of_1200_directories_arrives(world: World) -> None:
    """A path may be deep, its directories made; neither side waits for the other for ever."""
    path = f"{world.home}/{'d/' * 1200}f"
    try:
        world.deliver(path, b"x", mkdirs=True)
        with contextlib.closing(world.open()) as session:
            delivery = world.delivery(path, b"x", recheck=True)
            assert session.deliver(delivery, io.BytesIO(b"x"), lambda: None).unchanged
    finally:
        # Python's own removal does not go that deep.
        subprocess.run(["rm", "-rf", world.host_path(world.home)], check=True)


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

    def test_part_file_is_private_while_it_grows(self, world: World) -> None:
        """Before a large file is whole, nobody but its maker may read it."""
        seen = []
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

    def test_reader_never_sees_half_a_file(self, world: World) -> None:
        """While 200 files of 8 MiB replace each other, every reading is one of them and whole."""
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
                for number in range(200):
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


@pytest.mark.parametrize("way", IN_INCUS)
def test_left_over_part_file_is_swept_where_it_is_hidden(world: World) -> None:
    """A secret's part file may be in a directory of its own; that is removed with it, filled or empty."""
    for names in ([HIDDEN], []):
        delivery = world.delivery(f"{world.home}/f", b"new")
        world.make_directory(f"{world.home}/{delivery.part_name}", 0o700)
        for name in names:
            world.make_file(f"{world.home}/{delivery.part_name}/{name}", b"half of the", 0o600)
        with contextlib.closing(world.open()) as session:
            assert session.sweep(delivery)
            assert not session.sweep(delivery)
        assert world.names(world.home) == []


@pytest.mark.parametrize("way", IN_INCUS)
class TestFilesystems:
    """Filesystems that refuse, mounted inside the container."""

    def test_read_only_filesystem_is_its_own_error(self, world: World) -> None:
        """A mount inside the container counts, and its refusal is told apart."""
        world.make_directory(f"{world.home}/ro")
        assert world.run(f"mount -t tmpfs -o ro tmpfs {world.home}/ro") == 0
        try:
            assert refused(world, f"{world.home}/ro/f") == "read_only"
        finally:
            world.run(f"umount {world.home}/ro")

    @pytest.mark.parametrize("size", [200_000, 4 * MIB])
    def test_full_filesystem_is_its_own_error(self, world: World, size: int) -> None:
        """No room is told apart, whether it shows in the first write or later."""
        world.make_directory(f"{world.home}/small")
        assert world.run(f"mount -t tmpfs -o size=64k tmpfs {world.home}/small") == 0
        try:
            assert refused(world, f"{world.home}/small/f", os.urandom(size)) == "target_full"
            if world.way == "sftp":
                assert world.run(f"test -z \"$(ls -A {world.home}/small)\"") == 0
        finally:
            world.run(f"umount {world.home}/small")

    @pytest.mark.parametrize("option", ["ro", "nr_inodes=2"])
    def test_link_on_a_filesystem_that_takes_no_files_is_followed(self, world: World, option: str) -> None:
        """Only where the link leads to must take a file: no part file is left there, and none is missed."""
        world.make_directory(f"{world.home}/mounted")
        world.make_directory(f"{world.home}/d")
        assert world.run(f"cd {world.home} && mount -t tmpfs tmpfs mounted && ln -s {world.home}/d/f mounted/link && "
                         f"mount -o remount,{option} mounted") == 0
        try:
            world.deliver(f"{world.home}/mounted/link", b"new")
            assert world.facts(f"{world.home}/d/f").data == b"new"
            delivery = world.delivery(f"{world.home}/mounted/link", b"new")
            world.make_file(f"{world.home}/d/{delivery.part_name}", b"half of the")
            with contextlib.closing(world.open()) as session:
                assert session.sweep(delivery)
            assert world.names(f"{world.home}/d") == ["f"]
        finally:
            world.run(f"umount {world.home}/mounted")

    @pytest.mark.parametrize(("option", "code"), [("ro", "read_only"), ("nr_inodes=1", "target_full")])
    def test_directories_that_cannot_be_made_say_why(self, world: World, option: str, code: str) -> None:
        """What a filesystem answers to a new directory counts as what it answers to a file."""
        world.make_directory(f"{world.home}/mounted")
        assert world.run(f"mount -t tmpfs -o {option} tmpfs {world.home}/mounted") == 0
        try:
            assert refused(world, f"{world.home}/mounted/a/b/f", mkdirs=True) == code
        finally:
            world.run(f"umount {world.home}/mounted")

    @pytest.mark.parametrize("path", ["/sys/new", "/sys/new/f"])
    def test_path_that_takes_no_files_is_not_permitted(self, world: World, path: str) -> None:
        """The kernel's own filesystems take no new files, and no new directories."""
        assert refused(world, path, mkdirs=True) == "permission_denied"


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
class TestOnlyInAnInstance:
    """What only a real instance has."""

    def test_mounted_file_is_its_own_error(self, world: World) -> None:
        """A file that something is mounted on cannot be replaced."""
        world.make_file(f"{world.home}/f", b"old")
        assert world.run(f"mount --bind /etc/passwd {world.home}/f") == 0
        try:
            assert refused(world, f"{world.home}/f") == "target_is_mount_point"
        finally:
            world.run(f"umount {world.home}/f")
        assert world.names(world.home) == ["f"]

    @pytest.mark.parametrize("size", [10, MIB])
    @pytest.mark.parametrize("asked", [0o600, None])
    def test_secret_cannot_be_opened_before_it_is_private(
            self, world: World, monkeypatch: pytest.MonkeyPatch, size: int, asked: int | None) -> None:
        """Who opens each file that is not private from its first moment has opened nothing but empty ones."""
        world.make_file(f"{world.home}/f", b"", 0o600)
        with contextlib.ExitStack() as opened:
            spied = [opened.enter_context(world.host_path(f"{world.home}/f").open("rb"))]

            def spy(wire: Wire, number: int) -> bytes:
                handle = wait_for_handle(wire, number)
                spied.extend(opened.enter_context(path.open("rb"))
                             for path in world.host_path(world.home).rglob("*") if open_to_others(path))
                return handle

            wait_for_handle = Wire.handle
            monkeypatch.setattr(Wire, "handle", spy)
            with contextlib.closing(world.open()) as session:
                for _ in range(2):
                    delivery = world.delivery(f"{world.home}/f", b"s" * size, mode=asked)
                    session.deliver(delivery, io.BytesIO(b"s" * size), lambda: None)
                    assert not session.left_part
            assert {file.read() for file in spied} == {b""}
        assert world.names(world.home) == ["f"]
        assert world.facts(f"{world.home}/f").data == b"s" * size

    def test_hidden_part_file_is_removed_when_the_delivery_ends(self, world: World) -> None:
        """Neither a refusal nor a part file of an attempt that was killed leaves anything."""
        delivery = world.delivery(f"{world.home}/f", b"new", mode=0o600)
        world.make_directory(f"{world.home}/{delivery.part_name}", 0o700)
        world.make_file(f"{world.home}/{delivery.part_name}/{HIDDEN}", b"half of the", 0o600)

        def refuse() -> None:
            raise InterruptedError("cancelled")

        with contextlib.closing(world.open()) as session:
            with pytest.raises(InterruptedError):
                session.deliver(delivery, io.BytesIO(b"new"), refuse)
            assert not session.left_part
            assert world.names(world.home) == []

    def test_owner_outside_the_id_map_is_its_own_error(self, world: World) -> None:
        """A uid that the instance does not have cannot be given."""
        assert refused(world, f"{world.home}/f", uid=4_000_000_000) == "owner_not_mapped"
        assert world.names(world.home) == []


def open_to_others(path: Path) -> bool:
    """True if users that are not its owner could open the file."""
    found = path.stat()
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o044 and path.parent.stat().st_mode & 0o011)


class Watched(io.BytesIO):
    """A source that calls back at each reading."""

    def __init__(self, data: bytes, on_read: Callable[[], None]) -> None:
        super().__init__(data)
        self._on_read = on_read

    def readinto(self, buffer: Any, /) -> int:
        """Read as ever, and call back."""
        self._on_read()
        return super().readinto(buffer)
