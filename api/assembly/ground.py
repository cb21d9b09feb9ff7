"""What all groups stand on."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from api.counting.counted import Counted
from api.http.refusal_log import RefusalLog
from api.live_config import LiveConfig
from daemon.process.shared_counts import SharedCounts
from daemon.state.layout import Layout

#: What runs for as long as the process does.
Watch = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Ground:
    """What nearly every part asks, counts or tells."""

    live: LiveConfig
    layout: Layout
    #: What all API processes count.
    counts: SharedCounts
    refusals: RefusalLog
    #: What this process counts for good.
    counted: Counted
