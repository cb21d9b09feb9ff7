"""The tie between a process and the supervisor that started it: when the supervisor is gone, so is the process."""

import ctypes
import os
import signal
from typing import Final

#: Set by the supervisor to its own process id.
VARIABLE: Final = "INCUS_COURIER_SUPERVISOR_PID"
#: prctl(2)
_PR_SET_PDEATHSIG: Final = 1


def tie_to_parent() -> None:
    """Have the kernel send this process SIGTERM when its supervisor dies. Nothing happens without a supervisor.

    Call it from the main thread. Raises SystemExit when the supervisor is gone already.
    """
    supervisor = os.environ.get(VARIABLE)
    if supervisor is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if str(os.getppid()) != supervisor:
        raise SystemExit(1)
