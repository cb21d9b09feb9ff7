"""The form of a head: how a resumable upload stands, in a file beside its bytes. Pure.

    block 0, block 1    two records in turn; of those that are whole the newer one counts
    block 2             who wants the upload: 16 random bytes of the newest request; never synced
    block 3 and on      what the upload is to become, as JSON; then, once it is chosen, what it becomes

A record is written over the older one and synced, so that a power cut leaves one of both whole. Each is in a block of
its own: a disk that loses a block while it writes loses no other. Nothing here grows while bytes come, so a sync of it
costs no more than one write.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

from daemon.model.upload import Destination, Upload
from daemon.partials.values import PartialState, Phase, Plan

BLOCK_BYTES: Final = 4096
#: Where it is said who wants the upload, and how long that is.
WANTED_AT: Final = 2 * BLOCK_BYTES
WANTED_BYTES: Final = 16
#: Where it is said what the upload is to become.
PLAN_AT: Final = 3 * BLOCK_BYTES
#: magic, number, offset, length or -1, when it changed, phase, of what was chosen: where it begins, how long it is, its
#: CRC-32; the task
_RECORD: Final = struct.Struct(">8sQQqdBIII36s")
_CHECKSUM: Final = struct.Struct(">I")
RECORD_BYTES: Final = _RECORD.size + _CHECKSUM.size
_MAGIC: Final = b"partial1"
_NO_TASK: Final = b"\0" * 36
#: magic, length of the JSON in bytes, its CRC-32
_TEXT: Final = struct.Struct(">8sII")
TEXT_HEAD_BYTES: Final = _TEXT.size
#: No head is longer: what comes in a request's head is at most 16 KiB.
MAX_HEAD_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Extent:
    """Where in the head it says what was chosen; of no bytes before that."""

    at: int = 0
    size: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One record: the state, but for what was chosen, which is elsewhere in the head."""

    number: int
    state: PartialState
    chosen: Extent = Extent()

    @property
    def at(self) -> int:
        """Where it belongs."""
        return self.number % 2 * BLOCK_BYTES


def record_bytes(record: Record) -> bytes:
    """The record as it is written."""
    state, chosen = record.state, record.chosen
    packed = _RECORD.pack(
        _MAGIC, record.number, state.offset, -1 if state.length is None else state.length, state.changed_at,
        state.phase, chosen.at, chosen.size, chosen.checksum, (state.task_id or "").encode().ljust(36, b"\0"))
    return packed + _CHECKSUM.pack(zlib.crc32(packed))


def read_record(data: bytes) -> Record | None:
    """The record that begins there; None when it is not whole."""
    packed = data[:_RECORD.size]
    if len(data) < RECORD_BYTES or _CHECKSUM.unpack(data[_RECORD.size:RECORD_BYTES]) != (zlib.crc32(packed),):
        return None
    magic, number, offset, length, changed_at, phase, at, size, checksum, task = _RECORD.unpack(packed)
    if magic != _MAGIC or phase not in set(Phase) or at + size > MAX_HEAD_BYTES:
        return None
    return Record(number, PartialState(
        offset=offset, length=None if length < 0 else length, changed_at=changed_at, phase=Phase(phase),
        task_id=None if task == _NO_TASK else task.decode()), Extent(at, size, checksum))


def newest(first: Record | None, second: Record | None) -> Record | None:
    """The record that counts; None when neither is whole."""
    return max((record for record in (first, second) if record is not None), key=lambda record: record.number,
               default=None)


def text_bytes(text: bytes) -> bytes:
    """A text as it is written, so that it can be told whether it is whole."""
    return _TEXT.pack(_MAGIC, len(text), zlib.crc32(text)) + text


def text_size(head: bytes) -> int:
    """How long the text is that begins so. Raises ValueError when none does."""
    if len(head) < _TEXT.size or not head.startswith(_MAGIC):
        raise ValueError("The head of a resumable upload does not say what it is to become.")
    size = int(_TEXT.unpack(head[:_TEXT.size])[1])
    if size > MAX_HEAD_BYTES:
        raise ValueError("The head of a resumable upload is damaged.")
    return size


def read_text(data: bytes) -> bytes:
    """The text that `text_bytes` wrote. Raises ValueError when it is not whole."""
    size = text_size(data)
    text = data[_TEXT.size:_TEXT.size + size]
    if len(text) < size or zlib.crc32(text) != _TEXT.unpack(data[:_TEXT.size])[2]:
        raise ValueError("The head of a resumable upload is damaged.")
    return text


def plan_json(plan: Plan) -> bytes:
    """What an upload is to become, as JSON."""
    to = plan.destination
    return json.dumps({
        "remote": to.remote, "project": to.project, "instance": to.instance, "path": to.path,
        "display_name": plan.display_name, "mode": plan.mode, "uid": plan.uid, "gid": plan.gid, "mkdirs": plan.mkdirs,
        "idempotency_key": plan.idempotency_key, "digests": sorted(plan.digests), "owner": plan.owner,
        "metadata": plan.metadata, "created_at": plan.created_at,
        **({} if plan.traceparent is None else {"traceparent": plan.traceparent})}).encode()


def read_plan(text: bytes) -> Plan:
    """What `plan_json` wrote. Raises ValueError when it is anything else."""
    try:
        values: dict[str, Any] = json.loads(text)
        destination = Destination(*(values.pop(part) for part in ("remote", "project", "instance", "path"))).checked()
        digests = frozenset((str(algorithm), str(digest)) for algorithm, digest in values.pop("digests"))
        return Plan(destination=destination, digests=digests, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not the plan of an upload: {error}") from error


def chosen_where(plan: bytes, upload: Upload) -> tuple[Extent, bytes]:
    """Where it is to be said what was chosen, after that plan, and what is to be written there."""
    text = upload.to_json().encode()
    return Extent(PLAN_AT + TEXT_HEAD_BYTES + len(plan), len(text), zlib.crc32(text)), text


def read_chosen(where: Extent, text: bytes) -> Upload | None:
    """What was chosen; None when it is not whole, so that nothing has been done about it."""
    return Upload.from_json(text) if len(text) == where.size and zlib.crc32(text) == where.checksum else None


def tellable(state: PartialState, size: int) -> int:
    """What may be told of an upload of which `size` bytes are durable: of the last one not before the end."""
    return max(state.offset, size if state.length is None or size < state.length else state.length - 1)
