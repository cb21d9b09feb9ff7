"""Amounts that a credential may use in all.

They are used up before the body is read, and given back for what was not accepted.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from api.threads import joined
from daemon.access.caller import Caller
from daemon.access.children import budgets_of
from daemon.delegation import Budget, Meter
from daemon.errors import Rejected


@dataclass
class Use:
    """What one upload uses up."""

    #: Set to true when it turns out that it uses up nothing.
    nothing: bool = False
    #: Set to true when it may be accepted, though whoever waits for that is cut off.
    undecided: bool = False

    async def more(self, size: int) -> None:
        """Use up `size` bytes that nobody announced. Raises as `Amounts.using` does."""


@dataclass(kw_only=True)
class _Metered(Use):
    """What it uses up of budgets."""

    store: Meter
    threads: Executor
    budgets: Sequence[Budget]
    size_bytes: int = 0

    async def begin(self, size: int) -> None:
        await self._reserve(1, size)

    async def more(self, size: int) -> None:
        if size and any(budget.max_total_bytes is not None for budget in self.budgets):
            await self._reserve(0, size)

    async def _reserve(self, uploads: int, size: int) -> None:
        reserve = partial(self.store.reserve, self.budgets, uploads=uploads, size_bytes=size)
        if not await joined(self.threads.submit(reserve)):
            raise Rejected("used_up")
        self.size_bytes += size

    async def give_back(self) -> None:
        give_back = partial(self.store.give_back, self.budgets, uploads=1, size_bytes=self.size_bytes)
        await joined(self.threads.submit(give_back))


class Amounts:
    """Counts what callers use, for all API processes together."""

    def __init__(self, store: Meter, threads: Executor) -> None:
        self._store = store
        self._threads = threads

    def using(self, caller: Caller, size: int | None) -> AbstractAsyncContextManager[Use]:
        """Use up one upload of `size` bytes, and of those that are told later; what certainly fails uses up nothing.

        Raises Rejected: 'used_up' when not so much is left, 'bad_length' when bytes are counted and nobody said how
        many come, 'delegation_unreadable' or 'no_room' when it cannot be written down.
        """
        budgets = budgets_of(caller)
        return self._using(budgets, size) if budgets else contextlib.nullcontext(Use())

    @contextlib.asynccontextmanager
    async def _using(self, budgets: Sequence[Budget], size: int | None) -> AsyncIterator[Use]:
        if size is None and any(budget.max_total_bytes is not None for budget in budgets):
            raise Rejected("bad_length", "This credential is for so many bytes: state the length of the body.")
        use = _Metered(store=self._store, threads=self._threads, budgets=budgets)
        await use.begin(size or 0)
        is_over = False
        try:
            yield use
            is_over = use.nothing
        except Rejected as error:
            is_over = error.code != "outcome_unknown"
            raise
        except BaseException:
            is_over = not use.undecided
            raise
        finally:
            if is_over:
                await use.give_back()
