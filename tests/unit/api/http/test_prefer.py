"""The `Prefer` header: for how long a client would like to wait."""

import pytest

from api.http.prefer import wait_s


@pytest.mark.parametrize(("values", "seconds"), [
    ([b"wait=10"], 10), ([b"WAIT=10"], 10), ([b"wait = 010"], 10), ([b'wait="10"'], 10), ([b"wait=0"], 0),
    ([b"respond-async, wait=10"], 10), ([b"respond-async;a=b, wait=10; x; y=1"], 10), ([b'a="b, wait=3", wait=7'], 7),
    ([b"return=minimal", b"wait=5"], 5), ([b"wait=5", b"wait=7"], 5), ([b",, wait=5,"], 5),
    ([b"wait=" + b"9" * 9000], 10**9),
])
def test_first_wait_counts_wherever_it_stands(values: list[bytes], seconds: int) -> None:
    """As a token or in quotes, among other preferences, on whichever line."""
    assert wait_s([(b"host", b"a"), *((b"prefer", value) for value in values)]) == seconds


@pytest.mark.parametrize("value", [
    b"", b"wait", b"wait=", b'wait=""', b"wait=x", b"wait=-1", b"wait=1.5", b"wait=+5", "wait=٣".encode(), b"wait=\xb2", b"wait=1 2",
    b"wait 5", b"=5", b'"wait=5"', b"waits=5", b'wait="5', b'a="wait=5', b"wait=x, wait=5", b'"' * 9000, b'"\\' * 5000, b";" * 9000, b"," * 9000,
    b"respond-async", b"a," * 1000 + b"wait=5",
])
def test_what_cannot_be_understood_is_as_if_it_were_not_there(value: bytes) -> None:
    """It is a preference, never an error; and of a first one that makes no sense no second one is looked for."""
    assert wait_s([(b"prefer", value)]) is None


def test_nobody_waits_who_does_not_say_so() -> None:
    """Without the header there is nothing to read."""
    assert wait_s([(b"host", b"wait=5")]) is None
