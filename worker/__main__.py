"""`python -m worker --shard N [--config FILE]`: serve one shard until told to stop."""

import argparse
import os
import sys
from functools import partial
from typing import Final

from daemon import config as configuration
from daemon.config import Config
from daemon.errors import CannotStart, CourierError, QueueFault
from daemon.lease import open_leases
from daemon.log import flush, log, setup
from daemon.process import sd_notify
from daemon.process.exit_status import EXIT_OK, end_with
from daemon.process.parent_death import tie_to_parent
from daemon.process.patience import StartWait
from daemon.process.reload import load_again
from daemon.recovery.reshard import take_shard
from daemon.recovery.upgrade import remove_common_keys
from daemon.spool import open_checked
from daemon.state.layout import Layout
from daemon.state.reserve import Reserve
from daemon.state.tenure import this_host
from worker.assembly import assemble
from worker.loop import Worker
from worker.recovery.start import begin, end, give_up, tell

#: A thread that computes lets another one that has got its answer go on after so many seconds: a runner sends the next
#: requests while the main loop settles those before.
_SWITCH_S: Final = 0.0005


def main() -> int:
    """Run the worker; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--shard", type=int, required=True, help="which shard to serve, from 0 on")
    parser.add_argument("--config", help="the configuration file")
    parser.add_argument("--take-over", action="store_true",
                        help="use the state although another host may: it cannot reach the storage any more")
    arguments = parser.parse_args()
    try:
        tie_to_parent()
        config = configuration.load(configuration.find_file(arguments.config))
        setup(config.log, "worker")
        sys.setswitchinterval(_SWITCH_S)
        _serve(config, arguments.shard, partial(load_again, arguments.config), take_over=arguments.take_over)
    except (CourierError, OSError) as error:
        return end_with("incus-courier worker", error)
    return EXIT_OK


def _serve(config: Config, shard: int, reload: partial[Config | None], *, take_over: bool) -> None:
    if not 0 <= shard < config.queue.shards:
        raise CannotStart("bad_config", f"--shard {shard}: queue.shards is {config.queue.shards}, so 0 to "
                                        f"{config.queue.shards - 1} can be served")
    layout = Layout(config.state.path)
    layout.create()
    leases = open_leases(layout, this_host(config.state.host), config.queue.shards, take_over=take_over)
    supersede = config.delivery.supersedes
    patience = StartWait(lambda reason: log("worker.waiting", shard=shard, reason=reason))
    lease = take_shard(layout, leases, shard, config.queue.shards, patience, supersede=supersede, report=tell,
                       webhooks=config.webhooks)
    reserve = Reserve(layout, shard, config.limits.reserve_bytes)
    queue = begin(layout, shard, reserve, config, patience)
    remove_common_keys(layout, config.queue.shards)
    try:
        parts = assemble(layout, queue, open_checked(layout), reserve, config, lease)
        log("worker.started", shard=shard, pid=os.getpid())
        sd_notify.ready()
        Worker(parts, config, reload).run()
        parts.remotes.close()
        end(queue)
    except QueueFault as fault:
        give_up(queue, fault)
        raise
    lease.release()
    leases.close()
    log("worker.stopped", shard=shard, pid=os.getpid())


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    flush(within_s=1.0)
    # Threads that hang in a push must not keep the process: their tasks are queued, and resumed at the next start.
    os._exit(status)
