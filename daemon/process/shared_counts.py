"""Counts that several processes keep together: each adds to a cell of its own and reads the sum of all.

They are in memory that the supervisor makes and its children inherit: nobody waits for a disk or a lock. A process that
died counts until the supervisor sees it, which empties its cells. A process that is alone counts in memory of its own.
"""

import fcntl
import mmap
import os
from enum import IntEnum
from typing import Final


class Column(IntEnum):
    """What is counted."""

    CONNECTIONS = 0
    UPLOADS = 1
    #: Bytes that the uploads that are being received announced.
    ANNOUNCED_BYTES = 2
    #: Bytes that are on their way to the disk and may need room on it still.
    UNWRITTEN_BYTES = 3


#: Cells are signed 64-bit numbers.
_FORMAT: Final = "q"
_CELL_BYTES: Final = 8


class SharedCount:
    """One count, of all processes together. One thread of each process adds to it."""

    def __init__(self, cells: "memoryview[int]", row: int) -> None:
        self._cells = cells
        self._row = row

    @classmethod
    def alone(cls) -> "SharedCount":
        """A count of this process alone."""
        return cls(memoryview(bytearray(_CELL_BYTES)).cast(_FORMAT), 0)

    def add(self, number: int) -> None:
        """Add to this process's part of it."""
        self._cells[self._row] += number

    @property
    def own(self) -> int:
        """This process's part of it."""
        return self._cells[self._row]

    @property
    def total(self) -> int:
        """The sum over all processes."""
        return sum(self._cells)


class SharedCounts:
    """The counts of `rows` processes."""

    def __init__(self, descriptor: int = -1) -> None:
        """Without the `descriptor` that another process made, a process is alone."""
        size = os.fstat(descriptor).st_size if descriptor >= 0 else _size_of(1)
        self._rows = size // _size_of(1)
        self._cells = memoryview(mmap.mmap(descriptor, size)).cast("B").cast(_FORMAT)

    def tally(self, column: Column, row: int) -> SharedCount:
        """One of the counts, with the process of that row."""
        return SharedCount(self._cells[column * self._rows:(column + 1) * self._rows], row)

    def clear(self, row: int) -> None:
        """Forget what the process of that row counted: it is gone, or just begins."""
        for column in Column:
            tally = self.tally(column, row)
            tally.add(-tally.own)


def create(rows: int) -> int:
    """A descriptor of counts for so many processes; nobody can make them shorter or longer."""
    descriptor = os.memfd_create("counts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _size_of(rows))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def _size_of(rows: int) -> int:
    return rows * len(Column) * _CELL_BYTES
