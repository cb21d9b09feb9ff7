"""The target of a request: a path, or a whole URL as a proxy would be sent it (RFC 9112, 3.2)."""

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/]*)(/.*)?")


def split(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority and the path of a target without its query; no authority when the target is a path."""
    found = _ABSOLUTE.fullmatch(target)
    return (found[1], found[2] or b"/") if found else (None, target)
