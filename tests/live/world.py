"""One instance of one target, as the conformance tests see it: they deliver through the target and look behind it."""

import contextlib
import hashlib
import io
import os
import stat
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Remote
from daemon.model.upload import Destination
from tests.live.host import Container, Host
from tests.support.waiting import PATIENCE_S
from worker.targets.base import Delivery, Receipt, Session
from worker.targets.directory.target import DirectoryTarget
from worker.targets.incus.bound_session import BoundSession
from worker.targets.incus.endpoints import Endpoints
from worker.targets.incus.files_api import FilesApiSession
from worker.targets.incus.kernel import Kernels
from worker.targets.incus.rest import Rest
from worker.targets.incus.target import IncusTarget, look_at

TIMEOUT_S = PATIENCE_S
#: Follows the bytes of an upload in its spool file, and must never be delivered.
TRAILER = b"TRAILER"


@dataclass(frozen=True)
class Facts:
    """What a test checks of a file."""

    data: bytes
    mode: int
    uid: int
    gid: int


class World:
    """An instance with a directory of its own for each test, `home`."""

    def __init__(self, way: str, instance: str, rootfs: Path, open_session: Callable[[], Session],
                 run: Callable[[str], int]) -> None:
        self.way = way
        self.instance = instance
        self.rootfs = rootfs
        self.open = open_session
        self.run = run
        self.home = f"/t/{uuid.uuid4().hex[:8]}"
        #: An owner that this process may give a file.
        self.owner = (1000, 1001) if os.geteuid() == 0 else (os.geteuid(), os.getegid())

    @property
    def shift(self) -> int:
        """What this machine adds to the uids and gids inside."""
        return 0 if self.way == "directory" else os.lstat(self.rootfs).st_uid

    def host_path(self, path: str) -> Path:
        """Where `path` of the instance is on this machine."""
        return self.rootfs / path.lstrip("/")

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory in the instance, and those above it."""
        for ancestor in [*reversed(Path(path).parents), Path(path)]:
            host_path = self.host_path(str(ancestor))
            if not host_path.is_dir():
                host_path.mkdir()
                self._own(host_path)
        self.host_path(path).chmod(mode)

    def make_file(self, path: str, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
        """Make a file in the instance."""
        self.host_path(path).write_bytes(data)
        self._own(self.host_path(path), owner)
        self.host_path(path).chmod(mode)

    def make_link(self, path: str, target: str, owner: tuple[int, int] | None = None) -> None:
        """Make a symbolic link in the instance."""
        self.host_path(path).symlink_to(target)
        self._own(self.host_path(path), owner)

    def give(self, path: str, uid: int, mode: int) -> None:
        """Give a file or directory of the instance to a user of it, with that mode."""
        os.lchown(self.host_path(path), uid + self.shift, uid + self.shift)
        self.host_path(path).chmod(mode)

    def facts(self, path: str) -> Facts:
        """The file at `path`, which is no link."""
        found = self.host_path(path).lstat()
        assert stat.S_ISREG(found.st_mode), oct(found.st_mode)
        return Facts(self.host_path(path).read_bytes(), stat.S_IMODE(found.st_mode),
                     found.st_uid - self.shift, found.st_gid - self.shift)

    def names(self, path: str) -> list[str]:
        """What a directory of the instance holds."""
        return sorted(os.listdir(self.host_path(path)))

    def _own(self, host_path: Path, owner: tuple[int, int] | None = None) -> None:
        uid, gid = owner or ((0, 0) if os.geteuid() == 0 else self.owner)
        os.lchown(host_path, uid + self.shift, gid + self.shift)

    def delivery(self, path: str, data: bytes, **changes: object) -> Delivery:
        """A delivery of `data` to `path`, with the service's own defaults."""
        values: dict[str, Any] = {
            "task_id": str(uuid.uuid4()), "destination": Destination("local", "default", self.instance, path),
            "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": None, "uid": None, "gid": None,
            "default_mode": 0o644, "default_uid": 0, "default_gid": 0, "mkdirs": False, "dir_mode": 0o755, "symlinks": "follow", "replace_group": "keep",
            "verify": "size", "stopped": "push"}
        return Delivery(**{**values, **changes})

    def deliver(self, path: str, data: bytes, before_rename: Callable[[], None] = lambda: None,
                **changes: object) -> Receipt:
        """Deliver `data` in a session of its own; the source has more bytes than are to be delivered."""
        with contextlib.closing(self.open()) as session:
            return session.deliver(self.delivery(path, data, **changes), io.BytesIO(data + TRAILER), before_rename)


def incus_world(way: str, host: Host, container: Container) -> World:
    """A container, reached by SFTP or by the files API."""
    target = IncusTarget("local", Remote(endpoint=host.socket, timeout_s=TIMEOUT_S))
    destination = Destination("local", "default", container.name, "/")

    def by_files_api() -> Session:
        rest = Rest(Endpoints("local", Remote(endpoint=host.socket)), TIMEOUT_S)
        return BoundSession(FilesApiSession(rest.files(container.name, "default"), rest.close),
                            lambda: look_at(rest, destination), Kernels())

    def by_sftp() -> Session:
        return target.open(destination, "push")

    return World(way, container.name, container.rootfs, by_sftp if way == "sftp" else by_files_api, container.run)


def directory_world(root: Path) -> World:
    """A directory that stands in for Incus."""
    target = DirectoryTarget(root)
    destination = Destination("local", "default", "c1", "/")
    rootfs = root / "c1"

    def run(script: str) -> int:
        return subprocess.run(["sh", "-c", script], cwd=rootfs, check=False).returncode

    target.open(destination, "push").close()
    return World("directory", "c1", rootfs, lambda: target.open(destination, "push"), run)
