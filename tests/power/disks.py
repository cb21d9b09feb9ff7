"""Disks of our own, on loop devices with direct I/O, so that a copy of the file is what a disk would hold."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.packages import lacking

#: FS_IOC_SHUTDOWN of ext4 and XFS (XFS_IOC_GOINGDOWN), and that nothing is written for it.
_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = struct.pack("I", 2)
#: The most that e2fsck ends with when all is right afterwards.
_MENDED: Final = 1
#: A copy is taken again when something was written meanwhile; more often than this, something never stops.
_COPIES = 50


#: Programs that such disks need, and the Debian packages that have them.
TOOLS: Final = {"losetup": "mount", "mount": "mount", "umount": "mount", "cp": "coreutils", "cmp": "diffutils",
                "mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs", "mkfs.btrfs": "btrfs-progs", "btrfs": "btrfs-progs"}


#: What disks with XFS need besides.
XFS_TOOLS: Final = {"mkfs.xfs": "xfsprogs"}


def missing() -> str | None:
    """Why this machine cannot have such disks, or None."""
    if os.geteuid() != 0:
        return "disks of our own need root"
    if not Path("/dev/loop-control").exists():
        return "disks of our own need loop devices"
    packages = lacking(TOOLS)
    if packages and shutil.which("apt-get") is None:
        return f"disks of our own need {' '.join(packages)}"
    return None


@dataclass(frozen=True)
class Filesystem:
    """What a disk is formatted with, how it is mounted, and what a boot does before that."""

    kind: str
    make: tuple[str, ...]
    options: str = "defaults"
    check: tuple[str, ...] = ()


#: What nobody syncs is not synced by the kernel either, however long a slow machine takes until the cut.
EXT4: Final = Filesystem(
    "ext4", ("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "commit=300")
#: After a power cut nothing but the check puts it right. No inode is in a block with another, and written along with it.
EXT4_WITHOUT_JOURNAL: Final = Filesystem(
    "ext4", ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-b", "4096", "-I", "4096",
             "-N", "4096"),
    check=("e2fsck", "-fy"))
#: A copy is mounted beside what it is a copy of. It takes no smaller disk than XFS_BYTES.
XFS: Final = Filesystem("xfs", ("mkfs.xfs", "-q", "-f"), "nouuid")
XFS_BYTES: Final = 300 * 2**20
BTRFS: Final = Filesystem("btrfs", ("mkfs.btrfs", "-q", "-f"))


def ext4_with_inodes(number: int) -> Filesystem:
    """ext4 on which there can be so many files and directories."""
    return Filesystem(EXT4.kind, (*EXT4.make, "-N", str(number)), EXT4.options)


class Disk:
    """One disk and where it is mounted."""

    def __init__(self, file: Path, mountpoint: Path, size_bytes: int, filesystem: Filesystem = EXT4) -> None:
        """Make it, empty; with a size of 0 it is there already."""
        self.file = file
        self.mountpoint = mountpoint
        self.filesystem = filesystem
        if size_bytes:
            with file.open("wb") as made:
                made.truncate(size_bytes)
            run(*filesystem.make, str(file))
        self._mounted = False

    def mount(self) -> None:
        """Check and mount it. Its loop device goes by itself when it is unmounted."""
        self.mountpoint.mkdir(exist_ok=True)
        if self.filesystem.check:
            run(*self.filesystem.check, str(self.file), most=_MENDED)
        device = run("losetup", "--find", "--show", "--direct-io=on", str(self.file))
        try:
            run("mount", "-t", self.filesystem.kind, "-o", self.filesystem.options, device, str(self.mountpoint))
            self._mounted = True
        finally:
            # A device in use is let go of when its last user is done.
            run("losetup", "--detach", device)

    def limit(self, size_bytes: int) -> None:
        """Give everything on a mounted btrfs a quota: root is held to it too."""
        run("btrfs", "quota", "enable", str(self.mountpoint))
        run("btrfs", "qgroup", "limit", str(size_bytes), "0/5", str(self.mountpoint))

    def lose(self) -> None:
        """Have the device of a mounted disk gone: nothing that is written there, or is not in memory, can be had."""
        descriptor = os.open(self.mountpoint, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def detach(self) -> None:
        """Have the disk be somewhere else, with all that is mounted in it, while who has it open goes on with it."""
        if self._mounted:
            run("umount", "--lazy", str(self.mountpoint))
            self._mounted = False

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
            run("cp", "--sparse=always", str(disk.file), str(copy))
        if all(_same(disk.file, copy) for disk, copy in zip(disks, copies, strict=True)):
            return copies
    raise AssertionError("something goes on writing to the disks")


def _same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "--silent", one, other], check=False).returncode == 0


def run(*command: str, most: int = 0) -> str:
    """What a command says; fail when it does, or ends with more than that."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 0 <= done.returncode <= most, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()
