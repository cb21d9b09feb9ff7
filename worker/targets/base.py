"""What every target can do: one interface for Incus by SFTP, Incus by its files API, and a directory."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from daemon.errors import CourierError
from daemon.model.upload import Destination
from daemon.spool import Source


@dataclass(slots=True)
class Patience:
    """How long a session may stand still, and since when it does.

    The thread that uses the session and the one that watches over the threads share it: each value is set by one.
    """

    #: Longest time in seconds in which nothing moves; the remote's own `timeout_s` holds besides. It may change at any
    #: time; where a session cannot heed that, the value at the beginning of a step counts.
    limit_s: float = math.inf
    #: Since when an answer has been waited for, on the monotonic clock; None while none is.
    still_since: float | None = None
    #: The thread holds a session to an instance.
    in_session: bool = False
    #: The last push or sweep ended without an answer.
    silent: bool = False
    #: What last ended without an answer was given less time than its remote's own: by the limit that held for it, which
    #: may have changed since.
    hurried: bool = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for an answer meanwhile."""
        self.still_since = time.monotonic()
        try:
            yield
        finally:
            self.still_since = None

    def stands(self, now: float, for_s: float) -> bool:
        """True when nothing has moved for so long; `now` is on the monotonic clock."""
        since = self.still_since
        return since is not None and now - since >= for_s


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One file to put into one instance: everything that a target needs to know, resolved."""

    task_id: str
    destination: Destination
    size: int
    #: Hexadecimal sha256 of the bytes.
    sha256: str
    #: Exact permission bits, or None: an existing file keeps its own, a new one gets `default_mode`.
    mode: int | None
    uid: int | None
    gid: int | None
    default_mode: int
    default_uid: int
    default_gid: int
    #: Make missing parent directories, with these bits, owned by `uid`/`gid` (else the defaults).
    mkdirs: bool
    dir_mode: int
    #: "follow" writes through a symbolic link at the path, "replace" puts a file in its place.
    symlinks: str
    #: "keep" or "narrow": the group's bits of a file that is replaced; "in-place": it is written in place.
    replace_group: str
    #: "size" or "digest": what is compared before the file gets its name.
    verify: str
    #: "push" or "wait": what to do when the instance is stopped.
    stopped: str
    #: Why the file must not be written at a path of the instance, all links resolved; it answers None where it may.
    #: None: it may be written anywhere, and nobody has to find out where a path leads.
    path_rule: Callable[[str], str | None] | None = None
    #: Likewise why it must not have a mode, a uid and a gid, because of set-id bits.
    set_id_rule: Callable[[int, int, int], str | None] | None = None
    #: True: compare with what is there first and push only if it differs.
    recheck: bool = False
    #: The identity of the instance that it was delivered to before; None where it was to none, or that is not known.
    delivered_to: str | None = None
    #: True: an earlier attempt may have left its part file, or more.
    left_part: bool = False
    #: True: its part file has the other of its two names. Where a rename can be late, a session takes them in turn.
    other_name: bool = False

    @property
    def part_name(self) -> str:
        """The name of the part file, in the directory of the destination. Either name is as long as the other."""
        return f".courier-{self.task_id}.{'next' if self.other_name else 'part'}"

    def by_either_name(self) -> tuple["Delivery", "Delivery"]:
        """The same with the first name of the part file, and with the other one."""
        return replace(self, other_name=False), replace(self, other_name=True)

    @property
    def staging_name(self) -> str:
        """The name of the directory in which new directories, and private files, are made before they are moved."""
        return f".courier-{self.task_id}.new.part"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """How a delivery was done."""

    #: False when the file was written in place because there was no SFTP.
    atomic: bool
    #: "sftp", "files" or "directory".
    way: str
    #: True when `recheck` found the right bytes there already.
    unchanged: bool = False
    #: The permission bits and the owner that the file had when it was last looked at, as seen in the instance; None
    #: where they are not shown: the files API hides some bits of a file that was there before.
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    #: True unless it is certain that the file is on this machine, so that one sync of this machine has it on the disk.
    elsewhere: bool = False
    #: And the identity of the instance, where it is known.
    identity: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """One of several files that are delivered together; see Carrier.deliver for what each is."""

    delivery: Delivery
    source: Source
    before_rename: Callable[[], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How the delivery of one of several files ended: with a receipt, or with an error."""

    parcel: Parcel
    receipt: Receipt | None = None
    error: CourierError | OSError | None = None
    #: It may have left its part file, because that could not be removed.
    left_part: bool = False
    #: It was under way when the connection ended over another: whatever was the matter, it was not this file.
    bystander: bool = False


class Carrier(Protocol):
    """A connection to one instance, used by one thread at a time, for many files."""

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` (positioned at 0, exactly `delivery.size` long) at the destination.

        Calls `before_rename` at the last moment at which nothing is visible in the instance yet; what that
        raises ends the delivery, and the part file is removed.
        Raises Undelivered, with a code from the table of errors, and leaves the file at the destination as
        it was (except in the files API's fallback, which writes in place). Afterwards the session is still
        usable unless `broken` is True.
        """

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver files to different paths, each as `deliver` does, side by side if possible; yield each as it ends.

        One that was delivered to another instance of the name (`delivered_to`) ends with neither receipt nor error.
        Each fails alone, with a CourierError or an OSError; what else `before_rename` raises is a mistake and ends all.
        Those that were not begun when the session broke are not yielded; the first one always is.
        """

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file that a killed attempt of `delivery` left, by either name; True if there was one.

        For a task that will not be delivered any more: the next attempt of one that will removes it by itself.
        Raises Undelivered.
        """

    @property
    def left_part(self) -> bool:
        """True when the last `deliver` may have left its part file, because it could not be removed."""

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used; the caller closes it."""

    def close(self) -> None:
        """End the connection. Never raises."""


class Session(Carrier, Protocol):
    """A Carrier that knows which instance it was opened to."""

    def confirm(self) -> None:
        """Return when what was delivered counts: the instance is the one that the session was opened to, and still so.

        Until then it does not. Raises Undelivered, the session broken or not: it does not count then, and is to be
        delivered again. To be asked before the session is closed.
        """


def one_by_one(carrier: Carrier, parcels: Sequence[Parcel]) -> Iterator[Ended]:
    """Deliver files one after the other: `Carrier.deliver_all` where there is nothing to be gained."""
    for parcel in parcels:
        try:
            receipt = carrier.deliver(parcel.delivery, parcel.source, parcel.before_rename)
        except (CourierError, OSError) as error:
            yield Ended(parcel=parcel, error=error, left_part=carrier.left_part)
        else:
            yield Ended(parcel=parcel, receipt=receipt, left_part=carrier.left_part)
        if carrier.broken:
            return


class Feed(Protocol):
    """What follows a target's events until it is closed."""

    def close(self) -> None:
        """Follow them no more. Never raises."""


class Target(Protocol):
    """A place with instances in it: one remote. Its methods may be called from several threads."""

    def open(self, destination: Destination, stopped: str, patience: Patience | None = None) -> Session:
        """Open a session to the instance of `destination` (its path does not matter).

        `stopped` is "push" or "wait"; `patience` is for each step of opening and of the session, without it only the
        remote's own limit holds. Raises Undelivered: incus_unreachable, incus_refused,
        instance_not_found, project_not_found, instance_stopped, agent_down, instance_busy, file_server_lost, stalled,
        connection_lost, incus_error.
        """

    def probe(self) -> None:
        """Return when the remote answers; raise Undelivered (incus_unreachable, incus_refused) when not.

        Takes at most a few seconds.
        """

    def find_project(self, project: str) -> None:
        """Return when the remote has that project, or no projects; raise Undelivered (project_not_found) when not.

        Takes at most a few seconds. Raises what `probe` raises, too.
        """

    def instances(self) -> frozenset[tuple[str, str]] | None:
        """Project and name of each instance that this service may see; None where every name is one.

        Takes at most a few seconds. Raises what `probe` raises.
        """

    def follow(
        self, on_event: Callable[[str, str, str], None], on_up: Callable[[], None], on_down: Callable[[str], None],
    ) -> Feed | None:
        """Follow what happens to its instances; None when there is nothing to follow.

        From a thread of its own `on_event(project, instance, action)` is called for each change, `on_up()` when the
        events can be followed (again), and `on_down(reason)` when they cannot. The callbacks are quick and never raise.
        """

    def close(self) -> None:
        """Let go of every connection. Never raises."""
