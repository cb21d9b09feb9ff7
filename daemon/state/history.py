"""The last hour in numbers, in one small file that all API processes share: it outlives each of them.

    access/history    360 slots of ten seconds, each with a checksum

One process of all writes: it has the lock of the file, which ends with it, and then the next one writes. All read. The
place of a slot is its time alone, so whoever begins goes on; a slot that nobody wrote is a gap. Slots hold what was
counted until then, not rates: these are made of two slots beside each other. Nothing is mapped, as a full disk would
end the process; nothing is synced, as after a crash of the machine it may begin anew.
"""

import os
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Final

from daemon import failpoints
from daemon.state.file_lock import try_lock
from daemon.state.layout import Layout, inode

#: Seconds of one slot, and how many there are: an hour.
STEP_S: Final = 10
SLOTS: Final = 360
#: Rates of now are over the time since a slot that is no younger and no older than this.
SHORTEST_S: Final = 5.0
LONGEST_S: Final = 30.0
_CHECKSUM: Final = struct.Struct("<I")
_SAMPLE: Final = struct.Struct("<8d")
_SLOT_BYTES: Final = _CHECKSUM.size + _SAMPLE.size


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What had been counted at one moment."""

    #: In seconds since the epoch.
    at: float
    #: The same on a clock that is never set, and begins anew with the machine.
    tick: float
    #: All that were ever accepted and delivered.
    uploads: float
    upload_bytes: float
    deliveries: float
    delivery_bytes: float
    #: Tasks that were not finished, and dead letters.
    waiting: float
    failed: float

    @property
    def slot(self) -> int:
        """The number of its slot, counted from the epoch."""
        return int(self.at // STEP_S)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What comes and goes in a second."""

    uploads_s: float
    upload_bytes_s: float
    deliveries_s: float
    delivery_bytes_s: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """The last hour, oldest first; None where nobody was there to count."""

    #: The end of the last slot, in seconds since the epoch.
    until: float
    #: In a second.
    uploads: tuple[float | None, ...]
    deliveries: tuple[float | None, ...]
    #: At the end of each slot.
    waiting: tuple[int | None, ...]
    failed: tuple[int | None, ...]


#: Samples by their slots.
Hour = Mapping[int, Sample]


def clock() -> float:
    """The time on the clock of `Sample.tick`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def with_sample(hour: Hour, sample: Sample) -> Hour:
    """The hour that ends with that sample. What is later goes: the clock was set back since."""
    kept = {slot: old for slot, old in hour.items() if sample.slot - SLOTS < slot < sample.slot}
    return {**kept, sample.slot: sample}


def rates_between(older: Sample, newer: Sample) -> Rates | None:
    """What came and went between two moments; None where they do not belong together.

    Another boot of the machine, or another clock, lies between them, or what is counted began anew.
    """
    apart_s = newer.tick - older.tick
    if not SHORTEST_S <= apart_s <= LONGEST_S:
        return None
    rates = [(now - before) / apart_s for before, now in (
        (older.uploads, newer.uploads), (older.upload_bytes, newer.upload_bytes),
        (older.deliveries, newer.deliveries), (older.delivery_bytes, newer.delivery_bytes))]
    if min(rates) < 0:
        return None
    return Rates(uploads_s=rates[0], upload_bytes_s=rates[1], deliveries_s=rates[2], delivery_bytes_s=rates[3])


def rates_now(hour: Hour, now: Sample) -> Rates | None:
    """What comes and goes by now: since the newest slot that is old enough; None while that is not known."""
    found = (rates_between(hour[slot], now) for slot in sorted(hour, reverse=True) if slot <= now.slot)
    return next((rates for rates in found if rates is not None), None)


def series(hour: Hour, now: float) -> Series:
    """The hour before `now`, up to the last slot that is written. Pure."""
    last = int(now // STEP_S)
    # One that is about to be written is no gap.
    last -= last not in hour
    slots = range(last - SLOTS + 1, last + 1)
    samples = [hour.get(slot) for slot in slots]
    rates = [_rates_until(hour, slot) for slot in slots]
    return Series(
        until=last * STEP_S,
        uploads=tuple(None if rate is None else rate.uploads_s for rate in rates),
        deliveries=tuple(None if rate is None else rate.deliveries_s for rate in rates),
        waiting=tuple(None if sample is None else int(sample.waiting) for sample in samples),
        failed=tuple(None if sample is None else int(sample.failed) for sample in samples))


def _rates_until(hour: Hour, slot: int) -> Rates | None:
    before, here = hour.get(slot - 1), hour.get(slot)
    return None if before is None or here is None else rates_between(before, here)


# --- the file ----------------------------------------------------------------------------------------------


def pack(hour: Hour) -> bytes:
    """The file that has these samples."""
    slots = [bytes(_SLOT_BYTES)] * SLOTS
    for slot, sample in hour.items():
        packed = _SAMPLE.pack(*astuple(sample))
        slots[slot % SLOTS] = _CHECKSUM.pack(zlib.crc32(packed)) + packed
    return b"".join(slots)


def unpack(data: bytes) -> Hour:
    """The samples of a file; what is no sample, or none of its place, is left out."""
    slots = (data[start:start + _SLOT_BYTES] for start in range(0, SLOTS * _SLOT_BYTES, _SLOT_BYTES))
    return {sample.slot: sample for place, slot in enumerate(slots) for sample in _samples_in(slot, place)}


def _samples_in(slot: bytes, place: int) -> Iterable[Sample]:
    packed = slot[_CHECKSUM.size:]
    if len(slot) == _SLOT_BYTES and any(packed) and _CHECKSUM.unpack_from(slot)[0] == zlib.crc32(packed):
        sample = Sample(**dict(zip(Sample.__dataclass_fields__, _SAMPLE.unpack(packed), strict=True)))
        if 0 <= sample.at < 2**53 and sample.slot % SLOTS == place:
            yield sample


class HistoryFile:
    """The file. From any thread; blocks on the disk."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.history
        self._lock = threading.Lock()
        self._descriptor = -1

    def read(self) -> Hour:
        """The samples that are there; none where they cannot be read."""
        try:
            return unpack(self._layout.read(self._path, SLOTS * _SLOT_BYTES))
        except OSError:
            return {}

    def add(self, sample: Sample) -> bool:
        """Write a sample, unless another process writes them: then False. Raises OSError."""
        with self._lock:
            if self._descriptor < 0 or os.fstat(self._descriptor).st_ino != inode(self._path):
                self._let_go()
                self._descriptor = self._layout.open_made(self._path)
            if not try_lock(self._descriptor):
                return False
            hour = with_sample(unpack(os.pread(self._descriptor, SLOTS * _SLOT_BYTES, 0)), sample)
            failpoints.reach("history.write")
            os.pwrite(self._descriptor, pack(hour), 0)
            return True

    def close(self) -> None:
        """Let another process write. May be called again."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
