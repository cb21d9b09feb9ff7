"""Removes resumable uploads that nothing was heard of, now and then. One process of the API does that."""

import asyncio
import time
from concurrent.futures import Executor
from typing import Final

from api.live_config import LiveConfig
from api.threads import joined
from daemon.errors import Rejected
from daemon.log import log
from daemon.partials import Partials

#: Seconds between two sweeps; where uploads expire sooner, a quarter of that.
EVERY_S: Final = 60.0
_LEAST_S: Final = 0.5


async def sweep(partials: Partials, live: LiveConfig, threads: Executor) -> None:
    """Sweep for as long as the process runs."""
    while True:
        expire_s = live.config.uploads.expire_s
        try:
            gone = await joined(threads.submit(partials.sweep, time.time(), expire_s))
        except Rejected as error:
            log("partials.failed", detail=error.detail)
        else:
            if gone:
                log("upload.expired", uploads=len(gone))
        await asyncio.sleep(pause_s(expire_s))


def pause_s(expire_s: float) -> float:
    """How long to wait for the next sweep."""
    return min(EVERY_S, max(_LEAST_S, expire_s / 4))
