"""A user of an instance who swaps what is made in his directory for a link to what is not his, as fast as he can."""

import contextlib
import ctypes
import os
import select
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

_RENAME_EXCHANGE = 2
_CLONE_NEWUSER = 0x10000000
#: Between two looks for an order.
_AT_ONCE = 200
_LINK = "link"


class Racer:
    """Runs in a process of its own, with the rights of a user of the instance and no more."""

    def __init__(self, directory: Path, name: str, uid: int, leads_to: str, process: Path) -> None:
        """`directory` is his; `process` is the directory in /proc of a process in the instance's user namespace."""
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        arguments = [str(self._directory), name, str(uid), leads_to, str(process)]
        self._process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, pass_fds=[self._directory])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._process as process:
            process.kill()
        os.close(self._directory)

    def ready(self) -> None:
        """Return when the name is free and the link waits to be put into its place."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"ready\n"


def _race(directory: int, name: str, leads_to: str) -> None:
    exchange = ctypes.CDLL(None).renameat2
    one, other = name.encode(), _LINK.encode()
    while True:
        if select.select([0], [], [], 0)[0]:
            if not os.read(0, 1):
                return
            for left in (name, _LINK):
                _put_aside(directory, left)
            os.symlink(leads_to, _LINK, dir_fd=directory)
            os.write(1, b"ready\n")
        for _ in range(_AT_ONCE):
            exchange(directory, one, directory, other, _RENAME_EXCHANGE)


def _put_aside(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)
        else:
            os.rename(name, f"aside-{time.monotonic_ns()}", src_dir_fd=directory, dst_dir_fd=directory)


def _become(uid: int, process: str) -> None:
    with open(f"{process}/ns/user", "rb") as entrance:
        assert ctypes.CDLL(None, use_errno=True).setns(entrance.fileno(), _CLONE_NEWUSER) == 0
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


if __name__ == "__main__":
    _become(int(sys.argv[3]), sys.argv[5])
    _race(int(sys.argv[1]), sys.argv[2], sys.argv[4])
