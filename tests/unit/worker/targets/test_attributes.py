"""The rules about mode, owner and links that every way to deliver follows."""

import stat

import pytest

from daemon.errors import Undelivered
from daemon.model.upload import Destination
from worker.targets.attributes import (
    MAX_DEPTH,
    Attributes,
    Wanted,
    refuse_unless_shallow,
    refuse_unless_trusted,
    wanted,
    wanted_instead,
)
from worker.targets.base import Delivery

USER, OTHER = 1000, 1001


def delivery(mode: int | None = None, replace_group: str = "narrow") -> Delivery:
    """A delivery of nothing in particular."""
    return Delivery(
        task_id="t", destination=Destination("local", "default", "c1", "/f"), size=0, sha256="", mode=mode, uid=None, gid=None,
        default_mode=0o664, default_uid=0, default_gid=0, mkdirs=False, dir_mode=0o755, symlinks="follow",
        replace_group=replace_group, verify="size", stopped="push")


def directory(mode: int, uid: int = 0) -> Attributes:
    """A directory."""
    return Attributes(0, uid, uid, stat.S_IFDIR | mode)


@pytest.mark.parametrize(("mode", "owner", "maker", "followed"), [
    (0o1777, 0, USER, False), (0o1777, USER, OTHER, False), (0o1777, 0, 0, True), (0o1777, USER, USER, True),
    (0o1777, USER, 0, True), (0o1775, 0, USER, True), (0o777, 0, USER, True), (0o755, 0, USER, True)])
def test_link_is_followed_by_the_kernels_rule(mode: int, owner: int, maker: int, followed: bool) -> None:
    """In a sticky directory that everybody may write to, only one of the follower's or of the directory's owner."""
    link = Attributes(1, maker, maker, stat.S_IFLNK | 0o777)
    if followed:
        refuse_unless_trusted(delivery(), link, directory(mode, owner))
        return
    with pytest.raises(Undelivered) as caught:
        refuse_unless_trusted(delivery(), link, directory(mode, owner))
    assert caught.value.code == "link_not_trusted"


@pytest.mark.parametrize(("mode", "owner", "kept"), [
    (0o755, 0, True), (0o700, 0, True), (0o1777, 0, True), (0o1775, 0, True), (0o775, 0, False), (0o757, 0, False),
    (0o755, USER, False), (0o1777, USER, False)])
def test_directory_keeps_names_where_only_root_can_change_them(mode: int, owner: int, kept: bool) -> None:
    """It is root's, and others write to it at most as to /tmp."""
    assert directory(mode, owner).keeps_names is kept


def test_file_keeps_no_names() -> None:
    """It has none."""
    assert not Attributes(0, 0, 0, stat.S_IFREG | 0o755).keeps_names


@pytest.mark.parametrize(("before", "after"), [
    (0o660, 0o600), (0o664, 0o644), (0o640, 0o600), (0o644, 0o644), (0o604, 0o604), (0o2775, 0o2755), (0o777, 0o777)])
def test_group_is_narrowed_to_what_all_others_have(before: int, after: int) -> None:
    """Its bits may be the mask of an access list that is lost; all else stays."""
    existing = Attributes(0, USER, OTHER, stat.S_IFREG | before)
    assert wanted_instead(delivery(), existing) == Wanted(after, USER, OTHER)
    assert wanted_instead(delivery(replace_group="keep"), existing) == Wanted(before, USER, OTHER)
    assert wanted_instead(delivery(mode=0o664), existing).mode == 0o664


def test_nothing_is_narrowed_where_there_was_no_file() -> None:
    """A new file gets the default mode, also in the place of a link."""
    for existing in (None, Attributes(1, USER, USER, stat.S_IFLNK | 0o777)):
        assert wanted_instead(delivery(), existing) == wanted(delivery(), existing) == Wanted(0o664, 0, 0)


def test_directories_are_made_down_to_the_bound() -> None:
    """And no deeper."""
    refuse_unless_shallow(delivery(), MAX_DEPTH)
    with pytest.raises(Undelivered) as caught:
        refuse_unless_shallow(delivery(), MAX_DEPTH + 1)
    assert caught.value.code == "too_deep"
