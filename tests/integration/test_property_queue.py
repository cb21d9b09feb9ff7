import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daemon.model.task import FINISHED, PENDING, TRANSITIONS, State, Task
from daemon.model.upload import Destination, Upload
from daemon.recovery.findings import Finding
from daemon.recovery.reshard import migrate
from daemon.spool import Mark
from daemon.state import shard_count
from daemon.task_queue import Change, Command, PutOutcome, Selection, Settlement
from tests.support import rows
from tests.support.depot import Depot, a_state, an_upload, sealed
from tests.support.lanes import take_one
from worker.dispatch.commands import Commands
from worker.dispatch.lane import Lane, Push

#: How many sequences of steps are tried; fewer with `--quick`, more by the environment variable.
EXAMPLES = int(os.environ.get("COURIER_PROPERTY_EXAMPLES", min(60, settings().max_examples)))
STEPS = 40
#: Only what hangs takes so long, however many there are to try.
pytestmark = pytest.mark.timeout(300 + 10 * EXAMPLES)
#: After so many attempts a task is given up; before that it waits for so long.
MOST_ATTEMPTS = 3
RETRY_S = 10.0
#: Where it exists, a directory in memory: SQLite syncs there too, and costs nothing.
MEMORY = Path("/dev/shm")
#: A far end of what a page, a slice or a claim can hold here.
MANY = 1000

#: In different shards, as long as there are two or three.
INSTANCES = ("c1", "c4")
PATHS = ("/a", "/b")
CLIENTS = ("token:a", "peer:b")
#: A task in one of these states is still to be pushed.
WAITING = frozenset({State.QUEUED, State.PUSHING, State.DEFERRED})
#: What each verb makes of a task, by the state that it finds. In all others it is refused; what is finished can be deleted too.
VERBS = {
    "retry": {State.DEFERRED: State.QUEUED, State.FAILED: State.QUEUED},
    "cancel": {State.QUEUED: State.CANCELLED, State.PUSHING: State.CANCELLED, State.DEFERRED: State.CANCELLED,
               State.HELD: State.CANCELLED},
    "hold": {State.QUEUED: State.HELD, State.PUSHING: State.HELD, State.DEFERRED: State.HELD},
    "release": {State.HELD: State.QUEUED},
    "delete": {State.FAILED: State.CANCELLED},
    "flush": {State.DEFERRED: State.QUEUED},
}
#: A task that comes back from here would be delivered over what came after it: only by force.
OUT_OF_TURN = frozenset({State.FAILED, State.HELD})
CODES = ("connection_lost", "parent_not_found", "incus_unreachable")
#: What becomes of a task whose push ended with a code: its state, and whether that was an attempt.
ENDS = {"connection_lost": (State.DEFERRED, True), "parent_not_found": (State.FAILED, True),
        "incus_unreachable": (State.QUEUED, False), "shutdown": (State.QUEUED, False)}
#: What becomes of the first uploads: how their push ends (None: well), or something else.
FATES = ("waits", "waits", "held", None, *CODES)


@dataclass
class Known:
    """What the model knows of one upload that was accepted."""

    upload: Upload
    #: Its place in the order of acceptance.
    place: int
    state: State = State.QUEUED
    attempts: int = 0
    spooled: bool = True
    wish: State | None = None
    #: A newer upload to its path was there, and is cleared.
    outrun: bool = False
    #: An attempt may have left its part file.
    part: bool = False
    cleared: bool = False

    @property
    def to(self) -> Destination:
        """Where it goes."""
        return self.upload.destination


@dataclass
class Model:
    """What should be: the queue in plain Python, as a person would explain it."""

    supersede: bool
    known: dict[str, Known] = field(default_factory=dict)
    #: Which task a key of a client stands for in its instance.
    keys: dict[tuple[str, str | None, str], str] = field(default_factory=dict)
    places: int = 0

    def rows(self) -> list[Known]:
        """What has a row, in the order of acceptance."""
        return sorted((known for known in self.known.values() if not known.cleared), key=lambda known: known.place)

    def of_path(self, to: Destination) -> list[Known]:
        """What has a row for one path."""
        return [known for known in self.rows() if known.to == to]

    def newer_exists(self, known: Known) -> bool:
        """True when something was accepted for the same path after it."""
        return known.outrun or any(other.place > known.place for other in self.of_path(known.to))

    def accept(self, upload: Upload) -> tuple[PutOutcome, str]:
        """An upload comes in."""
        key = upload.idempotency_key
        owned = (upload.destination.instance, upload.client, key or "")
        earlier = self.known.get(self.keys.get(owned, "")) if key else None
        if earlier is not None and earlier.upload.task_id != upload.task_id:
            if earlier.upload.fingerprint != upload.fingerprint:
                return PutOutcome.MISMATCH, earlier.upload.task_id
            return PutOutcome.DUPLICATE, earlier.upload.task_id
        if upload.task_id in self.known:
            return PutOutcome.DUPLICATE, upload.task_id
        if key:
            self.keys[owned] = upload.task_id
        if self.supersede:
            for older in self.of_path(upload.destination):
                if older.state in {State.QUEUED, State.DEFERRED}:
                    older.state = State.SUPERSEDED
        self.places += 1
        self.known[upload.task_id] = Known(upload, self.places)
        return PutOutcome.ACCEPTED, upload.task_id

    def claimable(self, instance: str) -> list[Known]:
        """What may be claimed for an instance, in order: of each path only what nothing is in the way of."""
        return [known for known in self.rows() if known.to.instance == instance and known.state is State.QUEUED
                and not any(self._is_in_the_way(other, known) for other in self.of_path(known.to))]

    @staticmethod
    def _is_in_the_way(other: Known, known: Known) -> bool:
        """An older one waits too, or one that is not pushed any more may have left its part file."""
        return other.place < known.place if other.state in WAITING else other.part

    def settle(self, known: Known, state: State, attempts: int) -> None:
        """A push has ended."""
        wish, known.wish = known.wish, None
        known.attempts = attempts
        known.part &= state is not State.DELIVERED
        if wish is State.CANCELLED and state is not State.DELIVERED:
            state = State.CANCELLED
        if wish is State.HELD and state in {State.QUEUED, State.DEFERRED}:
            state = State.HELD
        if state in {State.QUEUED, State.DEFERRED} and self.supersede and self.newer_exists(known):
            state = State.SUPERSEDED
        known.state = state

    def resume(self) -> None:
        """A new worker finds what a dead one was pushing."""
        for known in self.rows():
            if known.state is State.PUSHING:
                self.settle(known, State.QUEUED, known.attempts)
                known.part = True

    def sweep(self) -> None:
        """The part files of what is not pushed any more are removed."""
        for known in self.rows():
            known.part &= known.state in WAITING

    def obey(self, command: Command, places: int) -> None:
        """The worker does what a person asked for when there were so many places."""
        if command.task_id is not None:
            known = self.known.get(command.task_id)
            self._obey([known] if known and not known.cleared else [], command)
            return
        for state in sorted(VERBS[command.verb]):
            chosen = [known for known in self.rows() if known.state is state and known.place <= places
                      and (command.selection is None or command.selection.instance_key is None
                           or known.to.instance_key == command.selection.instance_key)]
            self._obey(sorted(chosen, key=lambda known: known.upload.task_id), command)

    def _obey(self, chosen: Iterable[Known], command: Command) -> None:
        decided = [(known, self.newer_exists(known)) for known in chosen]
        overtaken: set[Destination] = set()
        for known, has_newer in decided:
            newer = has_newer or known.to in overtaken
            becomes = VERBS[command.verb].get(known.state)
            if becomes is State.QUEUED and known.state in OUT_OF_TURN and newer and not command.force:
                continue
            if command.verb == "delete" and known.state in FINISHED and not known.spooled:
                self.clear(known)
            elif becomes is not None and known.state is State.PUSHING:
                known.wish = becomes
            elif becomes is not None:
                self.change(known, becomes, anew=newer and command.force)
                # Who is asked for next comes after it, as if one had been done after the other.
                overtaken.update([known.to] if newer and command.force and becomes is State.QUEUED else [])

    def change(self, known: Known, state: State, *, anew: bool = False) -> None:
        """A person's, or a rule's, decision."""
        if known.state is State.FAILED:
            known.attempts = 0
        known.state = state
        if anew and state is State.QUEUED:
            self.places += 1
            known.place, known.outrun = self.places, False

    def clear(self, known: Known) -> None:
        """A finished row goes."""
        known.cleared = True
        for other in self.of_path(known.to):
            if other.place < known.place and other.state not in FINISHED:
                other.outrun = True
        self.keys = {key: task_id for key, task_id in self.keys.items() if task_id != known.upload.task_id}


class LaneBook:
    """The lanes of the machine below: real ones, without threads."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def lane(self, destination: Destination) -> Lane:
        """The lane to an instance."""
        return self._lanes.setdefault(destination.instance_key, Lane(destination, most_bulk=1))

    def find(self, destination: Destination) -> Lane:
        """The same."""
        return self.lane(destination)

    @property
    def health(self) -> "LaneBook":
        """What is known of the instances."""
        return self

    def try_again(self, _keys: Iterable[str]) -> None:
        """No instance is ever down here."""


class QueueMachine(RuleBasedStateMachine):
    """Drives the real queue and spool of a few shards, and the worker's decisions, beside the model."""

    @initialize(supersede=st.booleans(), first=st.lists(
        st.tuples(st.sampled_from(INSTANCES), st.sampled_from(PATHS), st.sampled_from(FATES)), min_size=2, max_size=5))
    def begin(self, supersede: bool, first: list[tuple[str, str, str | None]]) -> None:
        """Start on a new state directory, with a few uploads in it that have come to something already."""
        self.directory = Path(tempfile.mkdtemp(prefix="courier-property-", dir=MEMORY if MEMORY.is_dir() else None))
        self.layout = a_state(self.directory)
        shard_count.establish(self.layout, 2)
        self.depots = self._open(2)
        self.model = Model(supersede)
        self.clock = 2e9
        #: With how many places there were then.
        self.asked: list[tuple[Command, int]] = []
        #: By path: the place of what is in the instance.
        self.world: dict[Destination, int] = {}
        self._new_worker()
        for instance, path, fate in first:
            upload = an_upload(path, b"first", instance=instance, created_at=self.clock)
            self._put([upload], b"first")
            self._meet(upload, fate)

    def teardown(self) -> None:
        """Check the edges that were gone along, and clean up."""
        if hasattr(self, "directory"):
            try:
                self._close()
            finally:
                shutil.rmtree(self.directory)

    def _meet(self, upload: Upload, fate: str | None) -> None:
        """Have the oldest task of the upload's instance pushed, or the upload held, if that is its fate."""
        if fate == "held":
            self._ask(upload.destination.instance, Command(verb="hold", task_id=upload.task_id))
            self.obey()
        elif fate != "waits":
            self.work(upload.destination.instance, [fate])

    def _open(self, shards: int) -> list[Depot]:
        depots = [Depot(self.layout.directory, shard) for shard in range(shards)]
        for depot in depots:
            rows.watch(depot.queue)
        return depots

    def _close(self) -> None:
        """Close every shard; its tasks went along edges of the table only."""
        edges = {(was, became) for was, some in TRANSITIONS.items() for became in some}
        for depot in self.depots:
            seen = rows.seen(depot.queue)
            depot.close()
            assert seen <= edges

    def _depot(self, instance: str) -> Depot:
        """The shard of an instance."""
        return self.depots[Destination("local", "default", instance, "/").shard(len(self.depots))]

    def _new_worker(self) -> None:
        self.lanes = LaneBook()
        self.workers = [Commands(depot.queue, depot.spool, cast(Any, self.lanes)) for depot in self.depots]
        #: What runners have begun to push, and what was claimed for them, by task id.
        self.pushing: dict[str, Push] = {}
        self.claimed: dict[str, Task] = {}

    # --- uploads -----------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3), instance=st.sampled_from(INSTANCES), path=st.sampled_from(PATHS),
          data=st.sampled_from((b"one", b"two")), key=st.sampled_from((None, None, "k1", "k2")),
          client=st.sampled_from((None, *CLIENTS)))
    def accept(self, count: int, instance: str, path: str, data: bytes, key: str | None, client: str | None) -> None:
        """Uploads come in, in one transaction; some repeat a key."""
        uploads = [an_upload(path, data, instance=instance, idempotency_key=key, client=client,
                             created_at=self.clock) for _ in range(count)]
        self._put(uploads, data)

    @rule(which=st.integers(0, MANY))
    def put_again(self, which: int) -> None:
        """An upload whose outcome was unknown is put once more, under its id."""
        known = self._some(self.model.rows(), which)
        if known is not None and known.upload.idempotency_key in {None, *self._own_keys(known)}:
            answer = self._depot(known.to.instance).queue.put_many(sealed(known.upload), supersede=self.model.supersede)[0]
            assert answer.outcome is PutOutcome.DUPLICATE
            assert answer.task_id == known.upload.task_id

    def _own_keys(self, known: Known) -> list[str]:
        return [key for (_, _, key), task_id in self.model.keys.items() if task_id == known.upload.task_id]

    def _put(self, uploads: list[Upload], data: bytes) -> None:
        depot = self._depot(uploads[0].destination.instance)
        for upload in uploads:
            depot.seal(upload, data)
        answers = depot.queue.put_many(sealed(*uploads), supersede=self.model.supersede)
        for upload, answer in zip(uploads, answers, strict=True):
            assert (answer.outcome, answer.task_id) == self.model.accept(upload)
            if answer.outcome is not PutOutcome.ACCEPTED:
                # As the API does: nobody was promised anything about this one.
                depot.spool.remove([upload])

    # --- deliveries --------------------------------------------------------------------------------------

    @rule(instance=st.sampled_from(INSTANCES), limit=st.integers(1, 3))
    def claim(self, instance: str, limit: int) -> None:
        """The worker claims tasks of an instance."""
        expected = self.model.claimable(instance)[:limit]
        tasks = self._depot(instance).claim(instance, limit)
        assert [task.task_id for task in tasks] == [known.upload.task_id for known in expected]
        for known, task in zip(expected, tasks, strict=True):
            known.state = State.PUSHING
            self.claimed[task.task_id] = task
        if tasks:
            self.lanes.lane(tasks[0].destination).add(tasks)

    @rule(instance=st.sampled_from(INSTANCES))
    def begin_push(self, instance: str) -> None:
        """A runner takes the next task from its lane."""
        push = take_one(self.lanes.lane(Destination("local", "default", instance, "/")))
        if push is not None:
            self.pushing[push.task.task_id] = push
            del self.claimed[push.task.task_id]

    @rule(instance=st.sampled_from(INSTANCES), codes=st.lists(st.sampled_from((None, *CODES)), min_size=1, max_size=3))
    def work(self, instance: str, codes: list[str | None]) -> None:
        """The worker pushes some tasks of an instance, one after the other."""
        for code in codes:
            if not self.claimed:
                self.claim(instance, 1)
            self.begin_push(instance)
            self.end_push(0, code)

    @rule(which=st.integers(0, MANY), code=st.sampled_from((None, None, None, *CODES)))
    def end_push(self, which: int, code: str | None) -> None:
        """A push ends, well or not; one that was told to stop ends before its rename."""
        push = self._some(list(self.pushing.values()), which)
        if push is None:
            return
        task = push.task
        del self.pushing[task.task_id]
        self.lanes.lane(task.destination).done(push, abandoned=False)
        if push.cancelled:
            self._settle(task, State.CANCELLED, task.attempts)
        elif push.stopped or code is not None:
            self._end_unwell(task, code or "shutdown")
        else:
            self._arrive(task)
            self._settle(task, State.DELIVERED, task.attempts + 1, part=False)

    def _end_unwell(self, task: Task, code: str) -> None:
        state, counts = ENDS[code]
        attempts = task.attempts + counts
        if state is State.DEFERRED and attempts >= MOST_ATTEMPTS:
            state, code = State.FAILED, "gave_up"
        if state is State.FAILED:
            self._depot(task.destination.instance).spool.mark(task.upload, Mark.FAILED)
        due_at = self.clock + RETRY_S if state is State.DEFERRED else None
        self._settle(task, state, attempts, error_code=code, due_at=due_at)

    def _arrive(self, task: Task) -> None:
        """The file is in the instance now: it must be no older than what was there."""
        place = self.model.known[task.task_id].place
        assert self.world.get(task.destination, 0) <= place, "an older upload was delivered over a newer one"
        self.world[task.destination] = place

    def _settle(self, task: Task, state: State, attempts: int, **values: Any) -> None:
        settlement = Settlement(order=task.order, state=state, attempts=attempts, **values)
        self._depot(task.destination.instance).queue.settle([settlement], supersede=self.model.supersede)
        self.model.settle(self.model.known[task.task_id], state, attempts)

    @rule()
    def hand_back(self) -> None:
        """What was claimed and not begun is queued again: the instance or the worker is going down."""
        for task in self.claimed.values():
            self.lanes.lane(task.destination).take_back(task.task_id)
            self._settle(task, State.QUEUED, task.attempts)
        self.claimed = {}

    @rule()
    def sweep(self) -> None:
        """The workers remove part files that attempts may have left."""
        for depot in self.depots:
            while (key := depot.queue.next_with_parts("")) is not None:
                for task in depot.queue.left_parts(key, MANY):
                    depot.queue.forget_part(task.order)
        self.model.sweep()

    @rule()
    def time_passes(self) -> None:
        """Deferred tasks become due."""
        self.clock += 1000
        for depot in self.depots:
            depot.queue.promote_due(self.clock, MANY)
        for known in self.model.rows():
            if known.state is State.DEFERRED:
                known.state = State.QUEUED

    @rule(instance=st.sampled_from(INSTANCES))
    def instance_starts(self, instance: str) -> None:
        """Deferred tasks of an instance are queued at once."""
        self._depot(instance).queue.release_instance(f"local/default/{instance}", MANY)
        for known in self.model.rows():
            if known.state is State.DEFERRED and known.to.instance == instance:
                known.state = State.QUEUED

    # --- the end of a worker -----------------------------------------------------------------------------

    @rule(arrived=st.booleans(), booted=st.booleans(), shards=st.sampled_from((None, None, 1, 2, 3)))
    def crash(self, arrived: bool, booted: bool, shards: int | None) -> None:
        """The workers die; perhaps their files were in place already. Others start, perhaps after a boot.

        Perhaps they are configured for another number of shards.
        """
        for push in self.pushing.values() if arrived else ():
            self._arrive(push.task)
        self._close()
        shards = shards or len(self.depots)
        findings: list[Finding] = []
        assert migrate(self.layout, shards, supersede=self.model.supersede, report=findings.append) is None
        assert findings == []
        self.depots = self._open(shards)
        self._new_worker()
        for depot in self.depots:
            depot.queue.resume(supersede=self.model.supersede)
        self.model.resume()
        if booted:
            for depot in self.depots:
                depot.queue.recheck_unsynced()
            for known in self.model.rows():
                if known.state is State.DELIVERED and known.spooled and not self.model.newer_exists(known):
                    known.state = State.QUEUED

    # --- people ------------------------------------------------------------------------------------------

    @rule(verb=st.sampled_from([verb for verb in VERBS if verb != "flush"]), which=st.integers(0, MANY),
          force=st.booleans(), now=st.booleans())
    def ask(self, verb: str, which: int, force: bool, now: bool) -> None:
        """A person asks for something about one task."""
        fitting = [known for known in self.model.rows() if known.state in VERBS[verb]]
        known = self._some(fitting or self.model.rows(), which)
        if known is not None:
            self._ask(known.to.instance, Command(verb=verb, task_id=known.upload.task_id, force=force))
        if now:
            self.obey()

    @rule(verb=st.sampled_from(list(VERBS)), instance=st.sampled_from(INSTANCES), force=st.booleans())
    def ask_by_kind(self, verb: str, instance: str, force: bool) -> None:
        """A person asks for something about all tasks of an instance."""
        there = Selection(instance_key=f"local/default/{instance}", up_to_order=self._depot(instance).queue.newest_order())
        self._ask(instance, Command(verb=verb, selection=there, force=force))

    def _ask(self, instance: str, command: Command) -> None:
        self._depot(instance).queue.ask([command])
        self.asked.append((command, self.model.places))

    @rule()
    def obey(self) -> None:
        """The worker does what was asked for."""
        for worker in self.workers:
            while worker.work():
                pass
        for command, places in self.asked:
            self.model.obey(command, places)
            # What a runner had not begun is with its lane no more: it is held or cancelled when the next command comes.
            for task_id in list(self.claimed):
                known = self.model.known[task_id]
                if known.wish is not None:
                    known.state, known.wish = known.wish, None
                    del self.claimed[task_id]
        self.asked = []

    # --- upkeep ------------------------------------------------------------------------------------------

    @rule()
    def pass_barrier(self) -> None:
        """Bytes of finished tasks go, the older first."""
        for depot in self.depots:
            tasks = depot.queue.unspoolable(MANY)
            assert [task.order for task in tasks] == sorted(task.order for task in tasks)
            depot.spool.remove(task.upload for task in tasks)
            depot.queue.unspool(task.order for task in tasks)
        for known in self.model.rows():
            known.spooled &= known.state not in FINISHED

    @rule()
    def clear(self) -> None:
        """Finished rows whose bytes are gone are cleared."""
        for depot in self.depots:
            depot.queue.clear_finished(before=9e9, keep_most=0, limit=MANY)
        for known in [known for known in self.model.rows() if known.state in FINISHED and not known.spooled]:
            self.model.clear(known)

    @rule()
    def expire(self) -> None:
        """Dead letters that are kept for a time only are given up."""
        for depot in self.depots:
            tasks = depot.queue.old_dead_letters(9e9, MANY)
            depot.queue.change([Change(task=task, state=State.CANCELLED) for task in tasks])
        for known in self.model.rows():
            if known.state is State.FAILED:
                self.model.change(known, State.CANCELLED)

    @rule(instance=st.sampled_from(INSTANCES))
    def give_up(self, instance: str) -> None:
        """What waited too long for an instance becomes a dead letter."""
        depot = self._depot(instance)
        tasks = depot.queue.aged(f"local/default/{instance}", 9e9, MANY)
        for task in tasks:
            depot.spool.mark(task.upload, Mark.FAILED)
        depot.queue.give_up(tasks, "it was down for too long")
        for known in self.model.rows():
            if known.to.instance == instance and known.state in {State.QUEUED, State.DEFERRED}:
                known.state = State.FAILED

    # --- what must always hold ---------------------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        """Every upload that was accepted is in the state that it should be in, in the order of acceptance; no other is."""
        for instance in INSTANCES:
            tasks = self._depot(instance).queue.page(instance_key=f"local/default/{instance}", limit=MANY)
            tasks.sort(key=lambda task: task.order)
            rows = [known for known in self.model.rows() if known.to.instance == instance]
            assert [(task.task_id, task.state, task.attempts, task.spooled) for task in tasks] == [
                (known.upload.task_id, known.state, known.attempts, known.spooled) for known in rows]

    @invariant()
    def counts_are_true(self) -> None:
        """The counts that triggers keep are those of the rows."""
        wanted: dict[tuple[str, State], tuple[int, int]] = {}
        for known in self.model.rows():
            tasks, size = wanted.get((known.to.instance_key, known.state), (0, 0))
            wanted[known.to.instance_key, known.state] = (tasks + 1, size + known.upload.size)
        found = {what: counts for depot in self.depots for what, counts in rows.tallies(depot.queue).items()}
        assert found == wanted
        for client in CLIENTS:
            sent = [known for known in self.model.rows() if known.upload.client == client and known.state in PENDING]
            totals = [depot.queue.client_pending(client) for depot in self.depots]
            assert sum(total.tasks for total in totals) == len(sent)
            assert sum(total.size_bytes for total in totals) == sum(known.upload.size for known in sent)

    @invariant()
    def what_is_open_is_known(self) -> None:
        """The column by which rivals of one path are found says what the state says."""
        found = [row for depot in self.depots for row in rows.read(depot.queue, "status", "open")]
        assert all(bool(is_open) == (status in {State.QUEUED, State.PUSHING, State.DEFERRED}) for status, is_open in found)

    @invariant()
    def nothing_waits_behind_nothing(self) -> None:
        """Of each path the oldest that is to be pushed is not marked as one that waits for an older one."""
        oldest: dict[bytes, int] = {}
        for depot in self.depots:
            for target, is_open, behind in rows.read(depot.queue, "target", "open", "behind"):
                if is_open:
                    oldest.setdefault(target, behind)
        assert not any(oldest.values())

    @invariant()
    def one_path_is_pushed_once(self) -> None:
        """Two tasks of one path are never claimed at the same time."""
        claimed = [known.to for known in self.model.rows() if known.state is State.PUSHING]
        assert len(claimed) == len(set(claimed))

    @invariant()
    def bytes_are_there_while_they_may_be_wanted(self) -> None:
        """What is not finished can be opened; no file is there for what has no row; names tell dead letters apart."""
        marks = {State.FAILED: Mark.FAILED, State.HELD: Mark.HELD}
        buckets = {Destination("local", "default", instance, "/").bucket for instance in INSTANCES}
        spool = self.depots[0].spool
        names = {name.task_id: name.mark for bucket in buckets for name in spool.scan(bucket)}
        rows = {known.upload.task_id: known for known in self.model.rows()}
        assert set(names) == {task_id for task_id, known in rows.items() if known.spooled}
        for task_id, known in rows.items():
            if known.state in {*PENDING, State.FAILED} and known.state is not State.PUSHING:
                spool.open(known.upload).close()
                assert names[task_id] is marks.get(known.state, Mark.PENDING)

    def _some(self, choices: list[Any], which: int) -> Any:
        return choices[which % len(choices)] if choices else None


QueueMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, derandomize="COURIER_PROPERTY_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], print_blob=True)
TestQueue = QueueMachine.TestCase
