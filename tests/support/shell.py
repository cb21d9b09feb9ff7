"""The command line in this process, for tests that give many commands."""

import io
import sys
from pathlib import Path

import pytest

from client.main import main
from tests.support.command import Done


class Shell:
    """Gives commands to `incus-courier`, in this process."""

    def __init__(self, config: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._patch = patch
        self._capture = capture

    def __call__(self, *words: str, stdin: str = "") -> Done:
        """Run one command."""
        self._patch.setattr(sys, "argv", ["incus-courier", "--config", str(self._config), *words])
        self._patch.setattr(sys, "stdin", io.StringIO(stdin))
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capture.readouterr()
        return Done(int(ended.value.code or 0), out, err)
