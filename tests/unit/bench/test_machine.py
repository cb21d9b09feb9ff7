"""What the bench says of processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.machine import TICKS_S, children, command_of, process_cpu_s, tree_cpu_s

#: More than the clock's grain.
BURNT_S = 20 / TICKS_S
BURN = f"import time\nwhile time.process_time() < {BURNT_S}: pass\n"
#: A process that burns nothing, of which one child burns and ends, and another burns and stays.
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
staying = subprocess.Popen([sys.executable, "-c", {BURN + 'print(flush=True); input()'!r}], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
staying.stdout.readline()
print(staying.pid, flush=True)
input()
staying.communicate()
"""


@contextmanager
def family() -> Iterator[tuple[int, int]]:
    """The parent, and its child that stays, once all have burnt what they burn."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())
        parent.communicate(b"\n")


def test_cpu_of_a_tree_is_that_of_all_who_are_and_were_in_it() -> None:
    """What children have used counts, whether they have ended or not."""
    with family() as (parent, _):
        assert tree_cpu_s(parent) >= process_cpu_s(parent) + 1.9 * BURNT_S


def test_children_are_those_who_are_there() -> None:
    """One has ended and one stays; its command tells which one it is."""
    with family() as (parent, staying):
        assert children(parent) == [staying]
        assert command_of(staying)[:2] == [sys.executable, "-c"]
