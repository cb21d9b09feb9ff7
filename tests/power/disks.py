"""Disks of our own: ext4 on loop devices with direct I/O, so that a copy of the file is what a disk would hold."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: A copy is taken again when something was written meanwhile; more often than this, something never stops.
_COPIES = 50


def missing() -> str | None:
    """Why this machine cannot have such disks, or None."""
    if os.geteuid() != 0:
        return "cutting the power of a disk needs root"
    tools = [tool for tool in ("losetup", "mkfs.ext4", "mount", "umount", "cp", "cmp") if shutil.which(tool) is None]
    if tools or not Path("/dev/loop-control").exists():
        return f"cutting the power of a disk needs loop devices and {' '.join(tools) or 'their tools'}"
    return None


class Disk:
    """One disk and where it is mounted."""

    def __init__(self, file: Path, mountpoint: Path, size_bytes: int) -> None:
        """Make it, empty."""
        self.file = file
        self.mountpoint = mountpoint
        with file.open("wb") as made:
            made.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(file))
        self._mounted = False

    def mount(self) -> None:
        """Mount it. Its loop device goes by itself when it is unmounted."""
        self.mountpoint.mkdir(exist_ok=True)
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(self.file))
        try:
            # What nobody syncs is not synced by the kernel either, however long a slow machine takes until the cut.
            _run("mount", "-t", "ext4", "-o", "commit=300", device, str(self.mountpoint))
            self._mounted = True
        finally:
            # A device in use is let go of when its last user is done.
            _run("losetup", "--detach", device)

    def unmount(self) -> bool:
        """Unmount it, if it is mounted; return False when somebody still uses it."""
        if self._mounted:
            self._mounted = subprocess.run(["umount", self.mountpoint], check=False, capture_output=True).returncode != 0
        return not self._mounted


def snapshot(disks: Sequence[Disk]) -> list[Path]:
    """Copies of mounted disks as they all are at one moment, while nobody but the kernel writes to them.

    Equal to the disks after they were made, they are equal to them at the moment in between.
    """
    copies = [disk.file.with_suffix(".copy") for disk in disks]
    for _ in range(_COPIES):
        for disk, copy in zip(disks, copies, strict=True):
            _run("cp", "--sparse=always", str(disk.file), str(copy))
        if all(_same(disk.file, copy) for disk, copy in zip(disks, copies, strict=True)):
            return copies
    raise AssertionError("something goes on writing to the disks")


def _same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "--silent", one, other], check=False).returncode == 0


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()
