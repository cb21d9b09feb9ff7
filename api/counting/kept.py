"""Keeps what API processes count, in a small file for each, so that neither a restart nor their number loses any.

    access/counted-00, -01, ...    two slots (`daemon.state.slots`), each with all counters of the file as JSON

A process takes the first file that no other one has, by its lock, and goes on from what is in there; the lock ends with
the process. Files that nobody has count as they are. What is told is what was kept: so a process that is killed takes
nothing back. What is kept is synced: so neither does a machine that crashes.
"""

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from daemon import failpoints
from daemon.errors import ERRORS
from daemon.log import log
from daemon.model.counters import API_FAMILIES, Key, added, labels_in
from daemon.state.file_lock import try_lock
from daemon.state.layout import Layout, inode, sync_directory
from daemon.state.quarantine import open_cleared
from daemon.state.slots import newest_slot, write_slot

#: More than all counters take.
SLOT_BYTES: Final = 64 * 1024
#: More than there are processes.
MOST_FILES: Final = 100
_NAMES: Final = frozenset(name for family in API_FAMILIES.values() for name in family.names)

Counts = Mapping[Key, float]


class KeptCounts:
    """The files, as one process keeps its own and reads all. To be used by one thread at a time; blocks on the disk.

    Never fails: where a file cannot be read, what was in it before counts; where one cannot be written, what is told
    stands still, and goes on once it can be. That is logged once.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor = -1
        self._number = -1
        self._slot = 0
        #: What was in the file before.
        self._before: Counts = {}
        self._told: Counts = {}
        #: What the files of others had when they were read last, by their numbers.
        self._others: dict[int, Counts] = {}
        self._fails = False

    def keep(self, counted: Counts) -> None:
        """Write down what the process has counted since it began."""
        try:
            opened = self._open()
            told = added((self._before, counted))
            if opened or told != self._told or self._fails:
                self._write(told)
            self._told = told
            self._fails = False
        except OSError as error:
            # What nobody else reads, or a restart would take back, is not told.
            self._fail(error.strerror)

    def totals(self) -> dict[Key, float]:
        """What all processes have counted, as it was kept last."""
        self._look()
        return added((self._told, *self._others.values()))

    def close(self) -> None:
        """Leave the file to the next process. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = self._number = -1

    def _write(self, told: Counts) -> None:
        text = json.dumps([[*key, value] for key, value in told.items()], separators=(",", ":")).encode()
        failpoints.reach("counted.write")
        write_slot(self._descriptor, SLOT_BYTES, self._slot + 1, text)
        os.fdatasync(self._descriptor)
        self._slot += 1

    def _open(self) -> bool:
        """Have a file of its own: the one that it had, unless that was removed; True when it is another one."""
        if self._descriptor >= 0:
            if os.fstat(self._descriptor).st_ino == inode(self._layout.counted(self._number)):
                return False
            self.close()
        for number in range(MOST_FILES):
            descriptor = open_cleared(self._layout, self._layout.counted(number))
            try:
                if try_lock(descriptor):
                    self._go_on(descriptor)
                    self._others.pop(number, None)
                    self._descriptor, self._number = descriptor, number
                    return True
            finally:
                if descriptor != self._descriptor:
                    os.close(descriptor)
        raise OSError(errno.EMFILE, "too many processes")

    def _go_on(self, descriptor: int) -> None:
        found = newest_slot(descriptor, SLOT_BYTES)
        self._slot = found[0] if found else 0
        if found is not None:
            kept = _counts_in(found[1])
            self._before, self._told = added((self._before, kept)), added((self._told, kept))
        elif os.fstat(descriptor).st_size:
            self._fail("what was kept is damaged")
        else:
            sync_directory(self._layout.access)

    def _fail(self, detail: str | None) -> None:
        if not self._fails:
            log("counters.not_kept", detail=detail)
        self._fails = True

    def _look(self) -> None:
        """Read the files of others; what cannot be read just now is as it was."""
        with suppress(OSError):
            names = set(os.listdir(self._layout.access))
            for number in range(MOST_FILES):
                if number != self._number and self._layout.counted(number).name in names:
                    self._read(number)

    def _read(self, number: int) -> None:
        with suppress(OSError):
            descriptor = self._layout.open(self._layout.counted(number), os.O_RDONLY)
            try:
                found = newest_slot(descriptor, SLOT_BYTES)
            finally:
                os.close(descriptor)
            if found is not None:
                self._others[number] = _counts_in(found[1])


def _counts_in(text: bytes) -> Counts:
    """The counters of a slot; what makes no sense is left out. Pure."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return dict(_rows(rows)) if isinstance(rows, list) else {}


def _rows(rows: Iterable[object]) -> Iterator[tuple[Key, float]]:
    for row in rows:
        match row:
            case [str(name), str(labels), int() | float() as value] if name in _NAMES and _is_count(value):
                with suppress(ValueError):
                    if labels_in(labels).get("code", "internal") in ERRORS:
                        yield (name, labels), value


def _is_count(value: float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value) and value >= 0
