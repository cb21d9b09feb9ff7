"""How the parts of a worker are put together."""

from collections.abc import Callable

from daemon.config import LOCAL, Config
from daemon.lease import Lease
from daemon.log import log
from daemon.process.signals import Signals
from daemon.spool import CheckedSpool
from daemon.state.activity import Publisher
from daemon.state.doorbell import Doorbell
from daemon.state.layout import Layout
from daemon.state.released import ReleasedInstances
from daemon.state.reserve import Reserve
from daemon.task_queue.doctor import Doctor
from worker.dispatch.commands import Commands
from worker.dispatch.lane import Lane
from worker.dispatch.outages import Outages
from worker.dispatch.outcomes import Settling
from worker.dispatch.part_cleanup import Sweeping
from worker.dispatch.remotes import Remotes
from worker.dispatch.runner import Guard, run
from worker.dispatch.scheduler import Lanes
from worker.loop import Parts
from worker.mailbox import Inbox
from worker.recovery.background import Recovery
from worker.targets.base import Patience
from worker.targets.registry import describe, open_target, remember_incus
from worker.upkeep.retention import Upkeep
from worker.upkeep.sync_barrier import Barrier
from worker.webhooks.hooks import Webhooks
from worker.webhooks.link import SenderLink


def assemble(
    layout: Layout, queue: Doctor, spool: CheckedSpool, reserve: Reserve, config: Config, lease: Lease,
) -> Parts:
    """Build a worker's parts around its queue. Call it in the main thread."""
    remember_incus(config)
    log("target.chosen", shard=queue.shard, **describe(LOCAL, config))
    inbox = Inbox()
    outages = Outages(queue)
    remotes = Remotes(outages, config, open_target, inbox.put)

    guard = Guard(fence=lease.check_storage, is_released=ReleasedInstances(layout).has)

    def run_lane(lane: Lane, current: Callable[[], Config], patience: Patience) -> None:
        run(lane, remotes.target, spool, current, inbox.put, patience, guard)

    lanes = Lanes(queue, outages, config, run_lane, inbox.put)
    barrier = Barrier(spool, inbox.put)
    settling = Settling(queue, spool, lanes, remotes, outages, config)
    return Parts(
        queue=queue, bell=Doorbell(layout, queue.shard), inbox=inbox, signals=Signals(), lanes=lanes,
        remotes=remotes, settling=settling, sweeping=Sweeping(queue, lanes, remotes, settling),
        commands=Commands(queue, spool, lanes),
        upkeep=Upkeep(queue, spool, barrier, lanes, remotes, outages, reserve, config), outages=outages,
        webhooks=Webhooks(queue.shard, queue, SenderLink(inbox.put), config),
        recovery=Recovery(layout, queue, spool, config, inbox.put),
        reserve=reserve, publisher=Publisher(layout, queue.shard), lease=lease,
    )
