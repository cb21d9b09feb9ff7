"""The `Prefer` header (RFC 7240): what a client would like, and may do without. Pure."""

import re
from collections.abc import Iterable
from typing import Final

#: More than anybody waits.
_MOST_DIGITS: Final = 9
#: What comes after so many bytes is not looked at.
_MOST_BYTES: Final = 1024
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: One preference with its parameters: what stands between two commas. Nothing is tried twice, however it is written.
_PREFERENCE: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*+"?+|[^",])++')
_NAME_AND_VALUE: Final = re.compile(
    rf'[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*(?:"([^"\\]*)"|({_TOKEN}))[ \t]*)?(?:;.*)?', re.DOTALL)


def wait_s(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """For how many seconds at most the client would like to wait for the outcome; None: it does not say.

    Of several the first one counts. What cannot be understood is as if it were not there (RFC 7240, 2).
    """
    values = [value for name, value in headers if name == b"prefer"]
    if not values:
        return None
    for preference in _PREFERENCE.findall(b",".join(values)[:_MOST_BYTES].decode("latin-1")):
        found = _NAME_AND_VALUE.fullmatch(preference)
        if found is not None and found[1].lower() == "wait":
            return _seconds(found[2] or found[3] or "")
    return None


def _seconds(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if len(text) <= _MOST_DIGITS else 10**_MOST_DIGITS
