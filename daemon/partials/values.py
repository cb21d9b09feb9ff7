"""What is said of resumable uploads: plain values, whatever keeps them."""

from dataclasses import dataclass
from enum import IntEnum

from daemon.model.upload import Destination, Upload


class Phase(IntEnum):
    """How far a resumable upload is."""

    #: Bytes are missing.
    RECEIVING = 0
    #: All bytes are there, and which task they become is written down; its row may be in the queue, or not.
    COMPLETING = 1
    #: Its task is in the queue, or was; the bytes are no longer here.
    COMPLETE = 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a resumable upload is to become, as it was asked for when it was made. Nothing of it changes."""

    destination: Destination
    #: The file's name at the sender, for people.
    display_name: str
    mode: int | None
    uid: int | None
    gid: int | None
    #: None: as it is configured when all bytes are there.
    mkdirs: bool | None
    idempotency_key: str | None
    #: Digests that all bytes together must have: algorithm and hexadecimal digest.
    digests: frozenset[tuple[str, str]]
    #: The name of the identity that made it, also of an anonymous one: nobody else learns that it exists.
    owner: str
    #: What its client sent to be told again, as it was sent.
    metadata: str
    #: Seconds since the epoch.
    created_at: float
    #: The trace that the sender told.
    traceparent: str | None = None


@dataclass(frozen=True, kw_only=True)
class PartialState:
    """How a resumable upload stands, durably."""

    #: So many bytes may be told to be here. It never goes down.
    offset: int
    #: None: nobody has said it yet.
    length: int | None
    #: When it was made, or bytes came last, in seconds since the epoch.
    changed_at: float
    phase: Phase = Phase.RECEIVING
    #: What it becomes; None before all bytes are there.
    upload: Upload | None = None
    #: The task that stands for it, once complete: another one's when it repeated an idempotency key.
    task_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Census:
    """What there is of unfinished uploads."""

    number: int = 0
    #: Bytes that are here.
    present_bytes: int = 0
    #: Bytes that were announced and are still to come.
    owed_bytes: int = 0
    #: When the oldest was made, in seconds since the epoch.
    oldest_at: float | None = None
