"""From an upload to the file in the container, one at a time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import containers, large
from bench.containers import Container
from bench.figures import Figure, Goal, Section, alternate, median, percentile
from bench.inotify import IN_MOVED_TO, Watch
from bench.plan import Plan
from bench.service import Service

TITLE: Final = "From the upload to the file in the container"
METHOD: Final = """\
`PUT` of 1 KiB on a new connection; API and two workers are idle. Measured from connecting until the file has its name
in the container, which inotify(7) tells on the host. Beside it, in turn, `incus file push` of a file of the same
size, from its start until the file is written. With a pause of 0.2 s between the uploads the worker still holds its
session to the container, with a pause of 2.5 s it has let go of it. The time for the 202 alone is part of the first.
"""
_DIRECTORY: Final = "delivered"
_BRISK_S: Final = 0.2
_QUIET_S: Final = 2.5


def run(plan: Plan) -> Section:
    """Measure it."""
    reason = containers.reason_against()
    if reason is not None:
        return Section(title=TITLE, method=METHOD, notes=[reason])
    scratch = plan.directory("delivered")
    source = scratch / "pushed"
    source.write_bytes(bytes(1024))
    with containers.containers(1) as (container,), Service(scratch / "state", target="incus") as service:
        container.make_directory(_DIRECTORY)
        service.start_api()
        service.start_workers()
        accepted: list[float] = []

        def upload() -> float:
            accepted.append(0.0)
            seconds, accepted[-1] = _upload_s(service, container, source, f"upload-{len(accepted):06d}")
            return seconds

        def push() -> float:
            return container.push_visible_s(source, _DIRECTORY)

        alternate(3, {"upload": upload, "push": push})
        accepted.clear()
        brisk = alternate(plan.uploads, {"upload": _after(_BRISK_S, upload), "push": _after(_BRISK_S, push)})
        accepted_ms = median(accepted) * 1000
        quiet = alternate(max(5, plan.uploads // 3), {
            "upload": _after(_QUIET_S, upload), "push": _after(_QUIET_S, push)})
    return Section(title=TITLE, method=METHOD, figures=[
        *_figures("session open", brisk, 5),
        *_figures("after a pause", quiet, 15),
        Figure(what="of that, until the 202 (p50, session open)", value=accepted_ms, unit="ms",
               goals=[Goal("value", "<=", 4)]),
    ])


def _figures(when: str, found: dict[str, list[float]], most_ms: float) -> list[Figure]:
    ours, peers = (sorted(1000 * seconds for seconds in found[name]) for name in ("upload", "push"))
    goals = [Goal("value", "<=", most_ms), Goal("ratio", "<", 1)]
    return [
        Figure(what=f"upload to file, p50, {when}", value=median(ours), unit="ms", peer="`incus file push`",
               peer_value=median(peers), goals=goals),
        Figure(what=f"upload to file, p90, {when}", value=percentile(ours, 0.9), unit="ms", peer="`incus file push`",
               peer_value=percentile(peers, 0.9)),
    ]


def _after(pause_s: float, measure: Callable[[], float]) -> Callable[[], float]:
    """The same measurement, taken after a pause: what is measured is the service at rest."""

    def paused() -> float:
        time.sleep(pause_s)
        return measure()

    return paused


def _upload_s(service: Service, container: Container, source: Path, name: str) -> tuple[float, float]:
    """Seconds until the file is there, and until it was accepted."""
    with Watch(IN_MOVED_TO, container.rootfs / "root" / _DIRECTORY) as watch:
        began = time.perf_counter()
        accepted_s = large.upload_s(
            service.port, f"/v1/instances/{container.name}/files/root/{_DIRECTORY}/{name}", source)
        return watch.wait(1, 60) - began, accepted_s
