"""Deliveries into one instance's directory."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from daemon.errors import Undelivered
from daemon.model.names import printable
from daemon.spool import Source
from worker.targets import source as spool
from worker.targets.attributes import Attributes, Wanted, receipt_for, refuse_unless_replaceable, wanted, where
from worker.targets.base import Delivery, Ended, Parcel, Receipt, one_by_one
from worker.targets.directory.content import OPEN_FILE, contents, fill
from worker.targets.directory.entry import Entry
from worker.targets.directory.walk import Walk
from worker.targets.error_codes import classify_oserror

#: As receipts name it.
_WAY: Final = "directory"


class DirectorySession:
    """A Session in one instance's directory; see worker.targets.base for what it promises."""

    def __init__(self, root: int) -> None:
        """`root` is the open directory; the session closes it."""
        self._root = root
        self.broken = False
        self.left_part = False

    def close(self) -> None:
        """Close the directory. Never raises."""
        with contextlib.suppress(OSError):
            os.close(self._root)

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination; see worker.targets.base.Session."""
        self.left_part = False
        with contextlib.ExitStack() as opened:
            with _explained(delivery):
                if delivery.left_part:
                    self._sweep(delivery)
                entry = self._find(delivery, opened)
                existing = entry.look()
                if delivery.recheck and existing and _is_there(entry, delivery, existing):
                    return receipt_for(existing, _WAY, atomic=True, unchanged=True)
                refuse_unless_replaceable(delivery, existing)
                want = wanted(delivery, existing)
            if delivery.replace_group == "in-place" and existing and not existing.is_link:
                return receipt_for(_overwrite(entry, delivery, source, want, before_rename), _WAY)
            return receipt_for(self._replace(entry, delivery, source, want, before_rename), _WAY, atomic=True)

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver one file after the other; see worker.targets.base.Carrier."""
        return one_by_one(self, parcels)

    def _replace(self, entry: Entry, delivery: Delivery, source: Source, want: Wanted,
                 before_rename: Callable[[], None]) -> Attributes:
        with contextlib.ExitStack() as opened:
            with _explained(delivery):
                entry.remove_part()
                part = os.open(entry.part, OPEN_FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=entry.directory)
                opened.callback(os.close, part)
            try:
                with _explained(delivery):
                    found = fill(part, delivery, source, want, entry.access_list())
                before_rename()
                with _explained(delivery):
                    entry.rename_part(delivery)
                return found
            except BaseException:
                # The failure that led here is the one to report; what is left is removed later.
                self.left_part = True
                with contextlib.suppress(OSError):
                    entry.remove_part()
                    self.left_part = False
                raise

    def confirm(self) -> None:
        """Return: the directory is open, and no other takes its entry."""

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file that a killed attempt left; see worker.targets.base.Session."""
        with _explained(delivery):
            return self._sweep(delivery)

    def _find(self, delivery: Delivery, opened: contextlib.ExitStack) -> Entry:
        walk = Walk(self._root, delivery, opened)
        try:
            return walk.find()
        finally:
            self.left_part = walk.left

    def _sweep(self, delivery: Delivery) -> bool:
        removed = False
        with contextlib.ExitStack() as opened:
            walk = Walk(self._root, replace(delivery, mkdirs=False, path_rule=None), opened)
            with contextlib.suppress(FileNotFoundError):
                removed = walk.find().remove_part()
            return walk.remove_staging() or removed


def _overwrite(entry: Entry, delivery: Delivery, source: Source, want: Wanted,
               before_write: Callable[[], None]) -> Attributes:
    with contextlib.ExitStack() as opened:
        with _explained(delivery):
            file = entry.open_seen(delivery, os.O_RDWR)
            opened.callback(os.close, file)
        before_write()
        with _explained(delivery):
            return fill(file, delivery, source, want, None)


def _is_there(entry: Entry, delivery: Delivery, found: Attributes) -> bool:
    if not stat.S_ISREG(found.mode) or found.size != delivery.size:
        return False
    if not wanted(delivery, found).met_by(found):
        return False
    file = entry.open_seen(delivery, os.O_RDONLY)
    try:
        return spool.digest(contents(file)) == delivery.sha256
    finally:
        os.close(file)


@contextlib.contextmanager
def _explained(delivery: Delivery) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = printable(error.strerror or str(error))
        raise Undelivered(classify_oserror(error.errno), f"{where(delivery)}: {what}") from error
