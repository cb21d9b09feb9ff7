"""Digests that go on from append to append."""

import hashlib

import pytest

from api.resumable import hashing
from api.resumable.hashing import Digests, Verification
from api.resumable.values import Checksum
from daemon.errors import Rejected

NONE: frozenset[tuple[str, str]] = frozenset()


def test_digest_goes_on_only_from_bytes_that_are_there() -> None:
    """One that has taken in more than the upload has is of no use: those bytes may come otherwise."""
    digests = Digests()
    running = digests.take("a", NONE, 0)
    running.update([b"ab", b"c"])
    digests.keep("a", running)
    again = digests.take("a", NONE, 5)
    assert again is running
    assert again.conclude() == hashlib.sha256(b"abc").hexdigest()
    assert digests.take("a", NONE, 5).position == 0
    digests.keep("a", running)
    assert digests.take("a", NONE, 2).position == 0


def test_only_so_many_digests_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used last; the others are made again."""
    monkeypatch.setattr(hashing, "MOST", 2)
    digests = Digests()
    for name in ("a", "b", "c"):
        running = digests.take(name, NONE, 0)
        running.update([b"x"])
        digests.keep(name, running)
    assert [digests.take(name, NONE, 1).position for name in ("a", "b", "c")] == [0, 1, 1]


@pytest.mark.parametrize("checksum", [Checksum("md5", bytes(16)), Checksum("sha1", bytes(19)), Checksum("", b"")])
def test_checksum_that_nobody_can_look_at_is_refused(checksum: Checksum) -> None:
    """Before a byte is read."""
    with pytest.raises(Rejected) as refused:
        Verification(checksum)
    assert refused.value.code == "bad_checksum"
