"""The bytes of one append on their way to the disk, by a thread of a pool; another one hashes them meanwhile."""

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

from api.resumable.hashing import RunningDigest, Verification
from daemon.errors import Rejected
from daemon.partials import Partial

#: What came of a long append is made durable when it is so much, or not so little and so old: a crash costs no more.
KEEP_BYTES: Final = 64 * 2**20
KEEP_LEAST_BYTES: Final = 2**20
KEEP_S: Final = 2.0


class Appending:
    """Adds bytes to an upload that is held. One thread at a time."""

    def __init__(
        self, partial: Partial, running: RunningDigest, verification: Verification | None, hashing: Executor, *,
        length: int | None, final: bool | None,
    ) -> None:
        """`length` is what the upload is to have as far as that is known; `final` as in `Resumable.append`."""
        self._partial = partial
        self._running = running
        self._verification = verification
        self._hashing = hashing
        self._length = length
        self._final = final
        self._begun = self._failed = self._unsure = False
        #: Where what is not durable begins, and since when, on the monotonic clock.
        self._kept = partial.state.offset
        self._kept_at = time.monotonic()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Add some bytes, which may become durable. Raises Rejected('no_room' or 'storage_failed')."""
        try:
            self._begin()
            # Where nobody has taken in what is before these, all of it is read again at the end.
            goes_on = self._running.position == self._partial.size
            hashing = self._hashing.submit(self._hash, pieces, goes_on=goes_on)
            try:
                self._partial.store(pieces)
            finally:
                hashing.result()
            if self._verification is None and is_due(self._partial.size - self._kept, time.monotonic() - self._kept_at):
                self._keep(self._length)
        except BaseException:
            # Whatever it was: what comes after these bytes must not stand in their place.
            self._failed = True
            raise

    def whole(self, pieces: Sequence[bytes]) -> None:
        """Add the bytes of a small append, and end it."""
        self._begin()
        self._hash(pieces, goes_on=self._running.position == self._partial.size)
        self._partial.store(pieces)
        self.finish()

    def finish(self) -> None:
        """All bytes came: make them durable. Raises Rejected('checksum_mismatch') besides."""
        if self._verification is not None:
            self._verification.conclude()
        self._keep(self._partial.size if self._final and self._length is None else self._length)

    def cut_off(self, rest: Sequence[bytes]) -> None:
        """It ends early, after these bytes: make durable what counts."""
        with contextlib.suppress(Rejected):
            if self._verification is not None or self._unsure:
                self._partial.rewind()
                return
            if rest and not self._failed:
                self.write(rest)
            if self._partial.size > self._kept:
                self._keep(self._length)

    def _begin(self) -> None:
        if not self._begun:
            self._partial.rewind()
            self._begun = True

    def _keep(self, length: int | None) -> None:
        # A sync that failed may not fail again, with nothing written: what it was for has to come once more.
        self._unsure = True
        self._partial.keep(time.time(), length)
        self._unsure = False
        self._kept, self._kept_at = self._partial.size, time.monotonic()

    def _hash(self, pieces: Sequence[bytes], *, goes_on: bool) -> None:
        if goes_on:
            self._running.update(pieces)
        if self._verification is not None:
            self._verification.update(pieces)


def is_due(size: int, age_s: float) -> bool:
    """True when so many bytes that are not durable, the first of them so old, are to be made so."""
    return size >= KEEP_BYTES or (size >= KEEP_LEAST_BYTES and age_s >= KEEP_S)
