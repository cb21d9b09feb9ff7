"""`incus-courier token`: tokens are made, shown and ended, and what is secret is told once."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.access import token_text
from daemon.access.authenticate import find_caller
from daemon.access.token_file import SOON_S, read_tokens
from daemon.cli.grant_options import GRANT_OPTIONS, read_grant
from daemon.cli.main import main
from daemon.cli.token import read_end, where
from daemon.config import FILE_VARIABLE
from daemon.model.grant import KEYS, MEANINGS, Grant, Permission
from daemon.model.view import when
from daemon.process.exit_status import Misused
from tests.support.command import Done

Command = Callable[..., Done]
DAY_S = 86400


@pytest.fixture
def file(quick_path: Path) -> Path:
    """A configuration, which may be wrong: tokens do not need it."""
    file = quick_path / "config.toml"
    file.write_text("nonsense")
    return file


@pytest.fixture
def token(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Gives a command about tokens, in this process."""

    def run(*words: str, config: Path | None = file) -> Done:
        monkeypatch.setattr(sys, "argv", ["incus-courier", *(["--config", str(config)] if config else []), "token", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


def test_there_is_an_option_for_each_key_of_a_grant(token: Command) -> None:
    """With the meaning that the documentation has; whatever can be granted can be granted by a command."""
    assert list(GRANT_OPTIONS) == list(MEANINGS) == list(KEYS)
    shown = token("new", "--help").out
    assert [option.name for option in GRANT_OPTIONS.values() if option.name not in shown] == []


def test_every_option_makes_its_key(token: Command, file: Path) -> None:
    """Lists with commas or repeated, sizes with a unit; what is not given does not limit."""
    done = token("new", "ci", "--may", "upload,read", "--may", "cancel", "--own", "--instances", "web-*,db", "--projects", "shop",
                 "--remotes", "local", "--paths", "/srv/**", "--max-file-bytes", "10M", "--max-uploads-s", "0.5", "--max-bytes-s",
                 "1K", "--max-pending-tasks", "7", "--max-pending-bytes", "1G", "--max-uploads", "8", "--max-total-bytes", "1T",
                 "--modes", "4755", "--uids", "0,1000-1999", "--gids", "5", "--no-mkdirs", "--addresses", "10.0.0.1,unix")
    assert done.code == 0
    made = read_tokens(file.parent / "tokens.json").by_name("ci")
    assert made is not None
    assert made.grant == Grant(
        may=frozenset({Permission.UPLOAD, Permission.READ, Permission.CANCEL}), own=True, instances=("web-*", "db"),
        projects=("shop",), remotes=("local",), paths=("/srv/**",), max_file_bytes=10 * 2**20, max_uploads_s=0.5,
        max_bytes_s=1024, max_pending_tasks=7, max_pending_bytes=2**30, max_uploads=8, max_total_bytes=2**40, modes=0o4755,
        uids=((0, 0), (1000, 1999)), gids=((5, 5),), mkdirs=False, addresses=("10.0.0.1/32", "unix"))
    assert read_grant({"may": ["read"], "own": None, "paths": [], "mkdirs": None}) == Grant(may=frozenset({Permission.READ}))


def test_token_is_told_once_and_alone_on_the_last_line(token: Command, file: Path) -> None:
    """Neither the file nor any other command has what is secret of it; it lets its holder in."""
    done = token("new", "ci", "--may", "upload")
    [text] = done.out.splitlines()
    assert text not in done.err
    assert "ci may upload at *; it never expires." in done.err
    rotated = token("rotate", "ci", "--json").json[0]["token"]
    told = (file.parent / "tokens.json").read_text()
    for words in (["list"], ["list", "--json"], ["show", "ci"], ["show", "ci", "--json"], ["revoke", "ci"], ["list", "--all"]):
        done = token(*words)
        assert done.code == 0
        told += done.out + done.err
    for secret in (text, rotated):
        assert secret.rpartition("_")[2] not in told
        assert secret.split("_")[1] in told


def test_rotation_leaves_the_old_token_valid_for_a_while(token: Command, file: Path) -> None:
    """For 24 hours, or as long as is said; a third one in a row changes nothing of the end of the first."""
    texts = [token("new", "ci", "--may", "upload").out.strip()]
    texts.append(token("rotate", "ci").out.strip())
    texts.append(token("rotate", "ci", "--keep", "2d").out.strip())
    tokens, now = read_tokens(file.parent / "tokens.json"), time.time()

    def valid(at: float) -> list[bool]:
        return [find_caller(tokens, text, at, None) is not None for text in texts]

    assert valid(now) == [True, True, True]
    assert valid(now + 1.5 * DAY_S) == [False, True, True]
    assert valid(now + 3 * DAY_S) == [False, False, True]
    token("rotate", "ci", "--keep", "0s")
    assert find_caller(read_tokens(file.parent / "tokens.json"), texts[-1], time.time(), None) is None


def test_list_shows_how_each_token_stands(token: Command) -> None:
    """Those that were revoked, or are under one, only when asked for all; --json has the same."""
    token("new", "ci", "--may", "admin", "--expires", "90d")
    token("new", "soon", "--may", "read", "--expires", "2d", "--paths", "/a/*")
    cut = token("new", "job", "--may", "upload,delete", "--under", "soon")
    assert "soon does not allow upload, delete, so job does not either" in cut.err
    rows = [line.split("  ") for line in token("list").out.splitlines()]
    head, *lines = [[cell.strip() for cell in row if cell] for row in rows]
    assert head == ["name", "may", "where", "expires", "state", "under"]
    assert [[line[0], line[1], line[2], *line[4:]] for line in lines] == [
        ["ci", "admin", "*", "valid"], ["soon", "read", "*:/a/*", "expires soon"],
        ["job", "upload,delete", "*", "expires soon", "soon"]]
    assert token("revoke", "soon").out == "soon: revoked\njob: ended with it\n"
    assert token("revoke", "soon", "--json").json[0]["state"] == "revoked"
    assert [row["name"] for row in token("list", "--json").json] == ["ci"]
    assert [row["state"] for row in token("list", "--all", "--json").json] == ["valid", "revoked", "revoked"]


@pytest.mark.parametrize(("words", "code", "why"), [
    (["new", "x"], 2, "--may: must name at least one of: upload, read, "),
    (["new", "x", "--may", "fly"], 2, "--may: there is no 'fly'; there are: upload, read, "),
    (["new", "a/b", "--may", "read"], 2, "a/b: a name has"),
    (["new", "x", "--may", "read", "--max-file-bytes", "10X"], 2, "--max-file-bytes: '10X' is no size"),
    (["new", "x", "--may", "read", "--max-uploads", "2.5"], 2, "--max-uploads: '2.5' is no whole number"),
    (["new", "x", "--may", "read", "--max-uploads-s", "0"], 2, "--max-uploads-s: must be a number over 0"),
    (["new", "x", "--may", "read", "--expires", "2020-01-01"], 2, "--expires 2020-01-01: must be in the future"),
    (["new", "x", "--may", "read", "--under", "gone"], 1, "there is no token gone"),
    (["new", "old", "--may", "read"], 1, "there is, or was, a token old: a name is never given twice"),
    (["new", "x", "--may", "read", "--under", "old"], 1, "the token old is revoked"),
    (["new", "x", "--may", "read", "--under", "d"], 1, "only 4 tokens stand one under the other"),
    (["rotate", "old"], 1, "the token old is revoked"), (["rotate", "d", "--keep", "1w"], 2, "--keep 1w: give a number"),
    (["show", "gone"], 1, "there is no token gone"), (["revoke", "gone"], 1, "there is no token gone"),
])
def test_what_cannot_be_done_is_said_and_changes_nothing(token: Command, file: Path, words: list[str], code: int, why: str) -> None:
    """With 2 for what cannot be understood, and 1 for what does not fit the tokens that there are."""
    for name, under in (("old", None), ("a", None), ("b", "a"), ("c", "b"), ("d", "c")):
        token("new", name, "--may", "upload", *(["--under", under] if under else []))
    token("revoke", "old")
    before = (file.parent / "tokens.json").read_bytes()
    done = token(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"incus-courier: {why}" if code == 2 else "incus-courier: ")
    assert why in done.err
    assert (file.parent / "tokens.json").read_bytes() == before


def test_tokens_need_a_configuration_file_to_be_beside(token: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is named has to be there, too; a file of tokens that is damaged is left alone."""
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    monkeypatch.setattr("daemon.config.INSTALLED_FILE", file.parent / "none.toml")
    monkeypatch.setattr("daemon.cli.main.ChosenFile.file", None)
    done = token("list", config=None)
    assert done.code == 2
    assert "name one with --config FILE" in done.err
    assert token("list", config=file.parent / "none.toml").code == 78
    tokens = file.parent / "tokens.json"
    tokens.write_text("[")
    tokens.chmod(0o600)
    assert token("new", "ci", "--may", "read").code == 78
    assert tokens.read_text() == "["


def test_only_the_owner_of_the_directory_changes_tokens(token: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root would leave in a user's directory, that one could not read; and nobody else than root changes root's."""
    monkeypatch.setattr(os, "geteuid", lambda: file.parent.stat().st_uid + 1)
    done = token("new", "ci", "--may", "read")
    assert done.code == 1
    assert "changes it, whose directory it is in; run this as that user" in done.err
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(("text", "end"), [
    ("90d", 1000 + 90 * DAY_S), ("12h", 1000 + 12 * 3600), ("1970-01-03", 2 * DAY_S), ("1970-01-03T01:00+01:00", 2 * DAY_S)])
def test_end_is_a_length_of_time_or_a_date(text: str, end: float) -> None:
    """A date without a time zone is UTC."""
    assert read_end(text, 1000) == end


@pytest.mark.parametrize("text", ["", "d", "tomorrow", "1970-01-01", "999999999d", "0s", "1970-13-01", "٣"])
def test_end_that_cannot_be_is_refused(text: str) -> None:
    """Neither in the past nor beyond all calendars."""
    with pytest.raises(Misused, match="--expires"):
        read_end(text, 1000)


@pytest.mark.parametrize(("grant", "text"), [
    (Grant(), "*"), (Grant(instances=("web-*", "db"), projects=("shop",), remotes=("eu",), paths=("/a", "/b")), "eu:shop/web-*,db:/a,/b")])
def test_places_are_shown_in_short(grant: Grant, text: str) -> None:
    """As uploads name them."""
    assert where(grant) == text


def test_new_token_as_json_is_one_line(token: Command) -> None:
    """For scripts: the token, and all that `show` has, with times as everywhere."""
    made = json.loads(token("new", "ci", "--may", "read", "--expires", "2999-01-01", "--json").out)
    assert (read := token_text.read(made["token"])) is not None
    assert [key["id"] for key in made["keys"]] == [read.key_id]
    assert made["expires_at"] == "2999-01-01T00:00:00.000Z"
    assert made["made_at"] <= when(time.time())
    assert token("show", "ci", "--json").json[0] == {key: value for key, value in made.items() if key != "token"}
    assert SOON_S == 14 * DAY_S
