"""What is needed to go on where a push was interrupted: small files in `$XDG_STATE_HOME/incus-courier/push/`.

Guarantees: an entry counts for the same server, destination and file alone: size, time of the last change and inode are
those that it had, and what was asked for as well. A run that has come to its end leaves none. Nothing in here is needed
for a push to be right: without it everything is sent again. So nothing is synced, and what cannot be read is ignored.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from client.push.plan import PlannedFile
from client.push.source import FileIdentity

#: For how long an upload that is not finished is looked for, in seconds: no service keeps one for longer by default.
UPLOAD_KEPT_S: Final = 7 * 86400.0
#: For how long a file counts as sent already, in seconds. Later the instance may be another one.
ACCEPTED_KEPT_S: Final = 3600.0
_MAX_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class ResumeEntry:
    """How far a file had come."""

    key: str
    #: When that was, in seconds since the epoch.
    at: float
    #: The name of its resumable upload, below the address of tus.
    upload: str | None = None
    idempotency_key: str = ""
    #: The task that it became.
    task_id: str | None = None
    #: The address of the cell that has it; empty: the server that the command names.
    address: str = ""


def entry_key(scope: str, file: PlannedFile, identity: FileIdentity, wish: Mapping[str, str]) -> str:
    """What an entry is found by: `scope` names the server and the instance, `wish` is what is asked for of the file."""
    values = [scope, file.to, dict(wish), asdict(identity)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def still_counts(entry: ResumeEntry, now: float) -> bool:
    """Whether an entry is young enough to go on from."""
    kept_s = UPLOAD_KEPT_S if entry.task_id is None else ACCEPTED_KEPT_S
    return 0 <= now - entry.at <= kept_s


def state_directory(environment: Mapping[str, str]) -> Path:
    """Where records are: `incus-courier/push` below `$XDG_STATE_HOME`, or `~/.local/state` without that variable."""
    named = environment.get("XDG_STATE_HOME", "")
    home = Path(named) if os.path.isabs(named) else Path(environment.get("HOME") or "/") / ".local" / "state"
    return home / "incus-courier" / "push"


class ResumeRecord:
    """The entries of one run, and of those to the same instance that were interrupted before. For several threads."""

    def __init__(self, directory: Path, scope: str, now: float | None = None) -> None:
        """Take over what interrupted runs have left; old files go. A run that is still at work keeps its own."""
        self._entries: dict[str, ResumeEntry] = {}
        self._directory = directory
        self._prefix = hashlib.sha256(scope.encode()).hexdigest()[:24]
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path: Path | None = None
        #: False where none can be kept: then an interrupted push begins anew.
        self.is_kept = True
        self._take_over(time.time() if now is None else now)

    def find(self, key: str) -> ResumeEntry | None:
        """How far that file had come; None when nothing is known."""
        return self._entries.get(key)

    def note(self, entry: ResumeEntry) -> None:
        """Keep how far a file has come."""
        with self._lock:
            self._entries[entry.key] = entry
            self._append(asdict(entry))

    def forget(self, key: str) -> None:
        """Begin anew with that file the next time."""
        with self._lock:
            if self._entries.pop(key, None):
                self._append({"key": key})

    def close(self, *, finished: bool) -> None:
        """Let go of it. When the run has come to its end, nothing stays."""
        if self._file is not None and self._path is not None:
            if finished:
                with contextlib.suppress(OSError):
                    self._path.unlink()
            os.close(self._file)
            self._file = None

    def _append(self, values: Mapping[str, object]) -> None:
        try:
            if self._file is None:
                self._create()
            if self._file is not None:
                os.write(self._file, json.dumps(values).encode() + b"\n")
        except OSError:
            self.is_kept = False

    def _create(self) -> None:
        if not self.is_kept:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = self._directory / f"{self._prefix}-{os.urandom(8).hex()}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def _take_over(self, now: float) -> None:
        left = []
        with contextlib.suppress(OSError):
            left = sorted(self._directory.glob("*.jsonl"))
        for path in left:
            with contextlib.suppress(OSError):
                self._take(path, now)

    def _take(self, path: Path, now: float) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = path.name.startswith(self._prefix)
                if ours:
                    for entry in _entries(file, now):
                        self.note(entry)
                if self.is_kept and (ours or now - os.fstat(file).st_mtime > UPLOAD_KEPT_S):
                    path.unlink()
        finally:
            os.close(file)


def _entries(file: int, now: float) -> list[ResumeEntry]:
    """What a file has that still counts; the last line of each key."""
    found: dict[str, ResumeEntry] = {}
    for line in os.pread(file, _MAX_BYTES, 0).splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            values: dict[str, Any] = json.loads(line)
            found.pop(values["key"], None)
            if len(values) > 1:
                entry = ResumeEntry(**values)
                if still_counts(entry, now):
                    found[entry.key] = entry
    return list(found.values())
