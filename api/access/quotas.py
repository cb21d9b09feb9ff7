"""Rates and amounts of uploads: how much of what a caller may do is left, for all API processes together.

What is handed on counts for who handed it on, too: the limits of each link of a caller hold, counted for its name.

Rates are buckets in shared times. An upload is let in when something is left in each, and takes out one upload and the
bytes that it announced, all or nothing; bytes that nobody announced, as they come. So a large file is not impossible,
but the next one waits. What was taken stays taken, also when the upload is refused later, or breaks off: it has had its
place, and whoever sends the same again and again is what the limit is for. What these limits refuse takes nothing.

The buckets of a name are locked for some microseconds. Whoever finds them locked tries again a few times; if the other
process was stopped in just that moment the upload is refused (too_busy): to let it in could exceed the limit, and to
wait could take for ever.

Amounts are what waits in the queue, with what is being received. An upload is counted as being received before anybody
looks, and until it is in the queue, which is asked afterwards: so none is overlooked, and of two that ask for the last
place at the same moment both may be refused. A name that shares its cells with others may be refused too early, which
is rare; no limit is ever exceeded by that.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final

from api.access.rate import Rate
from api.threads import joined
from daemon.access.caller import Caller, Link
from daemon.errors import Rejected
from daemon.process.shared_counts import Column, SharedCounts
from daemon.task_queue import Total

Headers = tuple[tuple[str, str], ...]

#: What is limited, by the kind of time that its buckets have.
_POLICIES: Final = ("uploads", "bytes")
#: How often somebody tries to get the buckets that another process has, and how long he waits in between.
_TRIES: Final = 100
_PAUSE_S: Final = 0.001
_SECOND_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The bucket of one name and policy."""

    name: str
    kind: int
    rate: Rate


@dataclass
class Admitted:
    """What one upload takes of its caller's quotas while it is being received. It ends with its `with`."""

    quotas: "Quotas"
    #: What it is counted for: the links with limits on what waits.
    links: Sequence[Link] = ()
    buckets: Sequence[_Bucket] = ()
    tasks: int = field(default=0, init=False)
    size_bytes: int = field(default=0, init=False)

    def __enter__(self) -> "Admitted":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Count it as being received no more."""
        self.quotas.count(self.links, -self.tasks, -self.size_bytes)

    async def more(self, size: int) -> None:
        """Take `size` bytes that nobody announced. Raises Rejected('too_many_pending', 'too_busy' or as the queue)."""
        if self.links:
            self.expect(0, size)
            await self.quotas.check_pending(self.links)
        await self.quotas.charge(self.buckets, size)

    def expect(self, tasks: int, size: int) -> None:
        """Count so much more as being received."""
        self.quotas.count(self.links, tasks, size)
        self.tasks += tasks
        self.size_bytes += size


class Quotas:
    """Asked before each upload, on the event loop. Callers without such limits cost nothing."""

    def __init__(
        self, counts: SharedCounts, pending_of: Callable[[str], Total], threads: Executor,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`pending_of` says what waits in the queue of that name and all below it, and blocks: `threads` ask it.

        The clock has to be the same for all processes.
        """
        self._times = counts.times()
        self._tasks = counts.holders(Column.QUOTA_TASKS)
        self._bytes = counts.holders(Column.QUOTA_BYTES)
        self._pending_of = pending_of
        self._threads = threads
        self._clock_ns = clock_ns
        self._unlimited = Admitted(self)

    async def enter(self, caller: Caller, size: int | None) -> Admitted:
        """Let an upload of `size` bytes in; None: nobody announced how many.

        Raises Rejected('rate_limited', 'too_many_pending' or 'too_busy'), and as the queue does.
        """
        if not _is_limited(caller):
            return self._unlimited
        links, buckets = _limited_links(caller), _buckets(caller)
        admitted = Admitted(self, links, buckets)
        admitted.expect(1, size or 0)
        try:
            if links:
                await self.check_pending(links)
            if buckets:
                await self._take(buckets, size or 0)
        except BaseException:
            admitted.leave()
            raise
        return admitted

    def going_on(self, caller: Caller) -> Admitted:
        """What an upload that was let in before takes while more of it comes: only bytes that nobody announced.

        The upload itself counts as waiting.
        """
        return Admitted(self, _limited_links(caller), _buckets(caller)) if _is_limited(caller) else self._unlimited

    def headers(self, caller: Caller) -> Headers:
        """How his rates stand (draft-ietf-httpapi-ratelimit-headers-10): of each policy, where least is left."""
        return self._headers(_buckets(caller)) if _is_limited(caller) else ()

    def _headers(self, buckets: Sequence[_Bucket]) -> Headers:
        if not buckets:
            return ()
        now = self._clock_ns()
        of_kinds = [[bucket for bucket in buckets if bucket.kind == kind] for kind in range(len(_POLICIES))]
        tightest = [min(some, key=lambda bucket: self._left(bucket, now)) for some in of_kinds if some]
        policies = ", ".join('"{}";q={};w={}'.format(_POLICIES[one.kind], *one.rate.quota) for one in tightest)
        states = ", ".join(f'"{_POLICIES[one.kind]}";{self._state(one, now)}' for one in tightest)
        return ("RateLimit-Policy", policies), ("RateLimit", states)

    def _left(self, bucket: _Bucket, now: int) -> int:
        return bucket.rate.left(self._times.of(bucket.name, bucket.kind), now)

    def _state(self, bucket: _Bucket, now: int) -> str:
        """How much is left, and the seconds until all is there again; if nothing is, until something is."""
        full_at, left = self._times.of(bucket.name, bucket.kind), self._left(bucket, now)
        return f"r={left};t={_seconds(max(0, full_at - now) if left else bucket.rate.wait_ns(full_at, now))}"

    # --- rates ---------------------------------------------------------------------------------------------

    async def _take(self, buckets: Sequence[_Bucket], size: int) -> None:
        """Take one upload of `size` bytes out of all buckets, or nothing. Raises Rejected."""
        await self._lock(buckets)
        try:
            now = self._clock_ns()
            wait_ns = max(bucket.rate.wait_ns(self._times.of(bucket.name, bucket.kind), now) for bucket in buckets)
            if not wait_ns:
                self._put_off(buckets, now, (1, size))
        finally:
            self._times.unlock()
        if wait_ns:
            raise Rejected("rate_limited", retry_after_s=_seconds(wait_ns), headers=self._headers(buckets))

    async def charge(self, buckets: Sequence[_Bucket], size: int) -> None:
        """Take `size` bytes out of the buckets, whatever is in them. Raises Rejected('too_busy')."""
        of_bytes = [bucket for bucket in buckets if bucket.kind == _POLICIES.index("bytes")]
        if not of_bytes or not size:
            return
        await self._lock(of_bytes)
        try:
            self._put_off(of_bytes, self._clock_ns(), (0, size))
        finally:
            self._times.unlock()

    def _put_off(self, buckets: Sequence[_Bucket], now: int, amounts: tuple[int, int]) -> None:
        for bucket in buckets:
            full_at = self._times.of(bucket.name, bucket.kind)
            self._times.put_off(bucket.name, bucket.kind, bucket.rate.after(full_at, now, amounts[bucket.kind]))

    async def _lock(self, buckets: Sequence[_Bucket]) -> None:
        """Lock the buckets. Nothing may be waited for until they are unlocked."""
        names = {bucket.name for bucket in buckets}
        for _ in range(_TRIES):
            if self._times.lock(names):
                return
            await asyncio.sleep(_PAUSE_S)
        raise Rejected("too_busy", "Another process has the rate limits of this client.")

    # --- amounts -------------------------------------------------------------------------------------------

    def count(self, links: Sequence[Link], tasks: int, size: int) -> None:
        """Count so much more as being received, for each of the links."""
        for link in links:
            self._tasks.add(link.name, tasks)
            self._bytes.add(link.name, size)

    async def check_pending(self, links: Sequence[Link]) -> None:
        """Look whether what is counted is within the limits. Raises Rejected('too_many_pending'), and as the queue."""
        # What has just been queued is counted twice by the first look: nobody is refused for that.
        for _ in range(2):
            receiving = [Total(self._tasks.of(link.name), self._bytes.of(link.name)) for link in links]
            waiting = await joined(self._threads.submit(self._waiting, links))
            if all(map(_fits, links, receiving, waiting)):
                return
        raise Rejected("too_many_pending")

    def _waiting(self, links: Sequence[Link]) -> list[Total]:
        return [self._pending_of(link.name) for link in links]


def _is_limited(caller: Caller) -> bool:
    for link in caller.links:
        grant = link.grant
        if not (grant.max_uploads_s is grant.max_bytes_s is grant.max_pending_tasks is grant.max_pending_bytes is None):
            return True
    return False


def _limited_links(caller: Caller) -> Sequence[Link]:
    return [link for link in caller.links
            if link.grant.max_pending_tasks is not None or link.grant.max_pending_bytes is not None]


def _buckets(caller: Caller) -> Sequence[_Bucket]:
    return [_Bucket(link.name, kind, Rate(per_s)) for link in caller.links
            for kind, per_s in enumerate((link.grant.max_uploads_s, link.grant.max_bytes_s)) if per_s is not None]


def _fits(link: Link, receiving: Total, waiting: Total) -> bool:
    tasks, size = link.grant.max_pending_tasks, link.grant.max_pending_bytes
    return ((tasks is None or receiving.tasks + waiting.tasks <= tasks)
            and (size is None or receiving.size_bytes + waiting.size_bytes <= size))


def _seconds(time_ns: int) -> int:
    """Whole seconds, rounded up."""
    return math.ceil(time_ns / _SECOND_NS)
