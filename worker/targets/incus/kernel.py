"""Whether an instance runs on this very kernel, whose sync then reaches the disk that its files are on.

Neither the address of Incus nor a name tells: an instance may be on another member of a cluster, a socket may lead to
another machine, this service may itself be in a container or in a virtual machine beside Incus, and the instance may be
a virtual machine, which has a kernel of its own. What tells is what all containers of one kernel share and no two
kernels have in common at one moment: its counters of pages in /proc/vmstat. They only grow, many times a second.
"""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Final

from worker.targets.incus.instance import Instance

#: Of the kernel that looks; neither containers nor lxcfs put anything else over it.
COUNTERS_PATH: Final = "/proc/vmstat"
#: One of the counters of pages that came, went and were missed (Linux, mm/vmstat.c). The others go up and down.
_COUNTER: Final = re.compile(rb"^(pg\w+) ([0-9]{1,20})$", re.MULTILINE)
#: With fewer of them nothing is certain.
_FEWEST: Final = 8
#: Instances whose kernel is remembered; the oldest is asked anew.
_REMEMBERED: Final = 10_000


class Kernels:
    """Tells which instances run on this kernel, and remembers it of each. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, tuple[str, str]], bool] = {}
        #: Members of a cluster (without one, the one Incus) that run containers on this kernel.
        self._ours: set[str] = set()

    def is_ours(self, instance: Instance, read: Callable[[str], bytes | None]) -> bool:
        """True when it is certain that the instance runs on this kernel; `read` reads a file in it, None if it cannot.

        Of one that does not run it is, where a container ran in the same place. Raises what `read` raises.
        """
        member, _ = instance.place
        with self._lock:
            # As long as it is the same instance in the same place, it has the same kernel.
            known = self._known.get((instance.identity, instance.place)) if instance.running else (
                instance.is_container and member in self._ours)
        if known is None:
            known = _is_ours(read)
            self._remember(instance, known)
        return known

    def _remember(self, instance: Instance, ours: bool) -> None:
        member, _ = instance.place
        with self._lock:
            self._known[instance.identity, instance.place] = ours
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
            if ours:
                self._ours.add(member)


def _is_ours(read: Callable[[str], bytes | None]) -> bool:
    before = counters(_own())
    seen = read(COUNTERS_PATH)
    return seen is not None and fits(before, counters(seen), counters(_own()))


def _own() -> bytes:
    """What this kernel counts; nothing where this service does not see it (systemd.exec(5), ProcSubset=pid)."""
    try:
        with open(COUNTERS_PATH, "rb") as file:
            return file.read()
    except OSError:
        return b""


def counters(text: bytes) -> dict[bytes, int]:
    """The counters that only grow, by their names, of what is in /proc/vmstat. Pure."""
    return {name: int(value) for name, value in _COUNTER.findall(text)}


def fits(before: Mapping[bytes, int], seen: Mapping[bytes, int], after: Mapping[bytes, int]) -> bool:
    """True when `seen` can only be of the kernel that had `before` earlier and `after` later. Pure."""
    return (len(seen) >= _FEWEST and before.keys() == seen.keys() == after.keys()
            and all(before[name] <= seen[name] <= after[name] for name in seen))
