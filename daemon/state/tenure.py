"""Which host uses a state directory: a token in it, so that no two hosts work in one state as far as they can know.

Locks hold between the processes of one kernel; the token speaks to those of others. It names the host and its boot, and
when the host last said that it is there. It bars nobody from the disk: that is for what the disk is on. A host that
finds another one's token waits until that has said nothing for a while, unless it is told to take the state over.

Each host, and each boot, that takes the state begins an epoch. Who has an earlier one finds out before it does more.
The token is written by workers alone, and synced when an epoch begins; that a host is still there is not.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from daemon.config import INSTALLED_FILE
from daemon.errors import CannotStart
from daemon.log import log
from daemon.state.boot import boot_id
from daemon.state.file_lock import try_lock
from daemon.state.layout import Layout, sync_directory
from daemon.state.room import where_there_is_room
from daemon.state.slots import newest_slot, write_slot

#: A host says so often that it is there.
REFRESH_S: Final = 60.0
#: One that has said nothing for so long does not use the state any more.
STALE_S: Final = 300.0
#: One of the two slots takes so many bytes, its head included.
SLOT_BYTES: Final = 4096
#: Where an installed service has the host's own name, written once (systemd/tmpfiles.conf).
NAME_FILE: Final = INSTALLED_FILE.parent / "host"
_MACHINE_ID: Final = Path("/etc/machine-id")
#: More than any name takes, in characters.
_NAME_MOST: Final = 255
#: What the parts of a token are. What a later version says besides is left out.
_KINDS: Final = {"host": str, "boot": str, "epoch": int, "at": float, "ended": bool}
#: Other workers of this host hold the token for a moment; somebody who holds it for longer hangs.
_LOCK_PATIENCE_S: Final = 10.0


@dataclass(frozen=True)
class Host:
    """A host as the token names it."""

    name: str
    #: Which start of its kernel this is; empty where nobody knows.
    boot: str


@dataclass(frozen=True, kw_only=True)
class HostToken:
    """What the token says."""

    host: str
    boot: str
    epoch: int
    #: When the host last said that it is there, in seconds since the epoch.
    at: float
    #: It has stopped in order.
    ended: bool = False


def this_host(configured: str = "") -> Host:
    """This host: by its configured name, else by the one that was written once, or the system's, and its machine's id.

    Neither alone tells: images are copied with one of them or the other.
    """
    return Host(configured or f"{_line(NAME_FILE) or platform.node()}/{_line(_MACHINE_ID)[:12]}", boot_id() or "")


def _line(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        first = path.read_text()[:_NAME_MOST].partition("\n")[0].strip()
        return first if first.isprintable() else ""
    return ""


def is_others(token: HostToken | None, me: Host, now: float) -> bool:
    """True when another host may still be using the state. Times are in seconds since the epoch.

    The same boot is the same kernel, whose locks tell; the same host has been started anew.
    """
    if token is None or token.ended or token.host == me.name or _same_boot(token, me):
        return False
    # A time to come is that of a clock which is ahead.
    return now - token.at < STALE_S


def _same_boot(token: HostToken, me: Host) -> bool:
    return token.boot == me.boot if me.boot else token.host == me.name


def read_token(layout: Layout) -> HostToken | None:
    """What the token says; None when there is none, or it makes no sense. Raises OSError where it cannot be read."""
    try:
        descriptor = layout.open(layout.host_token, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return _parse(newest_slot(descriptor, SLOT_BYTES))
    finally:
        os.close(descriptor)


def refusal(token: HostToken | None, me: Host, now: float) -> str | None:
    """Why this host does not work in the state now, as a sentence; None when it may."""
    if token is None or not is_others(token, me, now):
        return None
    return (f"The host {token.host} said {max(0.0, now - token.at):.0f} s ago that it uses this state; this is"
            f" {me.name}. It is taken for gone {STALE_S:.0f} s after it last said so.")


class Tenure:
    """This host's use of a state directory, for one worker, from `take` on."""

    def __init__(self, layout: Layout, me: Host) -> None:
        self._layout = layout
        self._me = me
        self._descriptor = -1
        self._path = str(layout.directory)
        self._directory = (0, 0)
        self._token = HostToken(host="", boot="", epoch=0, at=0.0)
        #: Both slots as they were when they were last understood.
        self._known = b""
        #: The epoch is on the disk.
        self._begun = False
        self._refresh_at = 0.0

    @property
    def epoch(self) -> int:
        """The number of the epoch; a later one is greater."""
        return self._token.epoch

    def take(self, *, take_over: bool = False) -> None:
        """Use the state from now on, durably: in the epoch of this boot, which another worker may have begun.

        Raises CannotStart('state_in_use') when another host may still be using it, unless it is to be taken over: where
        that host cannot reach the storage any more. Raises OSError.
        """
        self._descriptor = self._layout.open_shown(self._layout.host_token)
        with self._locked():
            now = time.time()
            found = _parse(newest_slot(self._descriptor, SLOT_BYTES))
            reason = None if take_over else refusal(found, self._me, now)
            if reason is not None:
                raise CannotStart("state_in_use", f"state.directory {self._layout.directory}: {reason}")
            if found is not None and _same_boot(found, self._me):
                self._token = replace(found, at=now, ended=False)
            else:
                epoch = found.epoch + 1 if found is not None else 1
                self._token = HostToken(host=self._me.name, boot=self._me.boot, epoch=epoch, at=now)
            self._begin(is_new=found is None)
            self._known = self._read_both()
        stat = os.stat(self._layout.directory)
        self._directory = (stat.st_dev, stat.st_ino)
        if found is not None and found.epoch != self._token.epoch:
            log("state.taken", host=self._me.name, epoch=self._token.epoch, host_before=found.host,
                in_use=is_others(found, self._me, now))

    def check(self) -> None:
        """Raise CannotStart('state_lost') unless the state is still the one that was taken, in the same epoch.

        From any thread; takes some microseconds. Raises OSError where the state cannot be read any more.
        """
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            raise self._lost("the directory is gone") from None
        if (found.st_dev, found.st_ino) != self._directory:
            raise self._lost("another directory is there now")
        text = self._read_both()
        if text != self._known:
            token = _parse(newest_slot(self._descriptor, SLOT_BYTES))
            if token is None or (token.epoch, token.boot) != (self._token.epoch, self._token.boot):
                raise self._lost(f"the host {token.host} has it" if token else "nobody can tell any more who has it")
            self._known = text

    def _lost(self, why: str) -> CannotStart:
        return CannotStart("state_lost", f"state.directory {self._layout.directory}: {why}.")

    def refresh(self) -> None:
        """Say that this host is there, if neither this worker nor another one of it has done so for a while.

        To be called each second or so. Raises CannotStart('state_lost').
        """
        if time.monotonic() < self._refresh_at:
            return
        self._refresh_at = time.monotonic() + REFRESH_S / 4
        self.check()
        # A full disk keeps nobody from its work: what is written is there already, and few filesystems need more room.
        with suppress(OSError), self._locked():
            found = _parse(newest_slot(self._descriptor, SLOT_BYTES))
            now = time.time()
            if not self._begun:
                self._begin(is_new=found is None)
            elif found is not None and found.epoch == self.epoch and (
                    found.ended or not 0 <= now - found.at < REFRESH_S - 1):
                self._token = replace(self._token, at=now)
                self._write()

    def leave(self) -> None:
        """The last worker of the host ends in order: another host may take the state at once. May be called again."""
        if self._descriptor < 0:
            return
        with suppress(OSError), self._locked():
            found = _parse(newest_slot(self._descriptor, SLOT_BYTES))
            if found is not None and found.epoch == self.epoch:
                self._token = replace(self._token, ended=True)
                self._write()
        self.close()

    def close(self) -> None:
        """Let go of the token, and leave it as it is. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self, *, is_new: bool) -> None:
        """Write the token, durably; on a full disk, later. Raises OSError."""
        # Who finishes its work makes room.
        with where_there_is_room():
            # Room for both slots: what is written later needs none.
            os.posix_fallocate(self._descriptor, 0, 2 * SLOT_BYTES)
            self._write()
            os.fsync(self._descriptor)
            if is_new:
                sync_directory(self._layout.locks)
            self._begun = True

    def _read_both(self) -> bytes:
        return os.pread(self._descriptor, 2 * SLOT_BYTES, 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Have the token alone among the workers of this host. Raises OSError when another one hangs with it."""
        descriptor = self._layout.open(self._layout.host_token, os.O_RDWR)
        try:
            deadline = time.monotonic() + _LOCK_PATIENCE_S
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self._layout.host_token}: another process holds it for too long")
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def _write(self) -> None:
        found = newest_slot(self._descriptor, SLOT_BYTES)
        number = found[0] + 1 if found else 1
        write_slot(self._descriptor, SLOT_BYTES, number, json.dumps(asdict(self._token)).encode())


def _parse(found: tuple[int, bytes] | None) -> HostToken | None:
    try:
        values: Any = json.loads(found[1]) if found else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    known: dict[str, Any] = {name: values.get(name) for name in _KINDS}
    return HostToken(**known) if all(isinstance(known[name], kind) for name, kind in _KINDS.items()) else None
