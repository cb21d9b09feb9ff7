"""Native messages to systemd's journal: one datagram an event, never blocking.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. Field names are A-Z, 0-9 and _, at most 64 characters,
starting with a letter; a value with a newline needs the length-prefixed form, which here every value uses
that is not a plain line. A datagram over the socket's buffer is refused, so values are capped.
"""

import os
import socket
import struct
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
#: Far under the datagram limit (212,960 bytes measured), with thirty such fields.
MAX_VALUE_BYTES: Final = 4096
_MAX_NAME: Final = 64


class Journal:
    """A connection to the journal. `send` is safe from several threads."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        #: Messages that the journal did not take.
        self.lost = 0

    def send(self, fields: dict[str, str]) -> bool:
        """Send one event; return False when the journal did not take it. Never blocks, never raises."""
        message = b"".join(encode(name, value) for name, value in fields.items())
        try:
            self._socket.sendto(message, self._path)
        except OSError:
            self.lost += 1
            return False
        return True


def encode(name: str, value: str) -> bytes:
    """One field in the journal's own form; nothing in `value` can start another field."""
    data = value.encode("utf-8", "surrogateescape")[:MAX_VALUE_BYTES]
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def field_name(key: str) -> str:
    """The journal's name for one of our keys: INCUS_ and the key in capitals."""
    return f"INCUS_{key.upper()}"[:_MAX_NAME]


def on_stderr() -> bool:
    """True when systemd connected this process's stderr to the journal (JOURNAL_STREAM says to which file)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdigit() and inode.isdigit()):
        return False
    found = os.fstat(2)
    return (found.st_dev, found.st_ino) == (int(device), int(inode))
