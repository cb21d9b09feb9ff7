"""What the children say to the service manager, put together into what one process would say.

A unit of several processes has one main process, and the manager hears that one alone. So the main process hears its
children, on a socket like the manager's, and speaks for them.

Guarantees: the service is ready once all of its children have been, and a reload has ended when each of them has ended
its own; a child that stands still is told from one that is at work; nobody but the children is heard.
"""

import os
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from daemon.process import sd_notify

#: `struct ucred`: pid, uid, gid (unix(7)).
_CREDENTIALS: Final = struct.Struct("iII")
#: Longer than any message of ours.
_MESSAGE_BYTES: Final = 4096


@dataclass
class _Child:
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
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # The kernel chooses the name (unix(7), autobind): it is in no directory, and gone with the process.
        self._socket.bind("")

    @classmethod
    def if_managed(cls, children: int) -> Self | None:
        """One, if a service manager listens to this process."""
        return cls(children) if sd_notify.is_managed() else None

    @property
    def environment(self) -> dict[str, str]:
        """What a child has to find in its environment."""
        name: bytes = self._socket.getsockname()
        return {sd_notify.VARIABLE: f"@{name[1:].decode('ascii')}"}

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def begun(self, pid: int) -> None:
        """A child was started."""
        self._children[pid] = _Child()

    def ended(self, pid: int) -> None:
        """A child is gone."""
        self._children.pop(pid, None)

    def reload(self) -> None:
        """Every child was told to read the configuration again."""
        self._reloading = True
        for child in self._children.values():
            child.reloading = child.heard_at is not None
        sd_notify.reloading()

    def turn(self, now: float) -> None:
        """Hear what was said, and say what follows from it. `now` is on the monotonic clock."""
        while (heard := self._next()) is not None:
            child = self._children.get(heard[0])
            if child is not None:
                self._take(child, heard[1], now)
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

    def _next(self) -> tuple[int, dict[str, str]] | None:
        """Who said something, and the variables of it; None when nothing more was said."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
        except BlockingIOError:
            return None
        pid = next((_CREDENTIALS.unpack(value)[0] for level, kind, value in ancillary
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)), 0)
        lines = (line.partition("=") for line in data.decode(errors="replace").splitlines())
        return pid, {name: value for name, _, value in lines}

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
        self._socket.close()


def watchdog_s() -> float | None:
    """How long the service manager lets a process stand still (sd_watchdog_enabled(3)); None when it does not mind."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) > 0 else None
