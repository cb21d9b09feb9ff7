"""Uploads that go on where they were cut off."""

from collections.abc import Sequence
from functools import partial

from api.assembly.access import Access
from api.assembly.acting import Acting
from api.assembly.ground import Ground, Watch
from api.assembly.receiving import Receiving
from api.assembly.stores import Stores
from api.resumable.completion import Completion
from api.resumable.engine import Resumable
from api.resumable.sweeping import sweep
from api.resumable.turns import Turns


class Resuming:
    """Takes resumable uploads; one API process of all removes those that nothing was heard of."""

    def __init__(
        self, ground: Ground, stores: Stores, access: Access, receiving: Receiving, acting: Acting,
    ) -> None:
        writing, _ = receiving.receiver.pools
        self._turns = Turns(stores.partials)
        completion = Completion(
            ground.live, writing, stores.storage, receiving.admission, access.amounts,
            lambda task_id: stores.reader.find(task_id, lambda _: True), stores.reader.newer_known)
        self.engine = Resumable(
            ground.live, stores.partials, self._turns, receiving.backlog, access.quotas, receiving.receiver, completion,
            ground.refusals, ground.counted, acting.canceller.cancel)
        self.watches: Sequence[Watch] = []
        if ground.counts.is_first:
            self.watches = [partial(sweep, stores.partials, ground.live, writing)]

    def close(self) -> None:
        """Wait for the threads to end."""
        self._turns.close()
