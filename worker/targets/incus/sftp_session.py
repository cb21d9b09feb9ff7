"""Delivery by SFTP: a private part file beside the destination, exact, verified, then renamed into place.

What depends on the server (pkg/sftp in Incus and LXD): commands run one after the other in the order sent,
reads and writes beside them; a command is taken up only when the one before it is done; closing a file waits
for its writes. So requests may be sent without waiting, except where a write must come first.
"""

import contextlib
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

from daemon.errors import Undelivered
from daemon.model.names import printable
from worker.targets import source as spool
from worker.targets.attributes import (
    MAX_LINKS,
    Attributes,
    refuse_unless_replaceable,
    refuse_unless_trusted,
    shown,
    wanted,
    wanted_instead,
    where,
)
from worker.targets.base import Delivery, Receipt
from worker.targets.error_codes import classify_sftp, system_text
from worker.targets.incus.sftp_in_place import overwrite
from worker.targets.incus.sftp_part import PartFile, closing_handle, contents
from worker.targets.incus.sftp_staging import Staging
from worker.targets.incus.sftp_wire import NO_SUCH_FILE, SftpStatus, Wire, WireBroken, WireStalled


class SftpSession:
    """A Session over one SFTP connection; see worker.targets.base for what it promises."""

    def __init__(self, wire: Wire, disconnect: Callable[[], None]) -> None:
        """Deliver over `wire`; `disconnect` ends the connection beneath it and never raises."""
        self._wire = wire
        self._disconnect = disconnect
        self.left_part = False

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used."""
        return self._wire.broken

    def close(self) -> None:
        """End the connection. Never raises."""
        self._wire.broken = True
        self._disconnect()

    def deliver(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination; see worker.targets.base.Session."""
        self.left_part = False
        with self._explained(where(delivery)):
            if delivery.left_part:
                left = self._sweep(delivery)
                first, other = delivery.by_either_name()
                # A rename of the last attempt may be on its way: what it would take must not be there again.
                delivery = first if other.part_name in left else other
            if delivery.recheck and self._is_there(delivery):
                return Receipt(atomic=True, way="sftp", unchanged=True)
            if delivery.replace_group == "in-place" and self._overwrite(delivery, source, before_rename):
                return Receipt(atomic=False, way="sftp")
            self._push(delivery, source, before_rename)
        return Receipt(atomic=True, way="sftp")

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file that a killed attempt left; see worker.targets.base.Session."""
        with self._explained(where(delivery)):
            return bool(self._sweep(delivery))

    def _sweep(self, delivery: Delivery) -> set[str]:
        """Remove what earlier attempts left; return the names that it had."""
        path = delivery.destination.path.encode()
        self._wire.drain()
        removed = self._remove_left(delivery, path)
        led_to, _ = self._find(delivery)
        return removed if led_to == path else removed | self._remove_left(delivery, led_to)

    def _remove_left(self, delivery: Delivery, path: bytes) -> set[str]:
        removed = {each.part_name for each in delivery.by_either_name() if PartFile(self._wire, each, path).remove()}
        return removed | ({delivery.staging_name} if Staging(self._wire, delivery).remove(path) else set())

    def link_at(self, path: str) -> str | None:
        """Where the symbolic link at `path` points; see worker.targets.incus.bound_session.LinkReader."""
        name = path.encode("utf-8", "surrogateescape")
        with self._explained(shown(name)):
            try:
                return self._wire.link(self._wire.readlink(name)).decode("utf-8", "surrogateescape")
            except SftpStatus:
                # It is something else, or nothing.
                return None

    @contextlib.contextmanager
    def _explained(self, place: str) -> Iterator[None]:
        try:
            yield
        except SftpStatus as status:
            reason = printable(system_text(status.text))
            raise Undelivered(classify_sftp(status.code, status.text), f"{place}: {reason}") from status
        except WireStalled as stall:
            raise Undelivered("stalled", f"{place}: {stall}") from stall
        except WireBroken as broken:
            raise Undelivered("connection_lost", f"{place}: {broken}") from broken

    def _push(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> None:
        path = delivery.destination.path.encode()
        self._wire.drain()
        looked = self._wire.lstat(path)
        part = PartFile(self._wire, delivery, path)
        try:
            refused = _refusal(part.create)
            existing = self._existing(looked)
            if existing and existing.is_link and delivery.symlinks == "follow":
                part.discard()
                self.left_part = part.left
                path, existing = self._follow(delivery, path, existing)
                part = PartFile(self._wire, delivery, path)
                part.create()
            elif refused:
                raise refused
            refuse_unless_replaceable(delivery, existing)
            want = wanted_instead(delivery, existing)
            with _noticing_loss(delivery):
                if want.secret:
                    part.hide()
                part.fill(source, want)
                before_rename()
                part.rename(path)
        except BaseException:
            part.discard()
            raise
        finally:
            self.left_part |= part.left

    def _overwrite(self, delivery: Delivery, source: BinaryIO, before_write: Callable[[], None]) -> bool:
        """Write into the file that is there; False if there is none."""
        path, existing = self._find(delivery)
        if existing is None or existing.is_link:
            return False
        refuse_unless_replaceable(delivery, existing)
        overwrite(self._wire, delivery, path, existing, wanted(delivery, existing), source, before_write)
        return True

    def _is_there(self, delivery: Delivery) -> bool:
        path, found = self._find(delivery)
        if found is None or not stat.S_ISREG(found.mode) or found.size != delivery.size:
            return False
        if not wanted_instead(delivery, found).met_by(found):
            return False
        with closing_handle(self._wire, self._wire.open(path)) as handle:
            return spool.digest(contents(self._wire, handle, delivery.size)) == delivery.sha256

    def _find(self, delivery: Delivery) -> tuple[bytes, Attributes | None]:
        path = delivery.destination.path.encode()
        self._wire.drain()
        found = self._existing(self._wire.lstat(path))
        if found and found.is_link and delivery.symlinks == "follow":
            return self._follow(delivery, path, found)
        return path, found

    def _existing(self, looked: int) -> Attributes | None:
        try:
            return self._wire.attributes(looked)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return None
            raise

    def _follow(self, delivery: Delivery, path: bytes, link: Attributes) -> tuple[bytes, Attributes | None]:
        for _ in range(MAX_LINKS):
            above = path.rpartition(b"/")[0] + b"/"
            looked, read = self._wire.stat(above), self._wire.readlink(path)
            refuse_unless_trusted(delivery, link, self._wire.attributes(looked))
            target = self._wire.link(read)
            path = target if target.startswith(b"/") else above + target
            found = self._existing(self._wire.lstat(path))
            if found is None and path.rpartition(b"/")[2] in {b"", b".", b".."}:
                raise Undelivered("target_is_directory", f"the link leads to a directory, {shown(path)}")
            if found is None or not found.is_link:
                return path, found
            link = found
        raise Undelivered("too_many_links", f"more than {MAX_LINKS} symbolic links, the last at {shown(path)}")


@contextlib.contextmanager
def _noticing_loss(delivery: Delivery) -> Iterator[None]:
    """While the part file is there: a path that does not exist is its own, not one that the upload named."""
    try:
        yield
    except SftpStatus as status:
        if status.code == NO_SUCH_FILE:
            raise Undelivered("verify_failed", f"{where(delivery)}: its part file is gone") from status
        raise


def _refusal(create: Callable[[], None]) -> SftpStatus | Undelivered | None:
    """Create a part file; return why it cannot be there. That does not matter beside a link that leads elsewhere."""
    try:
        create()
    except (SftpStatus, Undelivered) as refused:
        return refused
    return None
