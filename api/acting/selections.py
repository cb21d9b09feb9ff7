"""Tasks that somebody chose, kept for ten minutes: whoever acts on them acts on these and on no others.

    access/selections/<id>    a line of JSON, the members, and a line of JSON for each step of applying them

The members are frozen: the shards one after the other, 16 bytes for each task's id. What comes after them is only
appended to; of each shard the last whole line counts. Who applies a selection has the lock of its file, so no two
processes do; it ends with its process, and another goes on where the file says. A file's time is its age.
Every method blocks on the disk.
"""

import errno
import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

from daemon import failpoints
from daemon.errors import Rejected
from daemon.state.file_lock import is_locked, try_lock
from daemon.state.files import opened
from daemon.state.layout import Layout, sync_directory
from daemon.state.room import NO_ROOM

#: How long a selection is kept after it was made, or last applied.
LIFETIME_S: Final = 600.0
#: Selections that live at once: those of one identity, of which the oldest make way; those of all that act under one
#: of the administrator's identities; and all.
MAX_OWN: Final = 4
MAX_UNDER_ROOT: Final = 16
MAX_ALL: Final = 64
#: More than the first line has.
_HEADER_BYTES: Final = 64 * 1024
_ID_BYTES: Final = 16
#: More than the steps of the largest selection have, however often it was begun anew.
_STEPS_BYTES: Final = 4 * 2**20
_DIRECTORY_MODE: Final = 0o700
#: The form of a selection's id.
SELECTION_ID: Final = "[0-9a-f]{32}"
_SELECTION_ID: Final = re.compile(SELECTION_ID)


@dataclass(frozen=True, kw_only=True)
class FrozenSelection:
    """What was chosen, by whom, and for what."""

    id: str
    #: The name of who made it: nobody else learns of it.
    owner: str
    #: The administrator's identity that he acts under.
    root: str
    #: What is to be done with them, one of `api.acting.actions.ACTIONS`.
    action: str
    force: bool
    #: The states in which that is done (numbers of `daemon.model.task.State`).
    states: list[int]
    made_at: float
    #: How they were chosen, as it was given.
    filter: dict[str, Any]
    #: How many of them each shard has, those without left out; and how many shards there were.
    members: dict[int, int]
    shards: int = 1
    size_bytes: int
    #: True when there were more than may be in one, or looking for them took too long.
    cut: bool

    @property
    def count(self) -> int:
        """How many tasks there are."""
        return sum(self.members.values())


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far the members of one shard have been worked off."""

    #: So many of them are done with.
    done: int = 0
    changed: int = 0
    #: Those whose state did not fit any more, or that were gone.
    skipped: int = 0
    #: Those for which the right was missing, or over which there was a newer upload.
    refused: int = 0
    #: When the worker was asked for the next ones, in seconds since the epoch; None: it was not asked yet.
    asked_at: float | None = None
    #: How many of these are skipped and refused without asking.
    asked_skipped: int = 0
    asked_refused: int = 0


@dataclass(frozen=True)
class KeptSelection:
    """A selection as it stands."""

    selection: FrozenSelection
    steps: dict[int, Step]
    #: True while a process applies it.
    running: bool
    #: In seconds since the epoch.
    expires_at: float

    @property
    def applied(self) -> bool:
        """True when all of it was worked off."""
        return all(self.steps[shard].done == count for shard, count in self.selection.members.items())


class Selections:
    """The selections under one state directory of so many shards. May be used from several threads and processes."""

    def __init__(self, layout: Layout, shards: int) -> None:
        self._layout = layout
        self._shards = shards

    def put(self, selection: FrozenSelection, members: Mapping[int, Sequence[str]]) -> FrozenSelection:
        """Keep a selection of these tasks, by shard; return it with its id.

        Raises Rejected: 'too_many_selections', 'too_busy' where others have too many, 'no_room' or
        'selections_unreadable'.
        """
        counts = {shard: len(ids) for shard, ids in members.items() if ids}
        made = replace(selection, id=secrets.token_hex(16), members=counts, shards=self._shards)
        with _explained():
            self._make_directory()
            self._make_way(made)
            path = self._layout.selections / made.id
            descriptor = self._layout.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    failpoints.reach("selection.write")
                    file.write(json.dumps(asdict(made)).encode() + b"\n")
                    for shard in made.members:
                        file.write(b"".join(uuid.UUID(task_id).bytes for task_id in members[shard]))
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise
        return made

    def find(self, selection_id: str, owner: str) -> KeptSelection:
        """A selection of `owner`'s. Raises Rejected: 'selection_not_found' or 'selections_unreadable'."""
        with _explained(), self._open(selection_id, os.O_RDONLY) as opened_file:
            return opened_file.found(owner)

    def take(self, selection_id: str, owner: str) -> "TakenSelection | None":
        """The same, to apply it alone among all processes; None while another does. Raises as `find`."""
        with _explained(), self._open(selection_id, os.O_RDWR) as opened_file:
            opened_file.found(owner)
            if not try_lock(opened_file.descriptor):
                return None
            # Once more: another may just have ended, or removed it.
            found = opened_file.found(owner)
            sync_directory(self._layout.selections)
            return TakenSelection(found.selection, found.steps, opened_file.keep(), opened_file.members_at)

    @contextmanager
    def _open(self, selection_id: str, flags: int) -> "Iterator[_File]":
        if not _is_id(selection_id):
            raise Rejected("selection_not_found")
        try:
            descriptor = self._layout.open(self._layout.selections / selection_id, flags)
        except FileNotFoundError as error:
            raise Rejected("selection_not_found") from error
        with _File(selection_id, descriptor, self._shards) as file:
            yield file

    def _make_directory(self) -> None:
        with opened(self._layout.directory, self._layout.access) as above, suppress(FileExistsError):
            os.mkdir(self._layout.selections.name, _DIRECTORY_MODE, dir_fd=above)

    def _living(self) -> list[KeptSelection]:
        """Those that have not ended; the others are removed."""
        return [found for name in os.listdir(self._layout.selections) if (found := self._look(name)) is not None]

    def _look(self, name: str) -> KeptSelection | None:
        """The living selection of that name; one that has ended is removed."""
        try:
            with self._open(name, os.O_RDWR) as file:
                found = file.read()
                if found is not None:
                    return found
                if file.is_old and try_lock(file.descriptor):
                    os.unlink(self._layout.selections / name)
        except Rejected:
            # Gone meanwhile, or no name of ours: it is left alone.
            return None
        return None

    def _make_way(self, wanted: FrozenSelection) -> None:
        living = sorted(self._living(), key=lambda found: found.expires_at)
        own = [found for found in living if found.selection.owner == wanted.owner]
        removable = [found for found in own if not found.running]
        for found in removable[:max(0, len(own) - MAX_OWN + 1)]:
            if self._remove(found.selection.id):
                own.remove(found)
                living.remove(found)
        under_root = [found for found in living if found.selection.root == wanted.root]
        if len(own) >= MAX_OWN or len(under_root) >= MAX_UNDER_ROOT:
            raise Rejected("too_many_selections")
        if len(living) >= MAX_ALL:
            raise Rejected("too_busy")

    def _remove(self, selection_id: str) -> bool:
        try:
            with self._open(selection_id, os.O_RDWR) as file:
                if not try_lock(file.descriptor):
                    return False
                os.unlink(self._layout.selections / selection_id)
        except Rejected:
            return True
        return True


@dataclass
class TakenSelection:
    """A selection that this process applies. To be closed."""

    selection: FrozenSelection
    steps: dict[int, Step]
    _descriptor: int
    _members_at: int
    _starts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """See where each shard's members are."""
        start = self._members_at
        for shard, count in self.selection.members.items():
            self._starts[shard] = start
            start += count * _ID_BYTES

    def next_members(self, shard: int, limit: int) -> list[str]:
        """Up to `limit` of a shard's members that are not done with. Raises Rejected."""
        done = self.steps[shard].done
        limit = min(limit, self.selection.members[shard] - done)
        with _explained():
            packed = os.pread(self._descriptor, limit * _ID_BYTES, self._starts[shard] + done * _ID_BYTES)
        if len(packed) != limit * _ID_BYTES:
            raise Rejected("selections_unreadable")
        return [str(uuid.UUID(bytes=packed[at:at + _ID_BYTES])) for at in range(0, len(packed), _ID_BYTES)]

    def note(self, shard: int, step: Step) -> None:
        """Write down, durably, how far a shard's members have been worked off. Raises Rejected."""
        line = json.dumps({"shard": shard, **asdict(step)}).encode() + b"\n"
        with _explained():
            failpoints.reach("selection.note")
            os.lseek(self._descriptor, 0, os.SEEK_END)
            # What a crash, or a full disk, left of a line before ends with the line break.
            if os.write(self._descriptor, b"\n" + line) != len(line) + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._descriptor)
        self.steps[shard] = step

    def close(self) -> None:
        """Let others apply it. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _File:
    """The file of a selection, open."""

    def __init__(self, selection_id: str, descriptor: int, shards: int) -> None:
        self._id = selection_id
        self._shards = shards
        self.descriptor = descriptor
        self.members_at = 0
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            os.close(self.descriptor)

    def keep(self) -> int:
        """The descriptor, which stays open."""
        self._kept = True
        return self.descriptor

    @property
    def is_old(self) -> bool:
        """True when its time is over."""
        return self._expires_at <= time.time()

    @property
    def _expires_at(self) -> float:
        return os.fstat(self.descriptor).st_mtime + LIFETIME_S

    def found(self, owner: str) -> KeptSelection:
        """The selection. Raises Rejected('selection_not_found') for what is not `owner`'s, or has ended."""
        found = self.read()
        if found is None or found.selection.owner != owner:
            raise Rejected("selection_not_found")
        return found

    def read(self) -> KeptSelection | None:
        """The selection; None when it has ended, is none, was not written to its end, or is of other shards."""
        # Before all else: whoever is at it may be at its end when the steps are read.
        running = is_locked(self.descriptor)
        if os.fstat(self.descriptor).st_nlink == 0 or (self.is_old and not running):
            return None
        head, ends, _ = os.pread(self.descriptor, _HEADER_BYTES, 0).partition(b"\n")
        selection = _selection_in(head)
        if not ends or selection is None or (selection.id, selection.shards) != (self._id, self._shards):
            return None
        self.members_at = len(head) + 1
        steps_at = self.members_at + selection.count * _ID_BYTES
        if os.fstat(self.descriptor).st_size < steps_at:
            return None
        steps = dict.fromkeys(selection.members, Step())
        steps.update(_steps_in(os.pread(self.descriptor, _STEPS_BYTES, steps_at)))
        return KeptSelection(selection, steps, running, self._expires_at)


def _selection_in(head: bytes) -> FrozenSelection | None:
    try:
        values = json.loads(head)
        members = {int(shard): count for shard, count in values["members"].items()}
        return FrozenSelection(**{**values, "members": members})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _steps_in(lines: bytes) -> Iterator[tuple[int, Step]]:
    for line in lines.split(b"\n"):
        # What a crash left of one says nothing.
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            values = json.loads(line)
            yield values.pop("shard"), Step(**values)


def _is_id(text: str) -> bool:
    return _SELECTION_ID.fullmatch(text) is not None


@contextmanager
def _explained() -> Iterator[None]:
    """Say of the disk's errors what a client is told."""
    try:
        yield
    except OSError as error:
        code = "no_room" if error.errno in NO_ROOM else "selections_unreadable"
        raise Rejected(code, f"Selections: {error.strerror}.") from error
