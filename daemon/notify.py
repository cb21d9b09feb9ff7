"""What the service manager is told: sd_notify(3), without a library. Outside systemd nothing happens.

Source: the protocol is one datagram of KEY=VALUE lines to the socket named by NOTIFY_SOCKET.
"""

import os
import socket
import time


def ready() -> None:
    """Say that the process does its work now."""
    _send("READY=1")


def stopping() -> None:
    """Say that the process is about to end."""
    _send("STOPPING=1")


def reloading() -> None:
    """Say that the configuration is being read again; `ready` ends it."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def status(text: str) -> None:
    """Say in a line how the process is doing."""
    _send(f"STATUS={' '.join(text.split())}")


def watchdog() -> None:
    """Say that the main loop completed a turn."""
    _send("WATCHDOG=1")


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            # The manager is busy or gone; the next message will do.
            return
