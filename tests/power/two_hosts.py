"""Two hosts and one state: the first stands still, and the second begins with what its disk held at that moment."""

import signal
from functools import partial
from os import EX_TEMPFAIL
from pathlib import Path
from typing import Final, Self

from tests.power.disks import EXT4, XFS, XFS_BYTES, Disk, Filesystem, run, snapshot
from tests.power.machine import after_a_boot
from tests.support.processes import Process
from tests.support.service import Service
from tests.support.waiting import eventually

FILESYSTEMS: Final = {"ext4": (EXT4, 96 * 2**20), "xfs": (XFS, XFS_BYTES)}


class Host:
    """A service on a disk that it has by itself, with instances that are elsewhere."""

    def __init__(self, directory: Path, name: str, instances: Path, filesystem: Filesystem, size_bytes: int) -> None:
        """With a `size_bytes` of 0 the disk is there already. Nothing is mounted, and nothing runs."""
        directory.mkdir(exist_ok=True)
        self.service = Service(directory, {"queue": {"shards": 2}, "state": {"host": name}})
        self.disk = Disk(directory / "state.disk", self.service.layout.directory, size_bytes, filesystem)
        self._instances = instances

    def mount(self) -> None:
        """Have the disk, and the instances."""
        self.disk.mount()
        within = self.service.layout.instances
        within.mkdir(exist_ok=True)
        run("mount", "--bind", str(self._instances), str(within))

    def freeze(self) -> None:
        """Have everybody stand still, until `thaw`."""
        for process in self.service.processes.values():
            process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have everybody go on, who knows nothing of the time between."""
        for process in self.service.processes.values():
            process.send(signal.SIGCONT)

    def end(self) -> None:
        """End everybody, and let go of the disk."""
        with self.service:
            pass
        # With the instances in it. What is on a device that is gone cannot even be looked at.
        self.disk.detach()

    def found(self, instance: str, path: str) -> bytes | None:
        """What is in an instance."""
        return self.service.delivered(instance, path)

    def place(self, number: int, name: str) -> tuple[str, str]:
        """An instance and a path for an upload of the client of that number."""
        return f"c{number % 5}", f"/{name}"


class TwoHosts:
    """One that has the state, and one that takes it over. The instances are on neither."""

    def __init__(self, directory: Path, kind: str) -> None:
        """`kind`: that of the filesystem of the state."""
        self._directory = directory
        filesystem, size_bytes = FILESYSTEMS[kind]
        self.instances = directory / "instances"
        self.instances.mkdir()
        self.old = Host(directory / "old", "old", self.instances, filesystem, size_bytes)
        self.new: Host | None = None

    def __enter__(self) -> Self:
        self.old.mount()
        return self

    def __exit__(self, *_: object) -> None:
        for host in filter(None, (self.old, self.new)):
            host.end()

    def copy(self) -> Host:
        """The new host, with the disk as it is while the old host stands still, mounted as after a loss of power."""
        [copy] = snapshot([self.old.disk])
        (self._directory / "new").mkdir()
        copy.rename(self._directory / "new/state.disk")
        self.new = Host(self._directory / "new", "new", self.instances, self.old.disk.filesystem, 0)
        self.new.mount()
        return self.new

    def take_over(self) -> Host:
        """The new host at work: its service was refused until it was told to take the state over."""
        new = self.copy()
        with after_a_boot(new.service):
            refused = new.service.begin("worker-0")
            eventually(partial(_has_ended, refused))
            assert refused.status() == EX_TEMPFAIL
            for shard in range(new.service.shards):
                new.service.begin(f"worker-{shard}", "", "--take-over")
            new.service.begin("api")
            new.service.wait_ready()
        return new

    def delivered(self) -> dict[str, bytes]:
        """What is in the instances, by path; what has not got its name yet is left out."""
        return {str(path.relative_to(self.instances)): path.read_bytes() for path in self.instances.rglob("*")
                if path.is_file() and not path.name.startswith(".courier-")}

    def parts(self) -> list[Path]:
        """Files in the instances that have not got their names yet."""
        return list(self.instances.rglob(".courier-*"))


def _has_ended(process: Process) -> bool:
    return process.status() is not None
