"""One delivery by SFTP: a private part file beside the destination, exact, verified, then renamed into place.

What depends on the server (pkg/sftp in Incus and LXD): commands run one after the other in the order sent,
reads and writes beside them; a command is taken up only when the one before it is done; closing a file waits
for its writes. So requests may be sent without waiting, except where a write must come first.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final

from daemon.errors import Undelivered
from daemon.model.names import printable
from daemon.spool import Source
from worker.targets.attributes import (
    MAX_LINKS,
    Attributes,
    receipt_for,
    refuse_unless_allowed,
    refuse_unless_replaceable,
    refuse_unless_trusted,
    shown,
    wanted,
    wanted_instead,
    where,
)
from worker.targets.base import Delivery, Receipt
from worker.targets.error_codes import classify_sftp, system_text
from worker.targets.incus.sftp_channel import NO_SUCH_FILE, Channel, SftpStatus
from worker.targets.incus.sftp_in_place import overwrite
from worker.targets.incus.sftp_part import PartFile, closing_handle, digest
from worker.targets.incus.sftp_staging import Staging
from worker.targets.incus.sftp_way import Way, find_way
from worker.targets.incus.sftp_wire import WireBroken, WireStalled

#: As receipts name it.
_WAY: Final = "sftp"


class SftpDelivery:
    """One delivery over a channel of its own."""

    def __init__(self, channel: Channel, delivery: Delivery) -> None:
        self._channel = channel
        self._delivery = delivery
        self._path = delivery.destination.path.encode()
        #: Where it leads; None where that does not matter.
        self._way: Way | None = None
        #: True when it may have left its part file.
        self.left_part = False

    async def deliver(self, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination; see worker.targets.base.Carrier."""
        with explained(where(self._delivery)):
            if self._delivery.left_part:
                left = await self._sweep()
                first, other = self._delivery.by_either_name()
                # A rename of the last attempt may be on its way: what it would take must not be there again.
                self._delivery = first if other.part_name in left else other
            if self._delivery.path_rule is not None:
                await self._stay_within()
            if self._delivery.recheck and (found := await self._find_delivered()):
                return receipt_for(found, _WAY, atomic=True, unchanged=True)
            if self._delivery.replace_group == "in-place" and (
                    found := await self._overwrite(source, before_rename)):
                return receipt_for(found, _WAY)
            return receipt_for(await self._push(source, before_rename), _WAY, atomic=True)

    async def _stay_within(self) -> None:
        """From now on go by a path without links, which was looked at; a link that is put there is followed no more."""
        path, _ = await self._find()
        self._way = await find_way(self._channel, self._delivery, path)
        self._path = self._way.path
        self._delivery = replace(self._delivery, symlinks="replace")
        refuse_unless_allowed(self._delivery, self._path)

    async def sweep(self) -> bool:
        """Remove the part file that a killed attempt left; see worker.targets.base.Carrier."""
        with explained(where(self._delivery)):
            return bool(await self._sweep())

    async def _sweep(self) -> set[str]:
        """Remove what earlier attempts left; return the names that it had."""
        removed = await self._remove_left(self._path)
        led_to, _ = await self._find()
        return removed if led_to == self._path else removed | await self._remove_left(led_to)

    async def _remove_left(self, path: bytes) -> set[str]:
        removed = {each.part_name for each in self._delivery.by_either_name()
                   if await PartFile(self._channel, each, path).remove()}
        staged = await Staging(self._channel, self._delivery).remove(path)
        return removed | ({self._delivery.staging_name} if staged else set())

    async def _push(self, source: Source, before_rename: Callable[[], None]) -> Attributes:
        path = self._path
        looked = self._channel.lstat(path)
        part = PartFile(self._channel, self._delivery, path)
        try:
            refused = await _refusal(part.create())
            existing = await self._existing(looked)
            if existing and existing.is_link and self._delivery.symlinks == "follow":
                await part.discard()
                self.left_part = part.left
                path, existing = await self._follow(path, existing)
                part = PartFile(self._channel, self._delivery, path)
                await part.create()
            elif refused:
                raise refused
            refuse_unless_replaceable(self._delivery, existing)
            want = wanted_instead(self._delivery, existing)
            with _noticing_loss(self._delivery):
                if want.secret:
                    await part.hide()
                await self._hold(part.path)
                await part.fill(source, want)
                await self._hold(part.path, part.filled)
                before_rename()
                await part.rename(path)
            if self._way is not None:
                await self._way.held(part.filled)
            return part.filled
        except BaseException:
            await part.discard()
            if part.left and self._way is not None and not self._channel.wire.broken:
                await self._way.remove_astray(part.path.rpartition(b"/")[2])
            raise
        finally:
            self.left_part |= part.left

    async def _hold(self, path: bytes, expected: Attributes | None = None) -> None:
        if self._way is not None:
            await self._way.hold(path, expected)

    async def _overwrite(self, source: Source, before_write: Callable[[], None]) -> Attributes | None:
        """Write into the file that is there, and return what it is then; None if there is none."""
        path, existing = await self._find()
        if existing is None or existing.is_link:
            return None
        refuse_unless_replaceable(self._delivery, existing)
        want = wanted(self._delivery, existing)
        return await overwrite(self._channel, self._delivery, path, existing, want, source, before_write, self._way)

    async def _find_delivered(self) -> Attributes | None:
        """What is there, if it is what was to be delivered already."""
        path, found = await self._find()
        if found is None or not found.is_file or found.size != self._delivery.size:
            return None
        if not wanted_instead(self._delivery, found).met_by(found):
            return None
        async with closing_handle(self._channel, self._channel.open(path)) as handle:
            same = await digest(self._channel, handle, self._delivery.size) == self._delivery.sha256
        return found if same else None

    async def _find(self) -> tuple[bytes, Attributes | None]:
        found = await self._existing(self._channel.lstat(self._path))
        if found and found.is_link and self._delivery.symlinks == "follow":
            return await self._follow(self._path, found)
        return self._path, found

    async def _existing(self, looked: int) -> Attributes | None:
        try:
            return await self._channel.attributes(looked)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return None
            raise

    async def _follow(self, path: bytes, link: Attributes) -> tuple[bytes, Attributes | None]:
        for _ in range(MAX_LINKS):
            above = path.rpartition(b"/")[0] + b"/"
            looked, read = self._channel.stat(above), self._channel.readlink(path)
            refuse_unless_trusted(self._delivery, link, await self._channel.attributes(looked))
            target = await self._channel.link(read)
            path = target if target.startswith(b"/") else above + target
            found = await self._existing(self._channel.lstat(path))
            if found is None and path.rpartition(b"/")[2] in {b"", b".", b".."}:
                raise Undelivered("target_is_directory", f"the link leads to a directory, {shown(path)}")
            if found is None or not found.is_link:
                return path, found
            link = found
        raise Undelivered("too_many_links", f"more than {MAX_LINKS} symbolic links, the last at {shown(path)}")


@contextlib.contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what the server and the wire say into Undelivered; `place` is for the message."""
    try:
        yield
    except SftpStatus as status:
        reason = printable(system_text(status.text))
        raise Undelivered(classify_sftp(status.code, status.text), f"{place}: {reason}") from status
    except WireStalled as stall:
        raise Undelivered("stalled", f"{place}: {stall}") from stall
    except WireBroken as broken:
        raise Undelivered("connection_lost", f"{place}: {broken}") from broken


@contextlib.contextmanager
def _noticing_loss(delivery: Delivery) -> Iterator[None]:
    """While the part file is there: a path that does not exist is its own, not one that the upload named."""
    try:
        yield
    except SftpStatus as status:
        if status.code == NO_SUCH_FILE:
            raise Undelivered("verify_failed", f"{where(delivery)}: its part file is gone") from status
        raise


async def _refusal(creation: Awaitable[None]) -> SftpStatus | Undelivered | None:
    """Create a part file; return why it cannot be there. That does not matter beside a link that leads elsewhere."""
    try:
        await creation
    except (SftpStatus, Undelivered) as refused:
        return refused
    return None
