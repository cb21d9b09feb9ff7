"""The target of a request: a path, or a whole URL as a proxy would be sent it (RFC 9112, 3.2)."""

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?]*)(/?.*)")


def split(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of a target, and its path with whatever follows; no authority when the target is a path."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return None, target
    return found[1], found[2] if found[2].startswith(b"/") else b"/" + found[2]
