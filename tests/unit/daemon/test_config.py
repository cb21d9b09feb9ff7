import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from daemon import config as configuration
from daemon.config import Config, Remote, load
from daemon.errors import CannotStart

ROOT = Path(__file__).parents[3]
DOCUMENTED = ROOT / "config.toml"
KEY = re.compile(r"(?P<key>[a-z_]+) = (?P<value>.+)")
HOOK = "[[webhooks]]\nname = 'a'\nurl = 'https://a.example/'\nsecret = '/etc/hook'"
DEFAULT = re.compile(r"(?:^|[. ])Default: (?P<value>.+)\.$")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INCUS_COURIER_CONFIG", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def complaint(tmp_path: Path, text: str) -> str:
    """What `load` says about a file that holds `text`."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(CannotStart) as caught:
        load(file)
    assert caught.value.code == "bad_config"
    return caught.value.detail


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The sections that a section, or the whole of it, is made of."""
    return {name: field.annotation for name, field in model.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)}


def defaults(section: type[BaseModel] = Config) -> dict[str, Any]:
    """Every key of every section with its default, from the model; of a section with sections below, these last."""
    below = sections(section)
    own = {key: field.get_default(call_default_factory=True) for key, field in section.model_fields.items()
           if key not in below and section is not Config}
    return own | {name: defaults(model) for name, model in below.items()}


def key_names(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The full names of all keys, in their order."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from key_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def documented_keys() -> Iterator[tuple[str, str, list[str]]]:
    """Each key of config.toml with its value as written and the comment lines right above it."""
    comment: list[str] = []
    for line in DOCUMENTED.read_text().splitlines():
        found = KEY.fullmatch(line)
        if found:
            yield found["key"], found["value"], comment
        comment = [*comment, line.removeprefix("#").strip()] if line.startswith("#") else []


def test_documented_file_has_every_key_with_its_default() -> None:
    """config.toml and the model have the same sections, keys and values: neither can drift from the other."""
    assert tomllib.loads(DOCUMENTED.read_text()) == defaults()


def test_documented_file_loads_to_the_defaults() -> None:
    """Running with config.toml is the same as running without a file."""
    assert load(DOCUMENTED).model_dump() == load(None).model_dump()


@pytest.mark.parametrize(("key", "value", "comment"), list(documented_keys()))
def test_documented_key_says_what_it_means_and_its_default(key: str, value: str, comment: list[str]) -> None:
    """Above every key stands what it does, and the default as it would be written."""
    text = " ".join(comment)
    found = DEFAULT.search(text)
    assert found is not None, f"{key} has no default in its comment"
    assert tomllib.loads(f"x = {found['value']}") == tomllib.loads(f"x = {value}")
    assert len(text) - len(found[0]) > 30, f"{key} is not explained"
    if key.endswith(("_s", "_bytes")):
        assert re.search(r"In (seconds|bytes)", text), f"{key} has no unit in its comment"


def restart_keys() -> set[str]:
    """The names of the keys that the table marks as needing a restart."""
    return {f"{name}.{key}" for name, section in sections(Config).items()
            for key, field in section.model_fields.items() if configuration.RESTART in field.metadata}


def test_documented_file_says_which_keys_need_a_restart() -> None:
    """What config.toml says of a reload is what the table says: nothing is promised live that is not."""
    said = [name for name, (_, _, comment) in zip(key_names(defaults()), documented_keys(), strict=True)
            if "It needs a restart." in " ".join(comment)]
    assert set(said) == restart_keys()


def changed(**sections: dict[str, Any]) -> Config:
    """The default configuration with other values."""
    return Config.model_validate(sections)


def test_reload_takes_over_what_can_change() -> None:
    """A key without the mark is in force after a reload."""
    now, waiting = configuration.reloaded(
        Config(), changed(limits={"reserve_bytes": 5}, delivery={"on_newer": "deliver-all"}, remotes={"r": {"endpoint": "/s"}}))
    assert (now.limits.reserve_bytes, now.delivery.supersedes, list(now.remotes), waiting) == (5, False, ["r"], [])


def test_reload_names_what_waits_for_a_restart() -> None:
    """A key with the mark keeps its value, and whoever changed it is told."""
    now, waiting = configuration.reloaded(
        Config(), changed(queue={"shards": 7}, delivery={"per_worker": 3, "per_instance": 2}, log={"format": "json"}))
    assert (now.queue.shards, now.delivery.per_worker, now.delivery.per_instance) == (2, 16, 2)
    assert waiting == ["queue.shards", "delivery.per_worker", "log.format"]


def test_documented_remote_is_complete_and_legal(tmp_path: Path) -> None:
    """Taking away the # of the example gives a remote with every key that a remote can have."""
    example = DOCUMENTED.read_text().partition("# [remotes.NAME]")[2].partition("\n\n")[0]
    file = tmp_path / "config.toml"
    file.write_text("[remotes.NAME]" + example.replace("\n# ", "\n"))
    remote = load(file).remotes["NAME"]
    assert remote.model_fields_set == set(Remote.model_fields)


def test_config_without_a_file_is_the_defaults() -> None:
    """No file is needed: every key has a default."""
    assert load(None).model_dump() == {
        **defaults(), "remotes": {}, "certificates": [], "peers": [], "users": [], "webhooks": [], "cells": []}


def test_config_numbers_written_in_whole_seconds_are_seconds(tmp_path: Path) -> None:
    """A whole number is as good as one with a point."""
    file = tmp_path / "config.toml"
    file.write_text("[api]\ndrain_s = 5\n[retry]\njitter = 0\n")
    assert (load(file).api.drain_s, load(file).retry.jitter) == (5.0, 0.0)


@pytest.mark.parametrize(("text", "said"), [
    ("[api]\nlissen = []", "api.lissen: there is no such key; the keys here are: allow_anonymous,"),
    ("[apy]\nlisten = []", "apy: there is no such key; the keys here are: api,"),
    ("[remotes.eu]\nendpoit = 'https://x'", "remotes.eu.endpoit: there is no such key; the keys here are: client_cert,"),
    ("[api]\nlisten = []", "api.listen: List should have at least 1 item"),
    ("[api]\nlisten = '127.0.0.1:80'", "api.listen: Input should be a valid list"),
    ("[api]\nlisten = ['localhost']", "api.listen.0: must be HOST:PORT, tls:HOST:PORT, unix:/PATH, fd://NUMBER or"),
    ("[api]\nlisten = ['localhost:99999']", "api.listen.0: must be HOST:PORT"),
    ("[api]\nlisten = ['unix:relative']", "api.listen.0: must be HOST:PORT, tls:HOST:PORT, unix:/PATH"),
    ("[api]\nhosts = 'a'", "api.hosts: Input should be a valid list"),
    ("[api]\nhosts = ['http://a']", "api.hosts.0: must be the name of a host, without scheme and port, for example"),
    ("[api]\nhosts = ['a:80']", "api.hosts.0: must be the name of a host"),
    ("[api]\nhosts = ['']", "api.hosts.0: must be the name of a host"),
    ("[api]\nhosts = ['*']", "api.hosts.0: must be the name of a host"),
    ("[api]\nhosts = ['a..b']", "api.hosts.0: must be the name of a host"),
    ("[api]\norigins = ['files.example']", "api.origins.0: must be scheme, host and port of a site"),
    ("[tls]\nkey = '/x'", "tls: certificate and key go together"),
    ("[proxy]\ntrusted = ['127.0.0.0/8']", "proxy.trusted.0: every user of this machine comes from loopback"),
    ("[proxy]\ntrusted = ['0.0.0.0/0']", "proxy.trusted.0: every user of this machine comes from loopback"),
    ("[[peers]]\nname = 'a'\nmay = ['upload']", "peers.0: give either user or group"),
    ("[[peers]]\nname = 'a'\nuser = 'a'", "peers.0: may: must name at least one of: upload, read,"),
    ("[[peers]]\nname = 'a'\nuser = \"a\\u0000\"\nmay = ['upload']", "peers.0.user: must be the name or the number"),
    ("[[peers]]\nname = 'a'\ngroup = \"a\\n\"\nmay = ['upload']", "peers.0.group: must be the name or the number"),
    ("[[peers]]\nname = 'a'\nuser = 'a'\nmay = ['upload']\npaths = ['/a/../b']", "peers.0: paths: '/a/../b' is no glob"),
    ("[[peers]]\nname = 'a/b'\nuser = 'a'\nmay = ['upload']", "peers.0.name: a name has 1 to 63"),
    ("[[users]]\nname = 'a'\nmay = ['upload']\n[[users]]\nname = 'a'\nmay = ['read']", "users: two have the same name"),
    (HOOK.replace("https", "ftp"), "webhooks.0.url: must be an http:// or https:// URL"),
    (HOOK.replace("//", "//me:secret@"), "webhooks.0.url: must be an http:// or https:// URL"),
    (HOOK.replace("/etc", "etc"), "webhooks.0.secret: must be a path"),
    (HOOK.replace("/etc/hook", "whsec_c2hvcnQ="), "webhooks.0.secret: a secret is whsec_BASE64 of 24 to 64 bytes"),
    (f"{HOOK}\nevents = ['gone']", "webhooks.0.events.0: must be one of: queued,"),
    (f"{HOOK}\n{HOOK}", "webhooks: two have the same name"),
    ("[sender]\nallow = ['intern']", "sender.allow.0: must be an address or a network"),
    ("[[certificates]]\nname = 'a'\nfingerprint = 'abc'\nmay = ['upload']", "certificates.0.fingerprint: must be the SHA-256"),
    ("[[certificates]]\nname = 'a'\nsubject = 'CN=a'\nmay = ['upload']", "certificates.0: give either fingerprint, or ca"),
    ("[delivery.allow]\npaths = ['srv']", "delivery.allow.paths.0: 'srv' is no glob of a path"),
    ("[api]\nprocesses = -1", "api.processes: Input should be greater than or equal to 0 (it is -1)"),
    ("[api]\nprocesses = true", "api.processes: must not be true or false"),
    ("[api]\nallow_anonymous = 'perhaps'", "api.allow_anonymous: Input should be a valid boolean"),
    ("[queue]\nshards = 2.5", "queue.shards: Input should be a valid integer"),
    ("[target]\nkind = 'disk'", "target.kind: Input should be 'auto', 'incus' or 'directory' (it is 'disk')"),
    ("[incus]\nendpoint = 'http://x'", "incus.endpoint: must be empty (find it), an absolute socket path, an https:// URL"),
    ("[incus]\nendpoint = ['/x', 'http://x']", "must be empty (find it), an absolute socket path, an https:// URL"),
    ("[incus]\nendpoint = []", "incus.endpoint: must be empty (find it), an absolute socket path"),
    ("[incus]\nendpoint = ['']", "incus.endpoint: must be empty (find it), an absolute socket path"),
    ("[incus]\nclient_cert = '/x'", "incus: client_cert and client_key go together"),
    ("[incus]\nproject = 'a/b'", "incus.project: must be the name of a project"),
    ("[incus]\ntimeout_s = 0", "incus.timeout_s: Input should be greater than 0"),
    ("[remotes.eu]\nproject = 'x'", "remotes.eu.endpoint: must be a socket path or an https:// URL"),
    ("[remotes.local]\nendpoint = 'https://x'", "remotes.local: that name is taken by the [incus] section"),
    ("[remotes.'a/b']\nendpoint = 'https://x'", "remotes.a/b: a remote's name has"),
    ("[delivery]\nmode = 644", "delivery.mode: Input should be a valid string (it is 644)"),
    ("[delivery]\nmode = '0999'", "delivery.mode: must be octal digits in quotes, for example \"0644\" (it is '0999')"),
    ("[delivery]\nuid = 4294967295", "delivery.uid: Input should be less than or equal to 4294967294"),
    ("[retry]\njitter = nan", "retry.jitter: Input should be"),
    ("[retry]\ngive_up_after_s = inf", "retry.give_up_after_s: Input should be a finite number"),
    ("[limits]\nmin_free_bytes = -1", "limits.min_free_bytes: Input should be greater than or equal to 0"),
    ("api = 3", "api: Input should be a valid dictionary"),
    ("[api\n", "Expected ']'"),
])
def test_config_names_the_key_and_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    """A wrong file is refused with the key's full name and what it may be."""
    assert said in complaint(tmp_path, text)


def test_config_names_every_wrong_key_at_once(tmp_path: Path) -> None:
    """One run of the check finds all mistakes."""
    said = complaint(tmp_path, "[api]\nprocesses = 65\n[log]\nlevel = 'loud'\n")
    assert "api.processes" in said
    assert "log.level" in said


def test_config_refuses_a_file_that_is_not_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a wrong file, not a crash."""
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CannotStart, match=r"config\.toml: .*decode"):
        load(file)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_config_refuses_what_is_no_file(tmp_path: Path, name: str) -> None:
    """A named file must be there: the defaults do not stand in for it."""
    with pytest.raises(CannotStart, match="there is no such file"):
        load(tmp_path / name)


@pytest.mark.parametrize(("variable", "text", "value"), [
    ("INCUS_COURIER__API__LISTEN", '["127.0.0.1:9000"]', lambda config: config.api.listen == ["127.0.0.1:9000"]),
    ("INCUS_COURIER__API__HOSTS", '["A.example", "b"]', lambda config: config.api.hosts == ["a.example", "b"]),
    ("INCUS_COURIER__API", '{"processes": 3}', lambda config: config.api.processes == 3),
    ("INCUS_COURIER__QUEUE__SHARDS", "5", lambda config: config.queue.shards == 5),
    ("INCUS_COURIER__API__ALLOW_ANONYMOUS", "true", lambda config: config.api.allow_anonymous),
    ("INCUS_COURIER__STATE__DIRECTORY", "/x", lambda config: config.state.path == Path("/x")),
    ("INCUS_COURIER__REMOTES__EU__ENDPOINT", "https://x", lambda config: config.remotes["eu"].endpoints == ("https://x",)),
    ("INCUS_COURIER__INCUS__ENDPOINT", '["/x", "https://x"]', lambda config: config.incus.endpoints == ("/x", "https://x")),
])
def test_variable_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: Any,
) -> None:
    """Every key can be given in the environment, which counts more than the file."""
    monkeypatch.setenv(variable, text)
    assert value(load(DOCUMENTED))


@pytest.mark.parametrize(("variable", "text", "said"), [
    ("INCUS_COURIER__API__LISSEN", "[]", "INCUS_COURIER__API__LISSEN names no key"),
    ("INCUS_COURIER__APY__LISTEN", "[]", "INCUS_COURIER__APY__LISTEN names no key"),
    ("INCUS_COURIER__QUEUE__SHARDS", "many", "queue.shards: Input should be a valid integer, unable to parse string as an"
                                             " integer (it is 'many'); from the variable INCUS_COURIER__QUEUE__SHARDS"),
    ("INCUS_COURIER__API__LISTEN", "127.0.0.1:80", "INCUS_COURIER__API__LISTEN must be JSON, for example '[\"127"),
    ("INCUS_COURIER__API", "x", "INCUS_COURIER__API must be JSON"),
])
def test_variable_that_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, said: str,
) -> None:
    """A wrong variable is refused by its own name: a person looks for it in the environment, not in the file."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(CannotStart) as caught:
        load(DOCUMENTED)
    assert said in caught.value.detail


def test_file_is_the_one_named_on_the_command_line_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """--config counts more than $INCUS_COURIER_CONFIG, which counts more than the installed file."""
    monkeypatch.setenv("INCUS_COURIER_CONFIG", "/from/variable")
    assert configuration.find_file("/from/option") == Path("/from/option")
    assert configuration.find_file(None) == Path("/from/variable")


def test_file_is_the_installed_one_when_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a name the installed file is read if it is there, even when it cannot be read: that is then said."""
    monkeypatch.setattr(configuration, "INSTALLED_FILE", tmp_path / "config.toml")
    assert configuration.find_file(None) is None
    (tmp_path / "config.toml").touch()
    assert configuration.find_file(None) == tmp_path / "config.toml"


@pytest.mark.parametrize(("chosen", "variable", "path"), [
    ("/chosen", "/given", Path("/chosen")), ("", "/given:/other", Path("/given")), ("", "", Path.cwd() / "var"),
])
def test_state_directory_is_the_configured_then_the_given_then_var(
    monkeypatch: pytest.MonkeyPatch, chosen: str, variable: str, path: Path,
) -> None:
    """state.directory counts more than systemd's $STATE_DIRECTORY, which counts more than ./var."""
    monkeypatch.setenv("STATE_DIRECTORY", variable)
    monkeypatch.setenv("INCUS_COURIER__STATE__DIRECTORY", chosen)
    assert load(None).state.path == path


@pytest.mark.parametrize("command", [["client.main", "status"], ["worker", "--shard", "0"]])
def test_process_ends_with_78_when_the_configuration_is_wrong(tmp_path: Path, command: list[str]) -> None:
    """Exit code 78 says that a restart does not help, and stderr names the key."""
    file = tmp_path / "config.toml"
    file.write_text("[queue]\nshards = 0\n")
    run = ["-c", "from client.main import main; main()"] if command[0] == "client.main" else ["-m", command[0]]
    done = subprocess.run([sys.executable, *run, *command[1:], "--config", str(file)], capture_output=True, text=True,
                          cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, "queue.shards" in done.stderr) == (78, True)


@pytest.mark.parametrize(("path", "directory", "expected"), [
    ("$CREDENTIALS_DIRECTORY/remotes_key.pem", "/run/credentials/x", "/run/credentials/x/remotes_key.pem"),
    ("$CREDENTIALS_DIRECTORY/remotes_key.pem", None, "$CREDENTIALS_DIRECTORY/remotes_key.pem"),
    ("/etc/incus-courier/key.pem", "/run/credentials/x", "/etc/incus-courier/key.pem"),
    ("", "/run/credentials/x", ""),
])
def test_key_is_found_among_the_credentials_that_systemd_handed_over(
    monkeypatch: pytest.MonkeyPatch, path: str, directory: str | None, expected: str,
) -> None:
    """A path may begin with the directory whose name only the running service knows."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if directory is not None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
    assert Remote().file(path) == expected


def test_no_complaint_tells_a_secret(tmp_path: Path) -> None:
    """What is wrong with a webhook is named without its values: a person reads it, and the journal keeps it."""
    secret = "whsec_" + "QUJD" * 9
    told = complaint(tmp_path, f"[[webhooks]]\nurl = 'https://a.example/{secret}'\nsecret = '{secret}QQ'\nx = 1")
    assert "whsec_Q" not in told
    assert all(key in told for key in ("webhooks.0.name", "webhooks.0.secret", "webhooks.0.x"))
