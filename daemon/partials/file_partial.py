"""One resumable upload in its files, held by one request; see `daemon.partials.Partial`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.upload import Upload
from daemon.partials.head_format import Extent, Record, tellable
from daemon.partials.heads import HEAD, Head, next_record
from daemon.partials.values import PartialState, Phase, Plan
from daemon.spool import Incoming
from daemon.spool.file_format import Portion, ends_with
from daemon.spool.store import FileSpool
from daemon.spool.writer import FileIncoming, Naming, rejected, write_all
from daemon.state.files import is_own, unlink_and_sync
from daemon.state.layout import Layout
from daemon.state.rename import rename_new

#: More pieces are put together before they are written: the system takes 1024 at once.
_PIECES: Final = 512
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FilePartial:
    """One upload, with the lock of its head. One thread at a time, but for `is_wanted`."""

    def __init__(
        self, directory: int, spool: FileSpool, layout: Layout, upload_id: str, head: Head, plan: Plan, record: Record,
    ) -> None:
        """`head` is locked, and `record` is what it says."""
        self._directory = directory
        self._spool = spool
        self._layout = layout
        self._head = head
        self._record = record
        self._bytes = -1
        #: True when the bytes have been in the spool.
        self.is_spooled = False
        self.upload_id = upload_id
        self.plan = plan
        #: Bytes that were stored.
        self.size = record.state.offset

    @classmethod
    def open(
        cls, directory: int, spool: FileSpool, layout: Layout, upload_id: str, head: Head,
    ) -> "FilePartial | None":
        """Open the upload of a head that is locked; None when it has gone, or its bytes have.

        Raises Rejected('storage_failed'). The head is closed then.
        """
        try:
            if head.is_gone():
                head.close()
                return None
            partial = cls(directory, spool, layout, upload_id, head, head.read_plan(), head.read())
            partial._open_bytes()
        except FileNotFoundError:
            head.close()
            return None
        except (OSError, ValueError) as error:
            head.close()
            raise Rejected("storage_failed", f"A resumable upload: {error}") from error
        return partial

    def _open_bytes(self) -> None:
        state = self.state
        if state.phase is Phase.COMPLETE:
            return
        try:
            self._bytes = self._open(self.upload_id, self._directory)
        except FileNotFoundError:
            if state.upload is None:
                raise
            self._open_spooled(state.upload)
            return
        found = os.fstat(self._bytes).st_size
        if found < (state.offset if state.upload is None else state.upload.size):
            # A record whose sync failed was on the disk after all, and nobody had been told.
            self._record = replace(self._record, chosen=Extent(), state=replace(
                state, offset=min(state.offset, found), phase=Phase.RECEIVING, upload=None))
        self.size = self.state.offset if self.state.upload is None else self.state.upload.size

    def _open_spooled(self, upload: Upload) -> None:
        """Its bytes were moved: they wait in the spool, or have been taken from there."""
        self.is_spooled, self.size = True, upload.size
        try:
            self._bytes = self._open(upload.task_id, self._spool.directory(upload.destination.bucket))
        except FileNotFoundError:
            return

    def _open(self, name: str, directory: int) -> int:
        descriptor = os.open(name, _FLAGS, dir_fd=directory)
        if not is_own(os.fstat(descriptor), self._layout.users):
            os.close(descriptor)
            raise ValueError(f"{name} is not a plain file of the service's own.")
        return descriptor

    @property
    def state(self) -> PartialState:
        """How it stands, durably."""
        return self._record.state

    @property
    def is_taken(self) -> bool:
        """True when all of it was in the spool and has left it, or is marked there: its task has a row, or had one."""
        return self.is_spooled and self._bytes < 0

    def is_wanted(self) -> bool:
        """True when a newer request waits for it. From any thread."""
        return self._head.is_wanted()

    def rewind(self) -> None:
        """Drop what was stored after `state.offset`."""
        self.size = self.state.offset
        try:
            if os.fstat(self._bytes).st_size != self.size:
                os.ftruncate(self._bytes, self.size)
        except OSError as error:
            raise rejected(error) from error

    def store(self, pieces: Sequence[bytes]) -> None:
        """Add bytes."""
        try:
            failpoints.reach("partials.write")
            write_all(self._bytes, pieces if len(pieces) <= _PIECES else [b"".join(pieces)], self.size)
        except OSError as error:
            raise rejected(error) from error
        self.size += sum(map(len, pieces))

    def read(self, offset: int, most: int) -> bytes:
        """Up to `most` of the bytes that were stored, from `offset` on."""
        try:
            return os.pread(self._bytes, min(most, max(0, self.size - offset)), offset)
        except OSError as error:
            raise rejected(error) from error

    def keep(self, now: float, length: int | None = None) -> None:
        """Make what was stored durable, and then that it may be told."""
        try:
            if failpoints.reach("partials.sync"):
                os.fdatasync(self._bytes)
        except OSError as error:
            raise rejected(error) from error
        state = self.state if length is None else replace(self.state, length=length)
        self._write(replace(state, offset=tellable(state, self.size), changed_at=now))

    def choose(self, upload: Upload) -> None:
        """Say durably what all of it becomes."""
        assert upload.size == self.size
        try:
            where = self._head.write_choice(self.plan, upload)
            record = next_record(self._record, replace(
                self.state, length=upload.size, phase=Phase.COMPLETING, upload=upload), where)
            self._head.write(record)
            failpoints.reach("partials.chosen")
        except OSError as error:
            raise rejected(error) from error
        self._record = record

    def incoming(self) -> Incoming:
        """What was chosen, to be sealed in the spool. Its bytes are that one's from now on."""
        upload = self.state.upload
        assert upload is not None
        descriptor, self._bytes = self._bytes, -1
        try:
            os.fchmod(descriptor, self._layout.file_mode)
            naming: Naming = _Spooled() if self.is_spooled else _Renamed(self._directory, self.upload_id)
            return _Whole(descriptor, self._spool.directory, naming, upload)
        except OSError as error:
            os.close(descriptor)
            raise rejected(error) from error

    def conclude(self, task_id: str, now: float) -> None:
        """Say durably which task stands for it; the bytes that are here are let go."""
        length = self.state.length
        assert length is not None
        self._write(replace(self.state, offset=length, changed_at=now, phase=Phase.COMPLETE, task_id=task_id))
        # A repeated key: another task stands for it, and its bytes came back.
        self._remove(self.upload_id)

    def remove(self) -> None:
        """Leave nothing of it here, durably."""
        try:
            failpoints.reach("partials.remove")
            self._remove(self.upload_id + HEAD)
            self._remove(self.upload_id)
            os.fsync(self._directory)
        except OSError as error:
            raise rejected(error) from error

    def _remove(self, name: str) -> None:
        try:
            unlink_and_sync(name, self._directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise rejected(error) from error

    def _write(self, state: PartialState) -> None:
        record = next_record(self._record, state)
        try:
            if state.phase is Phase.COMPLETE:
                failpoints.reach("partials.conclude")
            self._head.write(record)
        except OSError as error:
            raise rejected(error) from error
        self._record = record

    def release(self) -> None:
        """Let it go. May be called again."""
        if self._bytes >= 0:
            descriptor, self._bytes = self._bytes, -1
            os.close(descriptor)
        self._head.close()


class _Whole(FileIncoming):
    """All bytes of an upload, on the disk; what it is may follow them already."""

    def __init__(self, descriptor: int, directory_of: Callable[[int], int], naming: Naming, upload: Upload) -> None:
        super().__init__(lambda: descriptor, directory_of, naming)
        self.size = self._written_bytes = self._durable_bytes = upload.size
        # What follows is cut off before it is written anew.
        self._reserved = True
        whole = Portion(0, os.fstat(self._descriptor).st_size)
        self._ended = self._synced = isinstance(naming, _Spooled) and ends_with(descriptor, whole, upload)


class _Renamed(Naming):
    """The file moves from here into the bucket; when that is taken back, it moves here again."""

    def __init__(self, directory: int, upload_id: str) -> None:
        self.origin = self._here = directory
        self._upload_id = upload_id

    def name(self, descriptor: int, directory: int, task_id: str) -> None:
        failpoints.reach("partials.rename")
        rename_new(self._upload_id, task_id, src_dir_fd=self._here, dst_dir_fd=directory)
        failpoints.reach("partials.renamed")

    def take_back(self, directory: int, task_id: str) -> None:
        rename_new(task_id, self._upload_id, src_dir_fd=directory, dst_dir_fd=self._here)


class _Spooled(Naming):
    """The file has its name already. Recovery may have queued it: so that is not taken back."""

    origin = None

    def name(self, descriptor: int, directory: int, task_id: str) -> None:
        named = os.stat(task_id, dir_fd=directory, follow_symlinks=False)
        if not os.path.samestat(named, os.fstat(descriptor)):
            raise FileNotFoundError(task_id)

    def take_back(self, directory: int, task_id: str) -> None:
        raise FileExistsError(f"{task_id} may be in the queue")
