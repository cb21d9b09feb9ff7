"""Where things are in the state directory, and who may see them.

    spool/<bucket>/<task id>      an upload: its bytes, then what its task needs
    queue/shard-<n>/data.db       the index of the uploads of one shard (SQLite, WAL)
    queue/shards                  the number of shards in force
    queue/released                the instances that this cell has let go of
    queue/incus-met               there since this machine's Incus was found: it is waited for when it is away
    locks/, bells/                one file a shard: who serves it; how to wake it; its pulse
    activity/                     one file a shard: what its worker is doing now
    locks/append, locks/migration who appends to the queue, who changes the number of shards
    locks/host                    which host uses the state, and when it last said so
    lost+found/                   what was doubtful and set aside
    access/                       what the API keeps about who may do what, what clients chose to act on, and
                                  the figures of the last hour and what API processes counted for good
    partials/<upload id>          the bytes of a resumable upload that is not finished; `.head` is how it stands
    instances/                    what the `directory` target delivered

Nothing is ever open to the world; elsewhere than in an installed service all of it belongs to one user.

An installed service has two users, who do not trust each other, and whose group has all of it: the set-group-ID bit of
the state directory says so. Its directories are made by systemd-tmpfiles (systemd/tmpfiles.conf), so that neither user
can rename or replace them:

    the directory itself, spool/  root's: nobody adds, renames or removes anything there
    spool/<bucket>/               the API's, for both to write in: made, marked and removed by either
    queue/, locks/, bells/        the worker's: it alone makes, renames and removes what is there
    queue/shard-<n>/              made by the worker, for both to write in: SQLite's files come and go there
    activity/                     the worker's: it alone writes there, and its group reads
    lost+found/, instances/       the worker's
    access/                       the API's, closed to its group: the worker neither reads nor makes who may do what
    partials/                     the API's, its files closed to its group, which may count them: the worker takes
                                  nothing from there

Root becomes the worker's user (`daemon.process.privileges`) before it works there.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final

from daemon.errors import CannotStart
from daemon.model.upload import BUCKETS
from daemon.state.files import NotOwn, is_own, open_own, opened, spread
from daemon.state.room import NO_ROOM, explained

#: Name of the file that says how many shards there are.
SHARDS_FILE: Final = "shards"
#: Name of a shard's database.
DATABASE_FILE: Final = "data.db"
#: What no other configuration and no other permission would help against: the disk or the machine is in trouble.
_TROUBLE: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Layout:
    """The paths of one state directory. Cheap: nothing is touched until `create`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.queue = directory / "queue"
        self.locks = directory / "locks"
        self.bells = directory / "bells"
        self.activities = directory / "activity"
        self.lost_found = directory / "lost+found"
        self.instances = directory / "instances"
        self.access = directory / "access"
        self.partials = directory / "partials"
        #: Where the first version kept the idempotency keys of all shards.
        self.common_keys = self.queue / "keys"
        self.shards_file = self.queue / SHARDS_FILE
        self.released = self.queue / "released"
        self.incus_met = self.queue / "incus-met"
        self.append_lock = self.locks / "append"
        self.migration_lock = self.locks / "migration"
        self.schema_lock = self.locks / "schema"
        #: Which host uses the state.
        self.host_token = self.locks / "host"
        #: The database of the tokens that clients made for a part of their own rights.
        self.handed_on = self.access / "handed-on"
        #: What clients chose in order to act on it: a file for each selection.
        self.selections = self.access / "selections"
        #: The figures of the last hour.
        self.history = self.access / "history"

    def counted(self, number: int) -> Path:
        """A file in which an API process keeps what it counts."""
        return self.access / f"counted-{number:02d}"

    def bucket(self, bucket: int) -> Path:
        """The directory of one bucket's uploads."""
        return self.spool / f"{bucket:02x}"

    def shard(self, shard: int) -> Path:
        """The directory of one shard's database."""
        return self.queue / f"shard-{shard:02d}"

    def database(self, shard: int) -> Path:
        """The database of one shard."""
        return self.shard(shard) / DATABASE_FILE

    def reserves(self, shard: int, files: int) -> list[Path]:
        """The files that hold room for the shard's worker to finish its work on a full disk."""
        return [self.shard(shard) / name for name in ("reserve", *(f"reserve-{number}" for number in range(1, files)))]

    def log(self, shard: int) -> Path:
        """The write-ahead log that SQLite keeps beside the shard's database."""
        return self.shard(shard) / f"{DATABASE_FILE}-wal"

    def in_use(self, shard: int) -> Path:
        """A file that is there while the shard's worker runs, and after it died."""
        return self.shard(shard) / "in-use"

    def suspect(self, shard: int) -> Path:
        """A file that asks the shard's worker to look through its database."""
        return self.shard(shard) / "suspect"

    def condemned(self, shard: int) -> Path:
        """A file that asks the next worker of the shard to set its database aside."""
        return self.shard(shard) / "damaged"

    def lock(self, shard: int) -> Path:
        """The file whose lock the shard's worker holds."""
        return self.locks / f"shard-{shard:02d}"

    def pulse(self, shard: int) -> Path:
        """The file that changes whenever something happens in the shard."""
        return self.bells / f"pulse-{shard:02d}"

    def bell(self, shard: int) -> Path:
        """The FIFO that wakes the shard's worker."""
        return self.bells / f"shard-{shard:02d}"

    def activity(self, shard: int) -> Path:
        """The file in which the shard's worker tells what it is doing."""
        return self.activities / f"worker-{shard:02d}"

    @cached_property
    def shared(self) -> bool:
        """True when the directory's group shares the state (the set-group-ID bit says so)."""
        return bool(self.directory.stat().st_mode & stat.S_ISGID)

    @property
    def file_mode(self) -> int:
        """Permission bits of a new file."""
        return 0o660 if self.shared else 0o600

    @cached_property
    def users(self) -> frozenset[int]:
        """The users whose files the state may hold: those of the queue and of the uploads, and this process's."""
        return frozenset({os.geteuid(), *(os.lstat(path).st_uid for path in (self.queue, self.bucket(0))
                                          if os.path.lexists(path))})

    def open(self, path: Path, flags: int, *, is_kind: Callable[[int], bool] = stat.S_ISREG) -> int:
        """A descriptor of a file in here, made if `flags` say so. Nothing is waited for and no link followed.

        Raises NotOwn (an OSError) for what is not of the kind (a regular file), has a second name, or is another
        user's, and OSError.
        """
        return open_own(self.directory, path, flags, self.file_mode, owners=self.users, is_kind=is_kind)

    def check(self, path: Path) -> None:
        """Raise as `open` does when the name is taken by something that `open` would refuse; it is not opened."""
        with opened(self.directory, path.parent) as directory, contextlib.suppress(FileNotFoundError):
            if not is_own(os.stat(path.name, dir_fd=directory, follow_symlinks=False), self.users):
                raise NotOwn(path)

    def read(self, path: Path, limit_bytes: int) -> bytes:
        """The first bytes of a small file in here. Raises as `open` does."""
        descriptor = self.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, limit_bytes, 0)
        finally:
            os.close(descriptor)

    def touch(self, path: Path) -> None:
        """Make an empty file in here that all users of the state may write, unless something has the name."""
        try:
            descriptor = self.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        except FileExistsError:
            return
        try:
            os.fchmod(descriptor, self.file_mode)
        finally:
            os.close(descriptor)

    def open_made(self, path: Path) -> int:
        """A descriptor of a file in here, for reading and writing; it is made if it is missing. Raises as `open`."""
        self.touch(path)
        return self.open(path, os.O_RDWR)

    def open_shown(self, path: Path) -> int:
        """A descriptor of a file that the group reads and nobody else writes, made if missing. Raises as `open`."""
        descriptor = self.open(path, os.O_CREAT | os.O_RDWR)
        mode = self.file_mode & 0o640
        try:
            # A change needs room on the disk, also one that changes nothing.
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                os.fchmod(descriptor, mode)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def create(self) -> None:
        """Make what is missing, durably, and set this process's umask to fit.

        Raises CannotStart: 'bad_config' when the directory cannot be made or is not this service's own,
        'unsafe_state' when two users share it and it is not safe from them, or this is root, 'read_only_state' when
        nothing can be written there, 'queue_full' when there is no room, 'io_error' when the disk fails.
        """
        try:
            self._make_top()
            if os.statvfs(self.directory).f_flag & os.ST_RDONLY:
                raise self.read_only()
            self._shut_out_others()
            if self.shared:
                self._check_shared()
            os.umask(0o007 if self.shared else 0o077)
            made = self._make_spool()
            # Not `any` alone: all of them are to be made.
            if any([made, *map(self._make, self._directories()), self._make(self.access, 0o700),
                    self._make(self.partials, 0o750)]):
                for path in (self.directory, self.spool, self.queue):
                    sync_directory(path)
        except OSError as error:
            if error.errno == errno.EROFS and self.directory.is_dir():
                raise self.read_only() from error
            if error.errno in NO_ROOM:
                reason = explained(error, self.directory).strerror
                raise CannotStart("queue_full", f"state.directory {self.directory}: {reason}") from error
            if error.errno in _TROUBLE:
                raise CannotStart("io_error", f"state.directory {self.directory}: {error.strerror}") from error
            raise CannotStart(
                "bad_config", f"state.directory {self.directory}: {error.strerror}; make it, or give it to this user"
                              " (where systemd runs the service: systemd-tmpfiles --create incus-courier.conf)",
            ) from error

    def read_only(self) -> CannotStart:
        """The error of a state that nothing can be written to."""
        return CannotStart("read_only_state", f"state.directory {self.directory} is on a read-only filesystem")

    def _make_top(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not self.directory.is_dir():
                raise
            return
        # A set-group-ID bit that it got from the directory above would say that two users share it.
        self.directory.chmod(0o700)

    def _check_shared(self) -> None:
        """Raise CannotStart unless neither of two users can replace a directory here, and this is not root."""
        if os.geteuid() == 0:
            raise CannotStart("unsafe_state", f"state.directory {self.directory} is shared by its group: root does not"
                                              " work in it; start the service as its users")
        if self.directory.stat().st_uid != 0:
            # All of it is one user's own, who lets a group in.
            return
        for path, of_root in ((self.directory, True), (self.spool, True), *((path, False) for path in self._workers())):
            found = path.stat() if path == self.directory else path.lstat()
            if found.st_mode & stat.S_IWGRP or (found.st_uid == 0) is not of_root:
                raise CannotStart("unsafe_state", f"{path} can be replaced or filled by either user of the service")

    def check_roots(self) -> None:
        """Raise CannotStart('unsafe_state') when root is not alone here: another user or a group has a part of it."""
        parts = (path.lstat() for path in (*self._directories(), self.access, self.partials) if os.path.lexists(path))
        if any(found.st_uid != 0 for found in parts) or (os.path.isdir(self.directory) and self.shared):
            raise CannotStart("unsafe_state", f"state.directory {self.directory}: a part of it belongs to others, and"
                                              " whose it is cannot be told: root does not work in it")

    def _shut_out_others(self) -> None:
        mode = stat.S_IMODE(self.directory.stat().st_mode)
        if not mode & stat.S_IRWXO:
            return
        # One look: another process of the service may be making its directories, the spool before all others.
        held = set(os.listdir(self.directory))
        if self.spool.name not in held and held - {self.lost_found.name, self.instances.name}:
            # Such as /tmp, which others need.
            raise CannotStart("bad_config", f"state.directory {self.directory} is open to everyone and holds other"
                                            " things; name a directory that is the service's own")
        self.directory.chmod(mode & ~stat.S_IRWXO)

    def _directories(self) -> list[Path]:
        # The spool first: it tells that a directory is the service's own.
        return [self.spool, *self._workers(), *(self.bucket(number) for number in range(BUCKETS))]

    def _workers(self) -> list[Path]:
        """The directories in which the worker alone makes and removes things, where two users share the state."""
        return [self.queue, self.locks, self.bells, self.activities, self.lost_found]

    def _make_spool(self) -> bool:
        made = self._make(self.spool)
        if made:
            spread(self.spool)
        return made

    def _make(self, path: Path, mode: int = 0o770) -> bool:
        try:
            path.mkdir(mode)
        except FileExistsError:
            return False
        return True

    def make_shard(self, shard: int) -> None:
        """Make the shard's directory and an empty database file that both users may write."""
        try:
            if self._make(self.shard(shard)):
                sync_directory(self.queue)
        except PermissionError as error:
            raise PermissionError(error.errno, "its worker has to make it first", error.filename) from error
        self.touch(self.database(shard))


def inode(path: str | Path) -> int:
    """The inode of the file that has the name now; 0 when there is none."""
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return 0


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
