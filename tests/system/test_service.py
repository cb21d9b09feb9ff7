"""The installed service: its units, its users, its sandbox and its journal."""

import contextlib
import re
import textwrap
from collections.abc import Iterator
from functools import partial
from urllib.parse import quote

import pytest

from daemon.log.events import EVENTS
from tests.live.host import Container
from tests.support.waiting import eventually
from tests.system.load import Load
from tests.system.machine import CONFIG, DOOR, INCUS_SOCKET, PATIENCE_S, Machine, ask

pytestmark = [pytest.mark.system, pytest.mark.live, pytest.mark.timeout(600)]

SERVICES = ("incus-courier-api.service", "incus-courier-worker@0.service", "incus-courier-worker@1.service")
STATE = "/var/lib/incus-courier"
TOKENS = "/etc/incus-courier/tokens.json"
#: The directories that neither user may replace, and in which one of them at most makes things.
_OWNERS = {STATE: "root", f"{STATE}/spool": "root", **{f"{STATE}/{name}": "incus-courier-worker" for name in (
    "queue", "locks", "bells", "activity", "lost+found", "instances")},
           **{f"{STATE}/{name}": "incus-courier-api" for name in ("access", "partials")}}


def events(machine: Machine, *matches: str) -> list[str]:
    """The names of the events in the journal that match."""
    return [entry["INCUS_EVENT"] for entry in machine.journal(*matches) if "INCUS_EVENT" in entry]


def test_upload_is_delivered_by_the_installed_service(machine: Machine, load: Load) -> None:
    """From the socket to the instance, in two processes of two users."""
    load.many(20)
    assert not load.refused
    load.wait_delivered()


def test_curl_uploads_through_the_socket(machine: Machine, instance: Container) -> None:
    """What the documentation says works on the machine itself."""
    machine.run("curl", "--silent", "--show-error", "--fail", "--unix-socket", f"/{DOOR}", "-T", CONFIG,
                f"http://courier/v1/instances/{instance.name}/files/srv/by-curl")
    file = instance.rootfs / "srv/by-curl"
    eventually(lambda: file.exists() and file.read_text() == machine.run("cat", CONFIG) + "\n", PATIENCE_S)


@pytest.mark.parametrize("service", SERVICES)
def test_service_tells_its_manager_how_it_stands(machine: Machine, service: str) -> None:
    """The manager knows that it is ready, what it does, and that it would notice a hang."""
    assert machine.show(service, "Type") == "notify"
    eventually(lambda: re.search(r"\d", machine.show(service, "StatusText")), PATIENCE_S, "a status")
    assert machine.show(service, "WatchdogUSec") == "30s"
    assert machine.show(service, "WatchdogTimestampMonotonic") != "0"
    assert machine.show(service, "LogRateLimitIntervalUSec") == "0"
    assert machine.show(service, "RestartPreventExitStatus") == "78"


@pytest.mark.parametrize("service", SERVICES)
def test_sandbox_is_tight(machine: Machine, service: str) -> None:
    """The manager itself rates the exposure of each service at 1.0 or better."""
    text = machine.run("systemd-analyze", "security", "--no-pager", service)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert found, text
    assert float(found[1]) <= 1.0, text


def test_socket_is_open_to_its_group_only(machine: Machine) -> None:
    """The door is a Unix socket for members of incus-courier, and nothing listens on the network."""
    assert machine.run("stat", "-c", "%a %U %G", f"/{DOOR}") == "660 root incus-courier"
    listening = machine.run("sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\"'")
    assert listening == ""


@contextlib.contextmanager
def example(machine: Machine, name: str, unit: str, **replaced: str) -> Iterator[None]:
    """One of the documented examples, in force for a unit."""
    directory = f"/run/systemd/system/{unit}.d"
    text = machine.run("cat", f"/usr/share/doc/incus-courier/examples/{name}")
    for key, value in replaced.items():
        text = re.sub(f"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
    machine.write(f"{directory}/{name}", text)
    machine.systemctl("daemon-reload")
    try:
        yield
    finally:
        machine.run("rm", "-r", directory)
        machine.systemctl("daemon-reload")


def test_loopback_is_served_when_the_configuration_turns_it_on(machine: Machine, instance: Container) -> None:
    """With the drop-in an address in api.listen is opened beside the socket that systemd holds."""
    machine.configure(listen=[f"unix:/{DOOR}", "127.0.0.1:8420"])
    with example(machine, "tcp-address.conf", SERVICES[0]):
        machine.systemctl("restart", SERVICES[0])
        machine.run("curl", "--silent", "--show-error", "--fail", "-T", CONFIG,
                    f"http://127.0.0.1:8420/v1/instances/{instance.name}/files/srv/by-tcp")
        assert ask(machine.door, "GET", "/healthz")[0] == 200


def test_address_that_systemd_opens_is_served_without_a_network(machine: Machine) -> None:
    """The documented drop-in is all that a port needs, a privileged one too; the API itself sees no interface."""
    door_unit = "incus-courier-api.socket"
    machine.configure(listen=[f"unix:/{DOOR}", "127.0.0.1:443"])
    with example(machine, "listen-address.conf", door_unit, ListenStream="127.0.0.1:443"):
        machine.systemctl("restart", door_unit, SERVICES[0])
        assert '"up"' in machine.run("curl", "--silent", "--show-error", "--fail", "http://127.0.0.1:443/healthz")
        own = machine.run("readlink", f"/proc/{machine.show(SERVICES[0], 'MainPID')}/ns/net")
    machine.run("cp", "/root/config.toml", CONFIG)
    machine.systemctl("restart", door_unit, SERVICES[0])
    assert own != machine.run("readlink", "/proc/1/ns/net")


@pytest.mark.full
def test_proxy_has_a_door_that_its_user_alone_can_enter(machine: Machine) -> None:
    """The documented socket leads to the same API, and lets in neither other users nor those who may upload."""
    name = "incus-courier-proxy.socket"
    machine.run("sh", "-c", "useradd proxied; useradd -G incus-courier other")
    text = machine.run("cat", f"/usr/share/doc/incus-courier/examples/{name}").replace("=caddy", "=proxied")
    machine.write(f"/etc/systemd/system/{name}", text)
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", name)
    machine.systemctl("restart", "incus-courier.target")
    machine.wait_active(name, *SERVICES)
    ask_there = ("curl", "--silent", "--fail", "--unix-socket", "/run/incus-courier/proxy.sock", "http://courier/healthz")
    try:
        assert '"up"' in machine.run("runuser", "-u", "proxied", "--", *ask_there)
        assert machine.status("runuser", "-u", "other", "--", *ask_there) != 0
    finally:
        machine.systemctl("disable", "--now", name)
        machine.run("sh", "-c", f"rm /etc/systemd/system/{name}; userdel proxied; userdel other")
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", "incus-courier.target")


def test_api_tells_the_users_of_the_machine_apart(machine: Machine) -> None:
    """Rights go by who is at the other end of the Unix socket: the kernel tells the API, in no namespace of its own."""
    assert machine.run("readlink", f"/proc/{machine.show(SERVICES[0], 'MainPID')}/ns/user") == machine.run(
        "readlink", "/proc/1/ns/user")


def groups_of(machine: Machine, service: str) -> list[str]:
    """The groups of a service's main process, as numbers."""
    found = re.search(r"^Groups:\t(.*)$", machine.run("cat", f"/proc/{machine.show(service, 'MainPID')}/status"), re.MULTILINE)
    assert found
    return found[1].split()


def test_tokens_are_read_by_the_process_of_the_api_alone(machine: Machine) -> None:
    """Neither the worker nor whoever else becomes one of the two users can read the file, and none of them can change it."""
    machine.write(TOKENS, "secret")
    machine.run("sh", "-c", f"chown root:incus-courier-tokens {TOKENS}; chmod 640 {TOKENS}")
    group = machine.run("getent", "group", "incus-courier-tokens").split(":")
    assert group[3] == ""
    as_the_api = ("setpriv", "--reuid=incus-courier-api", "--regid=incus-courier-state",
                  f"--groups={','.join(groups_of(machine, SERVICES[0]))}", "--")
    inside = ("nsenter", "-t", machine.show(SERVICES[0], "MainPID"), "-m", "--")
    assert machine.run(*inside, *as_the_api, "cat", TOKENS) == "secret"
    assert machine.status(*inside, *as_the_api, "test", "-w", TOKENS) != 0
    assert machine.status(*as_the_api, "touch", "/etc/incus-courier/more") != 0
    assert group[2] not in groups_of(machine, SERVICES[1])
    for user in ("incus-courier-worker", "incus-courier-api"):
        assert machine.status("runuser", "-u", user, "--", "cat", TOKENS) != 0
    machine.run("rm", TOKENS)


def children_of(machine: Machine, process: str) -> set[str]:
    """The processes that it has started, and that have not ended."""
    return {*machine.run("pgrep", "-P", process).split()}


def are_three_without(machine: Machine, process: str, killed: str) -> bool:
    """True when another child of a process has taken the place of one that was killed."""
    return len(children_of(machine, process) - {killed}) == 3


@pytest.mark.full
def test_api_of_several_processes_is_one_unit(machine: Machine, load: Load) -> None:
    """A reload reaches each of them, one that is killed is replaced and the others go on, and a stop loses nothing."""
    api = SERVICES[0]
    machine.configure(processes=2)
    machine.systemctl("restart", api)
    main = machine.show(api, "MainPID")
    with load.running():
        # Two take uploads, and one stores the small ones of both.
        processes = children_of(machine, main)
        assert len(processes) == 3
        machine.systemctl("reload", api)
        for killed in processes:
            machine.run("kill", "-KILL", killed)
            eventually(partial(are_three_without, machine, main, killed), PATIENCE_S, "three processes again")
        machine.systemctl("restart", api)
    assert machine.show(api, "NRestarts") == "0"
    assert machine.show(api, "Result") == "success"
    load.wait_delivered()


def test_workers_get_a_network_with_the_drop_in_for_remote_servers(machine: Machine) -> None:
    """The documented example is all that a remote server needs."""
    with example(machine, "remote-server.conf", "incus-courier-worker@.service"):
        machine.systemctl("restart", SERVICES[1])
        own = machine.run("readlink", f"/proc/{machine.show(SERVICES[1], 'MainPID')}/ns/net")
    machine.systemctl("restart", SERVICES[1])
    assert own == machine.run("readlink", "/proc/1/ns/net")
    assert own != machine.run("readlink", f"/proc/{machine.show(SERVICES[1], 'MainPID')}/ns/net")


def test_only_the_worker_reaches_incus(machine: Machine) -> None:
    """The API's user may not open Incus's socket, whatever else it could do; the worker's may."""
    probe = f"import socket; socket.socket(socket.AF_UNIX).connect('{INCUS_SOCKET}')"
    assert machine.status("runuser", "-u", "incus-courier-worker", "--", "python3", "-c", probe) == 0
    assert machine.status("runuser", "-u", "incus-courier-api", "--", "python3", "-c", probe) != 0
    admins = machine.run("getent", "group", "incus-admin").split(":")[2]
    for service, member in ((SERVICES[0], False), (SERVICES[1], True)):
        status = machine.run("cat", f"/proc/{machine.show(service, 'MainPID')}/status")
        assert (admins in groups_of(machine, service)) is member
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def test_worker_has_no_network(machine: Machine) -> None:
    """The process that reaches Incus sees no interface but its own loopback."""
    interfaces = machine.run("nsenter", "-t", machine.show(SERVICES[1], "MainPID"), "-n", "cat", "/proc/net/dev")
    assert [line.split(":")[0].strip() for line in interfaces.splitlines()[2:]] == ["lo"]


def test_state_belongs_to_the_two_users_and_nobody_else(machine: Machine, load: Load) -> None:
    """Every file that both have to write can be written by both, and is closed to all others; each adds to its own place alone."""
    load.many(5)
    load.wait_delivered()
    found = machine.run("find", STATE, "-printf", "%M %u %g %p\n").splitlines()
    assert any("data.db-wal" in line for line in found)
    for line in found:
        mode, user, group, path = line.split(maxsplit=3)
        assert group == "incus-courier-state", line
        assert user in {"root", "incus-courier-api", "incus-courier-worker"}, line
        assert mode[7:] == "---", line
        if mode[0] == "d":
            assert user == _OWNERS.get(path, user), line
            group_bits = {f"{STATE}/instances": "--S", f"{STATE}/access": "---"}.get(path)
            assert mode[4:7] == (group_bits or ("r-s" if path in _OWNERS else "rws")), line
        elif path != f"{STATE}/locks/host" and not path.startswith(tuple(f"{STATE}/{name}/" for name in ("spool", "access", "partials", "activity"))):
            assert mode[4:6] == "rw", line


def test_state_of_an_older_version_is_made_safe(machine: Machine, load: Load) -> None:
    """Where both users could rename everything, systemd-tmpfiles closes that, and the service goes on with its state."""
    load.many(5)
    machine.systemctl("stop", "incus-courier*")
    machine.run("sh", "-c", f"cd {STATE} && rm -r access &&"
                            " find . -path ./instances -prune -o -type d -exec chmod 2770 {} + &&"
                            " chown root queue locks bells activity lost+found && chown incus-courier-api spool spool/* queue/shard-*")
    refused = machine.incus("exec", machine.name, "--", "incus-courier", "status", check=False)
    assert "systemd-tmpfiles --create incus-courier.conf" in refused.stderr
    machine.run("systemd-tmpfiles", "--create", "incus-courier.conf")
    machine.systemctl("start", "incus-courier.target")
    machine.wait_active(*SERVICES)
    load.many(5)
    assert not load.refused
    load.wait_delivered()
    assert machine.run("incus-courier", "fsck").startswith("nothing wrong")


def test_check_of_root_asks_as_the_worker(machine: Machine) -> None:
    """All is well on an installed machine, seen as the worker sees it, and root leaves nothing of its own behind."""
    look = ("find", STATE, "-newer", CONFIG, "-user", "root")
    before = machine.run(*look)
    done = machine.run("incus-courier", "check")
    assert f"ok   remote local: incus at {INCUS_SOCKET}" in done
    assert "FAIL" not in done
    assert machine.run(*look) == before


def test_credentials_reach_the_worker_alone(machine: Machine) -> None:
    """A key that only root can read is handed to the worker, and to no other process."""
    machine.write("/etc/incus-courier/credentials/client.key", "secret\n")
    machine.systemctl("restart", "incus-courier-worker@0")
    pid = machine.show("incus-courier-worker@0", "MainPID")
    directory = machine.run("sh", "-c", f"tr '\\0' '\\n' </proc/{pid}/environ | sed -n s/^CREDENTIALS_DIRECTORY=//p")
    file = f"/proc/{pid}/root{directory}/remotes_client.key"
    assert machine.run("runuser", "-u", "incus-courier-worker", "--", "cat", file.replace(f"/proc/{pid}/root", "")) == "secret"
    assert machine.status("runuser", "-u", "incus-courier-api", "--", "cat", directory + "/remotes_client.key") != 0
    machine.run("rm", "/etc/incus-courier/credentials/client.key")


def test_task_can_be_followed_in_the_journal(machine: Machine, load: Load, instance: Container) -> None:
    """One id leads from the acceptance, by one process, to the delivery, by the other."""
    load.many(1)
    load.wait_delivered()
    (task_id,) = load.promised.values()
    # Two processes write them: the second event may get there first.
    eventually(lambda: sorted(events(machine, f"INCUS_TASK_ID={task_id}")) == ["push.delivered", "upload.accepted"], PATIENCE_S)
    delivered, accepted = sorted(machine.journal(f"INCUS_TASK_ID={task_id}"), key=lambda entry: entry["INCUS_EVENT"])
    assert accepted["SYSLOG_IDENTIFIER"] == "incus-courier-api"
    assert accepted["_SYSTEMD_UNIT"] == SERVICES[0]
    assert delivered["SYSLOG_IDENTIFIER"] == "incus-courier-worker"
    assert delivered["MESSAGE_ID"] == EVENTS["push.delivered"].message_id
    assert delivered["MESSAGE"].startswith("A file is in its instance: ")
    assert (delivered["PRIORITY"], delivered["INCUS_INSTANCE"]) == ("6", instance.name)
    assert delivered["CODE_FILE"].endswith(".py")
    assert task_id in {entry["INCUS_TASK_ID"] for entry in machine.journal(f"INCUS_INSTANCE={instance.name}")}
    assert task_id in {entry["INCUS_TASK_ID"] for entry in machine.journal(f"MESSAGE_ID={delivered['MESSAGE_ID']}")}


def test_client_cannot_forge_a_field_of_the_journal(machine: Machine, instance: Container) -> None:
    """Whatever a client puts into names and paths is one value, also when it is as long as can be."""
    door, base = machine.door, f"/v1/instances/{instance.name}/files"
    before = len(machine.journal("-u", SERVICES[0]))
    forged = "%0APRIORITY=0%0AMESSAGE=forged"
    assert ask(door, "PUT", f"{base}/srv/a{forged}", b"x")[0] == 400
    assert ask(door, "PUT", f"/v1/instances/c1{forged}/files/srv/a", b"x")[0] == 400
    assert ask(door, "PUT", f"{base}/srv/PRIORITY=0%20MESSAGE=forged", b"x")[0] == 202
    long = "/".join(["PRIORITY=0 " + "한" * 80] * 16) + "/MESSAGE=forged"
    long += "/" + "x" * (4093 - len(long.encode()))
    status, answer = ask(door, "PUT", f"{base}/{quote(long)}", b"x")
    assert status == 202, answer
    eventually(lambda: {"upload.accepted", "push.failed"} <= set(events(machine, f"INCUS_TASK_ID={answer['id']}")), PATIENCE_S)
    assert len(answer["path"].encode()) == 4095
    (accepted,) = machine.journal(f"INCUS_TASK_ID={answer['id']}", "INCUS_EVENT=upload.accepted")
    kept, cut, rest = accepted["INCUS_PATH"].partition("…")
    assert (cut, rest) == ("…", "")
    assert answer["path"].startswith(kept)
    entries = machine.journal("-u", SERVICES[0])
    assert len(entries) > before
    assert not [entry for entry in entries if entry["PRIORITY"] in {"0", "1", "2"} or entry["MESSAGE"].startswith("forged")]


def test_no_line_is_lost_however_fast_they_come(machine: Machine) -> None:
    """The journal has every line of a service that logs as fast as it can (far over 2,000 a second), in order."""
    program = textwrap.dedent("""
        import sys
        from daemon import log as logs
        from daemon.config import Log
        logs.setup(Log(format="journal"), "burst")
        for number in range(12000):
            logs.log("upload.accepted", task_id=f"burst-{number}", instance="c1", path="/srv/x", size=number)
        sys.exit(not logs.flush(300))
    """)
    machine.run(
        "systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", "LogRateLimitIntervalSec=0",
        "-p", "User=incus-courier-api", "/usr/lib/incus-courier/bin/python3", "-I", "-c", program)
    machine.run("journalctl", "--sync")
    sizes = [int(entry["INCUS_SIZE"]) for entry in machine.journal("SYSLOG_IDENTIFIER=incus-courier-burst")]
    assert sizes == list(range(12000))


def test_reload_takes_over_what_can_change_live(machine: Machine, load: Load) -> None:
    """The same processes go on with the new limits; a wrong configuration changes nothing."""
    before = [machine.show(service, "MainPID") for service in SERVICES]
    machine.configure(max_upload_bytes=1000)
    machine.systemctl("reload", *SERVICES)
    eventually(lambda: "config.reloaded" in events(machine, f"_PID={before[1]}"), PATIENCE_S)
    eventually(lambda: _status(machine, load, size=5000) == "413 too_large", PATIENCE_S, "the new limit is in force")
    machine.configure(max_upload_bytes=-1)
    machine.systemctl("reload", *SERVICES)
    eventually(lambda: events(machine, f"_SYSTEMD_UNIT={SERVICES[0]}", "INCUS_EVENT=config.rejected"), PATIENCE_S)
    assert _status(machine, load, size=5000) == "413 too_large"
    assert _status(machine, load, size=500) == "202"
    assert [machine.show(service, "MainPID") for service in SERVICES] == before


def _status(machine: Machine, load: Load, size: int) -> str:
    load.refused.clear()
    load.upload(size=size)
    return next(iter(load.refused), "202")
