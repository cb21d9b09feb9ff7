"""The command `incus-courier` as people give it: how it is run, and how it ended."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

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


def incus_courier(*words: str, cwd: Path = ROOT, **variables: str) -> Done:
    """Run one command in a process of its own, with `variables` on top of the environment."""
    done = subprocess.run([sys.executable, "-P", "-c", "from daemon.cli.main import main; main()", *words], cwd=cwd,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
                          capture_output=True, text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr)
