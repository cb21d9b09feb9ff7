"""What an upload uses up of a limited amount."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.access.amounts import Amounts
from api.access.quotas import Quotas
from api.access.requester import Requester
from api.counting.counted import Counted
from api.http.refusal_log import RefusalLog
from api.live_config import LiveConfig
from api.uploads.admission import Admission
from api.uploads.backlog import Backlog
from api.uploads.body import Body
from api.uploads.intake import Uploads
from api.uploads.receive import Receiver
from api.uploads.request import read_upload
from daemon.access.caller import Caller, Link
from daemon.config import load
from daemon.delegation import Budget, Delegations, open_delegations
from daemon.model.grant import Grant
from daemon.state.layout import Layout

ONCE = Grant.read({"may": ["upload"], "max_uploads": 1})
CALLER = Caller(name="token:once", links=(Link("token:once", ONCE),))
HEADERS = {b"x-container-name": [b"c1"], b"x-file-path": [b"/x"], b"content-length": [b"1"]}


class Cancelled:
    """An upload that is cut off by the end of the process."""

    def __init__(self, store: Delegations, *, whole: bool) -> None:
        """When its body is `whole`, or before that."""
        self._store = store
        self._whole = whole
        self._waits = asyncio.Event()

    async def happen(self) -> None:
        """Take it, and cut it off."""
        stub = SimpleNamespace(admit=self._admit, take=self._take, enter=self._enter, more=None)
        with ThreadPoolExecutor(1) as threads:
            uploads = Uploads(LiveConfig(load(None)), cast(Admission, stub), cast(Backlog, stub), cast(Quotas, stub),
                              cast(Receiver, stub), RefusalLog(), Amounts(self._store, threads), Counted())
            taking = asyncio.create_task(uploads.take(
                lambda config: read_upload(HEADERS, config), self._receive, "peer", Requester(CALLER, self._again)))
            waiting = asyncio.create_task(self._waits.wait())
            await asyncio.wait({taking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking

    async def _admit(self, *_: object) -> Any:
        return contextlib.nullcontext()

    async def _again(self) -> Caller:
        return CALLER

    async def _enter(self, *_: object) -> Any:
        return contextlib.nullcontext(SimpleNamespace(more=None))

    async def _receive(self) -> dict[str, Any]:
        if not self._whole:
            await self._wait()
        return {"type": "http.request", "body": b"x"}

    async def _take(self, _: object, body: Body, __: object) -> None:
        await body.pieces(1)
        await self._wait()

    async def _wait(self) -> None:
        self._waits.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("whole", [True, False])
def test_upload_that_is_cut_off_stays_used_up_only_if_it_may_be_stored(tmp_path: Path, *, whole: bool) -> None:
    """Once its body is whole, it may be in the queue by then: to give it back could let one more in than is allowed."""
    layout = Layout(tmp_path / "state")
    layout.create()
    with contextlib.closing(open_delegations(layout)) as store:
        async def happen() -> None:
            await Cancelled(store, whole=whole).happen()

        asyncio.run(happen())
        assert store.reserve([Budget(name="token:once", max_uploads=1)], uploads=1, size_bytes=1) is not whole
