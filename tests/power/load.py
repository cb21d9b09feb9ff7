"""Clients that upload as fast as they can, and remember what they were told."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.support.bodies import body
from tests.support.service import Service

_CLIENTS = 4
#: Sizes of uploads, and how often each is chosen.
_SIZES = ((0, 1), (200, 10), (4000, 10), (40_000, 3), (300_000, 1), (1_000_000, 1))
#: A client stops before the disk is full.
_MOST_BYTES = 8 * 2**20
#: Every so many uploads of a client go to a path that it uses again and again.
_SAME_PATH_EVERY = 4


class Place(Protocol):
    """A service, and where it delivers to."""

    service: Service

    def found(self, instance: str, path: str) -> bytes | None:
        """What is in an instance."""

    def place(self, number: int, name: str) -> tuple[str, str]:
        """An instance and a path for an upload of the client of that number."""


@dataclass(frozen=True)
class Sent:
    """One upload: what it was, and what the client was told."""

    seed: int
    size: int
    #: 202 was received.
    acknowledged: bool
    #: Something else was received: nothing may come of it.
    refused: bool


@dataclass
class Load:
    """All uploads to each place, in the order in which they were sent: an upload begins when the one before ended."""

    sent: dict[tuple[str, str], list[Sent]] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def acknowledged(self) -> int:
        """How many uploads were acknowledged."""
        return sum(sent.acknowledged for uploads in self.sent.values() for sent in uploads)

    @contextmanager
    def running(self, machine: Place, chance: random.Random) -> Iterator[None]:
        """Upload while the block runs; the clients end when the service does."""
        seeds = [chance.randrange(2**32) for _ in range(_CLIENTS)]
        self._stopping.clear()
        with ThreadPoolExecutor(_CLIENTS) as pool:
            clients: list[Future[None]] = [pool.submit(self._upload, machine, seed) for seed in seeds]
            try:
                yield
            finally:
                self.stop()
        for client in clients:
            client.result()

    def stop(self) -> None:
        """Begin no more uploads."""
        self._stopping.set()

    def _upload(self, machine: Place, seed: int) -> None:
        chance = random.Random(seed)
        sent_bytes = number = 0
        while not self._stopping.is_set() and sent_bytes < _MOST_BYTES:
            number += 1
            sizes, weights = zip(*_SIZES, strict=True)
            size = chance.choices(sizes, weights)[0]
            again = number % _SAME_PATH_EVERY == 0
            place = machine.place(seed, f"{seed}/{'again' if again else number}")
            answer = machine.service.client.put(*place, body(seed + number, size))
            self.sent.setdefault(place, []).append(Sent(
                seed + number, size, answer is not None and answer.status == 202,
                answer is not None and answer.status != 202 and answer.code != "outcome_unknown"))
            sent_bytes += size

    def losses(self, machine: Place) -> list[str]:
        """What was promised and is not there, or is there and was never promised."""
        return [f"{place}: {sent}" for place, sent in self.sent.items()
                if machine.found(*place) not in _possible(sent)]


def _possible(uploads: list[Sent]) -> list[bytes | None]:
    """What one place may hold: the last acknowledged upload, or one whose outcome is unknown and that came later."""
    possible: list[bytes | None] = [None]
    for upload in uploads:
        if upload.acknowledged:
            possible = []
        if not upload.refused:
            possible.append(body(upload.seed, upload.size))
    return possible
