"""`incus-courier check`: what it says, and what it must not do."""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from daemon.access.token_file import READERS, TOKENS_FILE, Key, Token, Tokens, change_tokens
from daemon.cli.check import check
from daemon.config import CREDENTIALS, FILE_VARIABLE, LOCAL, load
from daemon.errors import ERRORS
from daemon.model.grant import Grant, Permission
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.versions import SCHEMA_VERSION
from tests.support import version_1
from tests.support.certificates import Authority
from tests.support.command import incus_courier
from tests.support.depot import Depot
from tests.support.foreign import plant
from tests.support.service import Service
from worker.check import probe

_NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration whose state is not there yet."""
    file = tmp_path / "config.toml"
    file.write_text(f'[state]\ndirectory = "{tmp_path / "state"}"\n[target]\nkind = "directory"\n')
    return file


def test_check_finds_all_well_and_names_the_file_it_read(file: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration that the environment names is named, as one of the command line would be."""
    Layout(load(file).state.path).create()
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    assert check(load(file), None) == 0
    assert f"ok   configuration: {file}\n" in capsys.readouterr().out


def test_check_answers_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, with a level for each thing; a warning fails nothing."""
    Layout(load(file).state.path).create()
    assert check(load(file), str(file), as_json=True) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"what": "configuration", "level": "ok", "detail": str(file), "why": "", "hint": ""} in findings
    assert {"kernel", "clock", "SQLite"} <= {finding["what"] for finding in findings}


def test_check_makes_no_state_as_root(file: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    """What root made before the service's first start would shut the service's users out, so it makes nothing."""
    monkeypatch.setattr("daemon.cli.check.identity_to_take", lambda layout: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert check(load(file), str(file)) == 0
    state = file.parent / "state"
    assert not state.exists()
    assert f"ok   state directory: {state}: empty until the service starts for the first time" in capsys.readouterr().out


def test_check_fails_where_no_state_can_be_made(file: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the way is told of before the first start."""
    monkeypatch.setattr("daemon.cli.check.identity_to_take", lambda layout: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (file.parent / "state").touch()
    assert check(load(file), str(file)) == 1
    assert f"FAIL state directory: state.directory {file.parent}" in capsys.readouterr().out


@pytest.mark.slow
def test_check_reads_the_keys_that_systemd_hands_to_the_workers(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """A path below $CREDENTIALS_DIRECTORY is found in the installed directory of keys, under the name it has there."""
    keys = file.parent / "keys"
    keys.mkdir()
    (keys / "server.crt").write_text("no certificate")
    monkeypatch.setattr("daemon.cli.check.INSTALLED_CREDENTIALS", keys)
    monkeypatch.delenv(CREDENTIALS, raising=False)
    for name in ("server.crt", "gone.crt"):
        file.write_text(f'[state]\ndirectory = "{file.parent / "state"}"\n[remotes.far]\nendpoint = "https://127.0.0.1:1"\n'
                        f'server_cert = "$CREDENTIALS_DIRECTORY/remotes_{name}"\n')
        check(load(file), str(file))
        assert ("No such file" in capsys.readouterr().out) is (name == "gone.crt")


def test_check_says_what_a_user_may_not_see(file: Path) -> None:
    """A user who may not look into the state is told so, without a traceback."""
    config = load(file)
    (config.state.path / "queue").mkdir(parents=True)
    config.state.path.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(_NOBODY)
    try:
        what, ok, detail, hint, _ = probe(LOCAL, config)
    finally:
        os.seteuid(before)
        config.state.path.chmod(0o700)
    assert (what, ok) == ("remote local", False)
    assert str(config.state.path) in str(detail)
    assert "root" in str(hint)


@pytest.fixture
def made(file: Path) -> Layout:
    """A state with one shard that has its database."""
    with Depot(file.parent / "state") as depot:
        depot.accept()
        return depot.layout


@pytest.mark.usefixtures("made")
def test_check_names_the_version_of_each_shard(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard that was made, and is as this program makes it, is well."""
    assert check(load(file), str(file)) == 0
    assert f"ok   shard 0: version {SCHEMA_VERSION}\n" in capsys.readouterr().out


def test_check_fails_when_a_shard_cannot_be_served(file: Path, made: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """A database of a newer version ends every process: the check says so before one is started. It changes nothing."""
    with closing(sqlite3.connect(made.database(0))) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert check(load(file), str(file)) == 1
    said = capsys.readouterr().out
    assert "FAIL shard 0: The database of shard 0 has version 99" in said
    assert ERRORS["schema_newer"].hint in said


@pytest.mark.parametrize("what", ["trigger", "view in the place of a table"])
def test_check_fails_when_a_shard_has_what_no_program_of_the_service_made(
    file: Path, made: Layout, capsys: pytest.CaptureFixture[str], what: str,
) -> None:
    """It is named, and its worker will set the database aside."""
    plant(made.database(0), what)
    assert check(load(file), str(file)) == 1
    assert "FAIL shard 0: The queue's database: this program has not made the " in capsys.readouterr().out


def test_check_upgrades_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an older version left is well: the shard's worker brings it up to date."""
    directory = file.parent / "state"
    version_1.build(directory, 1)
    before = Layout(directory).database(0).read_bytes()
    assert check(load(file), str(file)) == 0
    assert "ok   shard 0: version 1; its worker brings it up to version" in capsys.readouterr().out
    assert Layout(directory).database(0).read_bytes() == before


def _long_name(directory: Path) -> Path:
    return directory / ("x" * 300)


def _file(directory: Path) -> Path:
    (directory / "file").write_text("no directory")
    return directory / "file"


def _ring(directory: Path) -> Path:
    (directory / "ring").symlink_to("ring")
    return directory / "ring"


@pytest.mark.slow
@pytest.mark.parametrize("make", [_long_name, _file, _ring])
def test_check_says_what_is_wrong_when_the_state_cannot_be_a_directory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A state directory that is a file, a ring of links or too long a name is one failed line, not a crash."""
    service = Service(tmp_path)
    done = incus_courier("--config", str(service.config), "check", INCUS_COURIER__STATE__DIRECTORY=str(make(tmp_path)))
    assert done.code == 1
    assert "FAIL state directory: " in done.out
    assert done.err == ""


@pytest.mark.slow
@pytest.mark.parametrize("make", [_long_name, _file, _ring])
def test_status_complains_in_one_line_when_the_state_cannot_be_a_directory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Commands that look at the state say what they did not find, without a traceback."""
    service = Service(tmp_path)
    done = incus_courier("--config", str(service.config), "status", INCUS_COURIER__STATE__DIRECTORY=str(make(tmp_path)))
    assert done.code != 0
    assert done.err.startswith("incus-courier: ")
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.parametrize("address", ["0.0.0.0:0", pytest.param("[::]:0", marks=pytest.mark.full)])
def test_check_fails_when_other_machines_would_reach_an_address(tmp_path: Path, address: str) -> None:
    """What `serve` would refuse to open is said by the check already; with api.allow_anonymous both are content."""
    service = Service(tmp_path, {"api": {"listen": ["127.0.0.1:0", address]}})
    done = incus_courier("--config", str(service.config), "check")
    assert done.code == 1
    assert f"FAIL addresses: api.listen: {address} can be reached from other machines" in done.out
    done = incus_courier("--config", str(service.config), "check", INCUS_COURIER__API__ALLOW_ANONYMOUS="true")
    assert done.code == 0
    assert "ok   addresses: 127.0.0.1:0" in done.out


def test_check_looks_at_the_certificate(
    file: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """Its names and its end; it fails when that is near or past, when the key is another one's, or nothing can be read."""
    monkeypatch.setenv("INCUS_COURIER__API__LISTEN", '["tls:127.0.0.1:0"]')
    good, other = authority.issue(), authority.issue()
    found = [(good, good.key, True, "for localhost, 127.0.0.1, until "), (good, other.key, False, "mismatch"),
             (authority.issue(days=3), None, True, "until "), (authority.expired(), None, False, "has expired"),
             (good, file.parent / "gone", False, "No such file")]
    for pair, key, ok, said in found:
        monkeypatch.setenv("INCUS_COURIER__TLS__CERTIFICATE", str(pair.certificate))
        monkeypatch.setenv("INCUS_COURIER__TLS__KEY", str(key or pair.key))
        assert check(load(file), str(file)) == (0 if ok else 1)
        line = next(line for line in capsys.readouterr().out.splitlines() if " certificate: " in line)
        assert line.startswith("ok " if ok else "FAIL ")
        assert said in line


@pytest.mark.slow
def test_check_fails_when_an_address_is_not_of_this_machine(tmp_path: Path) -> None:
    """An address that cannot be bound here (192.0.2.0/24 is for documentation) is named, with the kernel's reason."""
    service = Service(tmp_path, {"api": {"listen": ["192.0.2.1:8420"]}})
    done = incus_courier("--config", str(service.config), "check")
    assert done.code == 1
    assert "FAIL addresses: api.listen: 192.0.2.1:8420: Cannot assign requested address" in done.out


@pytest.mark.slow
def test_check_is_content_while_the_service_runs(tmp_path: Path) -> None:
    """An address that the service itself has taken is no failure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = Service(tmp_path, {"api": {"listen": [f"127.0.0.1:{taken.getsockname()[1]}"]}})
        done = incus_courier("--config", str(service.config), "check")
    assert done.code == 0, done.out


def test_check_fails_where_no_resumable_upload_could_be_completed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """They are moved into the spool, so their directory has to be on its filesystem, and must be no link."""
    monkeypatch.setattr("daemon.cli.check._check_remotes", lambda *_: ([], None))
    layout = Layout(load(file).state.path)
    layout.create()
    layout.partials.rmdir()
    layout.partials.symlink_to(tmp_path)
    check(load(file), str(file))
    assert f"FAIL spool: {layout.partials} is no directory on the filesystem" in capsys.readouterr().out


def test_check_says_how_the_tokens_stand(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """How many are valid, which end soon or have ended; a file that the API could not take is told with its reason."""
    monkeypatch.setattr("daemon.cli.check._check_remotes", lambda *_: ([], None))
    path, day_s = file.parent / TOKENS_FILE, 86400
    now = time.time()
    Layout(load(file).state.path).create()

    def tokens() -> str:
        check(load(file), str(file))
        return next(line for line in capsys.readouterr().out.splitlines() if " tokens: " in line)

    assert tokens() == f"ok   tokens: none in {path}"
    grant = Grant(may=frozenset({Permission.READ}))
    change_tokens(path, lambda _: Tokens(tuple(
        Token(name=name, grant=grant, made_at=0, expires_at=end, revoked_at=revoked_at, keys=(Key(id=name * 12, sha256="0" * 64, made_at=0),))
        for name, end, revoked_at in (("a", None, None), ("b", now + day_s, None), ("c", now - day_s, None), ("d", None, 1.0)))))
    assert tokens() == f"warn tokens: 2 valid in {path}; expire within 14 days: b; expired: c"
    if os.geteuid() == 0:
        monkeypatch.setattr("daemon.config.INSTALLED_FILE", file)
        monkeypatch.setattr("daemon.cli.check.readers_gid", lambda: 12345)
        assert f"the API cannot read it. Give it to the group: chgrp {READERS} {path}" in tokens()
    path.chmod(0o666)
    assert tokens().startswith(f"FAIL tokens: {path}: its mode is 0666")


def test_check_warns_of_tokens_for_what_is_not_there_unless_another_cell_may_have_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """All cells have the same tokens: what one of them has not is no slip."""
    monkeypatch.setattr("daemon.cli.check._check_remotes", lambda *_: ([], ["c1"]))
    monkeypatch.setattr("daemon.cli.check.cell_findings", lambda *_: [])
    Layout(load(file).state.path).create()
    grant = Grant(may=frozenset({Permission.UPLOAD}), instances=("web-1",), remotes=("eu",))
    change_tokens(file.parent / TOKENS_FILE, lambda _: Tokens((
        Token(name="a", grant=grant, made_at=0, keys=(Key(id="a" * 12, sha256="0" * 64, made_at=0),)),)))
    for cells, warnings in (("", 2), ('[cell]\nname = "n"\n[[cells]]\nname = "n"\naddress = "http://n"\ninstances = ["c1"]\n'
                                      '[[cells]]\nname = "s"\naddress = "http://s"\n', 0)):
        file.write_text(f"{file.read_text()}{cells}")
        check(load(file), str(file))
        assert capsys.readouterr().out.count("warn token a: ") == warnings
