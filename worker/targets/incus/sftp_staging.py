"""New files and directories by SFTP that no user of the instance can meet half-made, or swap for something else.

All of SFTP goes by path. Who may change the names in a directory can put a link in the place of what was just made
there, and what is done to it next is done to what the link leads to. So it is made in a directory that only root can
enter, in a place where only root can change names, and moved to its own place in one step.

Nothing can be moved from one filesystem to another. Where the destination's has no such place, a directory is made
where it belongs, and changed only if it looks like one that was made just now: SFTP shows no inode, nothing else tells.
"""

import contextlib
import posixpath
from collections.abc import AsyncIterator, Iterator
from typing import Final

from daemon.errors import Undelivered
from daemon.model.names import MAX_PATH_BYTES
from worker.targets.attributes import MAX_LINKS, ROOT, Attributes, Wanted, shown, where
from worker.targets.base import Delivery
from worker.targets.error_codes import system_text
from worker.targets.incus.sftp_channel import NO_SUCH_FILE, Channel, SftpStatus
from worker.targets.incus.sftp_wire import WireBroken

#: Nobody but the owner reads, writes or enters.
PRIVATE_FILE: Final = 0o600
PRIVATE_DIRECTORY: Final = 0o700
#: Questions on their way at once.
_WINDOW: Final = 16


class Staging:
    """Makes what one delivery needs: a private file, or directories."""

    def __init__(self, channel: Channel, delivery: Delivery) -> None:
        self._channel = channel
        self._delivery = delivery
        self._name = delivery.staging_name.encode()
        #: True while something of it may be left in the instance.
        self.left = False

    async def file(self, path: bytes) -> bytes:
        """Put a new, empty, private file at `path`, whatever was there; return its handle.

        Nobody else has had the chance to open it: not even where the server makes new files 0644.
        """
        above = posixpath.dirname(path)
        place, trusted = await self._safe_place(above)
        try:
            return await self._file(place, path, None)
        except SftpStatus:
            if trusted:
                raise
            return await self._file(above, path, await self._since(place, above))

    async def directories(self, paths: list[bytes], want: Wanted) -> None:
        """Make `paths`, each in the one before it, with that mode and owner.

        Raises SftpStatus "file exists", or "directory not empty", when another has made the first one.
        """
        above = posixpath.dirname(paths[0])
        place, trusted = await self._safe_place(above)
        try:
            async with self._private(place, None) as inside:
                await self._make([inside + path.removeprefix(paths[0]) for path in paths], want, None)
                await self._channel.done(self._channel.rename(inside, paths[0]))
        except SftpStatus:
            if trusted:
                raise
            await self._make(paths, want, await self._since(place, above))

    async def remove(self, path: bytes) -> bool:
        """Remove what a killed attempt left on the way to `path`; True if there was something."""
        removed = False
        while path.strip(b"/"):
            path = posixpath.dirname(path)
            if len(_in(path, self._name)) <= MAX_PATH_BYTES:
                removed |= await self._remove(path.rstrip(b"/"))
        return removed

    async def _file(self, place: bytes, path: bytes, since: int | None) -> bytes:
        async with self._private(place, since) as inside:
            handle = await self._channel.handle(self._channel.create(inside, PRIVATE_FILE))
            await self._channel.done(self._channel.chmod(handle, PRIVATE_FILE), self._channel.rename(inside, path))
        return handle

    async def _make(self, paths: list[bytes], want: Wanted, since: int | None) -> None:
        made = []
        for path in paths:
            await self._channel.done(self._channel.mkdir(path))
            made.append(await self._open_new(path, since))
        # The innermost first: who owns a directory may swap what is in it.
        for handle in reversed(made):
            await self._channel.done(self._channel.chown(handle, want.uid, want.gid),
                                     self._channel.chmod(handle, want.mode), self._channel.close_handle(handle))

    @contextlib.asynccontextmanager
    async def _private(self, place: bytes, since: int | None) -> AsyncIterator[bytes]:
        """A directory in `place` that only root can enter; yields a path in it, which is to be moved away."""
        directory = _in(place, self._name)
        async with self._gone_afterwards(place):
            await self._mkdir(place, directory)
            handle = await self._open_new(directory, since)
            await self._channel.done(self._channel.chmod(handle, PRIVATE_DIRECTORY), self._channel.close_handle(handle))
            yield _in(directory, self._name)
            await self._channel.done(self._channel.rmdir(directory))

    async def _mkdir(self, place: bytes, directory: bytes) -> None:
        try:
            await self._channel.done(self._channel.mkdir(directory))
        except SftpStatus as status:
            if system_text(status.text) != "file exists":
                raise
            # An earlier attempt left it.
            await self._remove(place)
            await self._channel.done(self._channel.mkdir(directory))

    @contextlib.asynccontextmanager
    async def _gone_afterwards(self, place: bytes) -> AsyncIterator[None]:
        self.left = True
        try:
            yield
        except BaseException:
            # The failure that led here is the one to report; what is left is removed later.
            with contextlib.suppress(SftpStatus, WireBroken):
                await self._remove(place)
                self.left = False
            raise
        self.left = False

    async def _open_new(self, path: bytes, since: int | None) -> bytes:
        """Open the directory that was just made; with `since`, only if it can be no other: see `_looks_new`."""
        handle = await self._channel.handle(self._channel.opendir(path))
        if since is not None:
            looked, listed = self._channel.fstat(handle), self._channel.readdir(handle)
            found, names = await self._channel.attributes(looked), await self._channel.names(listed)
            if names or not _looks_new(found, since):
                await self._channel.done(self._channel.close_handle(handle))
                raise Undelivered("verify_failed", f"{where(self._delivery)}: {shown(path)} is not what was made there")
        return handle

    async def _since(self, place: bytes, above: bytes) -> int:
        """The time by the instance's clock, from a file that only root can change.

        Made in `place`, which no user can have lead elsewhere; only if that takes no files, in `above`.
        """
        try:
            return await self._now(place)
        except SftpStatus:
            return await self._now(above)

    async def _now(self, place: bytes) -> int:
        path = _in(place, self._name)
        await self._remove(place)
        async with self._gone_afterwards(place):
            handle = await self._channel.handle(self._channel.create(path, PRIVATE_FILE))
            looked = self._channel.fstat(handle)
            await self._channel.done(self._channel.close_handle(handle), self._channel.remove(path))
            return (await self._channel.attributes(looked)).mtime

    async def _safe_place(self, directory: bytes) -> tuple[bytes, bool]:
        """The lowest place on the way to `directory` in which only root can swap names, and whether that is itself."""
        for _ in range(MAX_LINKS):
            place, link = await self._descend(directory)
            if link is None:
                return place, place == directory.rstrip(b"/")
            target = await self._channel.link(self._channel.readlink(link))
            directory = posixpath.normpath(posixpath.join(place + b"/", target) + directory.removeprefix(link))
        raise Undelivered("too_many_links", f"{where(self._delivery)}: more than {MAX_LINKS} symbolic links")

    async def _descend(self, directory: bytes) -> tuple[bytes, bytes | None]:
        """Go down as far as only root can swap names; return the place, and root's link that it ends at, if any."""
        place = b""
        for path, looked in self._look_down(directory):
            found = await self._channel.attributes(looked)
            if found.is_link and found.uid == ROOT:
                return place, path
            if not found.keeps_names:
                break
            place = path
        return place, None

    def _look_down(self, directory: bytes) -> Iterator[tuple[bytes, int]]:
        """Each directory on the way, and the number under which its attributes were asked for: some at once."""
        names = directory.strip(b"/").split(b"/")
        paths = [b"/" + b"/".join(names[:depth]) for depth in range(1, len(names) + 1) if names[0]]
        for start in range(0, len(paths), _WINDOW):
            yield from [(path, self._channel.lstat(path)) for path in paths[start:start + _WINDOW]]

    async def _remove(self, place: bytes) -> bool:
        path = _in(place, self._name)
        found = await self._look(path)
        if found is None:
            return False
        if found.is_directory and found.uid == ROOT and (await self._safe_place(place))[1]:
            await self._clear(path)
        elif found.is_directory and await self._look(_in(path, self._name)):
            # Wherever a user has this lead meanwhile, nothing else has that name.
            await self._channel.done(self._channel.remove(_in(path, self._name)))
        await self._channel.done(self._channel.remove(path))
        return True

    async def _clear(self, directory: bytes) -> None:
        """Remove what is in a directory that only root can change."""
        handle = await self._channel.handle(self._channel.opendir(directory))
        names = await self._channel.names(self._channel.readdir(handle))
        await self._channel.done(self._channel.close_handle(handle))
        for path in (_in(directory, name) for name in names):
            if (await self._channel.attributes(self._channel.lstat(path))).is_directory:
                await self._clear(path)
            await self._channel.done(self._channel.remove(path))

    async def _look(self, path: bytes) -> Attributes | None:
        try:
            return await self._channel.attributes(self._channel.lstat(path))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return None
            raise


def _in(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name


def _looks_new(found: Attributes, since: int) -> bool:
    """True for what the server makes of a new directory, changed last no earlier than `since`."""
    return found.is_directory and found.uid == ROOT and found.bits & 0o707 == 0o705 and found.mtime >= since
