"""Counts that several processes keep together: each adds to cells of its own and reads the sum of all.

They are in memory that the supervisor makes and its children inherit: nobody waits for a disk or a lock. A process that
died counts until the supervisor sees it, which empties its cells. A process that is alone counts in memory of its own.
Beside the counts are times that belong to no process (`daemon.process.shared_times`): these stay.
"""

import fcntl
import mmap
import os
from enum import IntEnum
from functools import lru_cache, partial
from typing import Final

from daemon.process import shared_times
from daemon.process.shared_times import SharedTimes
from daemon.process.sketch import two_cells


class Column(IntEnum):
    """What is counted. Of some it is also known who has how many."""

    #: All bytes that ever were on their way to the disk. They stay when their process is gone.
    LET_IN_BYTES = 0
    CONNECTIONS = 1
    UPLOADS = 2
    #: Pages of tasks that wait to be read.
    PAGES = 3
    #: Bytes that the uploads that are being received announced.
    ANNOUNCED_BYTES = 4
    #: Bytes that are on their way to the disk and may need room on it still.
    UNWRITTEN_BYTES = 5
    #: Uploads that are being received, and their bytes, of callers whose amounts are limited.
    QUOTA_TASKS = 6
    QUOTA_BYTES = 7
    #: Streams of what happens to tasks.
    STREAMS = 8
    #: Clients that wait for the outcome of a task.
    WAITING = 9
    #: Requests that act on tasks, and files that are being fetched.
    ACTIONS = 10
    CONTENTS = 11


#: The first columns stay when their process is gone.
_STAYING: Final = 1
_HELD: Final = (Column.CONNECTIONS, Column.UPLOADS, Column.PAGES, Column.QUOTA_TASKS, Column.QUOTA_BYTES,
                Column.STREAMS, Column.WAITING, Column.ACTIONS, Column.CONTENTS)
#: Cells are signed 64-bit numbers.
_FORMAT: Final = "q"
_CELL_BYTES: Final = 8
#: Cells of each of the two rows that a holder has one cell in.
_SLOTS: Final = 4096
_HOLDERS_CELLS: Final = 2 * _SLOTS
#: The cells of one process: its counts, and who has how much.
_PROCESS_CELLS: Final = len(Column) + len(_HELD) * _HOLDERS_CELLS
#: At the beginning of the memory: what the cells of a holder are chosen with.
_SECRET_BYTES: Final = 16
#: Where the cells of the processes begin.
_COUNTS_OFFSET: Final = _SECRET_BYTES + shared_times.SIZE_BYTES
#: Holders whose cells are remembered.
_REMEMBERED: Final = 1024


class SharedCount:
    """One count, of all processes together. One thread of each process adds to it."""

    def __init__(self, cells: "memoryview[int]", row: int) -> None:
        self._cells = cells
        self._row = row

    def add(self, number: int) -> None:
        """Add to this process's part of it."""
        self._cells[self._row] += number

    @property
    def own(self) -> int:
        """This process's part of it."""
        return self._cells[self._row]

    @property
    def alone(self) -> bool:
        """True when no other process adds to it."""
        return len(self._cells) == 1

    @property
    def fewest(self) -> bool:
        """True when no other process has a smaller part of it."""
        return self.own == min(self._cells)

    @property
    def total(self) -> int:
        """The sum over all processes."""
        return sum(self._cells)


class SharedHolders:
    """How much each holder has, in all processes together: never too little, and seldom too much.

    A count-min sketch (Cormode and Muthukrishnan, 2005): a keyed hash, which nobody can foresee, gives each holder two
    cells, and the lower one counts. Holders who share both are as one. One thread of each process adds to it.
    """

    def __init__(self, cells: "memoryview[int]", row: int, secret: bytes) -> None:
        self._cells = cells
        self._own = cells[row * _PROCESS_CELLS:]
        self._cells_of = lru_cache(_REMEMBERED)(partial(two_cells, secret, _SLOTS))

    def add(self, holder: str, number: int) -> None:
        """Add to what `holder` has in this process."""
        first, second = self._cells_of(holder)
        self._own[first] += number
        self._own[second] += number

    def of(self, holder: str) -> int:
        """What `holder` has in all processes."""
        return min(sum(self._cells[cell::_PROCESS_CELLS]) for cell in self._cells_of(holder))


class SharedCounts:
    """The counts of several processes, as the process of one `row` adds to them."""

    def __init__(self, descriptor: int = -1, row: int = 0) -> None:
        """Without the `descriptor` that another process made, a process is alone."""
        size = os.fstat(descriptor).st_size if descriptor >= 0 else _size_of(1)
        memory = mmap.mmap(descriptor, size)
        if descriptor < 0:
            memory[:_SECRET_BYTES] = os.urandom(_SECRET_BYTES)
        self._secret = memory[:_SECRET_BYTES]
        self._times = memoryview(memory)[_SECRET_BYTES:_COUNTS_OFFSET].cast("B").cast(_FORMAT)
        self._cells = memoryview(memory)[_COUNTS_OFFSET:].cast("B").cast(_FORMAT)
        self._row = row
        self._descriptor = descriptor if size > _size_of(1) else -1

    def tally(self, column: Column) -> SharedCount:
        """One of the counts."""
        return SharedCount(self._cells[column::_PROCESS_CELLS], self._row)

    def holders(self, column: Column) -> SharedHolders:
        """Who has how much of what that column counts."""
        first = len(Column) + _HELD.index(column) * _HOLDERS_CELLS
        return SharedHolders(self._cells[first:], self._row, self._secret)

    def times(self) -> SharedTimes:
        """The times of all processes."""
        return SharedTimes(self._times, self._secret, self._descriptor, _SECRET_BYTES)

    @property
    def is_first(self) -> bool:
        """True in one process of all."""
        return self._row == 0

    def clear(self, row: int) -> None:
        """Forget what the process of that row has: it is gone, or just begins."""
        nothing = memoryview(bytes((_PROCESS_CELLS - _STAYING) * _CELL_BYTES)).cast(_FORMAT)
        self._cells[row * _PROCESS_CELLS + _STAYING:(row + 1) * _PROCESS_CELLS] = nothing


def create(rows: int) -> int:
    """A descriptor of counts for so many processes; nobody can make them shorter or longer."""
    descriptor = os.memfd_create("counts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _size_of(rows))
    os.pwrite(descriptor, os.urandom(_SECRET_BYTES), 0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def _size_of(rows: int) -> int:
    return _COUNTS_OFFSET + rows * _PROCESS_CELLS * _CELL_BYTES
