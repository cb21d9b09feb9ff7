"""`incus-courier cell`: an instance goes from one cell to another, as docs/scaling.md has it.

A cell that lets go of an instance, or takes it back, holds no bytes for it: so nothing old can be delivered later.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from daemon.cli.all_shards import AllShards, existing, open_all
from daemon.cli.filters import read_instance
from daemon.config import Cell, Config
from daemon.config.cells import cell_of
from daemon.config.naming import instance_name
from daemon.model.task import PENDING
from daemon.model.upload import Destination
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK
from daemon.process.output import say, warn
from daemon.spool import CheckedSpool, Mark, Name, Undecided, open_checked
from daemon.state import released
from daemon.state.layout import Layout

#: For so long nothing may wait before the cell lets go, in seconds: an API ends what it may not take any more sooner.
QUIET_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.25
_DECIDED_S: Final = 0.01
#: How long an upload may be undecided about, in looks.
_LOOKS: Final = 100
#: Tasks that are looked at at once: some of them are enough to go on waiting.
_LOOKED_AT: Final = 1000
#: Ids that are named at once.
_MOST: Final = 10


@dataclass(frozen=True)
class Held:
    """What a cell has of an instance."""

    #: Ids of tasks that are to be delivered, that may have left a part file there, or whose bytes wait to be removed,
    #: and of uploads without a row.
    going: tuple[str, ...]
    #: Ids of dead letters, and of tasks that a person holds.
    stuck: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """True when it has none."""
        return not (self.going or self.stuck)


def release(config: Config, text: str, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep) -> int:
    """Let go of an instance once all is delivered; the exit code is EXIT_OK when its new cell may take it.

    Raises Misused, CannotStart and QueueFault.
    """
    to, cell = _meant(text, config)
    name = instance_name(to, config)
    if cell is None or cell.name == config.cell.name:
        return _refuse(f"{name} is this cell's own, or nobody's, by [[cells]]: change the list and reload first.")
    layout = existing(config)
    left = _wait_for_nothing(config, layout, to, timeout_s, sleep)
    if not left.nothing:
        return _tell_held(name, left)
    if not _changed(layout, to, released.release):
        return EXIT_FAILED
    left = _wait_until_decided(config, layout, to, timeout_s, sleep)
    if not left.nothing:
        warn(f"incus-courier: {name} is let go of, and what came at the last moment is not delivered:")
        return _tell_held(name, left)
    say(f"{name}: let go of; {cell.name} may take it now")
    return EXIT_OK


def adopt(config: Config, text: str) -> int:
    """Take an instance back that this cell had let go of. Raises Misused, CannotStart and QueueFault."""
    to, cell = _meant(text, config)
    name = instance_name(to, config)
    if cell is None or cell.name != config.cell.name:
        return _refuse(f"{name} is another cell's, or nobody's, by [[cells]]: change the list and reload first.")
    layout = existing(config)
    try:
        if to.instance_key not in released.read(layout):
            say(f"{name}: this cell has not let go of it, so there is nothing to take back")
            return EXIT_OK
    except OSError as error:
        return _refuse(f"{layout.released}: {error.strerror}")
    left = held(config, layout, to, parts=False)
    if not left.nothing:
        return _tell_held(name, left)
    if not _changed(layout, to, released.adopt):
        return EXIT_FAILED
    say(f"{name}: taken back; this cell takes its uploads")
    return EXIT_OK


def held(config: Config, layout: Layout, to: Destination, *, parts: bool = True) -> Held:
    """What the cell has of the instance: in its queue, then in its spool. Raises QueueFault and OSError.

    With `parts` also where a part file may be left: until that is gone, a rename that was given up may be on its way.
    """
    with open_all(config) as shards:
        going, stuck = set(_pending(shards, to)), set[str]()
        if parts:
            going |= {task.task_id for queue in shards.queues.values()
                      for task in queue.left_parts(to.instance_key, _LOOKED_AT)}
    spool = open_checked(layout)
    for name in spool.scan(to.bucket):
        if name.mark is not None and _is_for(spool, name, to):
            (going if name.mark is Mark.PENDING else stuck).add(name.task_id)
    return Held(tuple(sorted(going - stuck)), tuple(sorted(stuck)))


def _is_for(spool: CheckedSpool, name: Name, to: Destination) -> bool:
    """True for an upload to the instance, and for one that nobody has decided about for long."""
    for _ in range(_LOOKS):
        try:
            return spool.examine(name).destination.instance_key == to.instance_key
        except Undecided:
            time.sleep(_DECIDED_S)
        except (FileNotFoundError, ValueError):
            return False
    return True


def _pending(shards: AllShards, to: Destination) -> Iterator[str]:
    if shards.faults:
        raise next(iter(shards.faults.values()))
    for queue in shards.queues.values():
        for task in queue.page(states=frozenset(PENDING), instance_key=to.instance_key, limit=_LOOKED_AT):
            yield task.task_id


def _wait_for_nothing(
    config: Config, layout: Layout, to: Destination, timeout_s: float, sleep: Callable[[float], None],
) -> Held:
    """Wait until nothing was there for QUIET_S, or something is that no worker will take away, or the time is over."""
    until, quiet_since, told = time.monotonic() + timeout_s, None, False
    while True:
        left, now = held(config, layout, to), time.monotonic()
        quiet_since = None if not left.nothing else now if quiet_since is None else quiet_since
        is_quiet = quiet_since is not None and now - quiet_since >= QUIET_S
        if is_quiet or left.stuck or (now >= until and quiet_since is None):
            return left
        if left.going and not told:
            told = True
            warn(f"incus-courier: waiting for {_number(left.going)} to be delivered")
        sleep(_LOOK_EVERY_S)


def _wait_until_decided(
    config: Config, layout: Layout, to: Destination, timeout_s: float, sleep: Callable[[float], None],
) -> Held:
    """Wait until nothing is under way; dead letters may be left."""
    until = time.monotonic() + timeout_s
    while (left := held(config, layout, to)).going and time.monotonic() < until:
        sleep(_LOOK_EVERY_S)
    return left


def _meant(text: str, config: Config) -> tuple[Destination, Cell | None]:
    to = read_instance(text, config)
    return to, cell_of(to, config.cells)


def _changed(layout: Layout, to: Destination, change: Callable[[Layout, str], None]) -> bool:
    try:
        change(layout, to.instance_key)
    except OSError as error:
        _refuse(f"{layout.released}: {error.strerror}")
        return False
    return True


def _tell_held(name: str, left: Held) -> int:
    if left.stuck:
        warn(f"incus-courier: {name} has {_number(left.stuck)} that a person decides about: {_some(left.stuck)}")
        warn("  Save their bytes if they are wanted, and delete them: incus-courier tasks save ID, delete ID")
    if left.going:
        warn(f"incus-courier: {name} has {_number(left.going)} on the way: {_some(left.going)}")
        warn(f"  See incus-courier explain {name}, and give the same command again")
    return EXIT_FAILED


def _number(ids: tuple[str, ...]) -> str:
    return f"{len(ids)} task{'' if len(ids) == 1 else 's'}"


def _some(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - _MOST} more" if len(ids) > _MOST else ""
    return ", ".join(ids[:_MOST]) + more


def _refuse(why: str) -> int:
    warn(f"incus-courier: {why}")
    return EXIT_FAILED
