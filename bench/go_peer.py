"""The Go peer: a plain Go server that makes uploads durable and delivers them (`bench/peer`), built where Go is."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.machine import tree_cpu_s
from bench.service import ROOT, Child

NAME: Final = "plain Go server"
_SOURCE: Final = ROOT / "bench" / "peer"
#: The standard library is all that it needs: nothing is fetched, and no C compiler is asked for.
_BUILD: Final = {"CGO_ENABLED": "0", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""}


def reason_against() -> str | None:
    """Why there is no Go peer here; None when there is."""
    if shutil.which("go") is None:
        return "The rows beside the plain Go server are left out: there is no `go` (Debian: apt-get install golang-go)."
    return None


class GoPeer:
    """The peer on a directory of its own. `with GoPeer(...)` stops it in the end."""

    def __init__(self, directory: Path, *, workers: int = 1, endpoint: str = "") -> None:
        """Make the directory, build the peer into it and start it.

        `endpoint` is the Unix socket of Incus; without it nothing is delivered. Raises RuntimeError when it cannot
        be built, or does not start.
        """
        directory.mkdir()
        program = directory / "peer"
        _build(program)
        self._child = Child([str(program), "-listen", "127.0.0.1:0", "-dir", str(directory), "-workers", str(workers),
                             "-socket", endpoint], directory / "peer.log")
        self.port = int(self._child.wait_for_line("listening on").rpartition(":")[2])

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used."""
        return tree_cpu_s(self._child.pid)

    def __enter__(self) -> "GoPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()


def _build(program: Path) -> None:
    done = subprocess.run(["go", "build", "-o", str(program), "."], cwd=_SOURCE, env={**os.environ, **_BUILD},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the Go peer cannot be built: {done.stderr[-2000:]}")
