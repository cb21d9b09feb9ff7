"""The inside of a forked process: it becomes `python -m api`, `worker` or `sender`, and takes orders about faults."""

import os
import runpy
import sys
import threading
from multiprocessing.connection import Connection

from daemon import failpoints
from daemon.process.parent_death import VARIABLE
from tests.support.identity import User

#: The variable that says as which user and group (UID:GID) a process runs, if not as the one who tests.
USER = "COURIER_TEST_USER"
#: What the server of forks imports once for all.
PRELOAD = ("pytest", "structlog", "api.__main__", "worker.__main__", "sender.__main__", "tests.support.child", "tests.support.frozen")


def run(arguments: list[str], environment: dict[str, str], log: str, orders: Connection) -> None:
    """Become the service's process; never returns."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.environ.update(environment)
    if USER in environment:
        User(*map(int, environment[USER].split(":"))).become()
    # It ends with the server of forks, which ends with the tests.
    os.environ[VARIABLE] = str(os.getppid())
    failpoints.arm(environment.get(failpoints.VARIABLE, ""))
    _Faults(orders).start()
    module, *rest = arguments
    sys.argv = [module, *rest]
    # The module is loaded already; as __main__ it runs once more.
    sys.modules.pop(f"{module}.__main__", None)
    runpy.run_module(module, run_name="__main__", alter_sys=False)
    os._exit(0)


class _Faults(threading.Thread):
    """Counts the faults that fire, and arms others when it is told to."""

    def __init__(self, orders: Connection) -> None:
        super().__init__(name="faults", daemon=True)
        self._orders = orders
        self._fired = 0
        self._reach = failpoints.reach
        failpoints.reach = self._count

    def _count(self, step: str) -> bool:
        try:
            done = self._reach(step)
        except OSError:
            self._fired += 1
            raise
        self._fired += not done
        return done

    def run(self) -> None:
        """Serve until the tests let go."""
        try:
            while True:
                faults = self._orders.recv()
                if faults is not None:
                    failpoints.arm(faults)
                    self._fired = 0
                self._orders.send(self._fired)
        except (EOFError, OSError):
            return
