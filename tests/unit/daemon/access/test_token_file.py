"""The file of the tokens: what is written is read again, what is wrong is refused, and nothing is ever half there."""

import errno
import grp
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import failpoints
from daemon.access import token_file, token_text
from daemon.access.token_file import (
    LAST_TIME,
    READERS,
    SOON_S,
    Key,
    Token,
    Tokens,
    TokenState,
    change_tokens,
    read_tokens,
    token_file_of,
)
from daemon.errors import CannotStart
from daemon.model.grant import Grant, Permission

UPLOAD = Grant(may=frozenset({Permission.UPLOAD}))


def token(name: str, **values: Any) -> Token:
    """A token of that name."""
    made = token_text.make()
    return Token(name=name, made_at=1.0, **{"grant": UPLOAD, "keys": (Key(id=made.key_id, sha256=made.sha256, made_at=1.0),),
                                            **values})


@pytest.fixture
def path(quick_path: Path) -> Path:
    """Where a file of tokens is to be."""
    return quick_path / "tokens.json"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Put a file there as a person would."""
    path.write_text(text)
    path.chmod(mode)


def keep(*tokens: Token) -> Callable[[Tokens], Tokens]:
    """A change after which there are these."""
    return lambda _: Tokens(tokens)


def test_tokens_are_beside_the_configuration() -> None:
    """Without such a file there are none."""
    assert token_file_of(Path("/etc/incus-courier/config.toml")) == Path("/etc/incus-courier/tokens.json")
    assert token_file_of(None) is None


times = st.floats(0, LAST_TIME, exclude_max=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True)
grants = st.builds(
    Grant, may=st.frozensets(st.sampled_from(sorted(set(Permission) - {Permission.ADMIN})), min_size=1), own=st.booleans(),
    instances=st.none() | st.lists(names, min_size=1).map(tuple), paths=st.sampled_from([None, ("/srv/**", "/\U0001f600/é\"\\")]),
    max_file_bytes=st.none() | st.integers(0, 2**63 - 1), max_uploads_s=st.none() | st.floats(0.01, 1e9),
    modes=st.integers(0, 0o7777), uids=st.sampled_from([((0, 0),), ((1, 5), (7, 4294967294))]), mkdirs=st.booleans(),
    addresses=st.sampled_from([None, ("10.0.0.0/8", "unix", "::1/128")]))
tokens_of_any_kind = st.lists(
    st.builds(token, names, grant=grants, expires_at=st.none() | times, revoked_at=st.none() | times), max_size=5,
    unique_by=lambda token: token.name)


@given(tokens_of_any_kind)
def test_tokens_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, tokens: list[Token]) -> None:
    """One stands on each line, as plain JSON."""
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    assert change_tokens(path, keep(*tokens)) == read_tokens(path) == Tokens(tuple(tokens))
    lines = path.read_text().splitlines()[1:-1] if tokens else []
    assert [json.loads(line.removesuffix(","))["name"] for line in lines] == [token.name for token in tokens]


def test_missing_file_is_no_tokens(path: Path) -> None:
    """And none was ever made; a revoked one was."""
    assert not read_tokens(path).any_made
    change_tokens(path, keep(token("ci", revoked_at=2.0)))
    assert read_tokens(path).any_made
    assert sorted(os.listdir(path.parent)) == [".tokens.json.lock", "tokens.json"]
    assert {(path.parent / name).stat().st_mode & 0o777 for name in os.listdir(path.parent)} <= {0o600, 0o640}


def test_ten_thousand_tokens_are_found_as_ten_are(path: Path) -> None:
    """By the id of a key and by name."""
    tokens = [token(f"t{number}") for number in range(10_000)]
    change_tokens(path, keep(*tokens))
    found = read_tokens(path)
    assert found.find(tokens[7777].keys[0].id) == (tokens[7777], tokens[7777].keys[0])
    assert found.by_name("t9999") == tokens[9999]
    assert found.find("0" * 12) is None
    assert found.by_name("t10000") is None


_KEY = {"id": "a" * 12, "sha256": "0" * 64, "made_at": 1}
_RECORD = {"name": "ci", "may": ["upload"], "made_at": 1, "keys": [_KEY]}


@pytest.mark.parametrize(("record", "why"), [
    ({**_RECORD, "may": ["fly"]}, "line 3: may: there is no 'fly'"),
    ({**_RECORD, "name": "a/b"}, "line 3: name: a name has"),
    ({**_RECORD, "name": "one"}, "line 2: name: there are two tokens one"),
    ({**_RECORD, "key": 1}, "line 3: key: there is no such key"),
    ({**_RECORD, "made_at": True}, "line 3: made_at: must be a time"),
    ({**_RECORD, "expires_at": 1e300}, "line 3: expires_at: must be a time"),
    ({**_RECORD, "keys": []}, "line 3: keys: must be a list"),
    ({**_RECORD, "keys": [_KEY, _KEY]}, "line 3: keys: there are two keys aaaaaaaaaaaa"),
    ({**_RECORD, "keys": [{**_KEY, "sha256": "0"}]}, "line 3: keys: sha256: must be 64"),
    ({**_RECORD, "keys": [{**_KEY, "id": None}]}, "line 3: keys: id: must be a text"),
    ({**_RECORD, "under": "two"}, "line 3: under: there is no token two"),
    ({**_RECORD, "under": "ci"}, "line 3: under: only 4"),
    ({key: value for key, value in _RECORD.items() if key != "keys"}, "line 3: keys: is missing"),
    ({key: value for key, value in _RECORD.items() if key != "may"}, "line 3: may: must name"),
    (7, "line 3: must be a token"),
])
def test_wrong_record_is_named_with_its_line_and_key(path: Path, record: object, why: str) -> None:
    """A person who wrote the file by hand finds the place."""
    write(path, f"[\n{json.dumps(token('one').plain())},\n{json.dumps(record)}\n]")
    with pytest.raises(CannotStart, match=f"{path}: {why}") as caught:
        read_tokens(path)
    assert (caught.value.code, caught.value.kind.exit_status) == ("bad_tokens", 78)


@pytest.mark.parametrize("text", ["", "{}", "[", "[" * 100_000, "[1e999]", '[{"made_at": NaN}]', "\udcff", '[{"a": 1, "a": 2}]'])
def test_what_is_no_list_of_tokens_is_refused(path: Path, text: str) -> None:
    """Half a file, or another one."""
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(CannotStart, match=str(path)):
        read_tokens(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o604, 0o666])
def test_file_that_others_may_write_or_see_is_refused(path: Path, mode: int) -> None:
    """The group may read it, as the API has to."""
    write(path, "[]", mode)
    with pytest.raises(CannotStart, match=f"mode is {mode:04o}"):
        read_tokens(path)
    path.chmod(0o640)
    assert read_tokens(path) == Tokens()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/null"), os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_refused(path: Path, make: Callable[[Path], object]) -> None:
    """Nothing is waited for, and no link is followed."""
    make(path)
    with pytest.raises(CannotStart, match=str(path)):
        read_tokens(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_file_of_another_user_is_refused_and_that_of_root_is_for_the_readers_group(
    path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who could write it could give himself any right; the API reads it by its group."""
    write(path, "[]")
    os.chown(path, 65534, 0)
    with pytest.raises(CannotStart, match="own"):
        read_tokens(path)
    path.unlink()
    monkeypatch.setattr(grp, "getgrnam", {READERS: grp.struct_group((READERS, "x", 12345, []))}.__getitem__)
    change_tokens(path, keep(token("ci")))
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 12345, 0o640)


def test_token_ends_with_those_that_it_is_under() -> None:
    """It has the earliest end of all; a chain of five is refused."""
    week = 7 * 86400.0
    tokens = Tokens((token("a", expires_at=10 * week), token("b", under="a", expires_at=20 * week), token("c", under="b"), token("d")))
    [a, b, c, d] = tokens.every
    assert tokens.chain(c) == (c, b, a)
    assert tokens.expires_at(c) == 10 * week
    assert [tokens.state(c, now) for now in (0, 10 * week - SOON_S, 10 * week - 1, 10 * week)] == [
        TokenState.VALID, TokenState.EXPIRES_SOON, TokenState.EXPIRES_SOON, TokenState.EXPIRED]
    assert tokens.state(d, 1e11) is TokenState.VALID
    revoked = tokens.put(replace(a, revoked_at=1.0))
    assert [revoked.state(link, 0) for link in revoked.every] == [TokenState.REVOKED] * 3 + [TokenState.VALID]


def test_chain_of_five_and_a_circle_cannot_be_made(path: Path) -> None:
    """Each request is looked at by all of a chain. The file stays as it was."""
    change_tokens(path, keep(four := token("d", under="c"), token("a"), token("b", under="a"), token("c", under="b")))
    for wrong in (token("e", under="d"), token("a", under="d")):
        with pytest.raises(ValueError, match="only 4"):
            change_tokens(path, partial(Tokens.put, token=wrong))
    assert read_tokens(path).by_name("d") == four


def test_who_change_tokens_at_the_same_time_wait_for_each_other(path: Path) -> None:
    """No change is lost."""
    names = [f"t{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda name: change_tokens(path, partial(Tokens.put, token=token(name))), names))
    assert sorted(made.name for made in read_tokens(path).every) == sorted(names)


@pytest.mark.parametrize("step", failpoints.TOKEN_STEPS)
def test_failed_disk_leaves_the_old_tokens_or_the_new_ones(path: Path, step: str) -> None:
    """The error names the file, nothing else is left behind, and the next change finds its way."""
    old, new = token("old"), token("new")
    change_tokens(path, keep(old))
    failpoints.arm(f"{step}=EIO@1")
    with pytest.raises(OSError, match="Input/output error") as caught:
        change_tokens(path, keep(new))
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert read_tokens(path).every == ((new,) if step == "tokens.dirsync" else (old,))
    assert len(os.listdir(path.parent)) == 2
    change_tokens(path, keep(old, new))
    assert read_tokens(path).every == (old, new)


@pytest.mark.parametrize("step", failpoints.TOKEN_STEPS)
def test_sudden_death_leaves_the_old_tokens_or_the_new_ones(path: Path, step: str) -> None:
    """At every step; the lock is free again, and what was left is written over."""
    change_tokens(path, keep(old := token("old")))
    script = (f"from pathlib import Path; from {token_file.__name__} import *\n"
              f"change_tokens(Path({str(path)!r}), lambda tokens: Tokens())")
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, failpoints.VARIABLE: f"{step}=kill"}, check=False)
    assert done.returncode == -9
    assert read_tokens(path).every == (() if step == "tokens.dirsync" else (old,))
    change_tokens(path, keep(new := token("new")))
    assert read_tokens(path).every == (new,)
    assert len(os.listdir(path.parent)) == 2
