"""What is counted for good, as it is written and read."""

import pytest

from daemon.model.counters import FAMILIES, PUSH_SECONDS, Kind, attempts, buckets, labels_in, observed
from daemon.model.task import State


def test_each_family_says_what_it_counts() -> None:
    """In names that Prometheus takes, and bounds that grow."""
    for name, family in FAMILIES.items():
        assert name == family.name
        assert family.meaning.endswith(".")
        assert (family.kind is Kind.COUNTER) == name.endswith("_total")
        assert list(family.bounds) == sorted(set(family.bounds))
        assert list(family.labels) == sorted(family.labels)


def test_value_falls_into_the_bucket_of_the_next_bound() -> None:
    """One that is exactly a bound is in that bucket; one beyond all bounds only in the last."""
    grown = observed(PUSH_SECONDS, [0.005, 0.0051, 1e9])
    assert grown == {("push_seconds_bucket", "le=0.005"): 1, ("push_seconds_bucket", "le=0.01"): 1,
                     ("push_seconds_bucket", "le=+Inf"): 1, ("push_seconds_sum", ""): pytest.approx(1e9)}
    told = buckets(PUSH_SECONDS, grown)
    assert told[:2] == [("0.005", 1), ("0.01", 2)]
    assert told[-2:] == [("3600", 2), ("+Inf", 3)]
    assert observed(PUSH_SECONDS, []) == {}


def test_labels_are_read_as_they_are_written() -> None:
    """A text that nobody writes is none."""
    assert labels_in(attempts(State.FAILED.label, "gave_up")[1]) == {"outcome": "failed", "code": "gave_up"}
    assert labels_in(attempts("delivered", "")[1]) == {"outcome": "delivered", "code": ""}
    assert labels_in("") == {}
    for text in ("a", "a=1,", ",a=1", "a=\"1\"", "a=1,,b=2", "A=1"):
        with pytest.raises(ValueError, match="labels"):
            labels_in(text)
