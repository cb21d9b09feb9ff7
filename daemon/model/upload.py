"""An upload, and where it goes: immutable values, checked."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from daemon.errors import Rejected
from daemon.model.names import check_instance, check_path, check_project, check_remote, is_client

#: Permission bits, with setuid, setgid and the sticky bit.
MAX_MODE: Final = 0o7777
#: Permission bits as text.
MODE: Final = r"0?[0-7]{3}|[0-7]{4}"
_MODE: Final = re.compile(MODE)
#: The highest uid and gid; the next number means "leave it" to chown(2).
MAX_ID: Final = 2**32 - 2
#: The largest number that SQLite stores.
_MAX_SIZE: Final = 2**63 - 1
#: The end of the year 9999, after which no date has four digits.
END_OF_TIME_S: Final = 253_402_300_800
#: The form of a task id.
TASK_ID: Final = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TASK_ID: Final = re.compile(TASK_ID)
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: Where a sender's own trace stands (https://www.w3.org/TR/trace-context/): version 00, trace, span, flags.
TRACEPARENT: Final = r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT: Final = re.compile(TRACEPARENT)
#: Neither a client's name nor a key can hold it.
_KEY_SEPARATOR: Final = "\n"
#: Destinations are spread over this many buckets; a bucket never moves, a shard is a set of buckets.
BUCKETS: Final = 256


#: How the names of those begin who may everything at a Unix socket as long as no peer is configured.
LOCAL: Final = "local:"


@dataclass(frozen=True)
class Destination:
    """One file in one instance. Two uploads with equal destinations are ordered; all others are not."""

    remote: str
    project: str
    instance: str
    path: str

    @cached_property
    def instance_key(self) -> str:
        """The instance as one string, `remote/project/instance`; none of the parts can hold a slash."""
        return f"{self.remote}/{self.project}/{self.instance}"

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that stand for the whole destination in the queue's index."""
        return hashlib.blake2b(f"{self.instance_key}{self.path}".encode(), digest_size=16).digest()

    @property
    def clocks(self) -> tuple[str, str]:
        """Names of the clocks that stand still while the remote, or the instance, has to be waited for."""
        return self.remote, self.instance_key

    @property
    def bucket(self) -> int:
        """The bucket of the instance, 0 to BUCKETS - 1: the same for ever, whatever the number of shards."""
        return bucket_of(self.instance_key)

    def shard(self, shards: int) -> int:
        """The shard of the instance when there are `shards` of them."""
        return self.bucket % shards

    def checked(self) -> "Destination":
        """Return itself if every part is legal; raise Rejected if not."""
        check_remote(self.remote)
        check_project(self.project)
        check_instance(self.instance)
        check_path(self.path)
        return self


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What was accepted: written with the bytes into the spool, and into the queue's row."""

    #: UUIDv7: later ones sort after earlier ones.
    task_id: str
    destination: Destination
    size: int
    #: Hexadecimal sha256 of the bytes.
    sha256: str
    #: Permission bits, or None: an existing file keeps its own, a new one gets the configured default.
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mkdirs: bool = False
    #: The file's name at the sender, for people.
    display_name: str = ""
    #: Seconds since the epoch.
    created_at: float = 0.0
    idempotency_key: str | None = None
    #: The name of the identity that sent it, for example `token:ci`; None for an anonymous one.
    client: str | None = None
    #: The trace and the span of its sender, as the header of that name has them; None: it told none.
    traceparent: str | None = None

    @property
    def fingerprint(self) -> str:
        """What an idempotency key is bound to: destination, digest, mode, owner and mkdirs, as one digest."""
        bound = [self.destination.instance_key, self.destination.path, self.sha256,
                 self.mode, self.uid, self.gid, self.mkdirs]
        return hashlib.sha256(json.dumps(bound).encode()).hexdigest()

    @property
    def scoped_key(self) -> str | None:
        """The idempotency key as its client's own: no two clients share one, whatever keys they choose.

        But for those who may everything and share it with whoever shows no credential: so it has always been.
        """
        if self.client is None or self.idempotency_key is None or self.client.startswith(LOCAL):
            return self.idempotency_key
        return f"{self.client}{_KEY_SEPARATOR}{self.idempotency_key}"

    def to_json(self) -> str:
        """The upload as one line of JSON."""
        return self._json

    @cached_property
    def _json(self) -> str:
        # Made once, or kept from where it was read: a task is written, and compared with its file, more than once.
        to = self.destination
        where = {"remote": to.remote, "project": to.project, "instance": to.instance, "path": to.path}
        # Field by field: every upload passes here, and dataclasses.asdict takes five times as long.
        values = {
            "task_id": self.task_id, "destination": where, "size": self.size, "sha256": self.sha256, "mode": self.mode,
            "uid": self.uid, "gid": self.gid, "mkdirs": self.mkdirs, "display_name": self.display_name,
            "created_at": self.created_at, "idempotency_key": self.idempotency_key}
        if self.client is not None:
            values["client"] = self.client
        if self.traceparent is not None:
            values["traceparent"] = self.traceparent
        return _ENCODE(values)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Upload":
        """The upload that `to_json` wrote. Raises ValueError when it is anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            destination = Destination(**values.pop("destination"))
            upload = cls(destination=destination, **values)
            upload.check()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, Rejected) as error:
            raise ValueError(f"not an upload: {error}") from error
        upload.__dict__["_json"] = text if isinstance(text, str) else text.decode()
        return upload

    def check(self) -> None:
        """Raise ValueError (or Rejected for a name) unless every value is of its type and legal."""
        if not (isinstance(self.task_id, str) and is_task_id(self.task_id)):
            raise ValueError("bad task id")
        if not (_is_number(self.size, _MAX_SIZE) and isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise ValueError("bad size or digest")
        for value, most in ((self.mode, MAX_MODE), (self.uid, MAX_ID), (self.gid, MAX_ID)):
            if not (value is None or _is_number(value, most)):
                raise ValueError("bad mode or owner")
        if not all(isinstance(part, str) for part in (self.destination.remote, self.destination.project,
                                                      self.destination.instance, self.destination.path)):
            raise ValueError("bad destination")
        key = "" if self.idempotency_key is None else self.idempotency_key
        if not (isinstance(self.mkdirs, bool) and _is_text(self.display_name) and _is_text(key)):
            raise ValueError("bad mkdirs, display name or key")
        if _KEY_SEPARATOR in key:
            raise ValueError("bad key")
        if not (self.client is None or (isinstance(self.client, str) and is_client(self.client))):
            raise ValueError("bad client")
        if not (self.traceparent is None or (isinstance(self.traceparent, str) and is_traceparent(self.traceparent))):
            raise ValueError("bad traceparent")
        if not (isinstance(self.created_at, int | float) and 0 <= self.created_at < END_OF_TIME_S):
            raise ValueError("bad time")
        self.destination.checked()


def _is_text(value: object) -> bool:
    """True for a text that can be written: JSON can also hold halves of characters."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


@lru_cache(1024)
def bucket_of(instance_key: str) -> int:
    """The bucket of an instance, by its key."""
    return hashlib.blake2b(instance_key.encode(errors="replace"), digest_size=1).digest()[0]


def is_mode(text: str) -> bool:
    """True if `text` is permission bits: three or four octal digits."""
    return _MODE.fullmatch(text) is not None


def is_traceparent(text: str) -> bool:
    """True if `text` says where a trace stands, as the W3C has it."""
    return _TRACEPARENT.fullmatch(text) is not None


def is_task_id(text: str) -> bool:
    """True if `text` has the form of a task id: 36 characters, lower-case hexadecimal and hyphens."""
    return _TASK_ID.fullmatch(text) is not None


def first_id_of(seconds: float) -> str:
    """The lowest task id that can have been given at that time, in seconds since the epoch, or after it."""
    digits = f"{max(0, int(seconds * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"
