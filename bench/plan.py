"""How much is measured: the sizes and times of a run, and where its files are."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.service import ROOT

SCRATCH: Final = ROOT / "bench" / "scratch"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the bench."""

    name: str
    #: Rounds of each measurement; the median counts.
    rounds: int
    #: Seconds of load in one round.
    load_s: float
    #: Single uploads that are timed.
    uploads: int
    #: Bytes of the large file.
    large_bytes: int
    #: Tasks in the large backlog.
    pending: int
    #: Deferred tasks of the dead instance.
    deferred: int
    #: Tasks that go through a queue from first to last.
    lifetime: int
    #: Hung instances in each measurement, and names of which there is no instance.
    hung: Sequence[int]
    missing: int

    def directory(self, name: str) -> Path:
        """A new empty directory, beside the state that the service would have."""
        SCRATCH.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=SCRATCH))


PLANS: Final = {
    "quick": Plan(name="quick", rounds=3, load_s=2.0, uploads=15, large_bytes=2**28, pending=50_000, deferred=10_000,
                  lifetime=50_000, hung=(300,), missing=2_000),
    "normal": Plan(name="normal", rounds=5, load_s=4.0, uploads=30, large_bytes=2**30, pending=1_000_000,
                   deferred=100_000, lifetime=200_000, hung=(100, 300, 1_000), missing=20_000),
    "full": Plan(name="full", rounds=9, load_s=6.0, uploads=60, large_bytes=2**30, pending=1_000_000,
                 deferred=100_000, lifetime=1_000_000, hung=(100, 300, 1_000), missing=20_000),
}
