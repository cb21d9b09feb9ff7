"""Amounts that a credential may use in all.

They are used up before the body is read, and given back for what was not accepted.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

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


class Amounts:
    """Counts what callers use, for all API processes together."""

    def __init__(self, store: Meter, threads: Executor) -> None:
        self._store = store
        self._threads = threads

    def using(self, caller: Caller, size: int | None) -> AbstractAsyncContextManager[Use]:
        """Use up one upload of `size` bytes; what ends with an error that is certain uses up nothing.

        Raises Rejected: 'used_up' when not so much is left, 'bad_length' when bytes are counted and nobody said how
        many come, 'delegation_unreadable' or 'no_room' when it cannot be written down.
        """
        budgets = budgets_of(caller)
        return self._using(budgets, size) if budgets else contextlib.nullcontext(Use())

    @contextlib.asynccontextmanager
    async def _using(self, budgets: Sequence[Budget], size: int | None) -> AsyncIterator[Use]:
        use = Use()
        if size is None and any(budget.max_total_bytes is not None for budget in budgets):
            raise Rejected("bad_length", "This credential is for so many bytes: state the length of the body.")
        size_bytes = size or 0
        if not await joined(self._threads.submit(self._store.reserve, budgets, uploads=1, size_bytes=size_bytes)):
            raise Rejected("used_up")
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
                await joined(self._threads.submit(self._store.give_back, budgets, uploads=1, size_bytes=size_bytes))
