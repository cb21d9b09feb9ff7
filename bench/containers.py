"""Containers for a measurement, made before it and removed after it, and `incus file push`, the peer."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.inotify import IN_CLOSE_WRITE, Watch
from bench.machine import incus_version
from daemon.config import LOCAL
from daemon.model.upload import Destination

IMAGE: Final = "courier-tiny"
#: Where the `dir` pool keeps containers: the bench looks at their files from outside.
_POOL: Final = Path("/var/lib/incus/storage-pools/default/containers")
#: How an unprivileged container's root looks from outside.
_SHIFT: Final = 1_000_000


def reason_against() -> str | None:
    """Why containers cannot be measured here; None when they can."""
    if incus_version() is None:
        return "Not measured: there is no Incus on this machine that answers (`make incus` sets one up)."
    if not os.access(_POOL, os.R_OK | os.X_OK):
        return "Not measured: the files of the containers cannot be seen from here (run as root)."
    return None


class Container:
    """One running container."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rootfs = _POOL / name / "rootfs"

    @property
    def key(self) -> str:
        """What the queue calls it."""
        return Destination(LOCAL, "default", self.name, "/").instance_key

    def make_directory(self, name: str) -> Path:
        """Make /root/NAME, and return what it is called outside."""
        path = self.rootfs / "root" / name
        path.mkdir(mode=0o755)
        os.chown(path, _SHIFT, _SHIFT)
        return path

    def push_visible_s(self, source: Path, directory: str) -> float:
        """Seconds from the start of `incus file push` until the file in /root/DIRECTORY is written."""
        with Watch(IN_CLOSE_WRITE, self.rootfs / "root" / directory) as watch:
            began = time.perf_counter()
            with subprocess.Popen(_push(source, f"{self.name}/root/{directory}/{source.name}"),
                                  stdin=subprocess.DEVNULL):
                return watch.wait(1, 60) - began

    def push_s(self, source: Path, directory: str, *flags: str) -> float:
        """Seconds for the whole of `incus file push` into /root/DIRECTORY."""
        began = time.perf_counter()
        subprocess.run(_push(source, f"{self.name}/root/{directory}/", *flags), check=True, stdin=subprocess.DEVNULL,
                       timeout=600)
        return time.perf_counter() - began


def _push(source: Path, target: str, *flags: str) -> list[str]:
    return ["incus", "file", "push", "-q", *flags, str(source), target]


@contextlib.contextmanager
def containers(count: int) -> Iterator[list[Container]]:
    """Make so many containers from the tiny image; remove them in the end."""
    names = [f"bench-{os.getpid()}-{number}" for number in range(count)]
    try:
        for name in names:
            _incus("launch", IMAGE, name, "-q")
        yield [Container(name) for name in names]
    finally:
        there = _incus("list", "-f", "csv", "-c", "n").split()
        for name in set(names) & set(there):
            _incus("delete", "-f", name)


def _incus(*arguments: str) -> str:
    done = subprocess.run(["incus", *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120)
    return done.stdout
