"""An upload on its way into the spool: unnamed while it is received, then sealed under its name, then decided about."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple, Protocol

from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.upload import Upload
from daemon.spool.file_format import MAX_PACK_BYTES, MAX_PACKED, ending, pack_ending
from daemon.state.room import NO_ROOM

#: Bytes, and pieces, that are held in memory until they are written together: a small upload is written once, whole.
_HELD_BYTES: Final = 256 * 1024
_HELD_PIECES: Final = 512
#: A larger upload has a file of its own in any case.
_MAX_PACKED_BYTES: Final = 16 * 1024
#: The steps in which a large file is sent on its way to the disk.
STEP_BYTES: Final = 8 * 2**20


class Naming(Protocol):
    """How a file that is on the disk gets its name in a bucket's directory, and how that is taken back."""

    #: A descriptor of the directory that it leaves, and comes back to; None when it has no name before.
    origin: int | None

    def name(self, descriptor: int, directory: int, task_id: str) -> None:
        """Give the open file its name in the directory. Raises OSError; it has none there then."""

    def take_back(self, directory: int, task_id: str) -> None:
        """Take the name from it. Raises OSError; it stays then."""


class _Linked(Naming):
    """An unnamed file is linked; when that is taken back, nothing is left of it."""

    origin = None

    def name(self, descriptor: int, directory: int, task_id: str) -> None:
        failpoints.reach("spool.link")
        os.link(f"/proc/self/fd/{descriptor}", task_id, dst_dir_fd=directory, follow_symlinks=True)

    def take_back(self, directory: int, task_id: str) -> None:
        os.unlink(task_id, dir_fd=directory)


_LINKED: Final = _Linked()


class _File:
    """A file that is being made, open until the last of its uploads lets go of it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        self._uploads = 1

    def share(self, uploads: int) -> None:
        """So many uploads are in it."""
        self._uploads = uploads

    def let_go(self) -> None:
        """To be called once for each of its uploads."""
        self._uploads -= 1
        if not self._uploads:
            os.close(self.descriptor)


def _no_other() -> int:
    """An upload has one file, and none after that."""
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class FileIncoming:
    """An upload that is being received; see `daemon.spool.Incoming`. Every method may block on the disk.

    It has a file once there is more of it than is held in memory, or room is kept for it; a small one may get its place
    in a pack instead.
    """

    def __init__(
        self, create: Callable[[], int], directory_of: Callable[[int], int], naming: Naming = _LINKED,
    ) -> None:
        """`create` gives a descriptor of a file without a name in a bucket; `directory_of` one of a bucket's directory.

        `create` may raise OSError.
        """
        self._create = create
        self._directory_of = directory_of
        self._naming = naming
        self._file: _File | None = None
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._written_bytes = 0
        #: So many of the first bytes are on the disk.
        self._durable_bytes = 0
        self._reserved = False
        #: Its description follows its bytes; all of it is on the disk.
        self._ended = False
        self._synced = False
        #: Bytes received so far.
        self.size = 0

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            self._file = _File(self._create())
            self._create = _no_other
        return self._file.descriptor

    def reserve(self, expected_bytes: int) -> None:
        """Keep room on the disk for it.

        Raises Rejected('no_room') or Rejected('storage_failed'); nothing is left then.
        """
        try:
            descriptor = self._descriptor
        except OSError as error:
            raise rejected(error) from error
        try:
            os.posix_fallocate(descriptor, 0, expected_bytes)
            self._reserved = True
        except OSError as error:
            if error.errno in NO_ROOM:
                self.discard()
                raise rejected(error) from error
            # A filesystem that cannot preallocate: the writes will tell.

    def write(self, data: bytes) -> None:
        """Add bytes. Raises Rejected('no_room') or Rejected('storage_failed'); discard it then."""
        self.hash((data,))
        self.store((data,))

    def hash(self, pieces: Sequence[bytes]) -> None:
        """The half of `write` that needs a processor."""
        for piece in pieces:
            self._digest.update(piece)

    def store(self, pieces: Sequence[bytes]) -> None:
        """The half of `write` that needs the disk. Raises as `write` does."""
        for piece in pieces:
            self.size += len(piece)
            self._held.append(piece)
            self._held_bytes += len(piece)
            if self._held_bytes > _HELD_BYTES or len(self._held) >= _HELD_PIECES:
                try:
                    self._write_held()
                except OSError as error:
                    raise rejected(error) from error

    def _write_held(self) -> None:
        failpoints.reach("spool.write")
        write_all(self._descriptor, self._held, self._written_bytes)
        self._written_bytes += self._held_bytes
        self._held.clear()
        self._held_bytes = 0

    def hexdigest(self) -> str:
        """Hexadecimal sha256 of the bytes so far."""
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing of it. May be called again."""
        self._create = _no_other
        file, self._file = self._file, None
        if file is not None:
            file.let_go()

    def complete(self, upload: Upload) -> None:
        """Bring all of the upload to the disk, ahead of sealing it. Nothing is written after that.

        Raises Rejected('no_room') or Rejected('storage_failed'); discard it then.
        """
        try:
            self.end(ending(upload))
            self.sync()
        except OSError as error:
            raise rejected(error) from error

    def seal(self, upload: Upload) -> "FileSealed":
        """Seal it alone; raise the Rejected that `seal_all` answers."""
        [answer] = seal_all([(self, upload)])
        if isinstance(answer, Rejected):
            raise answer
        return answer

    # --- the steps of sealing: each raises OSError, and does nothing the second time -----------------------

    def end(self, last: bytes) -> None:
        """Write what is held, and what ends the file."""
        if self._ended:
            return
        if self._reserved:
            os.ftruncate(self._descriptor, self._written_bytes)
        self._held.append(last)
        self._write_held()
        self._ended = True

    def begin_sync(self) -> None:
        """Have it on its way to the disk; wait for nothing."""
        if not self._synced:
            os.posix_fadvise(self._descriptor, self._durable_bytes, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        if not self._synced and failpoints.reach("spool.sync"):
            os.fdatasync(self._descriptor)
        self._synced = True

    def lock(self) -> None:
        """Have recovery leave the file alone while it is open."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def may_be_packed(self) -> bool:
        """True when it is small, and nothing of it has a file yet."""
        return self._file is None and self.size <= _MAX_PACKED_BYTES

    def packed(self, some: "Sequence[_Member]") -> tuple["FileIncoming", bytes]:
        """What has all of these, of which this is the first, in one file; and what ends that."""
        pack, ends = FileIncoming(self._create, self._directory_of), list[tuple[str, int]]()
        for member in some:
            # As one piece each it is less than is held: nothing is written yet, so nothing fails here.
            pack.store([b"".join((*member.incoming._held, member.last))])
            ends.append((member.task_id, pack.size))
        return pack, pack_ending(ends)

    def unpack(self, some: "Sequence[_Member]") -> None:
        """Give each of these its part in the file that they are in; this one has it no more."""
        file, self._file = self._file, None
        assert file is not None  # it is on the disk
        file.share(len(some))
        for member in some:
            member.incoming._file = file

    def link(self, upload: Upload) -> "FileSealed":
        """Give it its name. Its file is locked."""
        assert self._file is not None  # it is on the disk
        directory = self._directory_of(upload.destination.bucket)
        self._naming.name(self._file.descriptor, directory, upload.task_id)
        sealed = FileSealed(upload, self._file, directory, self._naming)
        self._file = None
        return sealed


@dataclass
class FileSealed:
    """A durable upload whose row is not decided yet.

    Its file is locked until all uploads that are in it are released or withdrawn.
    """

    upload: Upload
    _file: _File | None
    directory: int
    naming: Naming = _LINKED

    def files(self) -> tuple[int, ...]:
        """The file that it is in, until it is let go."""
        return () if self._file is None else (self._file.descriptor,)

    def directories(self) -> tuple[int, ...]:
        """The directories in which a name came or went; the new one first."""
        return (self.directory,) if self.naming.origin is None else (self.directory, self.naming.origin)

    def release(self) -> None:
        """Let go of the file; it stays."""
        file, self._file = self._file, None
        if file is not None:
            file.let_go()


Answer = FileSealed | Rejected


class _Member(NamedTuple):
    """One upload of a batch."""

    number: int
    incoming: FileIncoming
    task_id: str
    #: What follows its bytes.
    last: bytes

    @property
    def size(self) -> int:
        """What it takes in a file."""
        return self.incoming.size + len(self.last)


class _Part(NamedTuple):
    """What of a batch goes to the disk as one file."""

    incoming: FileIncoming
    #: What ends the file.
    last: bytes
    members: Sequence[_Member]


def seal_all(batch: Sequence[tuple[FileIncoming, Upload]]) -> list[Answer]:
    """Seal uploads together, and answer for each by itself; see `daemon.spool.Receive.seal_all`.

    Small ones share files. Each step is done for all of them before the next one begins: the disk brings many files to
    rest in the time that a few take, and a file or a directory is synced once. None gets its name before all of it is
    on the disk.
    """
    members = [_Member(number, incoming, upload.task_id, ending(upload))
               for number, (incoming, upload) in enumerate(batch)]
    failed = _bring_to_disk([_part_of(some) for some in _shared(members)])
    answers = [_link(incoming, upload) if number not in failed else rejected(failed[number])
               for number, (incoming, upload) in enumerate(batch)]
    return _sync(_DIRECTORIES, _sync(_FILES, answers))


def _shared(members: Sequence[_Member]) -> Iterator[list[_Member]]:
    """Which of these share a file."""
    some, size = list[_Member](), 0
    for member in members:
        if not member.incoming.may_be_packed:
            yield [member]
            continue
        if some and (len(some) == MAX_PACKED or size + member.size > MAX_PACK_BYTES):
            yield some
            some, size = [], 0
        some.append(member)
        size += member.size
    if some:
        yield some


def _part_of(members: Sequence[_Member]) -> _Part:
    first = members[0]
    incoming, last = (first.incoming, first.last) if len(members) == 1 else first.incoming.packed(members)
    return _Part(incoming, last, members)


def _bring_to_disk(parts: Sequence[_Part]) -> dict[int, OSError]:
    """Have all of these on the disk, and locked; return by number which are not, and why. Nothing is left of these.

    Whatever is wrong with what several share takes none of them along: each of them is tried again alone.
    """
    broken: dict[int, OSError] = {}
    for step in _STEPS if len(parts) > 1 else _STEPS_OF_ONE:
        for place, part in enumerate(parts):
            if place not in broken:
                try:
                    step(part)
                except OSError as error:
                    part.incoming.discard()
                    broken[place] = error
    failed: dict[int, OSError] = {}
    again: list[_Part] = []
    for place, part in enumerate(parts):
        if len(part.members) == 1:
            failed.update({part.members[0].number: broken[place]} if place in broken else {})
        elif place in broken:
            again += [_part_of([member]) for member in part.members]
        else:
            part.incoming.unpack(part.members)
    return {**failed, **_bring_to_disk(again)} if again else failed


_STEPS_OF_ONE: Final[Sequence[Callable[[_Part], None]]] = (
    lambda part: part.incoming.end(part.last), lambda part: part.incoming.sync(), lambda part: part.incoming.lock())
_STEPS: Final = (_STEPS_OF_ONE[0], lambda part: part.incoming.begin_sync(), *_STEPS_OF_ONE[1:])


def _link(incoming: FileIncoming, upload: Upload) -> Answer:
    try:
        return incoming.link(upload)
    except OSError as error:
        incoming.discard()
        return rejected(error)


class _NameSync(NamedTuple):
    """A step that makes the names of uploads durable."""

    name: str
    #: What is synced for one of them.
    of: Callable[[FileSealed], Sequence[int]]


#: How many names a file has is written with the file, not with their directories. A journal keeps these together: the
#: first sync commits all of it. Where ext4 has none, a file that says that it has no name is gone after a power cut.
_FILES: Final = _NameSync("spool.linksync", FileSealed.files)
_DIRECTORIES: Final = _NameSync("spool.dirsync", FileSealed.directories)


def _sync(step: _NameSync, answers: Sequence[Answer]) -> list[Answer]:
    """Take the step for all who have their names; for whom that fails, may have it or not."""
    failed = _sync_each(step, [answer for answer in answers if isinstance(answer, FileSealed)])
    return [_unless(_first_of(failed, step, answer), answer) if isinstance(answer, FileSealed) else answer
            for answer in answers] if failed else list(answers)


def _sync_each(step: _NameSync, some: Iterable[FileSealed]) -> dict[int, Rejected]:
    """Sync what the step is about, each once; return that for which it failed."""
    failed: dict[int, Rejected] = {}
    for descriptor in dict.fromkeys(chain.from_iterable(map(step.of, some))):
        try:
            if failpoints.reach(step.name):
                os.fsync(descriptor)
        except OSError as error:
            failed[descriptor] = Rejected("outcome_unknown", f"The spool: {error.strerror}.")
    return failed


def _first_of(failed: dict[int, Rejected], step: _NameSync, sealed: FileSealed) -> Rejected | None:
    return next((failed[descriptor] for descriptor in step.of(sealed) if descriptor in failed), None)


def _unless(failure: Rejected | None, sealed: FileSealed) -> Answer:
    if failure is None:
        return sealed
    sealed.release()
    return failure


def withdraw_all(sealed: Sequence[FileSealed]) -> list[Rejected | None]:
    """Take uploads back together, and answer for each; see `daemon.spool.Receive.withdraw_all`."""
    stayed = {one.upload.task_id: error for one in sealed if (error := _take_back(one)) is not None}
    # The files as well, as long as their blocks are theirs; see `daemon.state.files.Removal`.
    files, directories = _sync_each(_FILES, sealed), _sync_each(_DIRECTORIES, sealed)
    answers = [
        stayed.get(one.upload.task_id) or _first_of(files, _FILES, one) or _first_of(directories, _DIRECTORIES, one)
        for one in sealed]
    for one in sealed:
        one.release()
    return answers


def _take_back(sealed: FileSealed) -> Rejected | None:
    try:
        sealed.naming.take_back(sealed.directory, sealed.upload.task_id)
    except OSError as error:
        return Rejected("outcome_unknown", f"The spool: {error.strerror}.")
    return None


def write_all(descriptor: int, pieces: Sequence[bytes], at: int) -> None:
    """Write all of the pieces, at most IOV_MAX of them, from there on. Raises OSError.

    Each whole step is sent on its way: the disk works while more comes, and the sync finds little left to do.
    """
    written = os.pwritev(descriptor, pieces, at)
    size = sum(map(len, pieces))
    if written < size:
        # A filling disk shows first as a short write.
        rest = memoryview(b"".join(pieces))
        while written < len(rest):
            written += os.pwrite(descriptor, rest[written:], at + written)
    _send_on_its_way(descriptor, at, at + size)


def _send_on_its_way(descriptor: int, since: int, until: int) -> None:
    """Of what was written there, send all whole steps to the disk that were not sent yet; wait for none of it."""
    first, last = (end - end % STEP_BYTES for end in (since, until))
    if first < last:
        os.posix_fadvise(descriptor, first, last - first, os.POSIX_FADV_DONTNEED)


def rejected(error: OSError) -> Rejected:
    """The answer to a client whose upload met this."""
    if error.errno in NO_ROOM:
        return Rejected("no_room", f"The spool's disk: {error.strerror}.")
    return Rejected("storage_failed", f"The spool: {error.strerror}.")
