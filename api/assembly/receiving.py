"""Uploads that come in one request: whether they are let in, and how they get to the disk."""

from api.assembly.access import Access
from api.assembly.ground import Ground
from api.assembly.stores import Stores
from api.http.peers import Shares
from api.queries.reader import free_bytes
from api.uploads.admission import Admission
from api.uploads.backlog import Backlog
from api.uploads.headroom import Headroom
from api.uploads.intake import Uploads
from api.uploads.receive import Receiver
from daemon.process.shared_counts import Column


class Receiving:
    """Takes uploads."""

    def __init__(self, ground: Ground, stores: Stores, access: Access) -> None:
        live, counts = ground.live, ground.counts
        self.receiver = Receiver(stores.spool, stores.storage)
        self.tally = counts.tally(Column.UPLOADS)
        self.admission = Admission(
            stores.reader.waiting(), Shares(lambda: live.config.api.max_connections, counts, Column.UPLOADS),
            counts.tally(Column.ANNOUNCED_BYTES), Headroom(counts, lambda: free_bytes(stores.spool)),
            stores.storage.trouble)
        self.backlog = Backlog(stores.reader, self.admission, lambda: stores.partials.census(fresh=True))
        self.uploads = Uploads(
            live, self.admission, self.backlog, access.quotas, self.receiver, ground.refusals, access.amounts,
            ground.counted)

    def end(self) -> None:
        """Let no upload in any more."""
        self.admission.draining = True

    def close(self) -> None:
        """Wait for the threads to end."""
        self.receiver.close()
        self.backlog.close()
