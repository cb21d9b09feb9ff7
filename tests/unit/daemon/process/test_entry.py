"""How a command ends."""

import io

import pytest

from daemon.process.entry import run_to_exit
from daemon.process.output import say


def test_what_a_terminal_has_no_letter_for_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on: people have names and paths in other letters than the locale's."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1"))
    run_to_exit(lambda: say("\u00fc\u2603"))
    assert written.getvalue() == b"\xfc\\u2603\n"
