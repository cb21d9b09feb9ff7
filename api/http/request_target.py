"""The target of a request: a path, or a whole URL as a proxy would be sent it (RFC 9112, 3.2)."""

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?]*)(/?.*)", re.IGNORECASE)


def split(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of a target, and its path with whatever follows; no authority when the target is a path."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return None, target
    return found[2], found[3] if found[3].startswith(b"/") else b"/" + found[3]


def scheme_of(target: bytes) -> str | None:
    """The scheme of a target in small letters; None when it is a path."""
    found = _ABSOLUTE.fullmatch(target)
    return found[1].decode("ascii").lower() if found else None
