"""`incus-courier push` as people run it: in a folder, with its state there as well."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.command import Done
from tests.support.processes import ROOT
from tests.support.waiting import PATIENCE_S

#: The command. Whoever is started in the background of a script ignores what Ctrl-C sends, and so do all below it.
PUSH = [sys.executable, "-P", "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from client.main import main; main()", "push"]


def environment(folder: Path, server: str) -> dict[str, str]:
    """What a push in that folder knows of its surroundings."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder / "state"), "INCUS_COURIER_SERVER": server}


def begin_push(
    folder: Path, server: str, *words: str, stdin: int = subprocess.DEVNULL, variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a push in the folder."""
    return subprocess.Popen([*PUSH, *words], cwd=folder, env={**environment(folder, server), **(variables or {})}, text=True,
                            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_push(process: subprocess.Popen[str], given: str | None = None) -> Done:
    """How it ended."""
    out, err = process.communicate(given, timeout=PATIENCE_S)
    return Done(process.returncode, out, err)


def push(folder: Path, server: str, *words: str, **variables: str) -> Done:
    """Run a push to its end."""
    return end_push(begin_push(folder, server, *words, variables=variables))
