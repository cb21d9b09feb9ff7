"""What `check` concludes about the machine."""

import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import check_machine as machine
from daemon.cli import machine_facts
from daemon.cli.check_machine import (
    API,
    API_SOCKET,
    SANDBOX,
    SENDER,
    SENDER_SOCKET,
    TARGET,
    Owned,
    ProxyAnswer,
    StatePlace,
    Unit,
)
from daemon.cli.check_result import CheckResult, Level

STATE = "/var/lib/incus-courier"
WORKER = "incus-courier-worker@0.service"
TIGHT = {**SANDBOX, "ReadWritePaths": f"-{STATE}", "PrivateNetwork": "yes"}


def told(findings: Iterable[CheckResult]) -> str:
    """Levels and details. What is not well says why that matters, and what to do."""
    found = list(findings)
    assert all(finding.why and finding.hint for finding in found if finding.level is not Level.OK)
    return "; ".join(f"{finding.level} {finding.detail}" for finding in found)


@pytest.mark.parametrize(("unit", "said"), [
    (Unit(TARGET), f"ok {TARGET}"),
    (Unit(API, load="not-found", active="inactive"), ""),
    (Unit(API, active="failed"), "error failed"),
    (Unit(API, active="inactive"), f"ok {API}"),
    (Unit(WORKER, active="inactive"), "warning does not run"),
    (Unit(TARGET, enabled="disabled"), "warning disabled"),
    (Unit(API, enabled="static"), f"ok {API}"),
    (Unit(API_SOCKET, shown={"ProtectSystem": "no"}), f"ok {API_SOCKET}"),
    (Unit(API_SOCKET, active="inactive"), "warning does not run"),
    (Unit(SENDER, active="inactive"), f"ok {SENDER}"),
    (Unit(SENDER_SOCKET, active="inactive"), f"ok {SENDER_SOCKET}"),
    (Unit(SENDER, active="failed"), "error failed"),
    (Unit(API, needs_reload=True), "warning its file, or a drop-in, is newer than what systemd has read"),
    (Unit(API, drop_ins=("/etc/x.conf",), shown={**TIGHT, "ProtectSystem": "no"}),
     "warning ProtectSystem=no, by /etc/x.conf"),
])
def test_units_are_told_as_systemd_has_them(unit: Unit, said: str) -> None:
    """Failed, not running, not enabled, changed since, or opened by a drop-in."""
    assert told(machine.units([unit])) == said


@pytest.mark.parametrize(("unit", "asked", "said"), [
    (Unit(API, shown=TIGHT), {}, ""),
    (Unit(API, shown=TIGHT), {"state": f"{STATE}/below"}, ""),
    (Unit(API, shown=TIGHT), {"state": "/srv/state"}, "error state.directory /srv/state is not in ReadWritePaths="),
    (Unit(API, shown={**TIGHT, "ProtectSystem": "no"}), {"state": "/srv/state"}, ""),
    (Unit(API, shown=TIGHT), {"files": {API: ["/root/key.pem"]}}, "error ProtectHome=yes hides /root/key.pem"),
    (Unit(WORKER, shown=TIGHT), {"files": {API: ["/root/key.pem"]}}, ""),
    (Unit(WORKER, shown=TIGHT), {"far": ["far"]}, "error PrivateNetwork=yes, and far is reached by https"),
    (Unit(WORKER, shown={**TIGHT, "PrivateNetwork": "no"}), {"far": ["far"]}, ""),
    (Unit(API, shown=TIGHT), {"far": ["far"], "listen": ["unix:/run/x", "fd://3"]}, ""),
    (Unit(API, shown=TIGHT), {"listen": ["tls:0.0.0.0:443"]}, ""),
    (Unit(API, shown=TIGHT), {"listen": ["127.0.0.1:1"]},
     "error PrivateNetwork=yes, and the API is to open 127.0.0.1:1 itself"),
])
def test_sandbox_is_held_against_the_configuration(unit: Unit, asked: dict[str, Any], said: str) -> None:
    """What the units keep from the services although the configuration asks for it."""
    opener = Unit(API_SOCKET, shown={"Listen": "/run/incus-courier/api.sock (Stream)\n0.0.0.0:443 (Stream)"})
    whole: dict[str, Any] = {"state": STATE, "files": {}, "far": [], "listen": [], **asked}
    assert told(machine.sandbox([opener, unit], **whole)) == said


@pytest.mark.parametrize(("groups", "needed", "said"), [
    (["incus-admin"], True, "ok u is in it"), ([], True, "error u is not in it"), ([], False, "warning u is not in it")])
def test_user_needs_his_group(groups: list[str], needed: bool, said: str) -> None:
    """A service's user fails without it, a person is told."""
    assert told([machine.group("u", "incus-admin", groups, "Why.", needed=needed)]) == said


@pytest.mark.parametrize(("found", "said"), [
    ([Owned(STATE, 0o2750, "root", "g")], "ok 1 directories and files are as installed"), ([], ""),
    ([Owned(STATE, 0o2755, "root", "g")], f"error {STATE} is 2755 root:g, not 2750 root:g"),
    ([Owned(STATE, 0o2750, "nobody", "g")], f"error {STATE} is 2750 nobody:g, not 2750 root:g"),
])
def test_state_belongs_to_whom_it_was_made_for(found: list[Owned], said: str) -> None:
    """Modes and owners are those of tmpfiles.d; what is not there yet is made at the start."""
    assert told(machine.owners(found, [Owned(STATE, 0o2750, "root", "g")])) == said


@pytest.mark.parametrize(("mode", "user", "secret", "errors"), [
    (0o644, "root", False, 0), (0o664, "root", False, 1), (0o644, "ada", False, 1), (0o644, "root", True, 1),
    (0o640, "root", True, 0), (0o666, "ada", True, 2)])
def test_files_that_give_rights_are_closed(mode: int, user: str, secret: bool, errors: int) -> None:
    """Root alone changes them, and not everybody reads the secret ones."""
    found = list(machine.closed([Owned("/etc/x", mode, user, "g")], secret=secret))
    assert [finding.level for finding in found] == [Level.ERROR] * errors


@pytest.mark.parametrize(("newest", "synchronised", "level"), [
    (None, None, "ok"), (1000.0, True, "ok"), (1004.0, True, "ok"), (1006.0, True, "warning"), (None, False, "warning")])
def test_clock_is_not_behind_what_is_there(newest: float | None, synchronised: bool | None, level: str) -> None:
    """Nor on its own."""
    assert machine.clock(1000.0, newest, synchronised=synchronised).level == level


@pytest.mark.parametrize(("place", "levels"), [
    (StatePlace("/s", "ext4", 10**6, 10**5), ["ok"]), (StatePlace("/s", "btrfs", 0, 0), ["ok"]),
    (StatePlace("/s", "nfs4", 0, 0), ["error"]), (StatePlace("/s", "tmpfs", 10**6, 5), ["warning", "warning"])])
def test_state_is_on_a_disk_with_inodes(place: StatePlace, levels: list[str]) -> None:
    """Another machine's disk does not hold what is promised, and memory only for a while."""
    assert [finding.level for finding in machine.room(place)] == levels


def test_kernel_renames_without_replacing() -> None:
    """The one that this runs on does, and one that does not is an error."""
    assert machine_facts.renames_without_replacing()
    assert machine.kernel("Linux 3.2", renames=False).level is Level.ERROR


@pytest.mark.parametrize(("remotes", "warns"), [
    (None, False), (["local"], False), (["gone", "local"], False), (["gone"], True), (["*"], False), ([], False)])
def test_token_for_a_remote_that_is_not_there_is_told(remotes: list[str] | None, warns: bool) -> None:
    """When it is good for nothing else."""
    assert bool(list(machine.unreachable_remotes({"ci": remotes}, ["local"]))) is warns


@pytest.mark.parametrize(("instances", "said"), [
    (None, ""), (["web-1"], ""), (["web-*"], ""), (["*"], ""), (["web-?", "gone", "db-*"], "warning names gone, db-*, and")])
def test_token_for_an_instance_that_is_not_there_is_told(instances: list[str] | None, said: str) -> None:
    """Whatever of its instances, or globs, means none of those that there are."""
    assert told(machine.unknown_instances({"ci": instances}, ["web-1", "c1"])).startswith(said)


@pytest.mark.parametrize(("answer", "level"), [
    (ProxyAnswer(400, ours=True), "ok"), (ProxyAnswer(413, ours=True), "ok"), (ProxyAnswer(), "warning"),
    (ProxyAnswer(401), "ok"), (ProxyAnswer(404), "warning"), (ProxyAnswer(413), "error"), (ProxyAnswer(502), "warning"), (ProxyAnswer(unreachable="no route"), "warning")])
def test_proxy_hands_on_what_comes(answer: ProxyAnswer, level: str) -> None:
    """Who answers the head of an upload alone shows whether a proxy waits for the body, or refuses it."""
    assert machine.proxy("https://files.example.org", answer).level == level


@pytest.mark.parametrize(("said", "answer"), [
    (b"HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\n\r\n{}", ProxyAnswer(400, ours=True)),
    (b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\n<p>", ProxyAnswer(413)),
    (b"", ProxyAnswer(unreachable="it ended the connection")),
    (b"SSH-2.0-x\r\n", ProxyAnswer(unreachable="no HTTP is spoken there")),
])
def test_proxy_is_asked_with_the_beginning_of_a_body(said: bytes, answer: ProxyAnswer) -> None:
    """What comes back tells the service's own answer from that of another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            with listener.accept()[0] as line:
                while b"\r\n\r\n" not in line.recv(65536):
                    pass
                line.sendall(said)

        server = threading.Thread(target=serve)
        server.start()
        assert machine_facts.ask_proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", 2**30) == answer
        server.join()


def test_facts_are_read_as_the_system_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of systemctl, lines of tmpfiles.d, mounts by number and by place."""
    (tmp_path / "systemctl").write_text(
        f"#!/bin/sh\nprintf 'Id={API_SOCKET}\\nLoadState=loaded\\nListen=a\\nListen=b\\n\\nId={API}\\nNeedDaemonReload=yes\\n'\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    opener, api = machine_facts.service_units(1)
    assert (opener.name, opener.load, opener.shown["Listen"]) == (API_SOCKET, "loaded", "a\nb")
    assert api.needs_reload
    root = Path(__file__).resolve().parents[4]
    assert machine_facts.installed_owners(root / "systemd/tmpfiles.conf")[0] == Owned(
        STATE, 0o2750, "root", "incus-courier-state")
    mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:33 / /srv rw shared:1 - btrfs /dev/b rw\n"
    assert [machine_facts.filesystem_kind(mounts, number, path) for number, path in (
        ("8:1", "/x"), ("0:99", "/srv/x"), ("0:99", "/home"))] == ["ext4", "btrfs", "ext4"]
