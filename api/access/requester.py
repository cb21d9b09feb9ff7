"""Who asks, for as long as one request takes."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from daemon.access.caller import Caller


class Requester(NamedTuple):
    """Who sent a request, and a way to find that out anew."""

    caller: Caller
    #: Who that is by now, from what the request shows. Raises Rejected as at the first time.
    again: Callable[[], Awaitable[Caller]]
