"""What the children say to the service manager, put together into what one process would say.

A unit of several processes has one main process, and the manager hears that one alone. So the main process hears its
children, each on a line of its own that it inherits, and speaks for them.

Guarantees: the service is ready once all of its children have been, and a reload has ended when each of them has ended
its own; a child that stands still is told from one that is at work; nobody else can be heard, or be in their way.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from daemon.process import sd_notify

#: Longer than any message of ours.
_MESSAGE_BYTES: Final = 4096
#: Messages of one child that are heard in a turn. The kernel keeps no more for it (net.unix.max_dgram_qlen).
_AT_ONCE: Final = 64
#: A turn that comes so many seconds after the one before is late; one a second is usual.
_LATE_S: Final = 5.0


@dataclass
class _Child:
    line: socket.socket
    #: When it last said that it is alive, on the monotonic clock; None until it is ready.
    heard_at: float | None = None
    reloading: bool = False
    status: str = ""


class Relay:
    """Hears the children of one process and speaks for them. One thread uses it; nothing blocks for long."""

    def __init__(self, children: int) -> None:
        """`children` is how many there are when all run."""
        self._missing = children
        self._children: dict[int, _Child] = {}
        self._told_ready = False
        self._told_status = ""
        self._reloading = False
        self._turned_at = 0.0

    @classmethod
    def if_managed(cls, children: int) -> Self | None:
        """One, if a service manager listens to this process."""
        return cls(children) if sd_notify.is_managed() else None

    @property
    def lines(self) -> list[socket.socket]:
        """What to wait on."""
        return [child.line for child in self._children.values()]

    def begun(self, pid: int, line: socket.socket) -> None:
        """A child was started, and `line` is the upper end of its line; see `new_line`."""
        line.setblocking(False)
        self._children[pid] = _Child(line)

    def ended(self, pid: int) -> None:
        """A child is gone. May be said again."""
        child = self._children.pop(pid, None)
        if child is not None:
            child.line.close()

    def reload(self) -> None:
        """Every child was told to read the configuration again."""
        self._reloading = True
        for child in self._children.values():
            child.reloading = child.heard_at is not None
        sd_notify.reloading()

    def turn(self, now: float) -> None:
        """Hear what was said, and say what follows from it. `now` is on the monotonic clock."""
        late, self._turned_at = now - self._turned_at > _LATE_S, now
        for child in self._children.values():
            if late and child.heard_at is not None:
                # All of them stood still together, as when the machine is suspended: nobody can tell what it missed.
                child.heard_at = now
            for said in _heard(child.line):
                self._take(child, said, now)
        ready = sum(child.heard_at is not None for child in self._children.values())
        if not self._told_ready and ready == self._missing:
            self._told_ready = True
            sd_notify.ready()
        if self._reloading and not any(child.reloading for child in self._children.values()):
            self._reloading = False
            sd_notify.ready()
        status = "; ".join(dict.fromkeys(child.status for child in self._children.values() if child.status))
        if status != self._told_status:
            self._told_status = status
            sd_notify.status(status)
        sd_notify.watchdog()

    def hung(self, now: float, for_s: float) -> list[int]:
        """The process ids of children that were ready, and have said nothing for so long."""
        return [pid for pid, child in self._children.items()
                if child.heard_at is not None and now - child.heard_at > for_s]

    def _take(self, child: _Child, said: dict[str, str], now: float) -> None:
        if "READY" in said:
            child.heard_at = now
            child.reloading = False
        if child.heard_at is not None:
            child.heard_at = now
        child.reloading |= "RELOADING" in said
        child.status = said.get("STATUS", child.status)
        if not self._told_ready and sd_notify.EXTEND in said:
            sd_notify.extend(said[sd_notify.EXTEND])

    def close(self) -> None:
        """Hear nobody any more."""
        for pid in list(self._children):
            self.ended(pid)


def new_line() -> tuple[socket.socket, socket.socket]:
    """A line for a child: the upper end of it, and the child's, which it inherits."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def environment(line: socket.socket) -> dict[str, str]:
    """What a child has to find in its environment, beside its end of the line."""
    return {sd_notify.LINE: str(line.fileno())}


def _heard(line: socket.socket) -> Iterator[dict[str, str]]:
    """The variables of what was said."""
    for _ in range(_AT_ONCE):
        try:
            data = line.recv(_MESSAGE_BYTES)
        except OSError:
            # Nothing more, or the child is gone.
            return
        pairs = (text.partition("=") for text in data.decode(errors="replace").splitlines())
        yield {name: value for name, _, value in pairs}


def watchdog_s() -> float | None:
    """How long the service manager lets a process stand still (sd_watchdog_enabled(3)); None when it does not mind."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) > 0 else None
