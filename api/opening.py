"""How a process that puts rows into the queue begins: it waits until it may, and takes what it is granted."""

import contextlib
import resource
import time

from daemon.config import Config
from daemon.errors import QueueFault
from daemon.log import log
from daemon.model.task import PENDING
from daemon.process.patience import StartWait
from daemon.spool import open_spool
from daemon.state.append_lease import AppendLease
from daemon.state.layout import Layout
from daemon.state.tenure import read_token, refusal, this_host
from daemon.task_queue import Intake, open_intake


def wait_for(lease: AppendLease, layout: Layout, config: Config) -> None:
    """Wait until no other host uses the state, this number of shards is in force, and each one's queue can be opened.

    It is a worker that takes the state over. What comes meanwhile waits in the kernel. Raises CannotStart, and
    QueueFault('schema_newer').
    """
    patience = StartWait(lambda reason: log("api.waiting", detail=reason))
    shards, me = config.queue.shards, this_host(config.state.host)
    while (reason := refusal(read_token(layout), me, time.time()) or lease.acquire()
           or _cannot_open(layout, shards)) is not None:
        # A worker upgrades an older database while nobody has the lease.
        lease.release()
        patience.wait(reason)


def _cannot_open(layout: Layout, shards: int) -> str | None:
    """Why a queue cannot be opened yet, or None: its worker puts right what is damaged or older.

    A lack of room is not waited for: clients are told. Raises QueueFault('schema_newer').
    """
    with contextlib.closing(open_spool(layout)) as spool:
        for shard in range(shards):
            reason = _cannot_read(open_intake(layout, shard, spool))
            if reason is not None:
                return f"Shard {shard}: {reason}"
    return None


def _cannot_read(intake: Intake) -> str | None:
    with contextlib.closing(intake):
        try:
            intake.totals(PENDING)
        except QueueFault as fault:
            if fault.code == "schema_newer":
                raise
            return None if fault.kind.room_helps else fault.detail
    return None


def raise_descriptor_limit() -> None:
    """Have as many descriptors as the machine grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            # Two descriptors an upload; a low limit only means fewer at once.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
