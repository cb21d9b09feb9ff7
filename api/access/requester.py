"""Who asks, for as long as one request takes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from daemon.access.caller import Caller


@dataclass(frozen=True, slots=True)
class Requester:
    """Who sent a request, and a way to find that out anew."""

    caller: Caller
    #: Who that is by now, from what the request shows. Raises Rejected as at the first time.
    again: Callable[[], Awaitable[Caller]]
