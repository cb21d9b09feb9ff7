"""The command `incus-courier` as people give it: how it is run, and how it ended."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tests.support.processes import ROOT


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        """What it printed, as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def incus_courier(*words: str, cwd: Path = ROOT, to: BinaryIO | None = None, **variables: str) -> Done:
    """Run one command in a process of its own, with `variables` on top of the environment, its output in `to` if given."""
    done = subprocess.run([sys.executable, "-P", "-c", "from client.main import main; main()", *words], cwd=cwd,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
                          stdout=to or subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout or "", done.stderr)
