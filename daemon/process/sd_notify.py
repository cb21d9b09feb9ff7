"""What the service manager is told: sd_notify(3), without a library. Outside systemd nothing happens.

A child of a service of several processes tells it to the process above, on a line of its own (`daemon.process.relay`).

What the manager waits for is said until it hears it, for a short while; what will be said again soon is dropped
when the manager is busy.

Source: the protocol is one datagram of KEY=VALUE lines to the socket named by NOTIFY_SOCKET.
"""

import os
import socket
import time
from typing import Final

from daemon.model.text import escaped

#: Where the manager listens.
_VARIABLE: Final = "NOTIFY_SOCKET"
#: The descriptor of the line to the process above, if that speaks for this one.
LINE: Final = "INCUS_COURIER_NOTIFY_FD"
#: How much more time is asked for.
EXTEND: Final = "EXTEND_TIMEOUT_USEC"

#: How long the manager may be busy before it misses what it waits for.
_PATIENCE_S: Final = 5.0
#: Beyond the time that was asked for to stop, before the manager insists.
_MARGIN_S: Final = 10.0


def is_managed() -> bool:
    """True when there is a service manager that listens."""
    return LINE in os.environ or os.environ.get(_VARIABLE, "").startswith(("/", "@"))


def ready() -> None:
    """Say that the process does its work now."""
    _send("READY=1", _PATIENCE_S)


def still_starting(within_s: float) -> None:
    """Say that the start goes on, and ask for so much more time."""
    extend(str(int(within_s * 1e6)))


def extend(microseconds: str) -> None:
    """Ask for so much more time, in the manager's own words."""
    _send(f"{EXTEND}={microseconds}", 0)


def stopping(within_s: float = 0) -> None:
    """Say that the process is about to end, and ask for as long as that may take, should the manager grant less."""
    _send(f"STOPPING=1\n{EXTEND}={int((within_s + _MARGIN_S) * 1e6)}", _PATIENCE_S)


def reloading() -> None:
    """Say that the configuration is being read again; `ready` ends it."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", _PATIENCE_S)


def status(text: str) -> None:
    """Say in a line how the process is doing."""
    _send(f"STATUS={escaped(' '.join(text.split()))}", 0)


def watchdog() -> None:
    """Say that the main loop completed a turn."""
    _send("WATCHDOG=1", 0)


def _send(message: str, patience_s: float) -> None:
    if not is_managed():
        return
    try:
        with _connected() as sender:
            sender.settimeout(patience_s)
            sender.send(message.encode())
    except OSError:
        # The manager is gone, or busy: the next message will do.
        return


def _connected() -> socket.socket:
    if LINE in os.environ:
        return socket.socket(fileno=os.dup(int(os.environ[LINE])))
    address = os.environ[_VARIABLE]
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sender.setblocking(False)
        sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
    except OSError:
        sender.close()
        raise
    return sender
