"""A head that is open: how a resumable upload stands, who wants it, and who has it."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Collection
from dataclasses import replace
from types import TracebackType
from typing import Final

from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.upload import Upload
from daemon.partials.head_format import (
    BLOCK_BYTES,
    PLAN_AT,
    RECORD_BYTES,
    TEXT_HEAD_BYTES,
    WANTED_AT,
    WANTED_BYTES,
    Extent,
    Record,
    chosen_where,
    newest,
    plan_json,
    read_chosen,
    read_plan,
    read_record,
    read_text,
    record_bytes,
    text_size,
)
from daemon.partials.values import PartialState, Phase, Plan
from daemon.state.files import is_own

#: What the name of a head ends with.
HEAD: Final = ".head"
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Head:
    """One open head. What is read may be read by anybody; it is written by who has the lock, but for `want`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._token = b""

    def __enter__(self) -> "Head":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def want(self) -> None:
        """Say that this one wants the upload; whoever wanted it before is told."""
        self._token = secrets.token_bytes(WANTED_BYTES)
        os.pwrite(self._descriptor, self._token, WANTED_AT)

    def is_wanted(self) -> bool:
        """True when somebody wants it who came later. From any thread; False where that cannot be told."""
        descriptor = self._descriptor
        try:
            return descriptor >= 0 and os.pread(descriptor, WANTED_BYTES, WANTED_AT) != self._token
        except OSError:
            return False

    def lock(self) -> bool:
        """Take the lock, which ends with `close` and with the process; False when somebody has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_gone(self) -> bool:
        """True when it has no name any more."""
        return os.fstat(self._descriptor).st_nlink == 0

    def read_plan(self) -> Plan:
        """What the upload is to become. Raises ValueError when that is damaged."""
        size = text_size(os.pread(self._descriptor, TEXT_HEAD_BYTES, PLAN_AT))
        return read_plan(read_text(os.pread(self._descriptor, TEXT_HEAD_BYTES + size, PLAN_AT)))

    def read(self) -> Record:
        """How the upload stands. Raises ValueError when that is damaged."""
        records = (read_record(os.pread(self._descriptor, RECORD_BYTES, at)) for at in (0, BLOCK_BYTES))
        found = newest(*records)
        if found is None:
            raise ValueError("Both records of a resumable upload are damaged.")
        if not found.chosen.size:
            return found
        text = os.pread(self._descriptor, found.chosen.size, found.chosen.at)
        upload = read_chosen(found.chosen, text)
        if upload is None and found.state.phase is Phase.COMPLETING:
            # The choice was never synced, so nothing came of it.
            return replace(found, state=replace(found.state, phase=Phase.RECEIVING), chosen=Extent())
        return replace(found, state=replace(found.state, upload=upload))

    def write(self, record: Record) -> None:
        """Write a record, durably. Raises OSError; the one before it counts then, as far as anybody can see."""
        failpoints.reach("partials.record")
        try:
            os.pwrite(self._descriptor, record_bytes(record), record.at)
            os.fdatasync(self._descriptor)
            failpoints.reach("partials.recorded")
        except OSError:
            # A sync that failed may not fail again, with nothing written: nobody may tell what is only in memory.
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, bytes(RECORD_BYTES), record.at)
            raise

    def write_choice(self, plan: Plan, upload: Upload) -> Extent:
        """Write what was chosen; it is durable with the record that says where it is."""
        where, text = chosen_where(plan_json(plan), upload)
        failpoints.reach("partials.choose")
        os.pwrite(self._descriptor, text, where.at)
        return where

    def close(self) -> None:
        """Close it. May be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def open_head(directory: int, upload_id: str, owners: Collection[int]) -> Head:
    """Open the head of an upload. Raises FileNotFoundError, Rejected('storage_failed') and OSError."""
    descriptor = os.open(upload_id + HEAD, _FLAGS, dir_fd=directory)
    found = os.fstat(descriptor)
    if not is_own(found, owners):
        os.close(descriptor)
        raise Rejected("storage_failed", "The head of a resumable upload is not a plain file of the service's own.")
    return Head(descriptor)


def next_record(record: Record, state: PartialState, chosen: Extent | None = None) -> Record:
    """The record that follows."""
    return Record(record.number + 1, state, record.chosen if chosen is None else chosen)
