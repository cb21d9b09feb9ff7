"""Times that several processes put off together, for each name and kind: never too early, and seldom too late.

They stay when a process dies, which leaves them as they are: a time only moves forward. Who puts one off locks it
first, so that no two processes go on from the same one. The lock is a record lock (fcntl(2)) on the cells of the name:
the kernel frees it when its process ends, or closes any descriptor of that memory, and nobody ever waits for it here.
A process that is alone needs none.
"""

import fcntl
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Final

from daemon.process.sketch import two_cells

#: Kinds of times that each name has; they lie beside each other.
KINDS: Final = 2
#: The latest time there is: cells are signed 64-bit numbers.
LATEST: Final = 2**63 - 1
_CELL_BYTES: Final = 8
#: Places of each of the two rows that a name has one place in.
_SLOTS: Final = 2**14
#: What all of them take.
SIZE_BYTES: Final = 2 * _SLOTS * KINDS * _CELL_BYTES
#: Names whose places are remembered.
_REMEMBERED: Final = 1024


class SharedTimes:
    """A time for each name and kind. To be used by one thread of each process.

    A name has two places, and the earlier time counts. Putting off moves both, but only as far as it says (the
    conservative update of Estan and Varghese, 2002): a name that shares one place with another does not notice. Names
    that share both have the later one of their times: so none of them is too early.
    """

    def __init__(self, cells: "memoryview[int]", secret: bytes, descriptor: int, offset: int) -> None:
        """`cells` are at that offset of the file of the `descriptor`; without one (-1) nobody else has them."""
        self._cells = cells
        self._descriptor = descriptor
        self._offset = offset
        self._places_of = lru_cache(_REMEMBERED)(partial(two_cells, secret, _SLOTS))

    def lock(self, names: Iterable[str]) -> bool:
        """Keep other processes away from the times of these names until `unlock`.

        False when one of them has just locked some: nothing is locked then. Never waits.
        """
        if self._descriptor < 0:
            return True
        width = KINDS * _CELL_BYTES
        try:
            for place in {place for name in names for place in self._places_of(name)}:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, width, self._offset + place * width)
        except OSError:
            self.unlock()
            return False
        return True

    def unlock(self) -> None:
        """Let the others go on."""
        if self._descriptor >= 0:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, SIZE_BYTES, self._offset)

    def of(self, name: str, kind: int) -> int:
        """The time until which that of `name` was put off, or a later one; 0 if it never was."""
        return min(self._cells[place * KINDS + kind] for place in self._places_of(name))

    def put_off(self, name: str, kind: int, time: int) -> None:
        """Put that of `name` off until `time` at least. To be locked, if it depends on what was read."""
        for place in self._places_of(name):
            cell = place * KINDS + kind
            self._cells[cell] = min(max(self._cells[cell], time), LATEST)
