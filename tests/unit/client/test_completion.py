"""What shells complete by."""

import os
import subprocess
from pathlib import Path

import pytest

from client.completion import SCRIPTS

#: Says what it was asked for, and offers two instances.
_COMMAND = """#!/bin/sh
echo "$COMP_WORDS|$COMP_CWORD|$_INCUS_COURIER_COMPLETE" >>"$ASKED"
printf 'eu:c1\\neu:c2\\n'
"""
_TRY = """
COMP_LINE=$LINE COMP_POINT=${#LINE}
_incus_courier incus-courier
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(("line", "offered"), [
    ("incus-courier wait --instance ", ["eu:c1", "eu:c2"]),
    ("incus-courier tail eu:c", ["c1", "c2"]),
])
def test_bash_asks_the_command(tmp_path: Path, line: str, offered: list[str]) -> None:
    """It is offered what is behind the last colon, which is what bash replaces."""
    command, said = tmp_path / "incus-courier", tmp_path / "asked"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    done = subprocess.run(["bash", "-c", SCRIPTS["bash"] + _TRY], capture_output=True, text=True, check=True, env={
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "LINE": line, "ASKED": str(said)})
    assert (done.stdout.split(), done.stderr) == (offered, "")
    words, number, how = said.read_text().rstrip("\n").split("|")
    assert (how, words.split(), words.count(" ")) == ("complete_bash", line.split(), line.count(" "))
    assert int(number) == line.count(" ")
