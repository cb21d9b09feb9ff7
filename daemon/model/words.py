"""Amounts in words, for people."""

from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP: Final = 1024


def age(seconds: float) -> str:
    """A length of time in one unit, as `tasks --older-than` takes it."""
    whole = max(0, round(seconds))
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if whole >= 2 * unit_s:
            return f"{whole // unit_s}{unit}"
    return f"{whole}s"


def amount(size_bytes: int) -> str:
    """A number of bytes in one unit."""
    shown = float(size_bytes)
    for unit in _UNITS[:-1]:
        if shown < _STEP:
            return f"{shown:.0f} {unit}" if unit == "B" else f"{shown:.1f} {unit}"
        shown /= _STEP
    return f"{shown:.1f} {_UNITS[-1]}"
