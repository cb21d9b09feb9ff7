"""A rate as a token bucket, with one number for its state: the time at which it will be full again.

The generic cell rate algorithm (ITU-T I.371), pure: in any window no more goes through than the rate gives in that
time, and what the bucket holds; and of what is let in while something is left, however much it is, the last one.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

_SECOND_NS: Final = 10**9
#: Longer than anything lasts: 146 years.
_FOREVER_NS: Final = 2**62
#: Windows of policies are at most so long, where the rate gives anything in that time.
_MAX_WINDOW_S: Final = 3600
#: The largest integer in a structured field (RFC 9651, 3.3.1).
_MAX_FIELD: Final = 10**15 - 1


@lru_cache
def _in_whole_numbers(per_s: float) -> Fraction:
    return Fraction(per_s).limit_denominator(_MAX_WINDOW_S)


@dataclass(frozen=True, slots=True)
class Rate:
    """So much a second. The bucket holds what comes in one second, and at least one."""

    per_s: float

    def wait_ns(self, full_at: int, now: int) -> int:
        """How long it takes until there is at least one in the bucket; 0: there is."""
        return max(0, max(full_at, now) + self._time_of(1) - self._size_ns - now)

    def after(self, full_at: int, now: int, amount: int) -> int:
        """When the bucket will be full again if `amount` is taken out now, be it more than is in it."""
        return max(full_at, now) + self._time_of(amount)

    def left(self, full_at: int, now: int) -> int:
        """How much is in the bucket, rounded down."""
        left_ns = self._size_ns - max(0, full_at - now)
        return min(max(0, math.floor(left_ns * self.per_s / _SECOND_NS)), _MAX_FIELD)

    @property
    def quota(self) -> tuple[int, int]:
        """The same rate in whole numbers, or one that is as good as the same: how much in how many seconds."""
        whole = _in_whole_numbers(self.per_s)
        if whole.numerator == 0:
            return 1, min(math.ceil(self._time_of(1) / _SECOND_NS), _MAX_FIELD)
        return min(whole.numerator, _MAX_FIELD), whole.denominator

    @property
    def _size_ns(self) -> int:
        return max(_SECOND_NS, self._time_of(1))

    def _time_of(self, amount: int) -> int:
        """In how many nanoseconds so much comes, rounded up."""
        return math.ceil(min(amount * _SECOND_NS / self.per_s, _FOREVER_NS))
