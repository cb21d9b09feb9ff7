"""`python -m api`: one API process. What systemd and the supervisor start.

Exit status: 0 after a clean stop, 1 after a failure that a restart may cure, 78 when the configuration must be
changed first (sysexits.h, EX_CONFIG).
"""

import argparse
import asyncio
import socket
import sys

from api import service
from api.opening import raise_descriptor_limit, wait_for
from daemon import log
from daemon.access.openness import only_known_may
from daemon.config import Config, find_file, load
from daemon.errors import CourierError
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, end_with
from daemon.process.listeners import Door, open_doors
from daemon.process.parent_death import tie_to_parent
from daemon.process.shared_counts import SharedCounts
from daemon.process.socket_activation import stand_in, take
from daemon.process.supervisor import Supervisor
from daemon.process.tls import read_tls
from daemon.state.append_lease import AppendLease
from daemon.state.layout import Layout


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
    parser.add_argument("--store", metavar="FD", type=int,
                        help="have small uploads stored by the process at the other end of this inherited line")
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
    raise_descriptor_limit()
    lease = AppendLease(layout, config.queue.shards)
    try:
        wait_for(lease, layout, config)
        counts.clear(row)
        line = None if options.store is None else socket.socket(fileno=options.store)
        clean = asyncio.run(service.run(config, file, layout, doors, counts, line))
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


if __name__ == "__main__":
    status = main()
    log.flush(within_s=1.0)
    sys.exit(status)
