"""How soon a healthy container gets its file beside instances that hang, and beside names of which there is none."""

import time
from collections.abc import Iterator
from typing import Final

from bench import containers, fill
from bench.containers import Container
from bench.figures import Figure, Goal, Section
from bench.inotify import IN_MOVED_TO, Watch
from bench.plan import Plan
from bench.service import SHARDS, Service
from daemon.state.doorbell import ring
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.hanging import STEPS, Hanging, hung
from worker.targets.incus.endpoints import find_endpoint

TITLE: Final = "A healthy container beside hung instances"
METHOD: Final = """\
The service's Incus is a relay to the real one, behind which further instances seem to be: each takes a session and
hangs at one of its steps, equally many at each (the answer to the upgrade, the greeting, the look at the instance, the
first lstat, open, write, close and rename, and the look that confirms a delivery). Each of them has two tasks, and so
has each name of which there is no instance. All of these are put into the queues of two workers that have just
started; then one file for a container that these workers have never delivered to (*new*), and every quarter of a second
one for a container that got a file before the others came (*known*; the longest of all counts). Measured is the time
from a file's row until it has its name.
"""
_EACH: Final = 2
_DIRECTORY: Final = "delivered"
_PAUSE_S: Final = 0.25
_LONGEST_S: Final = 120.0


def run(plan: Plan) -> Section:
    """Measure it."""
    reason = containers.reason_against()
    endpoint = find_endpoint()
    if reason is not None or endpoint is None:
        return Section(title=TITLE, method=METHOD, notes=[reason or "Not measured: there is no Incus."])
    figures: list[Figure] = []
    with containers.containers(2) as (known, new), Hanging(plan.directory("relay") / "socket", endpoint) as relay:
        for place in (known, new):
            place.make_directory(_DIRECTORY)
        for count in (0, *plan.hung):
            figures += _measure(plan, relay, known, new, [hung(STEPS[n % len(STEPS)], n) for n in range(count)],
                                f"{count:,} hung instances")
        figures += _measure(plan, relay, known, new, [f"missing-{n}" for n in range(plan.missing)],
                            f"{plan.missing:,} names of which there is none")
    return Section(title=TITLE, method=METHOD, figures=figures)


def _measure(
    plan: Plan, relay: Hanging, known: Container, new: Container, others: list[str], beside: str,
) -> Iterator[Figure]:
    scratch = plan.directory("hung")
    with Service(scratch / "state", target="incus", settings={"incus": f'endpoint = "{relay.path}"'}) as service:
        service.start_workers()
        _deliver_s(service, known)
        for shard in range(SHARDS):
            with SqliteQueue(service.layout, shard) as queue:
                fill.put_with_files(queue, (upload for name in others for upload in fill.uploads(name, _EACH)
                                            if upload.destination.shard(SHARDS) == shard))
            ring(service.layout, shard)
        first_s = _deliver_s(service, new)
        longest_s = max(_after_pause(service, known) for _ in range(plan.uploads))
    for what, seconds in ((f"known container beside {beside}", longest_s), (f"new container beside {beside}", first_s)):
        yield Figure(what=what, value=seconds * 1000, unit="ms", goals=[Goal("value", "<=", 2000)])


def _after_pause(service: Service, container: Container) -> float:
    time.sleep(_PAUSE_S)
    return _deliver_s(service, container)


def _deliver_s(service: Service, container: Container) -> float:
    """Seconds from the row of a task until its file has its name."""
    (upload,) = fill.uploads(container.name, 1, directory=f"/root/{_DIRECTORY}")
    shard = upload.destination.shard(SHARDS)
    with (Watch(IN_MOVED_TO, container.rootfs / "root" / _DIRECTORY) as watch,
          SqliteQueue(service.layout, shard) as queue):
        fill.put_with_files(queue, iter([upload]))
        began = time.perf_counter()
        ring(service.layout, shard)
        return watch.wait(1, _LONGEST_S) - began
