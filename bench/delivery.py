"""How fast files are delivered: many small ones, one large one, and into many containers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import containers
from bench.containers import Container
from bench.figures import Figure, Goal, Section, alternate, median
from bench.large import make_file
from bench.plan import Plan
from bench.prepared import Prepared
from bench.service import Service

TITLE: Final = "Delivering into containers"
METHOD: Final = """\
The tasks are put into spool and queue while the two workers, which have started and delivered before, stand still
(SIGSTOP); the time runs from their release until the last file has its name in its container, which inotify(7) tells
on the host. It includes opening the sessions. Beside it, in alternating rounds, `incus file push -r` of a directory
with the same number of files of 1 KiB, and `incus file push` of the same large file, from start to exit. One
container's tasks all belong to one worker; those of 16 containers to both.
"""
_FILES: Final = 1000
_CONTAINERS: Final = 16
#: Files for each of the many containers.
_EACH: Final = 250


def run(plan: Plan) -> Section:
    """Measure it."""
    reason = containers.reason_against()
    if reason is not None:
        return Section(title=TITLE, method=METHOD, notes=[reason])
    scratch = plan.directory("delivery")
    with containers.containers(_CONTAINERS) as there, Service(scratch / "state", target="incus") as service:
        measured = _Measured(plan, scratch, there, Prepared(service, service.start_workers()))
        measured.warm_up()
        return Section(title=TITLE, method=METHOD,
                       figures=[measured.small(), measured.large(), measured.many()], notes=measured.notes)


class _Measured:
    def __init__(self, plan: Plan, scratch: Path, there: Sequence[Container], prepared: Prepared) -> None:
        self._plan = plan
        self._scratch = scratch
        self._there = there
        self._prepared = prepared
        self._pushes = 0
        self._small = make_small(scratch / "small", 1)[0]
        self.notes: list[str] = []

    def warm_up(self) -> None:
        self._prepared.deliver(self._there, 5, self._small)

    def small(self) -> Figure:
        directory = self._scratch / "files"
        make_small(directory, _FILES)
        found = alternate(self._plan.rounds, {
            "ours": lambda: self._prepared.deliver(self._there[:1], _FILES, self._small).seconds,
            "peer": lambda: self._push_s(directory, "-r")})
        return Figure(what=f"{_FILES:,} files of 1 KiB into one container", value=_FILES / median(found["ours"]),
                      unit="files/s", peer="`incus file push -r`", peer_value=_FILES / median(found["peer"]),
                      goals=[Goal("ratio", ">=", 2.0)])

    def large(self) -> Figure:
        source = make_file(self._scratch / "large", self._plan.large_bytes)
        found = alternate(self._plan.rounds, {
            "ours": lambda: self._prepared.deliver(self._there[:1], 1, source).seconds,
            "peer": lambda: self._push_s(source)})
        mib = self._plan.large_bytes / 2**20
        return Figure(what=f"one file of {mib:.0f} MiB", value=mib / median(found["ours"]), unit="MiB/s",
                      peer="`incus file push`", peer_value=mib / median(found["peer"]),
                      goals=[Goal("ratio", ">=", 1.0)])

    def many(self) -> Figure:
        found = alternate(self._plan.rounds, {
            "one": lambda: self._prepared.deliver(self._there[:1], _FILES, self._small),
            "many": lambda: self._prepared.deliver(self._there, _EACH, self._small)})
        self.notes = [
            f"{what}: the machine was {median([one.machine_share for one in found[name]]):.0%} busy, of which the"
            f" workers used {median([one.worker_cores for one in found[name]]):.2f} cores."
            for name, what in (("one", "One container"), ("many", f"{_CONTAINERS} containers"))]
        return Figure(what=f"{_CONTAINERS} containers at once, {_EACH} files each", unit="files/s",
                      value=_CONTAINERS * _EACH / median([one.seconds for one in found["many"]]), peer="one container",
                      peer_value=_FILES / median([one.seconds for one in found["one"]]),
                      goals=[Goal("ratio", ">=", 1.5)])

    def _push_s(self, source: Path, *flags: str) -> float:
        """`incus file push` into a new directory."""
        self._pushes += 1
        name = f"push-{self._pushes}"
        self._there[0].make_directory(name)
        os.sync()
        return self._there[0].push_s(source, name, *flags)


def make_small(directory: Path, count: int) -> list[Path]:
    """So many files of 1 KiB in a new directory."""
    directory.mkdir()
    paths = [directory / f"file-{number:06d}" for number in range(count)]
    for path in paths:
        path.write_bytes(bytes(1024))
    return paths
