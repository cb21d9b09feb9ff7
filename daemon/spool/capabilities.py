"""What can be done with the bytes of uploads, in small parts, so that whoever uses one asks for no more than that.

Whatever keeps the bytes, the values are plain: uploads, bytes, and what is in `daemon.spool.values`. Every method may
block on the disk. Where nothing else is said, OSError says that the spool cannot do it.
"""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from daemon.errors import Rejected
from daemon.model.upload import Upload
from daemon.spool.values import Found, Mark, Name


class Sealed(Protocol):
    """A durable upload whose row is not decided yet; recovery leaves it alone until it is released or withdrawn.

    Those that are sealed together may be left alone until all of them are.

    The queue takes it as it is (`daemon.task_queue.Append.put_many`). So what keeps bytes and rows in one place may
    make both durable in one commit there, and until then a crash may leave neither.
    """

    @property
    def upload(self) -> Upload:
        """What was sealed."""

    def release(self) -> None:
        """Its row is in the queue, or may be: it stays. May be called again."""


class Incoming(Protocol):
    """An upload that is being received. One thread at a time, but for `hash`. A crash leaves nothing of it."""

    @property
    def size(self) -> int:
        """Bytes received so far."""

    def write(self, data: bytes) -> None:
        """Add bytes. Raises Rejected('no_room') or Rejected('storage_failed'); discard it then."""

    def hash(self, pieces: Sequence[bytes]) -> None:
        """Half of `write`: each piece must be given to both, in order. One thread at a time, beside that of `store`."""

    def store(self, pieces: Sequence[bytes]) -> None:
        """The other half. Raises as `write` does."""

    def hexdigest(self) -> str:
        """Hexadecimal sha256 of the bytes so far."""

    def complete(self, upload: Upload) -> None:
        """Make its bytes durable, and what it is: what is left to be done when it is sealed takes no time of its own.

        It may be left out for a small one. Nothing is written after that. Raises Rejected('no_room') or
        Rejected('storage_failed'); discard it then.
        """

    def seal(self, upload: Upload) -> Sealed:
        """Seal it alone, as `Receive.seal_all` does; raise the Rejected that it would be answered with."""

    def discard(self) -> None:
        """Leave nothing of it, unless it was sealed. May be called again."""


class Room(Protocol):
    """Whether uploads can be taken in. From any thread."""

    def free_bytes(self) -> int:
        """Room for more uploads."""

    def is_in_place(self) -> bool:
        """False when what is stored now would not be found by others: nothing can be stored then."""


class Holdings(Protocol):
    """What is there. From any thread."""

    def holds(self, bucket: int, task_id: str) -> bool:
        """True when the bytes of that task are there, however they are marked."""

    def is_empty(self) -> bool:
        """True when there are no bytes at all."""


class Receive(Room, Holdings, Protocol):
    """Taking uploads in. From any thread."""

    def begin(self, expected_bytes: int | None = None) -> Incoming:
        """Start an upload; room for `expected_bytes` is kept for it from now on, if they are known.

        Raises Rejected('no_room') or Rejected('storage_failed'); nothing is left then.
        """

    def seal_all(self, batch: Sequence[tuple[Incoming, Upload]]) -> Sequence[Sealed | Rejected]:
        """Make uploads durable, together, and answer for each by itself. From here they exist.

        The answers are in the order of `batch`: Rejected('no_room') or Rejected('storage_failed') when nothing is left
        of an upload, and Rejected('outcome_unknown') when it may have stayed. None of them needs a discard after that.
        """

    def withdraw_all(self, sealed: Sequence[Sealed]) -> Sequence[Rejected | None]:
        """Take uploads back, together. Only right when their rows are certainly not in the queue.

        Answers for each, in the order of `sealed`: None when it is gone, Rejected('outcome_unknown') when it stays.
        """


class Source(Protocol):
    """The bytes of an upload as they are delivered, wherever they are: there is no file to be asked for.

    One thread at a time. Raises OSError when they cannot be read.
    """

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill `buffer` from its start; return how many bytes came. Fewer may come, and none at the end."""

    def seek(self, offset: int, /) -> int:
        """Go to a place, counted from the first byte; return it."""


class Opened(Source, Protocol):
    """The same, for whoever opened them, and has to close them."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes from where it is. Fewer may come, and none at the end."""

    def close(self) -> None:
        """Let go of them. May be called again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /,
    ) -> None: ...


class Open(Protocol):
    """Reading what was accepted. From any thread."""

    def open(self, upload: Upload) -> Opened:
        """Open the bytes of an upload for reading, at 0; what follows `upload.size` is not the upload's.

        Trusts nothing: what is kept must describe the same upload. Raises Undelivered: bytes_missing, bytes_damaged,
        invalid_row, io_error.
        """

    def open_pending(self, upload: Upload) -> Opened:
        """Open the bytes of an upload that is to be delivered, as `open` does.

        Raises Stopped besides, when it is marked as a dead letter, or as held.
        """


class SetMark(Protocol):
    """Telling the spool how a task stands, for a rebuild of the queue. From any thread."""

    def mark(self, upload: Upload, mark: Mark) -> None:
        """Mark an upload, durably. One that is gone is left gone."""


class Remove(Protocol):
    """Letting go of bytes. One thread at a time."""

    def remove(self, uploads: Iterable[Upload]) -> dict[str, str]:
        """Remove uploads, in the order given, durably; return, by task id, why those that are left are left.

        The order matters: of one path the older goes first, so that a rebuild never finds an older without
        the newer. One that is gone already counts as removed. After an OSError treat them all as still there.
        """


class Spool(Receive, Open, SetMark, Remove, Protocol):
    """All that is done with uploads while all is well."""

    def close(self) -> None:
        """Let go of everything. May be called again."""


class CheckedSpool(Spool, Protocol):
    """The spool as recovery sees it: what is there, whether it is whole, and moving what is not. One thread at a time.

    Nothing is deleted here, and nothing is overwritten.
    """

    def changed_at(self, bucket: int) -> float:
        """When a name in the bucket last came or went, in seconds since the epoch."""

    def scan(self, bucket: int) -> Iterator[Name]:
        """What is in a bucket, as it comes."""

    def look(self, bucket: int, task_id: str, expected: Mark = Mark.PENDING) -> Found | None:
        """What keeps an upload, looked for under its `expected` mark first; None when nothing does."""

    def examine(self, name: Name) -> Upload:
        """The upload of that name.

        Raises Undecided while its writer has not decided about it, or about what it was sealed with, FileNotFoundError
        when it has gone, ValueError saying why it is no whole upload of that name, and OSError when the disk cannot
        read it.
        """

    def move(self, name: Name, bucket: int) -> bool:
        """Move an upload into another bucket, durably; False when it is there already."""

    def where(self, name: Name) -> str:
        """Where it is, for people."""

    def set_aside(self, name: Name) -> str:
        """Keep what is doubtful apart, durably; say, for people, where."""

    def keep_note(self, name: str, text: str) -> str:
        """Keep a text beside what was set aside, durably; say, for people, where."""
