"""Which files are sent and where to, decided before any is."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from client.push.plan import LeftOut, Links, PushOptions, PushPlan, chosen_links, parse_mode, plan
from client.push.source import FileChanged, SourceFile
from client.push.target import parse_target
from daemon.process.exit_status import Misused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with files, links, an empty folder, and what cannot be sent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree" / "sub" / "empty").mkdir(parents=True)
    (tmp_path / "tree" / "a").write_text("a")
    (tmp_path / "tree" / "a").chmod(0o4750)
    (tmp_path / "tree" / "sub" / "b").write_text("b")
    (tmp_path / "tree" / "file").symlink_to("a")
    (tmp_path / "tree" / "loop").symlink_to("..")
    (tmp_path / "tree" / "nowhere").symlink_to("none")
    (tmp_path / "named").symlink_to("tree")
    os.mkfifo(tmp_path / "tree" / "pipe")
    return tmp_path


def planned(*words: str, recursive: bool = False, links: Links | None = None, mode: int | None = None) -> PushPlan:
    """The plan of a command; its last word is the destination."""
    return plan(words[:-1], parse_target(words[-1]), PushOptions(recursive=recursive, links=links, mode=mode))


def gone(made: PushPlan) -> dict[str, str]:
    """What each file becomes."""
    return {file.source: file.to for file in made.files}


def codes(left: list[LeftOut]) -> dict[str, str]:
    """What is not sent, and why."""
    return {what.source: what.code for what in left}


@pytest.mark.parametrize(("text", "instance", "path", "is_directory"), [
    ("web1/srv/a", "web1", "/srv/a", False),
    ("web1/srv/", "web1", "/srv", True),
    ("web1//srv/./x/../a", "web1", "/srv/a", False),
    ("far:web1/", "far:web1", "/", True),
    ("web1/..", "web1", "/", True),
    ("web1/srv/.", "web1", "/srv", True),
])
def test_destination_is_read_as_incus_reads_it(text: str, instance: str, path: str, is_directory: bool) -> None:
    """Slashes and dots that users add do not matter; a slash at the end means a directory."""
    target = parse_target(text)
    assert (target.instance, target.path, target.is_directory) == (instance, path, is_directory)


@pytest.mark.parametrize("text", ["web1", "-web/a", "a:b:web1/x", "/a", "web1/a\x1bb", "web1/\udcff", ""])
def test_what_is_no_destination_is_misuse(text: str) -> None:
    """A destination that no service takes is refused before anything is sent."""
    with pytest.raises(Misused):
        parse_target(text)


def test_file_takes_the_path_or_keeps_its_name(folder: Path) -> None:
    """A whole path names the file; below a directory it keeps its name, several files do so, and links are followed."""
    assert gone(planned("tree/a", "c1/srv/x")) == {"tree/a": "/srv/x"}
    assert gone(planned("tree/a", "tree/sub/b", "c1/srv/")) == {"tree/a": "/srv/a", "tree/sub/b": "/srv/b"}
    [file] = planned("tree/file", "c1/").files
    assert (file.to, file.size, file.mode) == ("/file", 1, 0o750)
    assert planned("-", "c1/x", mode=0o600).files[0].mode == 0o600


def test_folder_goes_with_its_name_below_the_path(folder: Path) -> None:
    """With -r a folder becomes PATH/DIR/..., with or without slashes; one without a name gives its contents."""
    below = {"tree/a": "/srv/tree/a", "tree/sub/b": "/srv/tree/sub/b"}
    for words in (("tree", "c1/srv"), ("tree", "c1/srv/"), ("tree/", "c1/srv/")):
        made = planned(*words, recursive=True)
        assert {os.path.normpath(source): to for source, to in gone(made).items()} == below
    assert made.files[0].mode == 0o750
    os.chdir("tree")
    assert set(gone(planned(".", "c1/srv", recursive=True)).values()) == {"/srv/a", "/srv/sub/b"}


def test_what_cannot_be_sent_is_named_and_the_rest_goes(folder: Path) -> None:
    """Pipes and links are refused by name, an empty folder is skipped; names that are not UTF-8 or hide something too."""
    (folder / "tree" / "bad\udcff").write_text("")
    (folder / "tree" / "evil\x1b[2J").write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("tree/sock")
    made = planned("tree", "c1/srv", recursive=True)
    assert len(made.files) == 2
    assert codes(made.left_out) == {
        "tree/bad\udcff": "bad_path", "tree/evil\x1b[2J": "bad_path", "tree/sock": "not_a_file", "tree/pipe": "not_a_file",
        "tree/file": "link_not_followed", "tree/loop": "link_not_followed", "tree/nowhere": "link_not_followed",
        "tree/sub/empty": "empty_directory"}
    assert [what.source for what in made.left_out if what.is_skipped] == ["tree/sub/empty"]


def test_links_are_followed_as_the_letters_say(folder: Path) -> None:
    """-P follows none, -H those that are named, -L all; a link that leads back above itself is named, not followed."""
    assert codes(planned("tree/file", "c1/", links=Links.NEVER).wrong) == {"tree/file": "link_not_followed"}
    assert codes(planned("named", "c1/", recursive=True).wrong) == {"named": "link_not_followed"}
    assert set(gone(planned("named", "c1/", recursive=True, links=Links.NAMED))) == {"named/a", "named/sub/b"}
    made = planned("tree", "c1/", recursive=True, links=Links.ALWAYS)
    assert "/tree/file" in gone(made).values()
    assert codes(made.left_out)["tree/nowhere"] == "unreadable_file"
    assert "link_loop" in codes(made.left_out).values()
    assert chosen_links(never=False, named=False, always=True) is Links.ALWAYS


def test_command_that_makes_no_sense_is_misuse(folder: Path) -> None:
    """Nothing is sent where files would become one, or a name is missing."""
    for words in (("c1/x",), ("tree/a", "tree/sub/b", "c1/x"), ("-", "c1/"), ("-", "tree/a", "c1/x/"), ("tree/a", "tree/a", "c1/x/")):
        with pytest.raises(Misused):
            planned(*words)
    for mode in ("9", "644644", "+x"):
        with pytest.raises(Misused):
            parse_mode(mode)
    assert parse_mode("0640") == 0o640
    with pytest.raises(Misused):
        chosen_links(never=True, named=False, always=True)


def test_what_is_named_and_cannot_be_sent_stops_all(folder: Path) -> None:
    """A folder without -r, a pipe, and what is not there are told before anything is sent."""
    made = planned("tree", "tree/pipe", "none", "tree/a", "c1/")
    assert codes(made.wrong) == {"tree": "is_directory", "tree/pipe": "not_a_file", "none": "unreadable_file"}


def test_deep_folders_are_walked(folder: Path) -> None:
    """Folders nested deeper than Python's calls are no trouble."""
    deep = folder / "deep"
    deep.mkdir()
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    assert codes(planned("deep", "c1/", recursive=True).left_out).popitem()[1] == "empty_directory"
    subprocess.run(["rm", "-r", deep], check=True)


def test_file_that_changes_while_it_is_read_is_not_sent_whole(folder: Path) -> None:
    """Its last piece is held back when the file grew, shrank, or was written anew, also in the tick it was opened in."""
    for change in (b"longer", b"", b"c"):
        (folder / "tree" / "a").write_bytes(b"a")
        [file] = planned("tree/a", "c1/").files
        with SourceFile(file) as source:
            pieces = source.pieces(0, 1, lambda _: None)
            (folder / "tree" / "a").write_bytes(change)
            with pytest.raises(FileChanged):
                list(pieces)
    assert time.time_ns() > source.identity.mtime_ns
