"""A machine to install the service on: a container with a real systemd, which may use the Incus that it runs in."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live.host import Host
from tests.support.waiting import eventually

#: Where the machine sees the Incus that it runs in.
INCUS_SOCKET = "/run/incus.socket"
CONFIG = "/etc/incus-courier/config.toml"
DOOR = "run/incus-courier/api.sock"
_TINY_IMAGE = Path(__file__).resolve().parents[2] / "scripts/tiny-image"
#: Longest wait for anything that a machine does by itself.
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Release:
    """A Debian to install the service on, and its Python."""

    name: str
    python: str

    def __str__(self) -> str:
        """Its name."""
        return self.name


DEBIAN_12 = Release("bookworm", "3.11")
#: Its image has an Incus of its own.
DEBIAN_13 = Release("trixie", "3.13")


class Machine:
    """One such container."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def incus(self, *arguments: str, text: str | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run Incus's own client on this machine's host."""
        environment = {**os.environ, "INCUS_SOCKET": self.host.socket, "INCUS_REMOTE": "local", "INCUS_PROJECT": "default"}
        done = subprocess.run(["incus", "--quiet", *arguments], input=text or "", env=environment, text=True, check=False,
                              capture_output=True, timeout=10 * PATIENCE_S)
        assert not check or done.returncode == 0, f"incus {arguments}: {done.stdout}{done.stderr}"
        return done

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command inside that has to succeed; return what it says."""
        return self.incus("exec", self.name, "--", *command, text=text).stdout.strip()

    def status(self, *command: str) -> int:
        """Run a command inside; return its exit status."""
        return self.incus("exec", self.name, "--", *command, check=False).returncode

    def write(self, path: str, text: str) -> None:
        """Write a small file."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path}", text=text)

    def push(self, file: Path, directory: str) -> str:
        """Copy a file or a folder into a directory there; return its path there."""
        self.incus("file", "push", "-r", str(file), f"{self.name}{directory}/")
        return f"{directory}/{file.name}"

    def systemctl(self, *arguments: str) -> str:
        """Ask its service manager."""
        return self.run("systemctl", *arguments)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit)

    def wait_show(self, unit: str, name: str, *values: str) -> None:
        """Wait until a property of a unit has one of these values."""
        with self._telling(unit):
            eventually(lambda: self.show(unit, name) in values, PATIENCE_S, f"{name} of {unit} is one of {values}")

    def active(self, *units: str) -> bool:
        """True when all of these units are active."""
        states = self.incus("exec", self.name, "--", "systemctl", "is-active", *units, check=False).stdout.split()
        return states == ["active"] * len(units)

    def wait_active(self, *units: str) -> None:
        """Wait until all of these units are active."""
        with self._telling(*units):
            eventually(lambda: self.active(*units), PATIENCE_S, f"{units} active")

    @contextlib.contextmanager
    def _telling(self, *units: str) -> Iterator[None]:
        """Show how these units are when what is awaited does not come."""
        try:
            yield
        except AssertionError as error:
            states = self.incus("exec", self.name, "--", "systemctl", "status", "--no-pager", "-l", "-n", "20", *units,
                                check=False).stdout
            raise AssertionError(f"{error}:\n{states}") from error

    def wait_booted(self) -> None:
        """Wait until its system manager is done with starting."""
        eventually(lambda: self.incus("exec", self.name, "--", "systemctl", "is-system-running", check=False).stdout.strip()
                   in {"running", "degraded"}, PATIENCE_S, "the machine has booted")

    def reboot(self, *, force: bool) -> None:
        """Start it anew: in order, or as after a power cut of the machine's processes."""
        self.incus("restart", self.name, *(["--force"] if force else ["--timeout", "300"]))
        self.wait_booted()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The messages of its journal that match, oldest first."""
        text = self.run("journalctl", "--no-pager", "--all", "-o", "json", *matches)
        return [json.loads(line) for line in text.splitlines()]

    def said(self, text: str, *matches: str) -> bool:
        """True when a message of its journal that matches has this text in it."""
        # Not by --grep, which is an error as long as there is none.
        return any(text in str(entry["MESSAGE"]) for entry in self.journal(*matches))

    def configure(self, **values: object) -> None:
        """Set keys of the configuration; their names are unique in it."""
        for key, value in values.items():
            self.run("sed", "-i", f"s|^{key} = .*|{key} = {json.dumps(value)}|", CONFIG)

    @property
    def pid(self) -> int:
        """Its first process, as this side numbers it."""
        return int(self.host.call("GET", f"/instances/{self.name}/state")["pid"])

    @property
    def door(self) -> str:
        """The service's socket, as this side sees it: through the root directory of the machine's first process."""
        return f"/proc/{self.pid}/root/{DOOR}"


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("courier", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def ask(door: str, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    """One request on a connection of its own: the status and the JSON of the answer."""
    with contextlib.closing(Connection(door)) as connection:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def launched(host: Host, release: Release = DEBIAN_12, *options: str) -> Iterator[Machine]:
    """A fresh machine that has booted, removed afterwards; `options` are those of `incus launch`."""
    machine = Machine(host, f"courier-test-{uuid.uuid4().hex[:12]}")
    machine.incus("launch", f"courier-systemd-{release}", machine.name, *options)
    try:
        machine.wait_booted()
        yield machine
    finally:
        machine.incus("delete", "--force", machine.name)


def give_incus(machine: Machine) -> None:
    """Let the machine use the Incus that it runs in, as members of its group incus-admin may on a real host.

    A machine that may already stays as it is.
    """
    if "incus" in machine.incus("config", "device", "list", machine.name).stdout.split():
        return
    group = machine.run("getent", "group", "incus-admin").split(":")[2]
    machine.incus("config", "device", "add", machine.name, "incus", "proxy", "bind=instance", "uid=0", f"gid={group}",
                  "mode=0660", f"connect=unix:{machine.host.socket}", f"listen=unix:{INCUS_SOCKET}")


def own_incus(machine: Machine) -> Host:
    """Make the machine's own Incus ready, as an administrator does, with the image of small containers; it has no network.

    The machine needs security.nesting=true.
    """
    # A machine that keeps these two apart, as this one may, has its containers' systemd look for them together.
    machine.run("sh", "-c", """
        mount -o remount,rw /sys/fs/cgroup
        for name in cpu cpuacct; do
            [ -L "/sys/fs/cgroup/$name" ] && [ -z "$(ls "/sys/fs/cgroup/$name/")" ] || continue
            rm "/sys/fs/cgroup/$name" && mkdir "/sys/fs/cgroup/$name"
            mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name"
        done
        echo root:100000:65536 | tee /etc/subuid >/etc/subgid""")
    machine.systemctl("restart", "incus.service")
    image = subprocess.run([_TINY_IMAGE], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    machine.incus("file", "push", image, f"{machine.name}/root/tiny.tar.gz")
    for command in ("storage create default dir", "profile device add default root disk path=/ pool=default",
                    "image import /root/tiny.tar.gz --alias courier-tiny"):
        machine.run("incus", "--quiet", *command.split())
    return Host(f"/proc/{machine.pid}/root/var/lib/incus/unix.socket")
