import ast
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import failpoints

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_step_is_done_when_nothing_is_planned() -> None:
    """In production every effect takes place."""
    assert all(failpoints.reach(step) for step in failpoints.STEPS)


def test_step_raises_the_planned_error() -> None:
    """A planned errno comes as the OSError that the system would raise."""
    failpoints.arm("spool.sync=EIO")
    with pytest.raises(OSError, match="Input/output error") as caught:
        failpoints.reach("spool.sync")
    assert caught.value.errno == errno.EIO
    assert failpoints.reach("spool.link")


def test_step_raises_only_the_nth_time() -> None:
    """`@n` means the n-th time and no other."""
    failpoints.arm("spool.write=ENOSPC@2 spool.link=EROFS")
    assert failpoints.reach("spool.write")
    with pytest.raises(OSError, match="No space left"):
        failpoints.reach("spool.write")
    assert failpoints.reach("spool.write")


def test_step_is_left_out_when_it_is_to_be_skipped() -> None:
    """Whoever reaches a skipped step is told not to take it."""
    failpoints.arm("barrier.sync=skip")
    assert not failpoints.reach("barrier.sync")


def test_step_kills_the_process_in_which_it_is_reached() -> None:
    """`kill` is a death without any last word, planned by the environment."""
    code = "from daemon import failpoints; failpoints.reach('queue.commit'); failpoints.reach('queue.commit'); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=60, check=False,
                          env={**os.environ, failpoints.VARIABLE: "queue.commit=kill@2"})
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_plan_for_an_unknown_step_is_refused() -> None:
    """A test that names a step wrongly does not pass for that."""
    with pytest.raises(ValueError, match=r"there is no step 'spool\.sing'"):
        failpoints.arm("spool.sing=EIO")


def test_every_step_is_reached_somewhere() -> None:
    """The list of steps and the code agree."""
    reached = set()
    for room in ("daemon", "api", "worker", "sender"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "seam.py":
                    reached.add(node.value)
    assert set(failpoints.STEPS) <= reached
