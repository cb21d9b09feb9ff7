"""Globs mean what is written, and nothing near it."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.glob import check_name_glob, check_path_glob, folded, name_matches, path_matches
from daemon.model.names import check_path


@pytest.mark.parametrize(("glob", "name", "meant"), [
    ("web-*", "web-1", True), ("web-*", "web-", True), ("web-*", "web", False), ("web-*", "xweb-1", False),
    ("*", "anything", True), ("?", "a", True), ("?", "ab", False), ("a?c*", "abcd", True), ("web-1", "WEB-1", False),
    ("*a*b", "xxaxxb", True), ("*a*b", "xxbxxa", False), ("a.c", "abc", False), ("[ab]", "a", False), ("*", "a\nb", True),
])
def test_name_glob_means_whole_names(glob: str, name: str, meant: bool) -> None:
    """A glob stands for whole names, in the case in which it is written; only * and ? are special."""
    assert name_matches(check_name_glob(glob), name) is meant


@pytest.mark.parametrize(("glob", "path", "meant"), [
    ("/srv/**", "/srv/x", True), ("/srv/**", "/srv/a/b/c", True), ("/srv/**", "/srv", False), ("/srv/**", "/srvx/a", False),
    ("/srv/*", "/srv/x", True), ("/srv/*", "/srv/a/b", False), ("/srv/*.csv", "/srv/a.csv", True),
    ("/**", "/x", True), ("/**/in/*", "/in/x", True), ("/**/in/*", "/a/b/in/x", True), ("/**/in/*", "/a/in/b/x", False),
    ("/a/**/b/**/c", "/a/b/b/x/c", True), ("/a/**/b/**/c", "/a/c", False), ("/srv/**", "/SRV/x", False),
    ("/srv/caf\u00e9/*", "/srv/cafe\u0301/x", False), ("/x", "/x", True), ("/x", "/x/y", False), ("/**/x", "/x", True),
])
def test_path_glob_counts_directories(glob: str, path: str, meant: bool) -> None:
    """* stays within a directory, ** goes through any number of them, and a directory is not in itself."""
    assert path_matches(check_path_glob(glob), check_path(path)) is meant


@pytest.mark.parametrize("glob", ["", "srv", "/", "/srv/", "/srv//x", "/srv/../x", "/./x", "/srv/a**", "/x\n", "/" + "a" * 1024])
def test_path_glob_that_is_not_normalised_is_refused(glob: str) -> None:
    """What can match no path, or seems to mean another one, is an error."""
    with pytest.raises(ValueError, match="glob"):
        check_path_glob(glob)


@pytest.mark.parametrize("glob", ["", "a/b", "a\x00", "a" * 1025])
def test_name_glob_with_a_slash_is_refused(glob: str) -> None:
    """A glob of names is one name."""
    with pytest.raises(ValueError, match="glob"):
        check_name_glob(glob)


@given(st.text("ab*?", min_size=1, max_size=12), st.text("ab", max_size=12))
def test_name_glob_is_what_everybody_means_by_it(glob: str, name: str) -> None:
    """It agrees with the standard library's on * and ?."""
    assert name_matches(glob, name) == fnmatch.fnmatchcase(name, glob)


@given(st.lists(st.sampled_from(["a", "b", "*", "?", "*b", "**", "**"]), min_size=1, max_size=8),
       st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=8))
def test_path_glob_agrees_with_trying_everything(wanted: list[str], names: list[str]) -> None:
    """The way without tries in vain finds what trying every way finds."""

    def tried(wanted: list[str], names: list[str]) -> bool:
        if not wanted:
            return not names
        if wanted[0] == "**":
            # At the end it stands for what is below.
            least = 1 if len(wanted) == 1 else 0
            return any(tried(wanted[1:], names[taken:]) for taken in range(least, len(names) + 1))
        return bool(names) and name_matches(wanted[0], names[0]) and tried(wanted[1:], names[1:])

    assert path_matches("/" + "/".join(wanted), "/" + "/".join(names)) == tried(wanted, names)


def test_hostile_glob_takes_no_time() -> None:
    """A glob of many stars is not tried in every way: it would outlast the test."""
    assert not name_matches("*a" * 30 + "b", "a" * 255)
    assert not path_matches("/" + "**/a/" * 100 + "b", "/a" * 2000)
    for _ in range(200):
        assert not path_matches("/**" + "/*" * 500 + "/b", "/a" * 2047)


@pytest.mark.parametrize(("one", "other"), [("/ETC/x", "/etc/x"), ("/caf\u00e9", "/cafe\u0301"), ("/\uff45tc", "/etc"), ("\u00df", "ss")])
def test_folded_names_are_one(one: str, other: str) -> None:
    """What a filesystem that ignores case and Unicode's forms takes for one name is one here."""
    assert folded(one) == folded(other)
