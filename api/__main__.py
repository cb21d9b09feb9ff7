"""`python -m api`: one API process. What systemd and the supervisor start.

Exit status: 0 after a clean stop, 1 after a failure that a restart may cure, 78 when the configuration must be
changed first (sysexits.h, EX_CONFIG).
"""

import argparse
import asyncio
import contextlib
import resource
import sys
import time

from api import service
from daemon import log
from daemon.access.openness import only_known_may
from daemon.config import Config, find_file, load
from daemon.errors import CourierError, QueueFault
from daemon.model.task import PENDING
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, end_with
from daemon.process.listeners import Door, open_doors
from daemon.process.parent_death import tie_to_parent
from daemon.process.patience import StartWait
from daemon.process.shared_counts import SharedCounts
from daemon.process.socket_activation import stand_in, take
from daemon.process.supervisor import Supervisor
from daemon.process.tls import read_tls
from daemon.spool import open_spool
from daemon.state.append_lease import AppendLease
from daemon.state.layout import Layout
from daemon.state.tenure import read_token, refusal, this_host
from daemon.task_queue import Intake, open_intake


def main(arguments: list[str] | None = None) -> int:
    """Run one API process; return its exit status."""
    options = _parse(arguments)
    try:
        tie_to_parent()
        return _serve(options)
    except (CourierError, OSError) as error:
        return end_with("incus-courier api", error)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description="Takes uploads and makes them durable.")
    parser.add_argument("--config", metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="ADDRESS", action="append", default=[],
                        help="serve on this address, such as fd://N, instead of api.listen; may be repeated")
    parser.add_argument("--counts", metavar="FD:ROW", default="-1:0",
                        help="count in this inherited memory, as the process of that row, with the other API processes")
    return parser.parse_args(arguments)


def _serve(options: argparse.Namespace) -> int:
    file = find_file(options.config)
    config = load(file)
    log.setup(config.log, "api")
    addresses = options.listen or stand_in(config.api.listen, take())
    doors = open_doors(
        addresses, identified=only_known_may(config, file), allow_anonymous=config.api.allow_anonymous)
    if any(door.tls for door in doors):
        read_tls(config)
    descriptor, row = map(int, options.counts.split(":"))
    if descriptor < 0 and config.api.process_count > 1:
        return _supervise(config, options.config, doors)
    layout = Layout(config.state.path)
    layout.create()
    counts = SharedCounts(descriptor, row)
    _raise_descriptor_limit()
    lease = AppendLease(layout, config.queue.shards)
    try:
        _wait_for(lease, layout, config)
        counts.clear(row)
        clean = asyncio.run(service.run(config, file, layout, doors, counts))
        if clean:
            # Else something may be stored yet: it goes with the process.
            lease.release()
    finally:
        for door in doors:
            door.remove()
    log.log("api.stopped")
    return EXIT_OK if clean else EXIT_FAILED


def _supervise(config: Config, file: str | None, doors: list[Door]) -> int:
    """Have several processes of the API serve the doors, as children of this one."""
    try:
        return Supervisor(config, file, doors, with_workers=False).run()
    finally:
        for door in doors:
            door.remove()


def _wait_for(lease: AppendLease, layout: Layout, config: Config) -> None:
    """Wait until no other host uses the state, this number of shards is in force, and each one's queue can be opened.

    It is a worker that takes the state over. What comes meanwhile waits in the kernel.
    """
    patience = StartWait(lambda reason: log.log("api.waiting", detail=reason))
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


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            # Two descriptors an upload; a low limit only means fewer at once.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    status = main()
    log.flush(within_s=1.0)
    sys.exit(status)
