"""A part file by SFTP: made beside the destination, private, filled, given its mode and owner, and compared."""

import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from daemon.errors import Undelivered
from daemon.model.names import MAX_PATH_BYTES
from daemon.spool import Source
from worker.targets import source as spool
from worker.targets.attributes import (
    Attributes,
    Wanted,
    refuse_unless_exact,
    refuse_unless_shallow,
    shown,
    wanted_directory,
    where,
)
from worker.targets.base import Delivery
from worker.targets.error_codes import system_text
from worker.targets.incus.sftp_channel import NO_SUCH_FILE, READ_BYTES, WRITE_BYTES, Channel, SftpStatus
from worker.targets.incus.sftp_staging import PRIVATE_FILE, Staging
from worker.targets.incus.sftp_wire import WireBroken

#: Writes and reads on their way at once.
_WINDOW: Final = 16
#: What a server says when another push has made the directory: when it looks itself, and when the kernel finds
#: something in it that came just after that.
_MADE_MEANWHILE: Final = frozenset({"file exists", "directory not empty"})


class PartFile:
    """The file that becomes the destination: made beside it, filled, and removed if anything goes wrong."""

    def __init__(self, channel: Channel, delivery: Delivery, path: bytes) -> None:
        self._channel = channel
        self._delivery = delivery
        self._directory = path.rpartition(b"/")[0]
        self._handle = b""
        self._made = False
        self._staging = Staging(channel, delivery)
        self._left = False
        self._filled: Attributes | None = None
        self.path = self._directory + b"/" + delivery.part_name.encode()
        if len(self.path) > MAX_PATH_BYTES:
            raise Undelivered("name_too_long", f"{where(delivery)}: no room for the part file's name beside it")

    @property
    def left(self) -> bool:
        """True from when something of it may be there until it is known to be gone."""
        return self._left or self._staging.left

    @property
    def filled(self) -> Attributes:
        """What the server said of it once it was filled."""
        assert self._filled is not None  # `fill` came back
        return self._filled

    async def create(self) -> None:
        """Make it, removing one that an earlier attempt left, and the directories above it if they are wanted."""
        try:
            await self._open()
        except SftpStatus as status:
            if system_text(status.text) == "file exists":
                await self.remove()
            elif status.code == NO_SUCH_FILE and self._directory:
                await self._make_parents()
            else:
                raise
            await self._open_again()

    async def hide(self) -> None:
        """Have it made, still empty, where nobody else can have opened it.

        An old server makes it 0644, and who opens it before it is private reads all that comes.
        """
        wire = self._channel.wire
        if wire.heeds_mode is None:
            made = await self._channel.attributes(self._channel.fstat(self._handle))
            wire.heeds_mode = made.bits == PRIVATE_FILE
        if not wire.heeds_mode:
            exposed, self._handle = self._handle, await self._staging.file(self.path)
            await self._channel.done(self._channel.close_handle(exposed))

    async def fill(self, source: Source, want: Wanted) -> None:
        """Write everything, give it its mode and owner, close it, and compare it with what was wanted."""
        simple = self._delivery.size <= WRITE_BYTES and not want.special and self._delivery.verify == "size"
        requests = self._in_one_go(source, want) if simple else await self._step_by_step(source, want)
        requests.append(self._channel.close_handle(self._handle))
        looked = self._channel.lstat(self.path)
        self._handle = b""
        await self._channel.done(*requests)
        self._filled = await self._channel.attributes(looked)
        refuse_unless_exact(self._delivery, want, self._filled)

    async def rename(self, path: bytes) -> None:
        """Give it its name."""
        await self._channel.done(self._channel.rename(self.path, path))
        self._left = False

    async def discard(self) -> None:
        """Close and remove it if it was made and the connection still works."""
        if not self._made or self._channel.wire.broken:
            return
        self._made = False
        # The failure that led here is the one to report; what is left is removed later.
        with contextlib.suppress(SftpStatus, WireBroken):
            await self._channel.drain()
            requests = [self._channel.close_handle(self._handle)] if self._handle else []
            requests.append(self._channel.remove(self.path))
            await self._channel.done(*requests)
            self._left = False

    async def remove(self) -> bool:
        """Remove it if it is there; True if it was."""
        try:
            # A read-only filesystem refuses the removal of what is not there, too.
            await self._channel.attributes(self._channel.lstat(self.path))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return False
            raise
        await self._channel.done(self._channel.remove(self.path))
        return True

    async def _make_parents(self) -> None:
        tried = b""
        while missing := await self._missing():
            if not self._delivery.mkdirs:
                raise Undelivered("parent_not_found", f"{where(self._delivery)}: there is no {shown(missing[0])}")
            refuse_unless_shallow(self._delivery, missing[-1].count(b"/"))
            if missing[0] == tried:
                # It is there, and leads nowhere.
                raise Undelivered("parent_not_directory", f"{shown(tried)} is not a directory")
            await self._make(missing)
            tried = missing[0]

    async def _make(self, missing: list[bytes]) -> None:
        try:
            await self._staging.directories(missing, wanted_directory(self._delivery))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                # The directory above is there: /proc refuses new directories with these words.
                raise Undelivered("permission_denied", f"{shown(missing[0])} cannot be made") from status
            if system_text(status.text) not in _MADE_MEANWHILE:
                raise

    async def _missing(self) -> list[bytes]:
        """Which of the directories above the file are not there, the topmost first."""
        parts = self._directory.split(b"/")[1:]
        above = [b"/" + b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        # Not all at once: a server whose answers nobody reads takes no more requests.
        for start in range(0, len(above), _WINDOW):
            looked = [(path, self._channel.stat(path)) for path in above[start:start + _WINDOW]]
            there = [await self._is_there(path, number) for path, number in looked]
            if not all(there):
                return above[start + there.index(False):]
        return []

    async def _is_there(self, path: bytes, looked: int) -> bool:
        try:
            found = await self._channel.attributes(looked)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return False
            raise
        if not found.is_directory:
            raise Undelivered("parent_not_directory", f"{shown(path)} is not a directory")
        return True

    async def _open(self) -> None:
        self._left = True
        try:
            self._handle = await self._channel.handle(self._channel.create(self.path, PRIVATE_FILE))
        except SftpStatus as status:
            self._left = system_text(status.text) == "file exists"
            raise
        self._made = True

    async def _open_again(self) -> None:
        try:
            await self._open()
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                # The directory is there: some filesystems, /proc is one, refuse new files with these words.
                reason = f"{where(self._delivery)}: its directory takes no new files"
                raise Undelivered("permission_denied", reason) from status
            raise

    def _in_one_go(self, source: Source, want: Wanted) -> list[int]:
        # The owner first: the mode is for the new one. Both are final before the write is taken up.
        requests = [self._channel.chown(self._handle, want.uid, want.gid),
                    self._channel.chmod(self._handle, want.mode)]
        requests += [self._channel.write(self._handle, 0, piece)
                     for piece in spool.pieces(source, self._delivery.size, WRITE_BYTES)]
        return requests

    async def _step_by_step(self, source: Source, want: Wanted) -> list[int]:
        await self._channel.done(self._channel.chmod(self._handle, PRIVATE_FILE))
        await write_all(self._channel, self._handle, source, self._delivery.size)
        if self._delivery.verify == "digest":
            await self._compare(source)
        return [self._channel.chown(self._handle, want.uid, want.gid), self._channel.chmod(self._handle, want.mode)]

    async def _compare(self, source: Source) -> None:
        found = await digest(self._channel, self._handle, self._delivery.size)
        spool.refuse_unless_same(found, source, self._delivery)


@contextlib.asynccontextmanager
async def closing_handle(channel: Channel, opening: int) -> AsyncIterator[bytes]:
    """Wait for the handle that was asked for, and close it afterwards if the connection still works."""
    handle = await channel.handle(opening)
    try:
        yield handle
    finally:
        if not channel.wire.broken:
            await channel.drain()
            await channel.done(channel.close_handle(handle))


async def write_all(channel: Channel, handle: bytes, source: Source, size: int) -> None:
    """Write the `size` bytes of `source` into an open file, from its start."""
    under_way: deque[int] = deque()
    offset = 0
    for piece in spool.pieces(source, size, WRITE_BYTES):
        under_way.append(channel.write(handle, offset, piece))
        offset += len(piece)
        if len(under_way) >= _WINDOW:
            await channel.done(under_way.popleft())
    await channel.done(*under_way)


async def digest(channel: Channel, handle: bytes, size: int) -> str:
    """The hexadecimal sha256 of what is in an open file, of up to one piece more than `size` if it is longer."""
    total = hashlib.sha256()
    under_way: deque[int] = deque()
    for offset in range(0, size + 1, READ_BYTES):
        under_way.append(channel.read(handle, offset))
        if len(under_way) >= _WINDOW:
            total.update(await channel.data(under_way.popleft()))
    while under_way:
        total.update(await channel.data(under_way.popleft()))
    return total.hexdigest()
