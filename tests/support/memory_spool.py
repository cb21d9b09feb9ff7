"""A spool that keeps its bytes in memory, and nothing clever: what another keeper behind the door has to do."""

import hashlib
import io
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from daemon.errors import Rejected, Undelivered
from daemon.model.upload import Upload
from daemon.spool import CheckedSpool, Found, Incoming, Mark, Name, Opened, Sealed, Stopped, Undecided, same_upload


@dataclass
class _Kept:
    upload: Upload
    data: bytes
    mark: Mark = Mark.PENDING
    decided: bool = False


@dataclass
class Shelf:
    """What is in the memory, for all who open it: by bucket, then by task."""

    buckets: dict[int, dict[str, _Kept]] = field(default_factory=dict)
    changed: dict[int, float] = field(default_factory=dict)
    #: What is doubtful, by where it is kept.
    aside: dict[str, object] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def bucket(self, bucket: int) -> dict[str, _Kept]:
        """What is in one of the buckets."""
        return self.buckets.setdefault(bucket, {})

    def put_aside(self, what: str, thing: object) -> str:
        """Keep a thing that is doubtful; say where."""
        where = f"aside/{what}-{next(self.numbers)}"
        self.aside[where] = thing
        return where


class MemorySealed:
    """See daemon.spool.Sealed."""

    def __init__(self, kept: _Kept) -> None:
        """It is there, and not decided."""
        self._kept = kept

    @property
    def upload(self) -> Upload:
        """See daemon.spool.Sealed."""
        return self._kept.upload

    def release(self) -> None:
        """See daemon.spool.Sealed."""
        self._kept.decided = True


class MemoryIncoming:
    """See daemon.spool.Incoming."""

    def __init__(self, shelf: Shelf) -> None:
        """Nothing has come."""
        self._shelf = shelf
        self._data = bytearray()
        self._sha256 = hashlib.sha256()

    @property
    def size(self) -> int:
        """See daemon.spool.Incoming."""
        return len(self._data)

    def write(self, data: bytes) -> None:
        """See daemon.spool.Incoming."""
        self.hash([data])
        self.store([data])

    def hash(self, pieces: Sequence[bytes]) -> None:
        """See daemon.spool.Incoming."""
        for piece in pieces:
            self._sha256.update(piece)

    def store(self, pieces: Sequence[bytes]) -> None:
        """See daemon.spool.Incoming."""
        for piece in pieces:
            self._data += piece

    def hexdigest(self) -> str:
        """See daemon.spool.Incoming."""
        return self._sha256.hexdigest()

    def complete(self, upload: Upload) -> None:
        """See daemon.spool.Incoming."""

    def seal(self, upload: Upload) -> MemorySealed:
        """See daemon.spool.Incoming."""
        bucket = upload.destination.bucket
        kept = self._shelf.bucket(bucket)[upload.task_id] = _Kept(upload, bytes(self._data))
        self._shelf.changed[bucket] = time.time()
        return MemorySealed(kept)

    def discard(self) -> None:
        """See daemon.spool.Incoming."""


class MemorySpool(CheckedSpool):
    """A spool on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        """Open it: there may be something on it."""
        self._shelf = shelf

    def close(self) -> None:
        """See daemon.spool.Spool."""

    # --- receiving ---------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """See daemon.spool.Room."""
        return 2**30

    def is_in_place(self) -> bool:
        """See daemon.spool.Room."""
        return True

    def holds(self, bucket: int, task_id: str) -> bool:
        """See daemon.spool.Holdings."""
        return task_id in self._shelf.bucket(bucket)

    def is_empty(self) -> bool:
        """See daemon.spool.Holdings."""
        return not any(self._shelf.buckets.values())

    def begin(self, expected_bytes: int | None = None) -> MemoryIncoming:
        """See daemon.spool.Receive."""
        return MemoryIncoming(self._shelf)

    def seal_all(self, batch: Sequence[tuple[Incoming, Upload]]) -> Sequence[Sealed | Rejected]:
        """See daemon.spool.Receive."""
        return [incoming.seal(upload) for incoming, upload in batch]

    def withdraw_all(self, sealed: Sequence[Sealed]) -> Sequence[Rejected | None]:
        """See daemon.spool.Receive."""
        self.remove(each.upload for each in sealed)
        return [None] * len(sealed)

    # --- what was accepted -------------------------------------------------------------------------------

    def open(self, upload: Upload) -> Opened:
        """See daemon.spool.Open."""
        return io.BytesIO(self._find(upload).data)

    def open_pending(self, upload: Upload) -> Opened:
        """See daemon.spool.Open."""
        kept = self._find(upload)
        if kept.mark is not Mark.PENDING:
            raise Stopped(kept.mark)
        return io.BytesIO(kept.data)

    def _find(self, upload: Upload) -> _Kept:
        kept = self._shelf.bucket(upload.destination.bucket).get(upload.task_id)
        if kept is None:
            raise Undelivered("bytes_missing")
        if not same_upload(kept.upload, upload):
            raise Undelivered("invalid_row", "It is another upload.")
        return kept

    def mark(self, upload: Upload, mark: Mark) -> None:
        """See daemon.spool.SetMark."""
        kept = self._shelf.bucket(upload.destination.bucket).get(upload.task_id)
        if kept is not None:
            kept.mark = mark

    def remove(self, uploads: Iterable[Upload]) -> dict[str, str]:
        """See daemon.spool.Remove."""
        for upload in uploads:
            self._shelf.bucket(upload.destination.bucket).pop(upload.task_id, None)
        return {}

    # --- comparing ---------------------------------------------------------------------------------------

    def changed_at(self, bucket: int) -> float:
        """See daemon.spool.CheckedSpool."""
        return self._shelf.changed.get(bucket, 0.0)

    def scan(self, bucket: int) -> Iterator[Name]:
        """See daemon.spool.CheckedSpool."""
        for task_id, kept in list(self._shelf.bucket(bucket).items()):
            yield Name(bucket, task_id, task_id, kept.mark)

    def look(self, bucket: int, task_id: str, expected: Mark = Mark.PENDING) -> Found | None:
        """See daemon.spool.CheckedSpool."""
        kept = self._shelf.bucket(bucket).get(task_id)
        return None if kept is None else Found(kept.mark, len(kept.data))

    def examine(self, name: Name) -> Upload:
        """See daemon.spool.CheckedSpool."""
        kept = self._shelf.bucket(name.bucket).get(name.task_id)
        if kept is None:
            raise FileNotFoundError(name.task_id)
        if not kept.decided:
            raise Undecided
        return kept.upload

    def move(self, name: Name, bucket: int) -> bool:
        """See daemon.spool.CheckedSpool."""
        if name.task_id in self._shelf.bucket(bucket):
            return False
        self._shelf.bucket(bucket)[name.task_id] = self._shelf.bucket(name.bucket).pop(name.task_id)
        return True

    def where(self, name: Name) -> str:
        """See daemon.spool.CheckedSpool."""
        return f"memory/{name.bucket}/{name.task_id}"

    def set_aside(self, name: Name) -> str:
        """See daemon.spool.CheckedSpool."""
        return self._shelf.put_aside(name.task_id, self._shelf.bucket(name.bucket).pop(name.task_id))

    def keep_note(self, name: str, text: str) -> str:
        """See daemon.spool.CheckedSpool."""
        return self._shelf.put_aside(name, text)
