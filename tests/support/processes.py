"""Processes of the service under test: started for real, or forked from one that has loaded everything already."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.support import child
from tests.support.waiting import PATIENCE_S, eventually

#: Where the packages under test are.
ROOT = Path(__file__).absolute().parents[2]


class Process(Protocol):
    """One process of the service."""

    @property
    def pid(self) -> int:
        """Its id."""

    def status(self) -> int | None:
        """Its exit status (negative: the signal that killed it), or None while it runs."""

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""


class Launcher(Protocol):
    """A way to start a process of the service."""

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Start `python -m ARGUMENTS` with `environment` on top of ours, its stderr added to `log`."""


def end(process: Process, number: int = signal.SIGKILL) -> int:
    """Send a signal, wait for the end, and return the exit status."""
    process.send(number)
    eventually(lambda: process.status() is not None, what=f"the end of process {process.pid}")
    return process.status() or 0


class Spawned:
    """A process like any other."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path,
                 pass_fds: tuple[int, ...] = ()) -> None:
        """See Launcher; it inherits the descriptors in `pass_fds`."""
        known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        with log.open("ab") as sink:
            self._process = subprocess.Popen([sys.executable, "-P", "-m", *arguments], env=known, pass_fds=pass_fds,
                                             stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        self.pid = self._process.pid

    def status(self) -> int | None:
        """See Process."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """See Process."""
        self._process.send_signal(number)


class Forked:
    """A process forked from a server that has imported the service: ten times quicker, and its faults can be re-armed.

    It is a process of its own in every other way.
    """

    #: The module of the standard library is not made for several threads.
    _lock = threading.Lock()
    _context = multiprocessing.get_context("forkserver")

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """See Launcher."""
        self._context.set_forkserver_preload(list(child.PRELOAD))
        self._ours, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=child.run, args=(list(arguments), dict(environment), str(log), theirs), daemon=True)
        with self._lock:
            self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def status(self) -> int | None:
        """See Process."""
        with self._lock:
            return self._process.exitcode

    def send(self, number: int) -> None:
        """See Process."""
        # Its server has reaped it when it ended just now.
        with contextlib.suppress(ProcessLookupError):
            if self.status() is None:
                os.kill(self.pid, number)

    def arm(self, faults: str) -> None:
        """Replace the plan of faults (see daemon.failpoints); what fired so far is forgotten."""
        self._ours.send(faults)
        assert self._ours.poll(PATIENCE_S)
        self._ours.recv()

    def fired(self) -> int:
        """How many faults fired since the last `arm`."""
        self._ours.send(None)
        assert self._ours.poll(PATIENCE_S)
        return int(self._ours.recv())
