"""A real Incus cluster of three members on this machine."""

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.live.host import Host

SCRIPT = Path(__file__).parents[2] / "scripts/incus-cluster"
#: Names the folder of another Debian, whose Incus the members run.
ROOT_VARIABLE = "INCUS_COURIER_TEST_ROOT"
MEMBERS = ("m1", "m2", "m3")


class Cluster:
    """The cluster whose members are in a folder, as scripts/incus-cluster makes it."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self._folder = folder
        self.start()

    def __getitem__(self, member: str) -> Host:
        """One of its members."""
        return Host(str(self._folder / member / "var/lib/incus/unix.socket"))

    def start(self) -> None:
        """Start the members that do not run, and wait until all are there for each other."""
        self._run()

    def kill(self, member: str) -> None:
        """End a member with all of its containers at once."""
        self._run("--kill", member)

    def stop(self) -> None:
        """End all of them."""
        self._run("--stop")

    def evacuate(self, member: str, via: str) -> None:
        """Stop the instances of a member, move them to others and start there those that ran."""
        self._set_state(member, via, {"action": "evacuate", "mode": "migrate"})

    def restore(self, member: str, via: str) -> None:
        """Move them back."""
        self._set_state(member, via, {"action": "restore"})

    def _set_state(self, member: str, via: str, state: dict[str, Any]) -> None:
        self[via].call("POST", f"/cluster/members/{member}/state", state)

    def _run(self, *arguments: str) -> None:
        root = os.environ.get(ROOT_VARIABLE)
        options = [*(["--root", root] if root else []), *arguments]
        subprocess.run([SCRIPT, *options, self._folder], check=True, stdout=subprocess.DEVNULL, timeout=180)
