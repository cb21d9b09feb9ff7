"""What a shard's queue can do, in small parts, so that whoever uses one asks for no more than that.

Whatever keeps the queue, its values are plain: uploads, tasks, and what is in `daemon.task_queue.values`. Every method
may be called from any thread, may block on the disk, and raises QueueFault when the queue cannot do it.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from daemon.model.task import State, Task
from daemon.model.upload import Destination, Upload
from daemon.task_queue.values import (
    MOST_LOOKED_AT,
    ActionRecord,
    Change,
    Command,
    CommandAnswer,
    Counter,
    FoundTasks,
    Happened,
    Notice,
    NoticeResult,
    NoticeState,
    Position,
    Put,
    Selection,
    Settled,
    Settlement,
    Standing,
    TaskQuestion,
    Total,
    WebhookStanding,
)


class Bytes(Protocol):
    """What a queue asks the spool whose index it is. OSError says that it cannot be told."""

    def holds(self, bucket: int, task_id: str) -> bool:
        """True when the bytes of that task are there."""

    def is_empty(self) -> bool:
        """True when there are no bytes at all."""


class SealedUpload(Protocol):
    """An upload whose bytes the spool has sealed. What keeps bytes and rows in one place finds the bytes by it."""

    @property
    def upload(self) -> Upload:
        """What was sealed."""


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Let go of everything. May be called again."""


# --- for everyone ------------------------------------------------------------------------------------------


class Append(Protocol):
    """Taking uploads: for the API."""

    def put_many(self, sealed: Sequence[SealedUpload], *, supersede: bool) -> list[Put]:
        """Put uploads, all or none, and return what became of each, in their order. They are durable then.

        Their bytes are what the spool sealed, and durable by then, too: one commit may do both.

        An upload is put once, however often it is tried. One that comes with the idempotency key of an earlier one
        of its client is a duplicate of that, as long as that is finished or its bytes are there, or a mismatch.
        Pending older uploads to the same path are superseded if `supersede`. When it raises QueueFault,
        `certainly_failed` says whether it is known that none was put.
        """


class Find(Protocol):
    """Looking up one task."""

    def find(self, task_id: str) -> Task | None:
        """The task of that id, or None. Raises ValueError when what is kept of it is damaged."""


class Read(Find, Protocol):
    """Questions. None of them takes longer because more is finished or waiting."""

    def newer_known(self, upload: Upload) -> bool:
        """True when an upload to the same path with a later id is in the queue, finished or not."""

    def blocker(self, task: Task) -> Task | None:
        """The task to the same path that a queued one waits for, or None.

        That is the oldest that is still to be pushed and was accepted before; or else one, finished or held, that may
        have left its part file.
        """

    def page(
        self, *, states: frozenset[State] = frozenset(), instance_key: str | None = None, client: str | None = None,
        before: str | None = None, limit: int,
    ) -> list[Task]:
        """Up to `limit` tasks, newest id first, with ids under `before`. Damaged ones are left out.

        With `instance_key` or `client` only those of that instance, or that this client sent.
        """

    def search(
        self, question: TaskQuestion, before: str | None, limit: int, most: int = MOST_LOOKED_AT,
    ) -> FoundTasks:
        """Up to `limit` tasks, newest id first, with ids under `before`; damaged ones are left out.

        It looks at about `most` tasks, so that nobody waits long for a rare one: fewer may be found, or none, though
        there are more. `next_before` says where to go on.
        """

    def totals(self, states: frozenset[State]) -> dict[State, Total]:
        """How many tasks, and of how many bytes, are in each of these states, all at the same moment."""

    def client_pending(self, client: str) -> Total:
        """How many tasks of that client are pending (`daemon.model.task.PENDING`), and of how many bytes."""

    def pending_under(self, client: str) -> Total:
        """The same of that client and of all that act under it: their names begin with its own and a slash.

        The time it takes grows with the number of these that have pending tasks.
        """

    def instance_keys(self, after: str, limit: int) -> list[str]:
        """Up to `limit` instances that have tasks, finished ones too, in the order of their keys from `after` on."""


class Follow(Protocol):
    """Learning what happens to tasks, as it happens and afterwards."""

    def beat(self) -> int:
        """A number that is another one whenever something has happened; it may be late, and is never waited for.

        Never blocks and never raises. Whoever follows asks now and then all the same.
        """

    def position(self) -> Position:
        """Where the newest event is: what comes later happened after now."""

    def happened(self, after: Position, limit: int, *, tasks: bool = False) -> Happened:
        """Up to `limit` events after a position, oldest first; with `lost` when it is not known what they were.

        Each change of a state is there, once, and in order. A crash of the machine may take back the newest: their
        numbers are not given again. With `tasks` it is also told how their tasks stand.
        """

    def find_all(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are there, as they are now; damaged ones are left out."""


class Survey(Protocol):
    """Questions about all instances, for people. An answer is never longer than what was asked for."""

    def busiest(self, limit: int) -> tuple[int, list[str]]:
        """How many instances have tasks that are not finished, and up to `limit` of these, those with most first.

        The time it takes grows with the number of instances.
        """

    def ranked(self, limit: int, after: tuple[int, str] | None = None) -> tuple[int, list[tuple[str, int]]]:
        """The same in the order of what waits (`daemon.model.task.PENDING`), then of their keys, each with that number.

        Those come last that have dead letters alone. With `after`, a number and a key, those alone that come behind.
        """

    def standings(self, instance_keys: Sequence[str]) -> list[Standing]:
        """How each of these instances stands, in the same order."""

    def oldest_at(self) -> float | None:
        """When the oldest task that is not finished was accepted (seconds since the epoch), or None."""

    def ages(
        self, instance_keys: Sequence[str], bounds_s: Sequence[float], now: float, most: int,
    ) -> list[tuple[int, ...]]:
        """For each of these instances: how many of its tasks that are not finished are how old, at the time `now`.

        `bounds_s` has the ages, in seconds and growing, at which one span ends and the next begins; the last span has
        no end. Each number is at most `most`.
        """


class Counters(Protocol):
    """Sums that only grow: neither a restart nor what is forgotten makes one go back."""

    def counters(self) -> list[Counter]:
        """All of them, as they are at the same moment (`daemon.model.counters`); of a histogram its `_count`, too."""


class Audit(Protocol):
    """What people did to tasks."""

    def actions(self, before: str | None, limit: int, by: str | None = None) -> list[ActionRecord]:
        """Up to `limit` actions, newest first, with ids under `before`; with `by` those of that name alone.

        Another shard may have parts of the same action: they add up.
        """


class Ask(Protocol):
    """Asking for something to be done with tasks: for people's commands."""

    def newest_order(self) -> int:
        """The highest order that was ever given."""

    def ask(self, commands: Iterable[Command]) -> list[int]:
        """Record what a person asks for, durably, and return the numbers; the worker does it, even much later.

        What is asked stands in the audit list from then on, one action for all that have the same `action_id`.
        Raises QueueFault also when it is recorded, but where no worker looks any more: ask again then.
        """

    def answers(self, numbers: Sequence[int]) -> dict[int, CommandAnswer]:
        """What became of those of these commands that are still known, by their numbers."""

    def asked(self, at: float, by: str) -> dict[str, int]:
        """The numbers of the commands of exactly that time and name that are still known, by the ids of their tasks.

        So whoever does not know whether `ask` was done can find out. It takes longer the more answers are kept.
        """

    def pending_commands(self) -> int:
        """How many commands are not done yet."""


class WebhookBoard(Protocol):
    """What webhooks were told and are to be told, and what people decide about that. Writing is durable."""

    def webhook_standings(self) -> list[WebhookStanding]:
        """How each webhook stands that anything is known of."""

    def notices(self, webhook: str, state: NoticeState | None, before: str | None, limit: int) -> list[Notice]:
        """Up to `limit` notices to a webhook, newest first, with ids under `before`; damaged ones are left out."""

    def find_notice(self, message_id: str) -> Notice | None:
        """The notice of that id, or None."""

    def replay(self, webhook: str, message_id: str | None) -> int:
        """Have a notice, or without an id all that were given up, sent again from now on; return how many.

        The one of that id is sent again however it stands. Raises QueueFault also when it is written, but where no
        worker looks any more: ask again then. So do the next two.
        """

    def disable(self, webhook: str, why: str | None) -> None:
        """Send nothing to a webhook any more, for that reason; None: send to it again. What it is told is kept."""

    def post(self, notices: Sequence[Notice]) -> None:
        """Put notices that no event is behind."""


class Intake(Append, Read, Survey, Counters, Follow, Ask, Audit, WebhookBoard, Closable, Protocol):
    """What the API does, without the shard's lock, for as long as it runs: it takes uploads, answers, and asks."""


class LeftParts(Protocol):
    """Where pushes that broke off may have left something, or are still on their way in a server that hangs."""

    def left_parts(self, instance_key: str, limit: int) -> list[Task]:
        """Up to `limit` tasks of an instance that are not to be pushed and may have left a part file, oldest first."""


class Operate(Read, Survey, Counters, Follow, Ask, Audit, WebhookBoard, LeftParts, Closable, Protocol):
    """What people's commands do, without the shard's lock: they look, and ask for something."""

    @property
    def shard(self) -> int:
        """The number of the shard."""


# --- for the holder of the shard's lock --------------------------------------------------------------------


class Claim(Protocol):
    """Taking tasks to push them, and seeing to it that those that are due can be taken."""

    def ready_instances(self, after: str, limit: int) -> list[str]:
        """Instances with queued tasks, in the order of their keys from `after` on: at most `limit` of them."""

    def ready_among(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` whose instances have queued tasks, in the same order."""

    def arrivals(self, after_order: int, limit: int) -> tuple[int, list[str]]:
        """The newest order, and the instances of the newest tasks after `after_order`, up to `limit`, newest first."""

    def claim(self, instance_key: str, limit: int, *, bulk: bool = False, share: float = 0.0) -> list[Task]:
        """Take up to `limit` queued tasks of an instance, small ones or bulky ones (BULK_BYTES), in their order.

        They are the oldest; or those that come after `share` (0 to less than 1) of all. A task waits while an older
        one of its path is still to be pushed, or may have left its part file. A crash of the machine may undo a claim.
        When it raises QueueFault, what `doubtful_claims` has then must be settled before the next claim.
        """

    def doubtful_claims(self) -> list[Task]:
        """Take the tasks whose claim failed, perhaps after it had been done: nobody pushes them."""

    def next_due_at(self) -> float | None:
        """When the next deferred task is due, in seconds since the epoch; None when none is deferred."""

    def promote_due(self, now: float, limit: int) -> int:
        """Queue again up to `limit` deferred tasks whose time has come; return how many."""

    def release_instance(self, instance_key: str, limit: int) -> int:
        """Queue again up to `limit` deferred tasks of one instance, whatever their time; return how many."""


class Settle(Protocol):
    """Writing down what became of pushes."""

    def settle(self, settlements: Iterable[Settlement], *, supersede: bool = True) -> Settled:
        """Record what became of claimed tasks, all or none, durably.

        What a person wished for a task while it was pushed is granted, unless it was delivered. With `supersede`, a
        task that is not finished while a newer one to its path was accepted is superseded.
        """


class Alter(Protocol):
    """Changing states otherwise than by a push."""

    def change(self, changes: Sequence[Change], answers: Sequence[CommandAnswer] = ()) -> int:
        """Change states and answer commands, all or none, durably; return how many tasks were changed.

        A task that meanwhile left the state it was read in is not changed.
        """


class Execute(Find, Alter, Protocol):
    """Working off what people asked for."""

    def commands(self, limit: int) -> list[Command]:
        """The oldest commands that are not done yet. One that cannot be read has the verb ''."""

    def select(self, selection: Selection, state: State, after: str, limit: int) -> tuple[list[Task], str | None]:
        """Up to `limit` of the selected tasks in one state, in the order of their ids, with ids over `after`.

        With them comes what to put for `after` to get more; None when there are no more.
        """

    def newer_exists(self, target: bytes, order: int) -> bool:
        """True when an upload to the same destination was accepted after the one of that order.

        Also when that one is finished and cleared, as long as the older task is there.
        """

    def delete_rows(self, orders: Iterable[int]) -> None:
        """Forget tasks whose bytes are gone, and their idempotency keys."""


class Clocks(Protocol):
    """The time in which nothing could be delivered: nothing ages in it."""

    def add_outages(self, seconds: dict[str, float]) -> None:
        """Add to the times for which remotes or instances were away; the empty name stands for the worker itself."""

    def outage_s(self, destination: Destination) -> float:
        """For how many seconds nothing could be delivered there, as far as is known."""


class PartFiles(LeftParts, Protocol):
    """What pushes that broke off may have left in instances."""

    def next_with_parts(self, after: str) -> str | None:
        """The next instance, in the order of their keys, in which there may be part files to remove, or None."""

    def forget_unreadable_parts(self, instance_key: str, limit: int) -> None:
        """Forget those, among as many as `left_parts` looks at, of which nobody can read any more where they are."""

    def forget_part(self, order: int) -> None:
        """Record that a task has no part file. Need not be durable: looking for it twice does no harm."""


class Remember(Protocol):
    """Facts about the shard that outlive its worker."""

    def fact(self, name: str) -> str | None:
        """A remembered fact, or None."""

    def remember(self, name: str, value: str) -> None:
        """Remember a fact, durably."""


class Maintain(Alter, Remember, Protocol):
    """Tidying up, in small steps."""

    def unspoolable(self, limit: int, after_order: int = 0) -> list[Task]:
        """Finished tasks whose bytes are still in the spool, those accepted first first, from behind an order on.

        Not those whose path has such a task up to that order: its bytes are to go first.
        """

    def unspool(self, orders: Iterable[int]) -> None:
        """Record that the bytes of tasks are gone. Need not be durable: removing them twice does no harm."""

    def clear_finished(self, before: float, keep_most: int, limit: int) -> int:
        """Forget up to `limit` tasks that are finished since before then, or beyond `keep_most`; return how many."""

    def old_dead_letters(self, before: float, limit: int) -> list[Task]:
        """Dead letters that failed before that time, oldest first."""

    def release_late(self, latest: float, limit: int) -> int:
        """Queue again up to `limit` deferred tasks that are due after `latest`; return how many.

        No task is put off so far: the clock was set back since.
        """

    def aged(self, instance_key: str, age_before: float, limit: int) -> list[Task]:
        """Of the oldest waiting tasks of an instance, up to `limit` in a state, those with `age_base` before that."""

    def give_up(self, tasks: Iterable[Task], message: str) -> None:
        """Make dead letters of waiting tasks that were never tried for themselves, durably."""

    def forget_answers(self, before: float) -> None:
        """Forget the commands that were done before that time."""

    def forget_actions(self, before: float, keep_most: int, limit: int) -> int:
        """Forget up to `limit` actions from before then, or beyond the newest `keep_most`; return how many."""

    def forget_events(self, before: float, keep_most: int, limit: int) -> int:
        """Forget up to `limit` events from before then, or beyond the newest `keep_most`; return how many.

        What webhooks have yet to be told stays.
        """

    def compact(self) -> None:
        """Give back room on the disk that is not needed, if that disturbs nobody just now. Nothing else changes."""

    def reuse_room(self) -> None:
        """Room is short: take no more of it than must be, if that disturbs nobody just now. Nothing else changes."""


class Outbox(WebhookBoard, Protocol):
    """Telling webhooks what happens: each event once, under an id that stays, until it is delivered or given up."""

    def follow_for_webhooks(self, wanted: bool) -> None:
        """Keep what happens from now on until webhooks are told; or not any more. What is so already stays so."""

    def untold(self, limit: int) -> Happened | None:
        """Up to `limit` events that webhooks have not been told, oldest first; None when they are told nothing.

        With `lost` it is not known what they were.
        """

    def find_all(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are there; damaged ones are left out."""

    def tell(self, notices: Sequence[Notice], position: Position) -> None:
        """Put notices, and note that webhooks are told up to that position, all or none, durably."""

    def due_notices(self, webhook: str, now: float, limit: int) -> list[Notice]:
        """Up to `limit` pending notices whose time has come, those first that have waited longest."""

    def next_notice_at(self, webhook: str) -> float | None:
        """When the next pending notice to the webhook is due, in seconds since the epoch, or None."""

    def settle_notices(self, results: Sequence[NoticeResult], now: float) -> None:
        """Record what became of tries to send notices, all or none, durably."""

    def give_up_notices(self, webhook: str, keep_most: int, limit: int, why: str) -> int:
        """Give up the oldest pending notices to a webhook beyond `keep_most`, up to `limit`; return how many."""

    def forget_notices(self, webhook: str, state: NoticeState, before: str, keep_most: int, limit: int) -> int:
        """Forget up to `limit` notices to a webhook with ids under `before`, or beyond `keep_most`; return how many."""


class Resume(Clocks, Remember, Protocol):
    """Taking up what a worker before left."""

    def left_pushing(self) -> list[Task]:
        """Tasks that a worker that died was pushing, but for those of which a person wished something else."""

    def resume(self, *, supersede: bool) -> int:
        """Queue again what a worker that died was pushing; return how many.

        What a person wished for such a task comes first, and so does a newer upload to its path if `supersede`.
        """

    def suspect_claims(self, most: int) -> None:
        """Note, durably, that up to `most` queued tasks of a kind may have left a part file in each instance.

        For after a crash of the machine, which may have undone their claims.
        """

    def leave_numbers_out(self, *, in_any_case: bool = False) -> None:
        """After a restart of the machine: give no event a number, durably, that one had which may be taken back.

        Once for each restart, whoever does it first, also by putting uploads.
        """

    def recheck_unsynced(self, elsewhere: str | None = None) -> int:
        """Queue again, to be compared, what was delivered before a crash of the machine with its bytes still there.

        With `elsewhere`, the key of an instance or a remote with its slash ("eu/"), after what may have been a crash
        there: of deliveries to it only those that may be on another machine (`Attempt.elsewhere`). A delivery that a
        newer upload to its path has followed stays as it is. Returns how many were queued.
        """


class TaskQueue(Append, Operate, Claim, Settle, Execute, PartFiles, Maintain, Outbox, Resume, Protocol):
    """One shard's queue, for the holder of the shard's lock."""
