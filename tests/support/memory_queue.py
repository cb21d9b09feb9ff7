"""A shard's queue in memory, and nothing clever: it looks at every task each time. One thread at a time.

It shows that the door is one: it does all that is promised there, and knows nothing of what keeps the queue otherwise.
"""

import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from daemon.model.action_id import new_action_id
from daemon.model.counters import (
    DELIVERED_BYTES,
    END_TO_END_SECONDS,
    EVENTS,
    PUSH_SECONDS,
    UPLOAD_BYTES,
    UPLOADS,
    Key,
    attempts,
    buckets,
    finished,
    observed,
    webhook_attempts,
)
from daemon.model.glob import path_matches
from daemon.model.task import FINISHED, OUTCOMES, PENDING, State, Task
from daemon.model.upload import Destination, Upload, first_id_of
from daemon.task_queue import (
    BULK_BYTES,
    MOST_LOOKED_AT,
    ActionRecord,
    Bytes,
    Change,
    Command,
    CommandAnswer,
    Counter,
    Event,
    FoundTasks,
    Happened,
    Notice,
    NoticeResult,
    NoticeState,
    Position,
    Put,
    PutOutcome,
    SealedUpload,
    Selection,
    Settled,
    Settlement,
    Standing,
    TaskQuestion,
    TaskQueue,
    Total,
    WebhookStanding,
)

#: Attempts that are kept with a task.
MOST_KEPT: Final = 20
#: Numbers that are left out after a restart of the machine.
_LEFT_OUT: Final = 1000
#: States in which a task is still to be pushed.
_ACTIVE: Final = frozenset({State.QUEUED, State.PUSHING, State.DEFERRED})
_WAITING: Final = frozenset({State.QUEUED, State.DEFERRED})


@dataclass
class _Row:
    task: Task
    #: What a person wishes for it while it is pushed.
    wish: State | None = None
    #: A newer upload to its path was forgotten.
    outrun: bool = False


@dataclass
class _Hook:
    disabled_at: float | None = None
    disabled_why: str | None = None
    last: tuple[float, int | None, str | None] | None = None


@dataclass
class Store:
    """What is in the memory, for all who open it."""

    rows: dict[int, _Row] = field(default_factory=dict)
    orders: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    newest_order: int = 0
    #: The task and the fingerprint that an idempotency key stands for.
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    epoch: str = field(default_factory=lambda: str(uuid.uuid4()))
    events: list[Event] = field(default_factory=list)
    seq: int = 0
    #: The number of the newest event that is forgotten.
    forgotten: int = 0
    #: The last numbers of what was left out.
    left_out: list[int] = field(default_factory=list)
    #: True from a restart of the machine until numbers were left out for it.
    restarted: bool = False
    beats: int = 0
    counters: dict[Key, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    outages: dict[str, float] = field(default_factory=dict)
    commands: dict[int, Command] = field(default_factory=dict)
    answers: dict[int, CommandAnswer] = field(default_factory=dict)
    answered_at: dict[int, float] = field(default_factory=dict)
    actions: dict[str, ActionRecord] = field(default_factory=dict)
    #: The actions that commands are parts of.
    action_of: dict[int, str] = field(default_factory=dict)
    #: How far webhooks are told; None: they are told nothing.
    cursor: int | None = None
    notices: dict[str, Notice] = field(default_factory=dict)
    hooks: dict[str, _Hook] = field(default_factory=dict)


class MemoryQueue(TaskQueue):
    """A queue in a store, for the API as for the holder of the shard's lock."""

    def __init__(self, store: Store, spool: Bytes) -> None:
        """Open it: there may be something in it."""
        self._store = store
        self._spool = spool

    @property
    def shard(self) -> int:
        """See Operate."""
        return 0

    def close(self) -> None:
        """See Closable."""

    # --- rows --------------------------------------------------------------------------------------------

    def _tasks(self, wanted: Callable[[Task], bool] = lambda _: True) -> list[Task]:
        """The tasks, oldest first."""
        return [row.task for _, row in sorted(self._store.rows.items()) if wanted(row.task)]

    def _row_of(self, task_id: str) -> _Row | None:
        return next((row for row in self._store.rows.values() if row.task.task_id == task_id), None)

    def _set(self, row: _Row, state: State, **values: Any) -> None:
        """Bring a row into a state, and tell."""
        kept = {"due_at": None} if state is State.QUEUED else {}
        row.task = replace(row.task, state=state, updated_at=time.time(), **{**kept, **values})
        self._tell(row.task)
        if state in OUTCOMES:
            self._count({finished(state): 1})

    def _tell(self, task: Task) -> None:
        store = self._store
        store.seq += 1
        store.beats += 1
        store.events.append(Event(seq=store.seq, task_id=task.task_id, state=task.state, at=time.time(), code=task.error_code))
        self._count({EVENTS: 1})

    def _count(self, grown: dict[Key, float]) -> None:
        for key, value in grown.items():
            self._store.counters[key] = self._store.counters.get(key, 0) + value

    def _has_newer(self, task: Task) -> bool:
        return any(other.order > task.order for other in self._same_path(task))

    def _same_path(self, task: Task) -> list[Task]:
        return self._tasks(lambda other: other.destination == task.destination and other.order != task.order)

    def _forget(self, row: _Row) -> None:
        for older in self._store.rows.values():
            same = older.task.destination == row.task.destination
            older.outrun |= same and older.task.order < row.task.order
        del self._store.rows[row.task.order]
        self._store.keys = {key: value for key, value in self._store.keys.items() if value[0] != row.task.task_id}

    # --- Append ------------------------------------------------------------------------------------------

    def put_many(self, sealed: Sequence[SealedUpload], *, supersede: bool) -> list[Put]:
        """See Append."""
        self.leave_numbers_out()
        return [self._put(each.upload, supersede) for each in sealed]

    def _put(self, upload: Upload, supersede: bool) -> Put:
        store = self._store
        if self._row_of(upload.task_id) is not None:
            return Put(PutOutcome.DUPLICATE, upload.task_id)
        key = (upload.destination.instance_key, upload.scoped_key) if upload.scoped_key is not None else None
        if key in store.keys:
            first, fingerprint = store.keys[key]
            row = self._row_of(first)
            if row is not None and (row.task.state in FINISHED or self._spool.holds(upload.destination.bucket, first)):
                return Put(PutOutcome.DUPLICATE if fingerprint == upload.fingerprint else PutOutcome.MISMATCH, first)
        if key is not None:
            store.keys[key] = (upload.task_id, upload.fingerprint)
        order = store.newest_order = next(store.orders)
        row = store.rows[order] = _Row(Task(
            order=order, upload=upload, state=State.QUEUED, updated_at=time.time(),
            age_base=upload.created_at - self.outage_s(upload.destination)))
        self._tell(row.task)
        self._count({UPLOADS: 1, UPLOAD_BYTES: upload.size})
        replaced = [task for task in self._same_path(row.task) if supersede and task.state in _WAITING]
        for task in replaced:
            self._set(store.rows[task.order], State.SUPERSEDED, due_at=None)
        return Put(PutOutcome.ACCEPTED, upload.task_id, {task.task_id: task.upload.client for task in replaced})

    # --- Read --------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Task | None:
        """See Find."""
        row = self._row_of(task_id)
        return None if row is None else row.task

    def find_all(self, task_ids: Sequence[str]) -> list[Task]:
        """See Follow."""
        return self._tasks(lambda task: task.task_id in task_ids)

    def newer_known(self, upload: Upload) -> bool:
        """See Read."""
        return any(task.destination == upload.destination and task.task_id > upload.task_id for task in self._tasks())

    def blocker(self, task: Task) -> Task | None:
        """See Read."""
        same = self._same_path(task)
        older = [other for other in same if other.order < task.order and other.state in _ACTIVE]
        left = [other for other in same if other.order < task.order and _left_something(other)]
        return next(iter([*older, *left]), None)

    def _newest(self, before: str | None) -> list[Task]:
        tasks = self._tasks(lambda task: before is None or task.task_id < before)
        return sorted(tasks, key=lambda task: task.task_id, reverse=True)

    def page(
        self, *, states: frozenset[State] = frozenset(), instance_key: str | None = None, client: str | None = None,
        before: str | None = None, limit: int,
    ) -> list[Task]:
        """See Read."""
        question = TaskQuestion(states=states, instance_key=instance_key, client=client)
        return [task for task in self._newest(before) if _is_meant(task, question)][:limit]

    def search(self, question: TaskQuestion, before: str | None, limit: int, most: int = MOST_LOOKED_AT) -> FoundTasks:
        """See Read."""
        found: list[Task] = []
        for looked, task in enumerate(self._newest(before), 1):
            if _is_meant(task, question):
                found.append(task)
            if len(found) == limit or looked == most:
                return FoundTasks(tuple(found), task.task_id)
        return FoundTasks(tuple(found), None)

    def totals(self, states: frozenset[State]) -> dict[State, Total]:
        """See Read."""
        return {state: _total(self._tasks(_in(state))) for state in states}

    def client_pending(self, client: str) -> Total:
        """See Read."""
        return _total(self._tasks(lambda task: task.upload.client == client and task.state in PENDING))

    def pending_under(self, client: str) -> Total:
        """See Read."""
        return _total(self._tasks(lambda task: task.state in PENDING and (
            task.upload.client == client or (task.upload.client or "").startswith(f"{client}/"))))

    def instance_keys(self, after: str, limit: int) -> list[str]:
        """See Read."""
        return self._instances(lambda _: True, after)[:limit]

    def _instances(self, wanted: Callable[[Task], bool], after: str = "") -> list[str]:
        keys = {task.destination.instance_key for task in self._tasks(wanted)}
        return sorted(key for key in keys if key > after)

    def counters(self) -> list[Counter]:
        """See Counters."""
        kept = self._store.counters
        counts = {(f"{family.name}_count", ""): buckets(family, kept)[-1][1]
                  for family in (PUSH_SECONDS, END_TO_END_SECONDS) if (f"{family.name}_sum", "") in kept}
        return [Counter(name=name, labels=labels, value=value)
                for (name, labels), value in sorted({**kept, **counts}.items())]

    # --- Survey ------------------------------------------------------------------------------------------

    def _of(self, instance_key: str, wanted: Callable[[Task], bool]) -> list[Task]:
        return self._tasks(lambda task: task.destination.instance_key == instance_key and wanted(task))

    def busiest(self, limit: int) -> tuple[int, list[str]]:
        """See Survey."""
        keys = self._instances(_is_unfinished)
        return len(keys), sorted(keys, key=lambda key: -len(self._of(key, _is_unfinished)))[:limit]

    def ranked(self, limit: int, after: tuple[int, str] | None = None) -> tuple[int, list[tuple[str, int]]]:
        """See Survey."""
        ranks = [(-len(self._of(key, lambda task: task.state in PENDING)), key) for key in self._instances(_is_unfinished)]
        behind = [(key, -rank) for rank, key in sorted(ranks) if after is None or (rank, key) > (-after[0], after[1])]
        return len(behind), behind[:limit]

    def standings(self, instance_keys: Sequence[str]) -> list[Standing]:
        """See Survey."""
        return [Standing(
            instance_key=key, oldest_at=_oldest(self._of(key, _is_unfinished)),
            totals={state: total for state in State
                    if (total := _total(self._of(key, _in(state)))).tasks})
            for key in instance_keys]

    def oldest_at(self) -> float | None:
        """See Survey."""
        return _oldest(self._tasks(_is_unfinished))

    def ages(
        self, instance_keys: Sequence[str], bounds_s: Sequence[float], now: float, most: int,
    ) -> list[tuple[int, ...]]:
        """See Survey."""
        spans = list(zip((float("-inf"), *bounds_s), (*bounds_s, float("inf")), strict=True))
        ages_s = [[now - task.upload.created_at for task in self._of(key, _in(*PENDING))] for key in instance_keys]
        return [tuple(min(most, sum(low < age_s <= high for age_s in some)) for low, high in spans) for some in ages_s]

    # --- Follow ------------------------------------------------------------------------------------------

    def beat(self) -> int:
        """See Follow."""
        return self._store.beats

    def position(self) -> Position:
        """See Follow."""
        return Position(self._store.epoch, self._store.seq)

    def happened(self, after: Position, limit: int, *, tasks: bool = False) -> Happened:
        """See Follow."""
        seq = self._settled(after.seq)
        if after.epoch != self._store.epoch or not self._store.forgotten <= seq <= self._store.seq:
            return Happened((), self.position(), True)
        events = tuple(event for event in self._store.events if event.seq > seq)[:limit]
        last = events[-1].seq if events else seq
        found = self.find_all([event.task_id for event in events]) if tasks else []
        return Happened(events, Position(after.epoch, last), False, {task.task_id: task for task in found})

    def _settled(self, seq: int) -> int:
        for end in self._store.left_out:
            if end - _LEFT_OUT <= seq <= end:
                seq = end
        return seq

    def leave_numbers_out(self, *, in_any_case: bool = False) -> None:
        """See Resume."""
        store = self._store
        if store.restarted or in_any_case:
            store.restarted = False
            store.seq += _LEFT_OUT
            store.left_out.append(store.seq)

    # --- Ask, Audit and Execute --------------------------------------------------------------------------

    def newest_order(self) -> int:
        """See Ask."""
        return self._store.newest_order

    def ask(self, commands: Iterable[Command]) -> list[int]:
        """See Ask."""
        return [self._ask(command) for command in commands]

    def _ask(self, command: Command) -> int:
        store = self._store
        at = command.asked_at or time.time()
        number = len(store.commands) + 1
        action_id = command.action_id or new_action_id(at)
        store.commands[number] = replace(command, number=number, asked_at=at)
        store.answers[number] = CommandAnswer(number=number, done=False)
        store.action_of[number] = action_id
        action = store.actions.get(action_id) or ActionRecord(
            action_id=action_id, at=at, by=command.asked_by, verb=command.verb, selection_id=command.selection_id,
            task_id=None if command.selection_id else command.task_id, filter=command.selection)
        store.actions[action_id] = replace(action, tasks=action.tasks + (command.selection is None), done_at=None)
        return number

    def commands(self, limit: int) -> list[Command]:
        """See Execute."""
        return self._open_commands()[:limit]

    def answers(self, numbers: Sequence[int]) -> dict[int, CommandAnswer]:
        """See Ask."""
        return {number: self._store.answers[number] for number in numbers if number in self._store.answers}

    def asked(self, at: float, by: str) -> dict[str, int]:
        """See Ask."""
        return {command.task_id: number for number, command in self._store.commands.items()
                if number in self._store.answers and command.task_id is not None
                and (command.asked_at, command.asked_by) == (at, by)}

    def pending_commands(self) -> int:
        """See Ask."""
        return len(self._open_commands())

    def _open_commands(self) -> list[Command]:
        answers = self._store.answers
        return [command for number, command in self._store.commands.items()
                if number in answers and not answers[number].done]

    def _answer(self, answer: CommandAnswer) -> None:
        store, before = self._store, self._store.answers[answer.number]
        store.answers[answer.number] = replace(
            before, changed=before.changed + answer.changed, refused=before.refused + answer.refused,
            reason=before.reason or answer.reason, done=answer.done)
        store.answered_at[answer.number] = time.time()
        action = store.actions[store.action_of[answer.number]]
        found = 0 if action.filter is None else answer.changed + answer.refused
        is_done = all(store.answers[number].done for number, action_id in store.action_of.items()
                      if action_id == action.action_id and number in store.answers)
        store.actions[action.action_id] = replace(
            action, tasks=action.tasks + found, changed=action.changed + answer.changed,
            refused=action.refused + answer.refused, done_at=time.time() if is_done else None)

    def actions(self, before: str | None, limit: int, by: str | None = None) -> list[ActionRecord]:
        """See Audit."""
        found = sorted(self._store.actions.values(), key=lambda action: action.action_id, reverse=True)
        return [action for action in found
                if (before is None or action.action_id < before) and by in {None, action.by}][:limit]

    def change(self, changes: Sequence[Change], answers: Sequence[CommandAnswer] = ()) -> int:
        """See Alter."""
        changed = sum(self._change(change) for change in changes)
        for answer in answers:
            self._answer(answer)
        return changed

    def _change(self, change: Change) -> bool:
        row = self._row_of(change.task.task_id)
        if row is None or row.task.state is not change.task.state:
            return False
        if change.when_settled:
            row.wish = change.state
            return True
        values: dict[str, Any] = {}
        if change.state is State.QUEUED and row.task.state is State.FAILED:
            values = {"attempts": 0, "age_base": time.time() - self.outage_s(row.task.destination)}
        if change.anew:
            del self._store.rows[row.task.order]
            order = self._store.newest_order = next(self._store.orders)
            self._store.rows[order] = row
            row.outrun = False
            values["order"] = order
        self._set(row, change.state, **values)
        return True

    def select(self, selection: Selection, state: State, after: str, limit: int) -> tuple[list[Task], str | None]:
        """See Execute."""
        found = sorted((task for task in self._tasks() if task.state is state and task.task_id > after and (
            selection.instance_key in {None, task.destination.instance_key}
            and selection.client in {None, task.upload.client}
            and (selection.accepted_before is None or task.task_id < first_id_of(selection.accepted_before))
            and (selection.up_to_order is None or task.order <= selection.up_to_order))), key=lambda task: task.task_id)
        return found[:limit], found[limit - 1].task_id if len(found) > limit else None

    def newer_exists(self, target: bytes, order: int) -> bool:
        """See Execute."""
        return any(row.task.destination.digest == target and (row.task.order > order or (
            row.task.order == order and row.outrun)) for row in self._store.rows.values())

    def delete_rows(self, orders: Iterable[int]) -> None:
        """See Execute."""
        for order in orders:
            self._forget(self._store.rows[order])

    # --- Claim -------------------------------------------------------------------------------------------

    def ready_instances(self, after: str, limit: int) -> list[str]:
        """See Claim."""
        return self._instances(lambda task: task.state is State.QUEUED, after)[:limit]

    def ready_among(self, keys: Sequence[str]) -> list[str]:
        """See Claim."""
        ready = self._instances(lambda task: task.state is State.QUEUED)
        return [key for key in keys if key in ready]

    def arrivals(self, after_order: int, limit: int) -> tuple[int, list[str]]:
        """See Claim."""
        newest = reversed(self._tasks(lambda task: task.order > after_order))
        keys = dict.fromkeys(task.destination.instance_key for task in newest)
        return self._store.newest_order, list(keys)[:limit]

    def claim(self, instance_key: str, limit: int, *, bulk: bool = False, share: float = 0.0) -> list[Task]:
        """See Claim."""
        queued = self._queued(instance_key, bulk)
        ready = [task for task in queued[int(len(queued) * share):] if self.blocker(task) is None]
        rows = [self._store.rows[task.order] for task in ready[:limit]]
        for row in rows:
            self._set(row, State.PUSHING)
        return [row.task for row in rows]

    def _queued(self, instance_key: str, bulk: bool) -> list[Task]:
        return [task for task in self._of(instance_key, _in(State.QUEUED)) if (task.upload.size >= BULK_BYTES) is bulk]

    def doubtful_claims(self) -> list[Task]:
        """See Claim."""
        return []

    def _deferred(self) -> list[Task]:
        return sorted(self._tasks(lambda task: task.state is State.DEFERRED), key=lambda task: task.due_at or 0.0)

    def next_due_at(self) -> float | None:
        """See Claim."""
        return next((task.due_at for task in self._deferred()), None)

    def promote_due(self, now: float, limit: int) -> int:
        """See Claim."""
        return self._queue_again([task for task in self._deferred() if (task.due_at or 0.0) <= now][:limit])

    def release_instance(self, instance_key: str, limit: int) -> int:
        """See Claim."""
        return self._queue_again(self._of(instance_key, lambda task: task.state is State.DEFERRED)[:limit])

    def release_late(self, latest: float, limit: int) -> int:
        """See Maintain."""
        return self._queue_again([task for task in self._deferred() if (task.due_at or 0.0) > latest][:limit])

    def _queue_again(self, tasks: Sequence[Task], **values: Any) -> int:
        for task in tasks:
            self._set(self._store.rows[task.order], State.QUEUED, **values)
        return len(tasks)

    # --- Settle ------------------------------------------------------------------------------------------

    def settle(self, settlements: Iterable[Settlement], *, supersede: bool = True) -> Settled:
        """See Settle."""
        otherwise: dict[State, set[int]] = {State.SUPERSEDED: set(), State.CANCELLED: set(), State.HELD: set()}
        for settlement in settlements:
            row = self._store.rows.get(settlement.order)
            if row is None or row.task.state is not State.PUSHING:
                continue
            state = self._outcome(row, settlement.state, supersede)
            self._settle(row, settlement, state)
            if state is not settlement.state:
                otherwise[state].add(settlement.order)
        return Settled(superseded=frozenset(otherwise[State.SUPERSEDED]), held=frozenset(otherwise[State.HELD]),
                       cancelled=frozenset(otherwise[State.CANCELLED]))

    def _outcome(self, row: _Row, state: State, supersede: bool) -> State:
        if row.wish is State.CANCELLED and state is not State.DELIVERED:
            return State.CANCELLED
        if supersede and state in _WAITING and self._has_newer(row.task):
            return State.SUPERSEDED
        return row.wish if row.wish is State.HELD and state in _WAITING else state

    def _settle(self, row: _Row, settlement: Settlement, state: State) -> None:
        task, attempt = row.task, settlement.attempt
        row.wish = None
        self._set(
            row, state, attempts=task.attempts if settlement.attempts is None else settlement.attempts,
            error_code=settlement.error_code, error_message=settlement.error_message, due_at=settlement.due_at,
            spooled=settlement.spooled, left_part=task.left_part if settlement.part is None else settlement.part,
            age_base=task.age_base + settlement.ageless_s, recheck=False,
            history=(*task.history, attempt)[-MOST_KEPT:] if attempt else task.history)
        if attempt is not None:
            self._count({attempts(state.label, attempt.code or ""): 1, **observed(PUSH_SECONDS, [attempt.duration_s])})
        if state is State.DELIVERED and settlement.upload is not None:
            took_s = time.time() - settlement.upload.created_at
            self._count({DELIVERED_BYTES: settlement.upload.size, **observed(END_TO_END_SECONDS, [took_s])})

    # --- Resume ------------------------------------------------------------------------------------------

    def left_pushing(self) -> list[Task]:
        """See Resume."""
        return self._tasks(lambda task: task.state is State.PUSHING and self._store.rows[task.order].wish is None)

    def resume(self, *, supersede: bool) -> int:
        """See Resume."""
        tasks = self._tasks(lambda task: task.state is State.PUSHING)
        for task in tasks:
            row = self._store.rows[task.order]
            state = self._outcome(row, State.QUEUED, supersede)
            row.wish = None
            self._set(row, state, left_part=True)
        return len(tasks)

    def suspect_claims(self, most: int) -> None:
        """See Resume."""
        for key, bulk in itertools.product(self._instances(lambda _: True), (False, True)):
            for task in self._queued(key, bulk)[:most]:
                self._replace(task.order, left_part=True)

    def recheck_unsynced(self, elsewhere: str | None = None) -> int:
        """See Resume."""
        return self._queue_again(self._tasks(lambda task: (
            task.state is State.DELIVERED and task.spooled and not self._has_newer(task)
            and (elsewhere is None or _went(task, elsewhere)))), recheck=True)

    def _replace(self, order: int, **values: Any) -> None:
        row = self._store.rows[order]
        row.task = replace(row.task, **values)

    # --- PartFiles ---------------------------------------------------------------------------------------

    def next_with_parts(self, after: str) -> str | None:
        """See PartFiles."""
        return next(iter(self._instances(_left_something, after)), None)

    def left_parts(self, instance_key: str, limit: int) -> list[Task]:
        """See PartFiles."""
        return self._of(instance_key, _left_something)[:limit]

    def forget_unreadable_parts(self, instance_key: str, limit: int) -> None:
        """See PartFiles."""

    def forget_part(self, order: int) -> None:
        """See PartFiles."""
        self._replace(order, left_part=False)

    # --- Clocks, Remember and Maintain -------------------------------------------------------------------

    def add_outages(self, seconds: dict[str, float]) -> None:
        """See Clocks."""
        for name, more_s in seconds.items():
            self._store.outages[name] = self._store.outages.get(name, 0.0) + more_s

    def outage_s(self, destination: Destination) -> float:
        """See Clocks."""
        return sum(self._store.outages.get(name, 0.0) for name in ("", *destination.clocks))

    def fact(self, name: str) -> str | None:
        """See Remember."""
        return self._store.facts.get(name)

    def remember(self, name: str, value: str) -> None:
        """See Remember."""
        self._store.facts[name] = value

    def unspoolable(self, limit: int, after_order: int = 0) -> list[Task]:
        """See Maintain."""
        finished = self._tasks(lambda task: task.state in FINISHED and task.spooled)
        first = {task.destination for task in finished if task.order <= after_order}
        return [task for task in finished if task.order > after_order and task.destination not in first][:limit]

    def unspool(self, orders: Iterable[int]) -> None:
        """See Maintain."""
        for order in list(orders):
            self._replace(order, spooled=False)

    def clear_finished(self, before: float, keep_most: int, limit: int) -> int:
        """See Maintain."""
        finished_tasks = self._tasks(lambda task: task.state in FINISHED)
        too_many = len(finished_tasks) - keep_most
        old = [task for number, task in enumerate(finished_tasks)
               if not task.spooled and (task.updated_at < before or number < too_many)][:limit]
        self.delete_rows([task.order for task in old])
        return len(old)

    def old_dead_letters(self, before: float, limit: int) -> list[Task]:
        """See Maintain."""
        return self._tasks(lambda task: task.state is State.FAILED and task.updated_at < before)[:limit]

    def aged(self, instance_key: str, age_before: float, limit: int) -> list[Task]:
        """See Maintain."""
        return [task for state in _WAITING for task in self._of(instance_key, _in(state))[:limit]
                if task.age_base < age_before]

    def give_up(self, tasks: Iterable[Task], message: str) -> None:
        """See Maintain."""
        for task in tasks:
            row = self._store.rows[task.order]
            if row.task.state in _WAITING:
                self._set(row, State.FAILED, error_code="gave_up", error_message=message, due_at=None)

    def forget_answers(self, before: float) -> None:
        """See Maintain."""
        for number, answer in list(self._store.answers.items()):
            if answer.done and self._store.answered_at[number] < before:
                del self._store.answers[number]

    def forget_actions(self, before: float, keep_most: int, limit: int) -> int:
        """See Maintain."""
        actions = sorted(self._store.actions.values(), key=lambda action: action.action_id)
        old = [action for number, action in enumerate(actions)
               if action.at < before or number < len(actions) - keep_most][:limit]
        for action in old:
            del self._store.actions[action.action_id]
        return len(old)

    def forget_events(self, before: float, keep_most: int, limit: int) -> int:
        """See Maintain."""
        store = self._store
        too_many = len(store.events) - keep_most
        old = [event for number, event in enumerate(store.events) if (event.at < before or number < too_many) and (
            store.cursor is None or event.seq <= store.cursor)][:limit]
        store.events = store.events[len(old):]
        store.forgotten = old[-1].seq if old else store.forgotten
        return len(old)

    def compact(self) -> None:
        """See Maintain."""

    def reuse_room(self) -> None:
        """See Maintain."""

    # --- Outbox ------------------------------------------------------------------------------------------

    def follow_for_webhooks(self, wanted: bool) -> None:
        """See Outbox."""
        if not wanted:
            self._store.cursor = None
        elif self._store.cursor is None:
            self._store.cursor = self._store.seq

    def untold(self, limit: int) -> Happened | None:
        """See Outbox."""
        cursor = self._store.cursor
        return None if cursor is None else self.happened(Position(self._store.epoch, cursor), limit)

    def tell(self, notices: Sequence[Notice], position: Position) -> None:
        """See Outbox."""
        self.post(notices)
        self._store.cursor = position.seq

    def post(self, notices: Sequence[Notice]) -> None:
        """See WebhookBoard."""
        for notice in notices:
            self._store.notices.setdefault(notice.message_id, notice)
            self._hook(notice.webhook)

    def _hook(self, webhook: str) -> _Hook:
        return self._store.hooks.setdefault(webhook, _Hook())

    def _notices(self, webhook: str, state: NoticeState | None) -> list[Notice]:
        """The notices to a webhook, oldest first."""
        return sorted((notice for notice in self._store.notices.values()
                       if notice.webhook == webhook and state in {None, notice.state}), key=lambda notice: notice.message_id)

    def webhook_standings(self) -> list[WebhookStanding]:
        """See WebhookBoard."""
        return [self._standing(name, hook) for name, hook in sorted(self._store.hooks.items())]

    def _standing(self, name: str, hook: _Hook) -> WebhookStanding:
        pending, delivered, failed = (len(self._notices(name, state)) for state in NoticeState)
        last_at, last_status, last_detail = hook.last or (None, None, None)
        return WebhookStanding(
            name=name, pending=pending, delivered=delivered, failed=failed, disabled_at=hook.disabled_at,
            disabled_why=hook.disabled_why, last_at=last_at, last_status=last_status, last_detail=last_detail)

    def notices(self, webhook: str, state: NoticeState | None, before: str | None, limit: int) -> list[Notice]:
        """See WebhookBoard."""
        return [notice for notice in reversed(self._notices(webhook, state))
                if before is None or notice.message_id < before][:limit]

    def find_notice(self, message_id: str) -> Notice | None:
        """See WebhookBoard."""
        return self._store.notices.get(message_id)

    def replay(self, webhook: str, message_id: str | None) -> int:
        """See WebhookBoard."""
        again = [notice for notice in self._notices(webhook, None if message_id else NoticeState.FAILED)
                 if message_id in {None, notice.message_id}]
        for notice in again:
            self._put_notice(notice, state=NoticeState.PENDING, attempts=0, due_at=time.time())
        return len(again)

    def disable(self, webhook: str, why: str | None) -> None:
        """See WebhookBoard."""
        hook = self._hook(webhook)
        hook.disabled_at, hook.disabled_why = (None, None) if why is None else (time.time(), why)
        for notice in self._notices(webhook, NoticeState.PENDING) if why is None else ():
            self._put_notice(notice, due_at=time.time())

    def due_notices(self, webhook: str, now: float, limit: int) -> list[Notice]:
        """See Outbox."""
        due = [notice for notice in self._notices(webhook, NoticeState.PENDING) if notice.due_at <= now]
        return sorted(due, key=lambda notice: notice.due_at)[:limit]

    def next_notice_at(self, webhook: str) -> float | None:
        """See Outbox."""
        return min((notice.due_at for notice in self._notices(webhook, NoticeState.PENDING)), default=None)

    def settle_notices(self, results: Sequence[NoticeResult], now: float) -> None:
        """See Outbox."""
        for result in results:
            notice = result.notice
            self._hook(notice.webhook).last = (now, result.status, result.detail)
            if self._store.notices.get(notice.message_id) != notice:
                continue
            self._put_notice(notice, state=result.state, due_at=result.due_at, status=result.status,
                             detail=result.detail, attempts=notice.attempts + 1, updated_at=now)
            outcome = "deferred" if result.state is NoticeState.PENDING else result.state.label
            self._count({webhook_attempts(outcome): 1})

    def _put_notice(self, notice: Notice, **values: Any) -> None:
        self._store.notices[notice.message_id] = replace(notice, **values)

    def give_up_notices(self, webhook: str, keep_most: int, limit: int, why: str) -> int:
        """See Outbox."""
        pending = self._notices(webhook, NoticeState.PENDING)
        beyond = pending[:max(0, len(pending) - keep_most)][:limit]
        for notice in beyond:
            self._put_notice(notice, state=NoticeState.FAILED, detail=why, updated_at=time.time())
        return len(beyond)

    def forget_notices(self, webhook: str, state: NoticeState, before: str, keep_most: int, limit: int) -> int:
        """See Outbox."""
        found = self._notices(webhook, state)
        old = [notice for number, notice in enumerate(found)
               if notice.message_id < before or number < len(found) - keep_most][:limit]
        for notice in old:
            del self._store.notices[notice.message_id]
        return len(old)


def _in(*states: State) -> Callable[[Task], bool]:
    return lambda task: task.state in states


def _is_unfinished(task: Task) -> bool:
    return task.state not in FINISHED


def _went(task: Task, elsewhere: str) -> bool:
    key = task.destination.instance_key
    there = key.startswith(elsewhere) if elsewhere.endswith("/") else key == elsewhere
    return there and bool(task.history) and task.history[-1].elsewhere


def _left_something(task: Task) -> bool:
    return task.left_part and task.state not in _ACTIVE


def _total(tasks: Sequence[Task]) -> Total:
    return Total(len(tasks), sum(task.upload.size for task in tasks))


def _oldest(tasks: Sequence[Task]) -> float | None:
    return min((task.upload.created_at for task in tasks), default=None)


def _is_meant(task: Task, question: TaskQuestion) -> bool:
    path = task.destination.path
    is_glob = question.path is not None and question.path.startswith("/") and question.path.endswith("*")
    return all((
        not question.states or task.state in question.states,
        question.instance_key in {None, task.destination.instance_key},
        question.client in {None, task.upload.client},
        question.error in {None, task.error_code},
        question.path is None or (path_matches(question.path, path) if is_glob else question.path in path),
        question.since is None or task.upload.created_at >= question.since,
        question.until is None or task.upload.created_at < question.until))
