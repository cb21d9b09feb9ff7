"""`incus-courier fsck`: compare every shard's queue with the spool, in full, and put right what differs if asked to.

Looking disturbs nobody and may be done while workers run: what they are just changing is not reported. Repairing
needs the lock of each shard, so its worker must be stopped; a shard that is served is only looked at.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from daemon.cli.all_shards import existing
from daemon.config import Config, Webhook
from daemon.errors import Action, CannotStart, QueueFault
from daemon.log import setup
from daemon.model.upload import BUCKETS
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK
from daemon.process.output import say, say_json, warn
from daemon.recovery import rebuild, reshard
from daemon.recovery.compare import Comparison
from daemon.recovery.findings import FINDINGS, Finding
from daemon.spool import open_checked
from daemon.state import shard_count
from daemon.state.layout import Layout
from daemon.state.quarantine import retire
from daemon.state.shard_lock import ShardLock
from daemon.state.tenure import read_token, refusal, this_host
from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.inspection import what_is_damaged

#: Rows and names looked at in one step.
_STEP: Final = 500


def fsck(config: Config, *, repair: bool, as_json: bool) -> int:
    """Compare everything and print what was found; return EXIT_FAILED when something remains that is not right.

    Raises CannotStart when there is no state, or another host may be using what is to be repaired, QueueFault and
    OSError when it cannot be read or written.
    """
    setup(config.log, "fsck")
    layout = existing(config)
    reason = refusal(read_token(layout), this_host(config.state.host), time.time()) if repair else None
    if reason is not None:
        raise CannotStart("state_in_use", reason)
    run = _Run(layout, supersede=config.delivery.supersedes, webhooks=config.webhooks, repair=repair,
               as_json=as_json)
    run.everything(config.queue.shards)
    return run.ended()


def _note(text: str) -> None:
    warn(f"incus-courier: {text}")


class _Run:
    """One run: what it found, printed as it is found."""

    def __init__(
        self, layout: Layout, *, supersede: bool, webhooks: Sequence[Webhook], repair: bool, as_json: bool,
    ) -> None:
        self._layout = layout
        self._webhooks = webhooks
        self._supersede = supersede
        self._repair = repair
        self._as_json = as_json
        self._found = 0
        self._repaired = 0

    def everything(self, configured: int) -> None:
        self._layout.create()
        count = shard_count.read(self._layout)
        if count is not None and count.moving_to is not None:
            self._finish_move(count.moving_to)
            count = shard_count.read(self._layout)
            if count is None or count.moving_to is not None:
                # Until then a task may be in its old shard, in its new one, or in both.
                return
        shards = configured if count is None else count.in_force
        self._look_beside_the_buckets()
        if self._repair:
            self._upgrade(shards)
            self._gather(shards)
        for shard in range(shards):
            self._shard(shard, shards)

    def ended(self) -> int:
        remaining = self._found - self._repaired
        if not self._as_json:
            kept = self._kept()
            say("nothing wrong" if not self._found else f"{self._found} found, {self._repaired} put right"
                      + ("" if self._repair or not remaining else "; with --repair they are put right"))
            if kept:
                say(f"{kept} things are in {self._layout.lost_found}; what is there is never removed by itself")
        return EXIT_FAILED if remaining else EXIT_OK

    def _kept(self) -> int:
        """How many things are in lost+found, where that can be told."""
        with suppress(OSError):
            return len(os.listdir(self._layout.lost_found))
        return 0

    # --- saying ------------------------------------------------------------------------------------------

    def _tell(self, finding: Finding) -> None:
        self._found += 1
        self._repaired += finding.repaired
        kind = FINDINGS[finding.name]
        if self._as_json:
            say_json({**asdict(finding), "title": kind.title, "repair": kind.repair})
            return
        where = "" if finding.shard is None else f"shard {finding.shard}: "
        what = " ".join(word for word in (finding.task_id, finding.detail) if word)
        say(f"{where}{finding.name}: {kind.title}{f' {what}' if what else ''}")
        if finding.repaired:
            say(f"  {kind.repair}")

    # --- what belongs to no shard ------------------------------------------------------------------------

    def _finish_move(self, target: int) -> None:
        reason: str | None = "it was not asked for"
        if self._repair:
            reason = reshard.migrate(self._layout, target, supersede=self._supersede, report=self._tell,
                                     webhooks=self._webhooks)
            if reason:
                _note(reason)
        self._tell(Finding(name="move_unfinished", detail=f"to {target} shards", repaired=reason is None))

    def _upgrade(self, shards: int) -> None:
        reason = reshard.upgrade(self._layout, shards, supersede=self._supersede, report=self._tell)
        if reason is not None:
            _note(f"databases of an older version were not brought up to date: {reason}")

    def _look_beside_the_buckets(self) -> None:
        buckets = {self._layout.bucket(number).name for number in range(BUCKETS)}
        for name in sorted(set(os.listdir(self._layout.spool)) - buckets):
            path = self._layout.spool / name
            kept = self._set_aside(path) if self._repair else None
            self._tell(Finding(name="file_stray", detail=str(kept or path), repaired=kept is not None))

    def _set_aside(self, path: Path) -> Path | None:
        try:
            return retire(self._layout, path)
        except OSError as error:
            # In an installed service only root can have put it there, and this is not root.
            _note(f"{path} was not set aside: {error.strerror}.")
            return None

    def _gather(self, shards: int) -> None:
        """Move tasks that are in the databases of other shards, before those miss them."""
        strangers = sum(self._strangers(shard, shards) for shard in range(shards))
        if not strangers:
            return
        reason = reshard.gather(self._layout, shards, supersede=self._supersede, report=self._tell,
                                webhooks=self._webhooks)
        if reason is None:
            self._tell(Finding(name="row_misplaced", detail=f"tasks of {strangers} instances", repaired=True))
        else:
            _note(f"tasks of other shards were not moved: {reason}")

    def _strangers(self, shard: int, shards: int) -> int:
        """How many instances have tasks in this shard that belong elsewhere."""
        if not notes.exists(self._layout, shard):
            return 0
        try:
            with SqliteDoctor(self._layout, shard) as queue:
                return sum(len(instances) for instances in queue.homes(shards).values())
        except QueueFault as fault:
            # What is wrong is found, and said, when it is the shard's turn.
            if fault.kind.action is Action.STOP and fault.code != "queue_damaged":
                raise
            return 0

    # --- one shard ---------------------------------------------------------------------------------------

    def _shard(self, shard: int, shards: int) -> None:
        try:
            self._look_or_mend(shard, shards)
        except QueueFault as fault:
            if fault.kind.action is Action.STOP:
                raise
            self._tell(Finding(name="queue_unreadable", shard=shard, detail=fault.detail))
        except OSError as error:
            self._tell(Finding(name="queue_unreadable", shard=shard, detail=f"{error.filename}: {error.strerror}"))

    def _look_or_mend(self, shard: int, shards: int) -> None:
        if not self._repair:
            self._look(shard, shards)
            return
        lock = ShardLock(self._layout, shard)
        try:
            lock.acquire()
        except CannotStart as error:
            _note(f"{error.detail} It was only looked at: stop its worker to repair it.")
            self._look(shard, shards)
            return
        try:
            self._mend(shard, shards)
        finally:
            lock.release()

    def _look(self, shard: int, shards: int) -> None:
        for path in notes.taken(self._layout, shard):
            self._tell(Finding(name="name_taken", shard=shard, detail=str(path)))
        lost = not notes.exists(self._layout, shard) and self._has_files(shard, shards)
        if lost:
            self._tell(Finding(name="queue_emptied", shard=shard))
        if lost or not notes.exists(self._layout, shard):
            return
        try:
            damage = what_is_damaged(self._layout, shard, thorough=True)
            if damage is None:
                with SqliteDoctor(self._layout, shard) as queue:
                    self._compare(queue, shards, repair=False)
        except QueueFault as fault:
            if fault.code != "queue_damaged":
                raise
            damage = fault.detail
        if damage is not None:
            self._tell(Finding(name="queue_damaged", shard=shard, detail=damage))

    def _has_files(self, shard: int, shards: int) -> bool:
        return any(os.listdir(self._layout.bucket(bucket)) for bucket in range(shard, BUCKETS, shards))

    def _mend(self, shard: int, shards: int) -> None:
        rebuild.clear_names(self._layout, shard, self._tell)
        damage = what_is_damaged(self._layout, shard, thorough=True) if notes.exists(self._layout, shard) else None
        try:
            self._mend_whole(shard, shards, damage)
        except QueueFault as fault:
            if fault.code != "queue_damaged":
                raise
            # Met only now; what is made from the spool has none of it.
            self._mend_whole(shard, shards, fault.detail)

    def _mend_whole(self, shard: int, shards: int, damage: str | None) -> None:
        with rebuild.open_whole(self._layout, shard, shards=shards, supersede=self._supersede,
                                report=self._tell, damage=damage) as queue:
            self._compare(queue, shards, repair=True)
            queue.end()

    def _compare(self, queue: SqliteDoctor, shards: int, *, repair: bool) -> None:
        queue.try_writing()
        spool = open_checked(self._layout)
        comparison = Comparison(queue, spool, shards=shards, supersede=self._supersede, report=self._tell,
                                repair=repair, thorough=True, step=_STEP)
        for _ in comparison.everything():
            pass
        spool.close()
