"""Which start of the machine this is."""

import os
import uuid
from pathlib import Path
from typing import Final

#: The kernel's name for the time since its last boot.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: systemd tells it to a unit that does not see /proc/sys (systemd.unit(5), %b).
VARIABLE: Final = "COURIER_BOOT_ID"


def boot_id() -> str | None:
    """What is another one after each restart of the machine; None where nobody says it.

    Whoever gets None takes the machine for one that was restarted.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return _told()


def _told() -> str | None:
    try:
        return str(uuid.UUID(os.environ.get(VARIABLE, "")))
    except ValueError:
        return None
