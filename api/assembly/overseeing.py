"""What an operator sees of the whole, and the figures of the last hour."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from api.assembly.access import Access
from api.assembly.ground import Ground, Watch
from api.assembly.receiving import Receiving
from api.assembly.stores import Stores
from api.counting.kept import KeptCounts
from api.metrics.figures import Figures
from api.metrics.table import INSTANCES
from api.overview.fresh import Fresh
from api.overview.surveyor import Surveyor
from api.routes.health import Probe
from api.threads import joined
from daemon.config.naming import name_of_key
from daemon.process.shared_counts import Column
from daemon.process.thread_pools import begin_pool
from daemon.state.history import STEP_S, HistoryFile

#: A slot is written so long after its end, when every clock has passed it.
_AFTER_S: Final = 0.05
#: What is counted is kept so often.
_KEEP_S: Final = 1.0


class Overseeing:
    """Looks at the whole: one thread for that, the history and the counts, and one for pages of instances."""

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
        self._ground = ground
        self._kept = KeptCounts(ground.layout)
        self.figures = Fresh(self._figures, self._looking)
        self.watches: Sequence[Watch] = [self._record, self._keep]
        # What it needs is open before anybody comes: later there may be no descriptors left.
        self._looking.submit(self.surveyor.record).result()
        self._looking.submit(self._kept.keep, {}).result()

    async def _record(self) -> None:
        """Write down what was counted by the end of each slot, for as long as the process runs."""
        while True:
            await asyncio.sleep(STEP_S - time.time() % STEP_S + _AFTER_S)
            await joined(self._looking.submit(self.surveyor.record))

    async def _keep(self) -> None:
        """Keep what is counted, for as long as the process runs."""
        while True:
            await asyncio.sleep(_KEEP_S)
            await joined(self._looking.submit(self._kept.keep, self._ground.counted.values()))

    def _figures(self) -> Figures:
        """The figures for metrics. Raises Rejected where no shard can be read."""
        counts, config = self._ground.counts, self._ground.live.config
        first = self.surveyor.ranking().ranks[:INSTANCES]
        return Figures(
            stock=self.surveyor.stock(), counted=self._kept.totals(),
            waiting=[(name_of_key(rank.instance_key, config), rank.waiting) for rank in first],
            connections=counts.tally(Column.CONNECTIONS).total, streams=counts.tally(Column.STREAMS).total)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._looking.submit(self._kept.keep, self._ground.counted.values())
        self._looking.shutdown()
        self._kept.close()
        self.paging.shutdown()
        self._history.close()
