"""Resumable uploads in files: `<id>` has the bytes, `<id>.head` how the upload stands (`head_format`).

Guarantees: an offset is written down, durably, only after the bytes before it are on the disk; what else a file of
bytes holds was told to nobody, and is cut off before more is added. Who changes an upload holds a lock on its head,
which ends with its process. The head is made whole before it has its name, and after the file of bytes; so what has no
head was left by a crash.
"""

import contextlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from daemon import failpoints
from daemon.errors import Rejected
from daemon.partials.file_partial import FilePartial
from daemon.partials.head_format import PLAN_AT, Record, plan_json, record_bytes, text_bytes
from daemon.partials.heads import HEAD, Head, open_head
from daemon.partials.values import Census, PartialState, Phase, Plan
from daemon.spool import Spool
from daemon.spool.store import FileSpool
from daemon.spool.writer import rejected
from daemon.state.files import link_and_sync, unlink_and_sync
from daemon.state.layout import Layout
from daemon.state.room import explained

_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")
#: What is counted may be so old.
CENSUS_S: Final = 0.2
#: A head that changed so shortly before it was read may change again without its time telling so.
_UNSETTLED_NS: Final = 10**9
#: What a crash left is so old at least; who makes an upload has its head by then.
LEFT_S: Final = 3600.0
_UNNAMED: Final = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
_OPEN: Final = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Known:
    """What was last seen of one upload, and when its head had changed then; 0 where that does not tell changes."""

    changed_ns: int
    owner: str
    created_at: float
    state: PartialState


class FilePartials:
    """The resumable uploads of a state directory; see `daemon.partials.Partials`."""

    def __init__(self, layout: Layout, spool: Spool) -> None:
        """`spool` gets what is complete."""
        self._layout = layout
        # It is one of files: what is complete is renamed into it.
        self._spool = cast(FileSpool, spool)
        self._opened: int | None = None
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._counted_at = 0.0

    @property
    def _directory(self) -> int:
        with self._lock:
            if self._opened is None:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._opened = os.open(self._layout.partials, flags)
            return self._opened

    def is_in_place(self) -> bool:
        """False when the directory is gone or replaced, or is on another filesystem than the spool."""
        try:
            named, opened = os.lstat(self._layout.partials), os.fstat(self._directory)
            return os.path.samestat(named, opened) and opened.st_dev == os.stat(self._layout.bucket(0)).st_dev
        except OSError:
            return False

    def create(self, plan: Plan, length: int | None) -> str:
        """Make one, durably; return its id. Raises Rejected('no_room' or 'storage_failed')."""
        if not self.is_in_place():
            raise Rejected("storage_failed", "The directory of resumable uploads is gone, or not on the spool's disk.")
        upload_id = secrets.token_urlsafe(16)
        state = PartialState(offset=0, length=length, changed_at=plan.created_at)
        try:
            self._make(upload_id, plan, state)
        except OSError as error:
            self._unlink(upload_id, upload_id + HEAD)
            raise rejected(explained(error, self._layout.partials)) from error
        with self._lock:
            self._known[upload_id] = _Known(0, plan.owner, plan.created_at, state)
        return upload_id

    def _make(self, upload_id: str, plan: Plan, state: PartialState) -> None:
        directory = self._directory
        failpoints.reach("partials.create")
        with (
            os.fdopen(os.open(upload_id, _OPEN, 0o600, dir_fd=directory), "wb", 0) as empty,
            os.fdopen(os.open(".", _UNNAMED, 0o600, dir_fd=directory), "wb", 0) as unnamed,
        ):
            descriptor = unnamed.fileno()
            # Both blocks are there from the beginning: later records only replace them.
            head = record_bytes(Record(0, state)).ljust(PLAN_AT, b"\0") + text_bytes(plan_json(plan))
            if os.pwrite(descriptor, head, 0) < len(head):
                os.posix_fallocate(descriptor, 0, len(head))
                os.pwrite(descriptor, head, 0)
            os.fsync(descriptor)
            # Its name alone is no file yet where ext4 has no journal.
            os.fsync(empty.fileno())
            link_and_sync(descriptor, upload_id + HEAD, directory)
        if failpoints.reach("partials.created"):
            os.fsync(directory)

    def _unlink(self, *names: str) -> None:
        for name in names:
            try:
                unlink_and_sync(name, self._directory)
            except OSError:
                # The sweep removes it.
                continue

    def want(self, upload_id: str) -> "FileTurn | None":
        """A turn to hold one, the newest; None when there is none."""
        head = self._open(upload_id)
        return None if head is None else FileTurn(self, upload_id, head)

    def find(self, upload_id: str) -> tuple[Plan, PartialState] | None:
        """How one stands, whoever holds it; None when there is none."""
        head = self._open(upload_id)
        if head is None:
            return None
        try:
            with head:
                return head.read_plan(), head.read().state
        except (OSError, ValueError) as error:
            raise Rejected("storage_failed", f"A resumable upload: {error}") from error

    def _open(self, upload_id: str) -> Head | None:
        if _ID.fullmatch(upload_id) is None:
            return None
        try:
            return open_head(self._directory, upload_id, self._layout.users)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise rejected(error) from error

    def census(self, *, fresh: bool = False) -> Census:
        """What there is of unfinished ones; unless `fresh` it may be `CENSUS_S` old."""
        return _sum(self._look(fresh=fresh))

    def census_under(self, owner: str) -> Census:
        """What there is of unfinished ones of that name and of all below it."""
        return _sum([one for one in self._look() if one.owner == owner or one.owner.startswith(f"{owner}/")])

    def _look(self, *, fresh: bool = False) -> list[_Known]:
        with self._lock:
            began = time.monotonic()
            is_fresh = not fresh and began - self._counted_at < CENSUS_S
            before = known = dict(self._known)
        if not is_fresh:
            try:
                known = self._looked(before)
            except OSError as error:
                raise rejected(error) from error
            with self._lock:
                # What this process has made meanwhile may be missing.
                known |= {upload_id: one for upload_id, one in self._known.items()
                          if upload_id not in before and upload_id not in known}
                self._known, self._counted_at = known, began
        return [one for one in known.values() if one.state.phase is not Phase.COMPLETE]

    def _looked(self, known: dict[str, _Known]) -> dict[str, _Known]:
        """What is there; only what has changed is read again."""
        found = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                upload_id = entry.name.removesuffix(HEAD)
                if entry.name == upload_id:
                    continue
                try:
                    changed_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                    before = known.get(upload_id)
                    found[upload_id] = before if before and before.changed_ns == changed_ns else self._read(
                        upload_id, changed_ns)
                except (OSError, Rejected):
                    # It has just gone, or is damaged.
                    continue
        return found

    def _read(self, upload_id: str, changed_ns: int) -> _Known:
        looked = self.find(upload_id)
        if looked is None:
            raise FileNotFoundError(upload_id)
        plan, state = looked
        is_settled = changed_ns < time.time_ns() - _UNSETTLED_NS
        return _Known(changed_ns if is_settled else 0, plan.owner, plan.created_at, state)

    def sweep(self, now: float, expire_s: float) -> Sequence[str]:
        """Remove what nothing was heard of for so long, and what crashes left; return the ids of unfinished ones."""
        try:
            names = set(os.listdir(self._directory))
            gone = [upload_id for name in sorted(names) if (upload_id := name.removesuffix(HEAD)) != name
                    if self._expire(upload_id, now - expire_s)]
            for name in names:
                if not name.endswith(HEAD) and name + HEAD not in names:
                    self._remove_left(name, now - LEFT_S)
        except OSError as error:
            raise rejected(error) from error
        return gone

    def _expire(self, upload_id: str, before: float) -> bool:
        """Remove one that nothing was heard of since then, unless somebody holds it; True for an unfinished one."""
        head = None
        try:
            head = self._open(upload_id)
            # Who holds it is not told: it goes on.
            if head is None or head.read().state.changed_at >= before or not head.lock():
                return False
            partial = self.take(upload_id, head)
            # Of no use without its bytes.
            return self._remove_left(upload_id + HEAD, before) if partial is None else _expired(partial, before)
        except (OSError, ValueError, Rejected):
            return self._remove_left(upload_id + HEAD, before)
        finally:
            if head is not None:
                head.close()

    def _remove_left(self, name: str, before: float) -> bool:
        """Remove a file that is as old as that, and of no use; True when it was."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            if found.st_mtime < before and stat.S_ISREG(found.st_mode):
                unlink_and_sync(name, self._directory)
                return True
        return False

    def close(self) -> None:
        """Let go of the directory."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            os.close(opened)

    def take(self, upload_id: str, head: Head) -> FilePartial | None:
        """What a turn gives once it has the lock; None when the upload has gone meanwhile."""
        return FilePartial.open(self._directory, self._spool, self._layout, upload_id, head)


class FileTurn:
    """A turn to hold an upload; see `daemon.partials.Turn`."""

    def __init__(self, partials: FilePartials, upload_id: str, head: Head) -> None:
        self._partials = partials
        self._upload_id = upload_id
        self._head: Head | None = head
        try:
            head.want()
        except OSError as error:
            head.close()
            raise rejected(error) from error

    def take(self) -> FilePartial | None:
        """Take hold of it; None: not yet. Raises Rejected('upload_not_found', 'upload_busy' or 'storage_failed')."""
        head = self._head
        assert head is not None
        if head.is_wanted():
            raise Rejected("upload_busy", "A newer request wants this upload.")
        if not head.lock():
            return None
        # It is the upload's from now on.
        self._head = None
        partial = self._partials.take(self._upload_id, head)
        if partial is None:
            raise Rejected("upload_not_found")
        return partial

    def leave(self) -> None:
        """Do without it. May be called again, and after it was taken."""
        if self._head is not None:
            self._head.close()
            self._head = None


def _expired(partial: FilePartial, before: float) -> bool:
    try:
        state = partial.state
        if state.changed_at >= before:
            return False
        partial.remove()
        return state.phase is Phase.RECEIVING or (state.phase is Phase.COMPLETING and not partial.is_spooled)
    finally:
        partial.release()


def _sum(some: Sequence[_Known]) -> Census:
    states = [one.state for one in some]
    return Census(
        number=len(states), present_bytes=sum(state.offset for state in states),
        owed_bytes=sum(state.length - state.offset for state in states if state.length is not None),
        oldest_at=min((one.created_at for one in some), default=None))


def count_files(layout: Layout) -> Census:
    """What there is of unfinished ones, as anybody sees it who may list the directory but read nothing there.

    What is owed is not known then; the oldest is that to which nothing was added for longest. Raises OSError.
    """
    census = Census()
    with os.scandir(layout.partials) as entries:
        for entry in entries:
            if _ID.fullmatch(entry.name) is None:
                continue
            found = entry.stat(follow_symlinks=False)
            census = replace(census, number=census.number + 1, present_bytes=census.present_bytes + found.st_size,
                             oldest_at=min(census.oldest_at or found.st_mtime, found.st_mtime))
    return census
