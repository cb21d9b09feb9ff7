"""Rates as token buckets."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access.rate import Rate

SECOND_NS = 10**9
RATES = st.floats(0.01, 1e6)
#: Gaps in time, and how much is asked for after each.
ASKED = st.lists(st.tuples(st.integers(0, 3 * SECOND_NS), st.integers(0, 3)), min_size=1, max_size=60)


@given(RATES, ASKED)
def test_no_window_has_more_than_the_rate_gives_and_the_bucket_holds(per_s: float, asked: list[tuple[int, int]]) -> None:
    """Whatever comes when, one by one; of larger amounts the last one goes over it."""
    rate, full_at, now = Rate(per_s), 0, 0
    let_in: list[tuple[int, int]] = []
    for gap, amount in asked:
        now += gap
        if not rate.wait_ns(full_at, now):
            full_at = rate.after(full_at, now, amount)
            let_in.append((now, amount))
    for first, (begin, _) in enumerate(let_in):
        total = 0
        for at, amount in let_in[first:]:
            given_by_then = Fraction(at - begin, SECOND_NS) * Fraction(per_s) + Fraction(max(1.0, per_s))
            # What is rounded to a nanosecond is rounded against who asks.
            assert total + 1 <= given_by_then * (1 + Fraction(1, 10**9))
            total += amount


@given(RATES, st.integers(0, 2**40), st.integers(0, 10**6))
def test_who_comes_when_told_is_let_in_and_no_sooner(per_s: float, now: int, debt: int) -> None:
    """The wait is exact, and what is left says the same."""
    rate = Rate(per_s)
    full_at = rate.after(0, now, debt)
    wait_ns = rate.wait_ns(full_at, now)
    assert rate.wait_ns(full_at, now + wait_ns) == 0
    assert wait_ns == 0 or rate.wait_ns(full_at, now + wait_ns - 1) == 1
    assert rate.left(full_at, now) <= max(1, per_s)
    assert wait_ns == 0 or rate.left(full_at, now) == 0


@pytest.mark.parametrize(("per_s", "at_once"), [(0.1, 1), (1.0, 1), (2.5, 2), (100.0, 100)])
def test_bucket_holds_one_second_and_at_least_one(per_s: float, at_once: int) -> None:
    """So many come at once."""
    rate, full_at, count = Rate(per_s), 0, 0
    while not rate.wait_ns(full_at, SECOND_NS):
        full_at, count = rate.after(full_at, SECOND_NS, 1), count + 1
    assert count == at_once


@pytest.mark.parametrize(("per_s", "quota"), [
    (100.0, (100, 1)), (2.5, (5, 2)), (0.1, (1, 10)), (1 / 3, (1, 3)), (1e-5, (1, 100_000)), (1e300, (10**15 - 1, 1)),
])
def test_policy_has_whole_numbers(per_s: float, quota: tuple[int, int]) -> None:
    """The window is as long as it takes for that."""
    assert Rate(per_s).quota == quota


def test_slowest_and_fastest_rates_can_be_reckoned_with() -> None:
    """A grant may have any number over 0."""
    assert Rate(5e-324).wait_ns(Rate(5e-324).after(0, 0, 2**62), 0) > 0
    assert Rate(1.7e308).wait_ns(Rate(1.7e308).after(0, 0, 2**62), 0) == 0
