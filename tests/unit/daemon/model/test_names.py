import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Rejected
from daemon.model.names import check_instance, check_path, check_project, check_remote, printable


@pytest.mark.parametrize("name", ["c1", "C1", "web-1", "1a", "a" * 63, "x", "1-2"])
def test_instance_name_is_taken_when_incus_would_take_it(name: str) -> None:
    """1 to 63 letters, digits and hyphens, no hyphen first or last, not digits alone."""
    assert check_instance(name) == name


@pytest.mark.parametrize("name", [
    "", "-a", "a-", "7", "007", "a" * 64, "a.b", "a_b", "a/b", "a b", "a\n", "c1#x", "c1?project=nope", "..", "é", "a\0",
    "٣a",
])
def test_instance_name_is_refused_when_incus_would_refuse_it(name: str) -> None:
    """Nothing that means something in an address, on a disk or to Incus itself comes through."""
    with pytest.raises(Rejected) as caught:
        check_instance(name)
    assert caught.value.code == "bad_instance"


@pytest.mark.parametrize("name", ["default", "my-project", "a.b", "_x", "0"])
def test_project_name_is_taken_when_it_is_plain(name: str) -> None:
    """Letters, digits, dots, hyphens and underscores make a project's name."""
    assert check_project(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".x", "a/b", "a b", "a" * 64, "a\n", "é", "a:b", "a&b=c"])
def test_project_name_is_refused_when_it_could_mean_something_else(name: str) -> None:
    """A project's name goes into addresses and keys: nothing in it can end them."""
    with pytest.raises(Rejected) as caught:
        check_project(name)
    assert caught.value.code == "bad_project"


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "-", "a\n", "a" * 64])
def test_remote_name_is_refused_when_it_could_mean_something_else(name: str) -> None:
    """A remote's name is part of an instance's key, whose parts hold no slash."""
    with pytest.raises(Rejected) as caught:
        check_remote(name)
    assert caught.value.code == "unknown_remote"


@pytest.mark.parametrize("path", [
    "/x", "/a b/c", "/한국어/🙂", "/...", "/.hidden", "/a" * 2047, "/" + "x" * 255, "/" + "é" * 127, "/a\\b", "/%2F", "/-",
])
def test_path_is_taken_when_it_is_absolute_and_normalised(path: str) -> None:
    """Spaces, other scripts and emoji are fine, up to Linux's own limits."""
    assert check_path(path) == path


@pytest.mark.parametrize(("path", "reason"), [
    ("", "not absolute"), ("x", "not absolute"), ("./x", "not absolute"), ("/", "names a directory"),
    ("/a/", "names a directory"), ("//a", "empty component"), ("/a//b", "empty component"), ("/a/../b", "'..'"),
    ("/..", "'..'"), ("/a/./b", "'.'"), ("/a\0b", "control character"), ("/a\nb", "control character"),
    ("/a\x7f", "control character"), ("/a\x85b", "control character"), ("/\ud800", "not UTF-8"),
    ("/" + "x" * 256, "longer than 255"), ("/" + "é" * 128, "longer than 255"), ("/a" * 2048, "longer than 4095"),
])
def test_path_is_refused_with_the_reason(path: str, reason: str) -> None:
    """One file has one name, and the reason tells what is wrong with another."""
    with pytest.raises(Rejected) as caught:
        check_path(path)
    assert caught.value.code == "bad_path"
    assert reason in caught.value.detail


@given(st.text(max_size=300))
def test_path_that_is_taken_is_the_path_itself(text: str) -> None:
    """Whatever is sent is refused, or is absolute, normalised and within Linux's limits."""
    try:
        path = check_path("/" + text)
    except Rejected:
        return
    parts = path.split("/")[1:]
    assert path == "/" + text
    assert not {"", ".", ".."} & set(parts)
    assert all(len(part.encode()) <= 255 for part in parts)
    assert path.isprintable() or not any(ord(character) < 32 for character in path)


@given(st.text(max_size=200))
def test_printable_text_has_nothing_else_in_it(text: str) -> None:
    """What is shown to people never holds a control character, a line's end or a lone surrogate."""
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()


def test_printable_text_is_cut_to_its_limit() -> None:
    """A long name does not fill the log."""
    assert printable("x" * 100, limit=10) == "x" * 10 + "…"
