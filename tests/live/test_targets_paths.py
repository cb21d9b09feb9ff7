"""Directories to be made, and what stands at the destination already, whatever the way to deliver."""

import contextlib
import io
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live.ways import ALL, ATOMIC, refused
from tests.live.world import World
from worker.targets.attributes import MAX_DEPTH


@pytest.mark.parametrize("way", ALL)
class TestParents:
    """The directories above the destination."""

    def test_missing_parent_is_its_own_error(self, world: World) -> None:
        """Without mkdirs a missing directory is not made."""
        assert refused(world, f"{world.home}/no/such/f") == "parent_not_found"
        assert world.names(world.home) == []

    def test_missing_parents_are_made_with_their_mode(self, world: World) -> None:
        """With mkdirs each missing directory gets the asked mode."""
        world.deliver(f"{world.home}/가/b c/f", b"x", mkdirs=True, dir_mode=0o750)
        for made in (f"{world.home}/가", f"{world.home}/가/b c"):
            assert stat.S_IMODE(world.host_path(made).stat().st_mode) == 0o750
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


@pytest.mark.parametrize("way", ATOMIC)
def test_missing_parents_are_made_with_mode_and_owner(world: World) -> None:
    """With mkdirs each missing directory gets the asked mode and the file's owner."""
    uid, gid = world.owner
    world.deliver(f"{world.home}/a/b/f", b"x", mkdirs=True, dir_mode=0o2750, uid=uid, gid=gid)
    for made in (f"{world.home}/a", f"{world.home}/a/b"):
        found = world.host_path(made).stat()
        assert (found.st_mode & 0o777, found.st_uid - world.shift, found.st_gid - world.shift) == (0o750, uid, gid)
    assert world.names(world.home) == ["a"]


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
def test_directories_are_made_down_to_a_depth(world: World) -> None:
    """What copies and backs up instances fails where directories are too deep: none is made there."""
    above = world.home.count("/")
    path = f"{world.home}{'/d' * (MAX_DEPTH - above)}"
    assert refused(world, f"{path}/d/f", mkdirs=True) == "too_deep"
    assert world.names(world.home) == []
    world.deliver(f"{path}/f", b"x", mkdirs=True)
    assert world.facts(f"{path}/f").data == b"x"
    assert refused(world, f"{path}/d/f", mkdirs=True) == "too_deep"
    assert world.names(path) == ["f"]


@pytest.mark.parametrize("way", ATOMIC)
def test_path_of_1200_directories_arrives(world: World) -> None:
    """A path may be deep, if its directories are there; neither side waits for the other for ever."""
    directory = f"{world.home}{'/d' * 1200}"
    # Python's own making, and removal, does not go that deep.
    home = world.host_path(world.home)
    subprocess.run(["mkdir", "-p", world.host_path(directory)], check=True)
    subprocess.run(["chown", "-R", "--reference", home, home], check=True)
    path = f"{directory}/f"
    try:
        world.deliver(path, b"x", mkdirs=True)
        with contextlib.closing(world.open()) as session:
            delivery = world.delivery(path, b"x", recheck=True)
            assert session.deliver(delivery, io.BytesIO(b"x"), lambda: None).unchanged
    finally:
        subprocess.run(["rm", "-rf", home], check=True)
