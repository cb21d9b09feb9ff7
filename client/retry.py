"""When a request is tried again: pure decisions."""

from typing import Final

from client.http import Response

#: What passes by itself: the service is busy, full, restarting, or a proxy in front of it finds nobody there.
PASSING: Final = frozenset({408, 423, 425, 429, 502, 503, 504, 507})
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 15.0
#: More than a service asks for; what a broken one asks for is not obeyed for ever.
_LONGEST_RETRY_AFTER_S: Final = 300.0


def passes(response: Response) -> bool:
    """True when the same request may succeed later."""
    return response.status in PASSING


def pause_s(tries: int, response: Response | None, fraction: float) -> float:
    """How long to wait after the `tries`th failure in a row (from 1 on), in seconds.

    Never shorter than `Retry-After` says. `fraction`, from 0 to 1, is the random share that keeps clients apart.
    """
    grown = min(_FIRST_PAUSE_S * float(2 ** min(tries - 1, 20)), _LONGEST_PAUSE_S)
    asked = (response.number("retry-after") if response is not None else None) or 0
    return min(asked, _LONGEST_RETRY_AFTER_S) + grown * (0.5 + fraction / 2)
