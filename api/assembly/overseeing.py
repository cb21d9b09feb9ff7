"""What an operator sees of the whole, and the figures of the last hour."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from api.assembly.access import Access
from api.assembly.ground import Ground, Watch
from api.assembly.receiving import Receiving
from api.assembly.stores import Stores
from api.overview.fresh import Fresh
from api.overview.history import STEP_S, HistoryFile
from api.overview.surveyor import Surveyor
from api.routes.health import Probe
from api.threads import joined
from daemon.process.thread_pools import begin_pool

#: A slot is written so long after its end, when every clock has passed it.
_AFTER_S: Final = 0.05


class Overseeing:
    """Looks at the whole: one thread for that and for the history, and one for pages of instances."""

    def __init__(self, ground: Ground, stores: Stores, access: Access, receiving: Receiving) -> None:
        self.probe = Probe(
            ground.layout, stores.spool, stores.reader, receiving.admission, lambda: access.roster.trouble,
            lambda: access.roster.tokens_digest)
        self._history = HistoryFile(ground.layout)
        self._looking = begin_pool(1, "oversee")
        self.paging = begin_pool(1, "instances")
        self.surveyor = Surveyor(
            ground.live, ground.layout, stores.reader, stores.partials, self._history,
            lambda config: self.probe.examine(config).reasons)
        self.whole = Fresh(self.surveyor.look, self._looking)
        self.ranking = Fresh(self.surveyor.ranking, self.paging)
        self.watches: Sequence[Watch] = [self._record]
        # What it needs is open before anybody comes: later there may be no descriptors left.
        self._looking.submit(self.surveyor.record).result()

    async def _record(self) -> None:
        """Write down what was counted by the end of each slot, for as long as the process runs."""
        while True:
            await asyncio.sleep(STEP_S - time.time() % STEP_S + _AFTER_S)
            await joined(self._looking.submit(self.surveyor.record))

    def close(self) -> None:
        """Wait for the threads to end."""
        self._looking.shutdown()
        self.paging.shutdown()
        self._history.close()
