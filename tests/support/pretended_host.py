"""A host for what a page tells people to type: its own /etc, /run and network, on the machine that tests. Needs root.

Nothing outside changes. What changes a machine for good (`sudo`, `systemctl`, `adduser`) is played by small scripts.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tests.support.processes import ROOT
from tests.support.waiting import PATIENCE_S

#: Files and directories of /etc that are its own; all others are the machine's, to read only.
_OWN: Final = frozenset({"hosts", "passwd", "group", "shadow", "gshadow", "incus-courier", "systemd", "caddy"})
#: Its users besides root, each with a group of that name and number; and all groups.
USERS: Final = {"caddy": 61_011, "backup": 61_012}
GROUPS: Final = {**USERS, "incus-courier": 61_013, "incus-courier-tokens": 61_014}
_ENTER: Final = """
set -e
mount --bind /etc "$1/machine-etc"
mount -o remount,bind,ro "$1/machine-etc"
mount --bind "$1/etc" /etc
mount --bind "$1/run" /run
mount --bind "$1/doc" /usr/share/doc
ip link set lo up
echo ready
exec cat
"""
_PROGRAMS: Final = {
    "incus-courier": f"exec {sys.executable} -P -c 'from client.main import main; main()' \"$@\"",
    # What is not asked for another user is done by root, who is here already.
    "sudo": 'if [ "$1" = -u ]; then user=$2; shift 2; '
            'exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups "$@"; fi; exec "$@"',
    "systemctl": 'case "$*" in "reload incus-courier-api" | "restart incus-courier.target") '
                 'kill -HUP "$(cat /run/incus-courier/pid)" ;; esac',
    "adduser": r'sed -i "s/^$2:.*[^:]$/&,$1/; s/^$2:.*:$/&$1/" /etc/group',
}


class PretendedHost:
    """A host that has the names of the service's users and groups, and is found as `courier.example.org`."""

    def __init__(self) -> None:
        """It is there at once."""
        memory = Path("/dev/shm")
        self.directory = Path(tempfile.mkdtemp(prefix="courier-host-", dir=memory if memory.is_dir() else None))
        # Others than root work in it.
        self.directory.chmod(0o755)
        for name in ("machine-etc", "etc", "run/incus-courier", "doc/incus-courier", "home", "bin"):
            (self.directory / name).mkdir(parents=True)
        self.etc, self.home = self.directory / "etc", self.directory / "home"
        self._fill_etc()
        shutil.copytree(ROOT / "systemd/examples", self.directory / "doc/incus-courier/examples")
        for name, script in _PROGRAMS.items():
            self._add_program(name, script)
        # It ends with its standard input, and so with us.
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _ENTER, "sh", self.directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def _fill_etc(self) -> None:
        for name in set(os.listdir("/etc")) - _OWN:
            (self.etc / name).symlink_to(self.directory / "machine-etc" / name)
        for name in ("incus-courier/tls", "systemd/system", "caddy"):
            (self.etc / name).mkdir(parents=True)
        (self.etc / "hosts").write_text("127.0.0.1 localhost courier.example.org\n")
        (self.etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n" + "".join(
            f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in USERS.items()))
        (self.etc / "group").write_text("root:x:0:\n" + "".join(
            f"{name}:x:{number}:\n" for name, number in GROUPS.items()))

    def _add_program(self, name: str, script: str) -> Path:
        program = self.directory / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    @contextmanager
    def spied(self, name: str) -> Iterator[Path]:
        """A file with the arguments that a program is given there meanwhile, a line for each time."""
        arguments = self.directory / f"{name}-arguments"
        program = self._add_program(name, f'echo "$*" >>{arguments}; exec {shutil.which(name)} "$@"')
        yield arguments
        program.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate(timeout=PATIENCE_S)
        shutil.rmtree(self.directory)

    @property
    def run_directory(self) -> Path:
        """Its /run/incus-courier."""
        return self.directory / "run/incus-courier"

    def command(self, *words: str | Path) -> list[str]:
        """The command that does this on the host, in the directory `home`."""
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", f"--wd={self.home}", *map(str, words)]

    def environment(self, **variables: str) -> Mapping[str, str]:
        """The environment of who is at home there."""
        known = {name: value for name, value in os.environ.items() if not name.startswith("INCUS_COURIER")}
        path = f"{self.directory / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**known, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(self.home), **variables}

    def run(self, *words: str | Path, said: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        """Do it there, with `said` on standard input and no terminal, and wait for its end."""
        return subprocess.run(self.command(*words), input=said, env=self.environment(**variables), text=True, check=False,
                              capture_output=True, timeout=PATIENCE_S, start_new_session=True)

    def begin(self, *words: str | Path, log: Path) -> "subprocess.Popen[bytes]":
        """Start something there that goes on; what it says is added to `log`."""
        with log.open("ab") as sink:
            return subprocess.Popen(self.command(*words), env=self.environment(), stdin=subprocess.DEVNULL,
                                    stdout=sink, stderr=sink)
