"""What people ask the workers to do with tasks, one or many; and the bytes of tasks for who fetches them."""

from typing import Final

from api.acting.applying import Applier
from api.acting.cancelling import Canceller
from api.acting.errands import Errands
from api.acting.selections import Selections
from api.assembly.ground import Ground
from api.assembly.stores import Stores
from api.routes.selections import SelectionRoutes
from daemon.process.thread_pools import begin_pool

#: Threads that ask the workers for something, and look for their answers.
ACTING_THREADS: Final = 2
#: Threads that read bytes for who fetches them.
FETCHING_THREADS: Final = 2


class Acting:
    """Asks the workers. Previews and fetching have threads of their own: they hold up nobody who acts."""

    def __init__(self, ground: Ground, stores: Stores) -> None:
        reader = stores.reader
        self._asking = begin_pool(ACTING_THREADS, "act")
        self._choosing = begin_pool(1, "choose")
        self.fetching = begin_pool(FETCHING_THREADS, "fetch")
        self.errands = Errands(ground.layout, reader, self._asking)
        self.canceller = Canceller(self.errands, reader.shards)
        selections = Selections(ground.layout, reader.shards)
        self._applier = Applier(selections, self.errands, reader, self._asking)
        self.selecting = SelectionRoutes(ground.live, reader, selections, self._applier, self._choosing)

    def end(self) -> None:
        """Wait for no answer any more, and let previews come to their end at once."""
        self.errands.ending = True
        self.selecting.end()

    async def stop(self) -> None:
        """Stop applying selections, also where `end` was not called."""
        self.selecting.end()
        await self._applier.end()

    def close(self) -> None:
        """Wait for the threads to end."""
        for pool in (self._asking, self._choosing, self.fetching):
            pool.shutdown()
