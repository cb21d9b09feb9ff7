"""Who shows a token that was handed on: looked for in the store, in a thread."""

import time
from concurrent.futures import Executor

from api.access.evidence import Evidence
from api.access.identify import Known
from api.threads import joined
from daemon.access.caller import Caller
from daemon.access.children import caller_of
from daemon.access.token_text import TokenText, is_same
from daemon.delegation import Recognize


class Children:
    """Finds who acts under rights that were handed on."""

    def __init__(self, store: Recognize, threads: Executor) -> None:
        self._store = store
        self._threads = threads

    async def find(self, shown: TokenText, known: Known, evidence: Evidence) -> Caller | None:
        """Who shows that token; None when nobody was handed it, or it has ended.

        Raises Rejected('delegation_unreadable').
        """
        lineage = await joined(self._threads.submit(self._store.lineage, shown.key_id))
        if not lineage or not is_same(shown.sha256, lineage[0].sha256):
            return None
        now = time.time()
        return caller_of(
            lineage, lambda name: known.links_of(name, now), now=now, address=evidence.address)
