"""What a worker is doing now, told by itself: once a second, in a small file of its shard, for those who look on.

The file is never synced, and nothing depends on it (`daemon.state.slots`).
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, get_args, get_type_hints

from daemon.state.files import NotOwn
from daemon.state.layout import Layout
from daemon.state.quarantine import clear_name
from daemon.state.shard_lock import holder
from daemon.state.slots import HEAD_BYTES, newest_slot, write_slot

#: One of the two slots takes so many bytes, its head included.
SLOT_BYTES: Final = 64 * 1024
#: What is later than this is no time, in seconds since the epoch.
_LATEST: Final = 1e11
_ENCODE: Final = json.JSONEncoder(default=vars, separators=(",", ":")).encode

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class RemoteStanding:
    """How a remote stands that the worker has dealt with. Times are in seconds since the epoch."""

    remote: str
    up: bool
    #: Since when it stands so.
    since: float
    #: Why it is away, and what it said; None when it is up.
    code: str | None = None
    message: str | None = None
    next_try_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """A file that is being pushed now."""

    task_id: str
    instance_key: str
    path: str
    size_bytes: int
    #: So much of it was handed on so far; of small files this may stay 0 until they are there.
    sent_bytes: int
    #: Since when, in seconds since the epoch.
    since: float


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """An instance where something failed: its tasks wait, and one at a time is tried. Times as above."""

    instance_key: str
    #: When it failed first, without an answer since.
    since: float
    code: str
    message: str
    #: When it is tried again; it may be in the past when that is under way, or nothing waits for the instance.
    next_try_at: float | None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a worker was doing at one moment. Times are in seconds since the epoch."""

    at: float
    pid: int
    started_at: float
    #: Instances whose tasks it has in hand, and how many tasks these are.
    lanes: int
    keeps: int
    #: Threads at work, how many of them hold a session to an instance, and in how many nothing moves.
    threads: int
    sessions: int
    stalled: int
    #: What the worker itself waits for, such as room on the disk; None while all is well.
    code: str | None = None
    message: str | None = None
    #: Bytes of the database's write-ahead log.
    wal_bytes: int = 0
    remotes: tuple[RemoteStanding, ...] = ()
    pushing: tuple[Pushing, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    #: How many entries of these lists are left out, because there are too many; and how many of these are instances.
    more: int = 0
    more_blocked: int = 0


class Publisher:
    """The worker's end. Only one thread uses it. Never raises: who cannot tell what it does, does it all the same."""

    def __init__(self, layout: Layout, shard: int) -> None:
        self._layout = layout
        self._path = layout.activity(shard)
        self._log = layout.log(shard)
        self._descriptor = -1
        self._number = 0

    def log_bytes(self) -> int:
        """How long the write-ahead log of the shard's database is; 0 where there is none."""
        with suppress(OSError):
            return os.lstat(self._log).st_size
        return 0

    def publish(self, activity: Activity) -> None:
        """Tell what the worker is doing, in place of what it told the time before last."""
        with suppress(OSError):
            descriptor = self._opened()
            write_slot(descriptor, SLOT_BYTES, self._number + 1, _text(activity))
            self._number += 1

    def _opened(self) -> int:
        if self._descriptor < 0:
            try:
                self._descriptor = self._layout.open_shown(self._path)
            except (NotOwn, PermissionError):
                # It holds nothing worth keeping.
                clear_name(self._layout, self._path)
                self._descriptor = self._layout.open_shown(self._path)
            found = newest_slot(self._descriptor, SLOT_BYTES)
            self._number = found[0] if found else 0
        return self._descriptor

    def close(self) -> None:
        """Let go of the file. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read(layout: Layout, shard: int) -> Activity | None:
    """What the worker that runs now told last; None when none runs, it has told nothing yet, or it makes no sense.

    `at` tells how old it is: a worker that hangs tells nothing new. Raises OSError where the state cannot be read.
    """
    pid = holder(layout, shard)
    found = None if pid is None else last(layout, shard)
    # A pid of 0 cannot be told.
    return found if found is not None and pid in {0, found.pid} else None


def last(layout: Layout, shard: int) -> Activity | None:
    """What the shard's worker told last, whether it runs or not; None when nothing is there, or it makes no sense."""
    try:
        descriptor = layout.open(layout.activity(shard), os.O_RDONLY)
    except OSError:
        return None
    try:
        found = newest_slot(descriptor, SLOT_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if found is None:
        return None
    try:
        return _made(Activity, json.loads(found[1]))
    except (ValueError, RecursionError):
        return None


# --- the form of the file -----------------------------------------------------------------------------------


def _text(activity: Activity) -> bytes:
    """The activity as JSON that goes into a slot: the longest list is cut in half until it does."""
    while len(text := _ENCODE(vars(activity)).encode()) > SLOT_BYTES - HEAD_BYTES:
        activity = _shorter(activity)
    return text


def _shorter(activity: Activity) -> Activity:
    lists: dict[str, Sequence[Any]] = {name: getattr(activity, name) for name in ("remotes", "pushing", "blocked")}
    name = max(lists, key=lambda name: len(lists[name]))
    kept = lists[name][:len(lists[name]) // 2]
    left_out = len(lists[name]) - len(kept)
    cut: dict[str, Any] = {name: kept, "more": activity.more + left_out}
    return replace(activity, **cut, more_blocked=activity.more_blocked + (left_out if name == "blocked" else 0))


def _check(hint: Any) -> Callable[[Any], Any]:
    allowed = get_args(hint)
    if allowed and allowed[-1] is Ellipsis:
        return lambda value: tuple(_made(allowed[0], each) for each in _of(list, value))
    if float in {hint, *allowed}:
        return lambda value: None if value is None and allowed else _time(value)
    return lambda value: None if value is None and allowed else _of(allowed[0] if allowed else hint, value)


def _of(kind: type[Value], value: Any) -> Value:
    # A truth value is an int for isinstance.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError("A value of another type than it should have.")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise ValueError("This is no time.")
    return float(value)


def _made(kind: type[Value], found: Any) -> Value:
    """The dataclass of these JSON values; what it does not know is left out. Raises ValueError."""
    values = _of(dict, found)
    try:
        return kind(**{name: check(values[name]) for name, check in _CHECKS[kind].items() if name in values})
    except TypeError as error:
        raise ValueError("A value is missing.") from error


#: What makes the value of each field out of its JSON.
_CHECKS: Final[dict[type, dict[str, Callable[[Any], Any]]]] = {
    kind: {name: _check(hint) for name, hint in get_type_hints(kind).items()}
    for kind in (Activity, RemoteStanding, Pushing, Blocked)}
