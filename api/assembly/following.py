"""What happens to tasks, for who follows them or waits for an outcome."""

from collections.abc import Sequence

from api.assembly.ground import Ground, Watch
from api.assembly.stores import Stores
from api.following.hub import Hub
from api.following.outcomes import Outcomes
from api.following.stream import Streams
from api.http.peers import Shares
from daemon.process.shared_counts import Column


class Following:
    """Tells what happens."""

    def __init__(self, ground: Ground, stores: Stores) -> None:
        live = ground.live
        self._hub = Hub(stores.reader)
        self.streams = Streams(stores.reader)
        self.outcomes = Outcomes(
            live, self._hub, stores.reader, stores.finder, stores.reading,
            Shares(lambda: live.max_connections() // 2, ground.counts, Column.WAITING))
        self.watches: Sequence[Watch] = [self._hub.watch, self.streams.hub.watch]

    def end(self) -> None:
        """Let nobody follow or wait any more."""
        self.streams.end()
        self.outcomes.end()

    def close(self) -> None:
        """Wait for the threads to end."""
        self._hub.close()
        self.streams.close()
