"""Links that users of the instance put where everybody may: the kernel's rule (fs.protected_symlinks) holds here too."""

import pytest

from tests.live.ways import AS_ROOT, ATOMIC, refused
from tests.live.world import World

USER, OTHER = 1000, 1001
#: A directory like /tmp: everybody may make names in it, and remove only his own.
LIKE_TMP = 0o1777


def shared(world: World, owner: int = 0, mode: int = LIKE_TMP) -> str:
    """Make a directory that users share, and a file beside it that is none of their business."""
    path = f"{world.home}/shared"
    world.make_directory(path)
    world.give(path, owner, mode)
    world.make_file(f"{world.home}/secret", b"old", 0o600)
    return path


@pytest.mark.parametrize("way", AS_ROOT)
class TestSharedDirectory:
    """Links in a sticky directory that everybody may write to."""

    @pytest.mark.parametrize("target", ["../secret", "../new"])
    def test_link_of_a_user_is_not_followed(self, world: World, target: str) -> None:
        """Where it leads is the user's choice, and nothing is written there."""
        path = shared(world)
        world.make_link(f"{path}/link", target, (USER, USER))
        assert refused(world, f"{path}/link") == "link_not_trusted"
        assert world.facts(f"{world.home}/secret").data == b"old"
        assert world.names(world.home) == ["secret", "shared"]
        assert world.names(path) == ["link"]

    def test_link_of_a_user_is_not_followed_from_another_link(self, world: World) -> None:
        """Each link of a chain is looked at where it is."""
        path = shared(world)
        world.make_link(f"{path}/link", "../secret", (USER, USER))
        world.make_link(f"{world.home}/first", "shared/link")
        assert refused(world, f"{world.home}/first") == "link_not_trusted"
        assert world.facts(f"{world.home}/secret").data == b"old"

    def test_link_of_a_user_is_not_followed_by_a_comparison(self, world: World) -> None:
        """A file that is to be compared first is not read through it either."""
        path = shared(world)
        world.make_link(f"{path}/link", "../secret", (USER, USER))
        assert refused(world, f"{path}/link", b"old", recheck=True, mode=0o600) == "link_not_trusted"

    def test_own_link_is_followed(self, world: World) -> None:
        """A link that root made leads where root said."""
        path = shared(world)
        world.make_link(f"{path}/link", "../secret", (0, 0))
        world.deliver(f"{path}/link", b"new")
        assert world.facts(f"{world.home}/secret").data == b"new"

    def test_link_of_the_directorys_owner_is_followed(self, world: World) -> None:
        """In a user's own directory his links count, and those of others do not."""
        path = shared(world, owner=USER)
        world.make_link(f"{path}/link", "../secret", (USER, USER))
        world.make_link(f"{path}/other", "../secret", (OTHER, OTHER))
        world.deliver(f"{path}/link", b"new")
        assert world.facts(f"{world.home}/secret").data == b"new"
        assert refused(world, f"{path}/other") == "link_not_trusted"

    def test_link_of_a_user_is_followed_where_not_everybody_may_write(self, world: World) -> None:
        """The rule is for directories like /tmp alone, as the kernel's is."""
        path = shared(world, mode=0o1775)
        world.make_link(f"{path}/link", "../secret", (USER, USER))
        world.deliver(f"{path}/link", b"new")
        assert world.facts(f"{world.home}/secret").data == b"new"


@pytest.mark.live
@pytest.mark.parametrize("way", ATOMIC)
def test_link_of_a_user_can_be_replaced(world: World) -> None:
    """With symlinks = "replace" nothing is followed."""
    path = shared(world)
    world.make_link(f"{path}/link", "../secret", (USER, USER))
    world.deliver(f"{path}/link", b"new", symlinks="replace")
    assert world.facts(f"{path}/link").data == b"new"
    assert world.facts(f"{world.home}/secret").data == b"old"


@pytest.mark.live
@pytest.mark.parametrize("way", ["files_api"])
class TestFilesApi:
    """What opens a file, and sets its owner and its mode, by path, one after the other."""

    @pytest.mark.parametrize(("owner", "mode"), [(USER, 0o755), (0, 0o775), (0, LIKE_TMP)])
    def test_directory_that_others_can_change_takes_nothing(self, world: World, owner: int, mode: int) -> None:
        """A user could put a link there in between: no file and no directory is made, and none written to."""
        path = shared(world, owner, mode)
        world.make_directory(f"{path}/d")
        world.make_file(f"{path}/f", b"old")
        assert refused(world, f"{path}/f") == "parent_not_guarded"
        assert refused(world, f"{path}/new") == "parent_not_guarded"
        assert refused(world, f"{path}/new/f", mkdirs=True) == "parent_not_guarded"
        assert refused(world, f"{path}/d/new") == "parent_not_guarded"
        assert world.names(path) == ["d", "f"]
        assert world.facts(f"{path}/f").data == b"old"

    def test_links_of_root_lead_where_only_root_can_change(self, world: World) -> None:
        """What counts is where they lead."""
        path = shared(world)
        world.make_directory(f"{world.home}/d/e")
        world.make_link(f"{world.home}/guarded", f"{world.home}/d")
        world.make_link(f"{world.home}/open", path)
        world.deliver(f"{world.home}/guarded/e/f", b"new")
        assert world.facts(f"{world.home}/d/e/f").data == b"new"
        assert refused(world, f"{world.home}/open/f") == "parent_not_guarded"


@pytest.mark.live
@pytest.mark.parametrize("way", ["directory"])
def test_link_of_a_user_is_no_way_to_a_directory(world: World) -> None:
    """Where the whole path is walked here, a link in the middle of it is looked at like the last."""
    path = shared(world)
    world.make_directory(f"{world.home}/d")
    world.make_link(f"{path}/link", "../d", (USER, USER))
    assert refused(world, f"{path}/link/f") == "link_not_trusted"
    assert world.names(f"{world.home}/d") == []
