"""The spool: the bytes of uploads. This is the door to it.

`capabilities` says what can be done, in small parts; `values` what is said of uploads. Guarantees: an upload exists,
whole and durable, once it is sealed, and before that a crash leaves nothing of it; recovery never meets one whose row
is being decided about; marks tell dead letters and held uploads apart without the queue. What it does not do: it never
deletes what it does not understand, and it keeps no counts.

What keeps the bytes is behind the door: files, in `store`, `writer` and `inspect`, of which several small uploads may
share one. tests/unit/daemon/conformance holds them to what is promised here.
"""

from daemon.spool.capabilities import (
    CheckedSpool,
    Holdings,
    Incoming,
    Open,
    Opened,
    Receive,
    Remove,
    Room,
    Sealed,
    SetMark,
    Source,
    Spool,
)
from daemon.spool.file_format import FOOTER_BYTES
from daemon.spool.inspect import FileSpoolCheck
from daemon.spool.store import FileSpool
from daemon.spool.values import STOPPED, Found, Mark, Name, Stopped, Undecided, name_of, same_upload
from daemon.state.layout import Layout

__all__ = [
    "FOOTER_BYTES", "STOPPED", "CheckedSpool", "Found", "Holdings", "Incoming", "Mark", "Name", "Open", "Opened",
    "Receive", "Remove", "Room", "Sealed", "SetMark", "Source", "Spool", "Stopped", "Undecided", "name_of",
    "open_checked", "open_spool", "same_upload",
]


def open_spool(layout: Layout) -> Spool:
    """Open the spool of a state directory."""
    return FileSpool(layout)


def open_checked(layout: Layout) -> CheckedSpool:
    """Open the spool of a state directory for recovery too."""
    return FileSpoolCheck(layout)
