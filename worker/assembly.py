"""How the parts of a worker are put together."""

from collections.abc import Callable

from daemon.config import LOCAL, Config
from daemon.log import log
from daemon.process.signals import Signals
from daemon.spool.store import Spool
from daemon.state.doorbell import Doorbell
from daemon.state.reserve import Reserve
from daemon.task_queue import TaskQueue
from worker.barrier import Barrier
from worker.commands import Commands
from worker.inbox import Inbox
from worker.lane import Lane
from worker.lanes import Lanes
from worker.loop import Parts
from worker.outages import Outages
from worker.recovery import Recovery
from worker.remotes import Remotes
from worker.runner import run
from worker.settling import Settling
from worker.sweeping import Sweeping
from worker.targets import describe, open_target, remember_incus
from worker.upkeep import Upkeep


def assemble(queue: TaskQueue, spool: Spool, reserve: Reserve, config: Config) -> Parts:
    """Build a worker's parts around its queue. Call it in the main thread."""
    remember_incus(config)
    log("target.chosen", shard=queue.shard, **describe(LOCAL, config))
    inbox = Inbox()
    outages = Outages(queue)
    remotes = Remotes(outages, config, open_target, inbox.put)

    def run_lane(lane: Lane, current: Callable[[], Config]) -> None:
        run(lane, remotes.target, spool, current, inbox.put)

    lanes = Lanes(queue, outages, config, run_lane, inbox.put)
    barrier = Barrier(spool, inbox.put)
    settling = Settling(queue, spool, lanes, remotes, outages, config)
    return Parts(
        queue=queue, bell=Doorbell(queue.layout, queue.shard), inbox=inbox, signals=Signals(), lanes=lanes,
        remotes=remotes, settling=settling, sweeping=Sweeping(queue, lanes, remotes, settling),
        commands=Commands(queue, spool, lanes),
        upkeep=Upkeep(queue, spool, barrier, lanes, remotes, outages, reserve, config), outages=outages,
        recovery=Recovery(queue, spool, config, inbox.put),
        reserve=reserve,
    )
