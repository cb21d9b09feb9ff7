"""The seam between the program and the disk: each effect that matters announces itself here first.

In production `reach` does nothing. The fault tests name a step and what happens there in the environment
variable INCUS_COURIER_FAULTS, so that real processes meet a full disk, a broken one, or a sudden death at
any step: `step=what[@n]`, separated by spaces; `what` is an errno's name, `kill`, `hang` (the thread stands still for
ever), `stop` (the process stands still until SIGCONT) or `skip` (the effect is left out, to show that a test would see
it missing); `@n` means only the n-th time.
"""

import errno
import os
import signal
import threading
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "INCUS_COURIER_FAULTS"

#: Every step, in the order of one upload and one delivery. The fault tests have a row for each.
STEPS: Final = (
    "spool.open", "spool.write", "spool.sync", "spool.link", "spool.linksync", "spool.dirsync",
    "queue.insert", "queue.commit", "queue.committed",
    "queue.claim", "queue.claimed", "push.open", "push.write", "push.rename", "push.renamed",
    "queue.settle", "queue.settled", "spool.mark", "barrier.sync", "spool.unlink", "spool.gonesync", "spool.unlinked",
    "queue.unspool",
)

#: The steps of a worker that brings the state of an older version up to date.
UPGRADE_STEPS: Final = ("queue.upgrade", "queue.upgraded", "keys.remove")

#: The steps of a resumable upload, until the spool has it: `spool.linksync` is the next.
PARTIAL_STEPS: Final = (
    "partials.create", "partials.created", "partials.write", "partials.sync", "partials.record", "partials.recorded",
    "partials.choose", "partials.chosen", "partials.rename", "partials.renamed", "partials.conclude", "partials.remove")

#: The steps of a worker that tells webhooks: what happened becomes messages, and what became of a sending is kept.
OUTBOX_STEPS: Final = ("outbox.sync", "outbox.tell", "outbox.told", "outbox.settle", "outbox.settled")

#: The steps of a change of the tokens' file.
TOKEN_STEPS: Final = ("tokens.write", "tokens.sync", "tokens.rename", "tokens.dirsync")
#: The steps of an API that changes what was handed on.
DELEGATION_STEPS: Final = ("delegation.commit", "delegation.committed")

#: The steps of an API that keeps a selection of tasks, and notes how far it is applied.
SELECTION_STEPS: Final = ("selection.write", "selection.note")

#: The step of a worker that looks whether its state is still its own: what is left out is the look.
FENCE_STEPS: Final = ("fence.check",)

#: The step of an API that keeps the figures of the last hour.
HISTORY_STEPS: Final = ("history.write",)
#: The step of an API process that keeps what it counts.
COUNTING_STEPS: Final = ("counted.write",)

#: The steps of a cell that lets go of an instance, or takes it back.
CELL_STEPS: Final = ("cells.write", "cells.sync", "cells.rename", "cells.dirsync")

_ALL_STEPS: Final = frozenset({
    *STEPS, *UPGRADE_STEPS, *PARTIAL_STEPS, *OUTBOX_STEPS, *TOKEN_STEPS, *DELEGATION_STEPS, *SELECTION_STEPS,
    *HISTORY_STEPS, *COUNTING_STEPS, *FENCE_STEPS, *CELL_STEPS})


@dataclass
class _Fault:
    what: str
    #: 0: every time.
    nth: int
    reached: int = 0


def _parse(text: str) -> dict[str, _Fault]:
    plan = {}
    for item in text.split():
        step, _, rest = item.partition("=")
        what, _, nth = rest.partition("@")
        if step not in _ALL_STEPS:
            raise ValueError(f"{VARIABLE}: there is no step {step!r}")
        plan[step] = _Fault(what, int(nth or 0))
    return plan


_plan = _parse(os.environ.get(VARIABLE, ""))
_lock = threading.Lock()


def arm(text: str) -> None:
    """Replace the plan of this process; the empty text disarms it."""
    global _plan
    _plan = _parse(text)


def reach(step: str) -> bool:
    """Return True when the effect of `step` is to be done; raise OSError or die where the plan says so."""
    return True if not _plan else _reach_planned(step)


def _reach_planned(step: str) -> bool:
    fault = _plan.get(step)
    if fault is None:
        return True
    with _lock:
        fault.reached += 1
        if fault.nth not in {0, fault.reached}:
            return True
    if fault.what == "skip":
        return False
    if fault.what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.what == "stop":
        # To this thread, which goes no further; another one might be the first to stop.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return True
    if fault.what == "hang":
        threading.Event().wait()
    number: int = getattr(errno, fault.what)
    raise OSError(number, os.strerror(number))
