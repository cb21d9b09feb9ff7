"""The digests of resumable uploads: of each as far as this process has seen it, and of single appends.

What a digest has taken in cannot be written down. So the process that has an upload's digest goes on with it, and one
that has not, or only of a part, reads that part again at the end: once, not with each append.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from api.resumable.values import Checksum
from api.uploads.digests import Check, Digest
from daemon.errors import Rejected

#: Uploads whose digests are kept; of others all is read again at the end.
MOST: Final = 1024
#: Bytes of the digests that an append may have.
SIZES: Final = {"sha1": 20, "sha256": 32}


class RunningDigest:
    """The digests of an upload's first `position` bytes. One thread at a time."""

    def __init__(self, expected: frozenset[Digest]) -> None:
        self._check = Check(expected)
        self._sha256 = hashlib.sha256()
        self.position = 0

    def update(self, pieces: Sequence[bytes]) -> None:
        """Take the next bytes."""
        for piece in pieces:
            self._sha256.update(piece)
            self._check.update(piece)
            self.position += len(piece)

    def conclude(self) -> str:
        """The sha256, in hexadecimal. Raises Rejected('digest_mismatch')."""
        sha256 = self._sha256.hexdigest()
        self._check.conclude(sha256)
        return sha256


class Digests:
    """The digests that this process has. On the event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, RunningDigest] = OrderedDict()

    def take(self, upload_id: str, expected: frozenset[Digest], size: int) -> RunningDigest:
        """What is known of the first bytes, at most `size` of them; it is to be given back."""
        running = self._kept.pop(upload_id, None)
        return running if running is not None and running.position <= size else RunningDigest(expected)

    def keep(self, upload_id: str, running: RunningDigest) -> None:
        """Give it back: it has taken in what the upload has, or the beginning of that."""
        self._kept[upload_id] = running
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)


class Verification:
    """The checksum that one append must have. One thread at a time."""

    def __init__(self, checksum: Checksum) -> None:
        """Raises Rejected('bad_checksum')."""
        if SIZES.get(checksum.algorithm) != len(checksum.digest):
            raise Rejected("bad_checksum")
        self._expected = checksum.digest
        self._digest = hashlib.new(checksum.algorithm, usedforsecurity=False)

    def update(self, pieces: Sequence[bytes]) -> None:
        """Take the next bytes of the append."""
        for piece in pieces:
            self._digest.update(piece)

    def conclude(self) -> None:
        """Raise Rejected('checksum_mismatch') unless all that it took has the checksum."""
        if self._digest.digest() != self._expected:
            raise Rejected("checksum_mismatch")
