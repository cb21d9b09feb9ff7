"""From the package to a delivered folder, by what the documentation says alone: installed here, sent from elsewhere."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.host import Container, Host
from tests.support.certificates import Authority, Pair
from tests.support.waiting import eventually
from tests.system.machine import INCUS_SOCKET, PATIENCE_S, Machine, give_incus, launched

pytestmark = [pytest.mark.system, pytest.mark.live, pytest.mark.full, pytest.mark.timeout(600)]

UNITS = ("incus-courier-api.service", "incus-courier-worker@0.service", "incus-courier-worker@1.service")
#: As pip installs it.
COMMAND = str(Path(sys.executable).with_name("incus-courier"))
DROP_IN = "/etc/systemd/system/incus-courier-api.socket.d"
EXAMPLES = "/usr/share/doc/incus-courier/examples"
#: The machine, and who sends to it, on the cable between them.
HERE, THERE, PORT = "198.51.100.1", "198.51.100.2", 8443
FILES = {"site/index.html": b"<h1>hello</h1>", "site/css/main.css": b"body {}", "site/big.bin": b"x" * 9_000_000}


@dataclass(frozen=True)
class Sender:
    """Somebody at another machine, which has the command and nothing else of the service."""

    namespace: str
    authority: Path
    token: str
    home: Path

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run the command there; its server, token and authority are in the environment."""
        known = {"PATH": os.environ["PATH"], "HOME": str(self.home), "INCUS_COURIER_TOKEN": self.token,
                 "INCUS_COURIER_SERVER": f"https://{HERE}:{PORT}", "INCUS_COURIER_CA": str(self.authority)}
        return subprocess.run(["ip", "netns", "exec", self.namespace, *command], env=known, cwd=self.home, text=True,
                              capture_output=True, check=False, timeout=PATIENCE_S)

    def push(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Send files."""
        return self.run(COMMAND, "push", *arguments)


@contextmanager
def cable(machine: Machine) -> Iterator[str]:
    """A network namespace with a cable to the machine; gives its name."""
    name = f"courier-{uuid.uuid4().hex[:8]}"
    pid = machine.host.call("GET", f"/instances/{machine.name}/state")["pid"]
    at_machine = ["nsenter", "-t", str(pid), "-n", "ip"]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "link", "add", "cable0", "netns", name, "type", "veth",
                        "peer", "name", "cable0", "netns", str(pid)], check=True)
        for ip, address in ((at_machine, HERE), (["ip", "-n", name], THERE)):
            subprocess.run([*ip, "address", "add", f"{address}/24", "dev", "cable0"], check=True)
            subprocess.run([*ip, "link", "set", "cable0", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def fresh(incus: Host, image: None, package: Path) -> Iterator[Machine]:
    """A machine on which the package has just been installed, beside an Incus."""
    with launched(incus) as machine:
        machine.run("dpkg", "--force-unsafe-io", "-i", machine.push(package, "/root"))
        give_incus(machine)
        machine.configure(endpoint=INCUS_SOCKET, min_free_bytes=0)
        machine.systemctl("restart", "incus-courier.target")
        machine.wait_active(*UNITS)
        yield machine


def open_to_others(machine: Machine, pair: Pair) -> None:
    """Have systemd open an address with TLS, as docs/install.md says."""
    directory = "/etc/incus-courier/tls"
    machine.run("install", "-d", "-m", "750", "-g", "incus-courier-tokens", directory)
    for file in (pair.certificate, pair.key):
        machine.run("install", "-m", "640", "-g", "incus-courier-tokens", machine.push(file, "/root"), f"{directory}/")
    machine.configure(listen=["unix:/run/incus-courier/api.sock", f"tls:0.0.0.0:{PORT}"],
                      certificate=f"{directory}/{pair.certificate.name}", key=f"{directory}/{pair.key.name}")


def open_socket(machine: Machine) -> None:
    """Put the documented drop-in there."""
    machine.run("install", "-D", "-m", "644", "-t", DROP_IN, f"{EXAMPLES}/listen-address.conf")
    machine.run("sed", "-i", f"s/^ListenStream=.*/ListenStream=0.0.0.0:{PORT}/", f"{DROP_IN}/listen-address.conf")
    machine.systemctl("daemon-reload")
    machine.systemctl("restart", "incus-courier-api.socket", "incus-courier-api.service")
    machine.wait_active(*UNITS)


def not_well(machine: Machine) -> dict[str, str]:
    """What `check` finds that is not well: the detail of each, by what it is."""
    done = machine.incus("exec", machine.name, "--", "incus-courier", "check", "--json", check=False)
    return {finding["what"]: finding["detail"] for finding in json.loads(done.stdout)["findings"]
            if finding["level"] == "error"}


def explained(machine: Machine, what: str) -> tuple[int, str]:
    """The exit status and the words of `explain`, at the machine's own terminal."""
    done = machine.incus("exec", machine.name, "--", "incus-courier", "explain", what, check=False)
    return done.returncode, done.stdout


def there(instance: Container, below: str) -> Callable[[], bool]:
    """True when all files are in the instance, whole."""
    return lambda: all((path := instance.rootfs / below / name).is_file() and path.read_bytes() == body
                       for name, body in FILES.items())


def test_new_user_finds_out_why_a_folder_does_not_arrive(
    fresh: Machine, instance: Container, stopped_instance: Container, tmp_path: Path,
) -> None:
    """Install, check, token, push from elsewhere; a path and an instance that fail; explain, mend, redrive, delivered."""
    assert not_well(fresh) == {}
    authority = Authority(tmp_path)
    open_to_others(fresh, authority.issue(names=f"IP:{HERE}"))
    token = fresh.run("incus-courier", "token", "new", "web", "--may", "upload,read", "--paths", "/srv/**").split()[-1]
    admin = fresh.run("incus-courier", "token", "new", "admin", "--may", "admin").split()[-1]
    # The address without its drop-in: the check says so, before anybody wonders.
    assert f"0.0.0.0:{PORT}" in not_well(fresh)[f"sandbox of {UNITS[0]}"]
    open_socket(fresh)
    assert not_well(fresh) == {}

    for name, body in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
    with cable(fresh) as namespace:
        sender = Sender(namespace, authority.own.certificate, token, tmp_path)
        sent = sender.push("-r", "site", f"{instance.name}/srv/", "--wait")
        assert sent.returncode == 0, sent.stderr
        assert there(instance, "srv")()

        # A file where the folder is to go: nothing arrives, and the instance says why.
        instance.run("echo in the way >/srv/blocked")
        sent = sender.push("-r", "site", f"{instance.name}/srv/blocked/", "--wait")
        assert sent.returncode != 0
        row = sender.run("curl", "--silent", "--fail", "--cacert", str(authority.own.certificate),
                         "--header", f"Authorization: Bearer {token}",
                         f"https://{HERE}:{PORT}/v1/tasks?instance={instance.name}&state=failed")
        [task_id, *_] = [task["id"] for task in json.loads(row.stdout)["tasks"]]
        status, words = explained(fresh, task_id)
        assert status == 1
        assert "not a directory" in words
        instance.run("rm /srv/blocked")
        fresh.run("incus-courier", "tasks", "retry", "--instance", instance.name, "--state", "failed")
        eventually(there(instance, "srv/blocked"), PATIENCE_S, "all of the folder is there")

        # An instance that is stopped, with files that wait for it.
        fresh.configure(stopped="wait")
        fresh.systemctl("restart", "incus-courier.target")
        fresh.wait_active(*UNITS)
        sent = sender.push("-r", "site", f"{stopped_instance.name}/srv/")
        assert sent.returncode == 0, sent.stderr
        eventually(lambda: explained(fresh, stopped_instance.name)[0] == 1, PATIENCE_S, "it is stuck")
        assert "The instance is stopped." in explained(fresh, stopped_instance.name)[1]
        told = fresh.run("curl", "--silent", "--fail", "--unix-socket", "/run/incus-courier/api.sock",
                         "--header", f"Authorization: Bearer {admin}",
                         f"http://courier/v1/instances/{stopped_instance.name}")
        assert json.loads(told)["stuck"] is True
        stopped_instance.start()
        eventually(there(stopped_instance, "srv"), PATIENCE_S, "all of the folder is there")
    eventually(lambda: explained(fresh, stopped_instance.name)[0] == 0, PATIENCE_S, "nothing is stuck any more")
