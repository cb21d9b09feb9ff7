"""A machine that runs the service, and that loses its power."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from daemon.state.slots import newest_slot, write_slot
from daemon.state.tenure import SLOT_BYTES
from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.numbers import BOOT_FACT
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.live.host import Container
from tests.power.disks import EXT4, Disk, Filesystem, snapshot
from tests.support.hooked import HookedService
from tests.support.service import Service, Settings
from tests.support.waiting import eventually

#: Room for the uploads of a test, and little more to copy.
_DISK_BYTES = 96 * 2**20


@contextmanager
def after_a_boot(service: Service) -> Iterator[None]:
    """Have what a service finds in its state be from before a start of the machine, while it is started.

    The kernel is the same as before, so the queue is made to believe that it ran under another one. Its log stays: it
    is open still when the service opens it.
    """
    layout = service.layout
    with ExitStack() as open_meanwhile:
        for shard in range(service.shards):
            if notes.exists(layout, shard):
                queue = open_meanwhile.enter_context(SqliteQueue(layout, shard))
                for fact in ("boot_id", BOOT_FACT):
                    queue.remember(fact, "an earlier boot")
        if layout.host_token.exists():
            descriptor = os.open(layout.host_token, os.O_RDWR)
            open_meanwhile.callback(os.close, descriptor)
            found = newest_slot(descriptor, SLOT_BYTES)
            if found is not None:
                told = json.loads(found[1]) | {"boot": "an earlier boot"}
                write_slot(descriptor, SLOT_BYTES, found[0] + 1, json.dumps(told).encode())
        yield


class Machine:
    """The service, with its state on one disk and a directory with the instances on another."""

    def __init__(
        self, directory: Path, settings: Settings | None = None, hook: str = "", filesystem: Filesystem = EXT4,
    ) -> None:
        """A new machine; not booted yet. It tells a webhook at the address `hook`, if there is one.

        Its state is on that filesystem.
        """
        settings = {"queue": {"shards": 2}, **(settings or {})}
        self.service = HookedService(directory, hook, settings) if hook else Service(directory, settings)
        state = self.service.layout.directory
        self._disks = [Disk(directory / "state.disk", state, _DISK_BYTES, filesystem), self._instances(directory)]

    def _instances(self, directory: Path) -> Disk:
        return Disk(directory / "instances.disk", self.service.layout.instances, _DISK_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self.service:
            self._end()
            for disk in self._disks:
                disk.file.unlink()

    def boot(self, faults: str = "") -> None:
        """Start the service on the disks, each of its processes with the plan of faults."""
        for disk in self._disks:
            disk.mount()
        with after_a_boot(self.service):
            self.service.start(faults)
        if isinstance(self.service, HookedService):
            self.service.begin("sender", faults)

    def cut(self) -> None:
        """Lose the power: what is not on the disks at this moment is gone."""
        for process in self.service.processes.values():
            process.send(signal.SIGSTOP)
        for pid in self._others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        copies = snapshot(self._disks)
        self._end()
        for disk, copy in zip(self._disks, copies, strict=True):
            copy.replace(disk.file)

    def _end(self) -> None:
        self.service.kill()
        for disk in reversed(self._disks):
            eventually(partial(self._let_go, disk), what=f"the end of everyone who uses {disk.mountpoint}")

    def _let_go(self, disk: Disk) -> bool:
        # One more of the others may come while the last of them goes.
        for pid in self._others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return disk.unmount()

    def _others(self) -> Iterator[int]:
        """Processes besides the service's own that write to the disks."""
        return iter(())

    def found(self, instance: str, path: str) -> bytes | None:
        """What is in an instance."""
        return self.service.delivered(instance, path)

    def place(self, number: int, name: str) -> tuple[str, str]:
        """An instance and a path for an upload of the client of that number."""
        return f"c{number % 5}", f"/{name}"


class IncusMachine(Machine):
    """The service, with its state on one disk and all files of a stopped container of a real Incus on another."""

    def __init__(self, directory: Path, container: Container) -> None:
        """A new machine; not booted yet."""
        self._container = container
        # Of a container that does not run nothing is certain but what the sync of the barrier does.
        super().__init__(directory, {"target": {"kind": "incus"}, "incus": {"endpoint": container.host.socket},
                                     "delivery": {"keep_s": 0}})

    def _instances(self, directory: Path) -> Disk:
        disk = Disk(directory / "container.disk", directory / "container", _DISK_BYTES)
        disk.mount()
        try:
            subprocess.run(["cp", "--archive", "--no-target-directory", self._container.rootfs, disk.mountpoint], check=True)
        finally:
            disk.unmount()
        disk.mountpoint = self._container.rootfs
        return disk

    def _others(self) -> Iterator[int]:
        # Incus serves SFTP with a process whose root is the container's.
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and os.readlink(process / "root") == str(self._container.rootfs):
                    yield int(process.name)

    def found(self, instance: str, path: str) -> bytes | None:
        """What is in the container."""
        with contextlib.suppress(FileNotFoundError):
            return (self._container.rootfs / path.lstrip("/")).read_bytes()
        return None

    def place(self, number: int, name: str) -> tuple[str, str]:
        """All uploads go to the one container."""
        return self._container.name, f"/root/{name}"
