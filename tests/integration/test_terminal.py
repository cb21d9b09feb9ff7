import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

#: Takes its standard input as the controlling terminal, as a shell's window is, and serves.
_SERVE = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from daemon.cli.main import main
main()
"""


def test_service_ends_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """Where Ctrl-C cannot reach it any more a service in the foreground stops: a closed window leaves no open door."""
    ours, its = os.openpty()
    service = Service(tmp_path)
    with service.log.open("wb") as log, service:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, "--config", str(service.config), "serve"], cwd=ROOT, stdin=its,
            stdout=subprocess.DEVNULL, stderr=log, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        os.close(its)
        try:
            eventually(lambda: service.events("api.started"), 60.0, "the service's start")
            os.close(ours)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()
    assert service.events("service.stopped")
