"""A runner and its session."""

import errno
import math
from collections.abc import Callable, Iterator, Sequence

import pytest

from daemon import failpoints
from daemon.config import Allowed, Config, DeliverySection
from daemon.errors import CannotStart, CourierError, Undelivered
from daemon.model.upload import Destination
from daemon.spool import Open, Source
from daemon.state.released import ReleasedInstances
from daemon.task_queue import BULK_BYTES
from tests.support.depot import Depot, an_upload
from tests.support.memory_spool import MemorySpool, Shelf
from worker.dispatch import runner
from worker.dispatch.lane import Lane, Push
from worker.dispatch.runner import Guard, Pushed, PushOutcome, Swept
from worker.targets.base import Delivery, Ended, Parcel, Patience, Receipt, one_by_one
from worker.targets.source import pieces, rewind


class Counted:
    """A Target, and its session, that note what is done with them."""

    broken = False
    left_part = False

    def __init__(self) -> None:
        self.said: list[str] = []
        self.delivered: list[Delivery] = []
        #: The connection is lost with all that is under way.
        self.loses = False
        #: What it raises when it is to vouch for what was delivered.
        self.doubt: Exception | None = None
        #: What happens during a delivery.
        self.meanwhile: Callable[[], None] = lambda: None
        #: What opening, and a probe of the remote, raise.
        self.refusal: Exception | None = None
        self.away: CourierError | None = None

    def open(self, destination: Destination, stopped: str, patience: Patience | None = None) -> "Counted":
        """Open the session."""
        self.said.append("open")
        if self.refusal is not None:
            raise self.refusal
        return self

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Deliver nothing, while more tasks come."""
        self.said.append("deliver")
        self.delivered.append(delivery)
        self.meanwhile()
        before_rename()
        return Receipt(atomic=True, way="directory")

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver one after the other; or, once the connection is lost, none."""
        if not self.loses:
            yield from one_by_one(self, parcels)
        self.broken = self.loses
        for number, parcel in enumerate(parcels if self.loses else ()):
            yield Ended(parcel=parcel, error=Undelivered("connection_lost"), left_part=True, bystander=number != 1)

    def confirm(self) -> None:
        """Vouch for what was delivered, or not."""
        self.said.append("confirm")
        if self.doubt is not None:
            raise self.doubt

    def sweep(self, delivery: Delivery) -> bool:
        """Find nothing."""
        return False

    def probe(self) -> None:
        """Be there, or not."""
        self.said.append("probe")
        if self.away is not None:
            raise self.away

    def find_project(self, project: str) -> None:
        """Have every project."""

    def instances(self) -> None:
        """Every name is one."""

    def follow(self, *_: object) -> None:
        """Have no events."""

    def close(self) -> None:
        """Close the session."""
        self.said.append("close")


class Work:
    """A lane with tasks, and what a runner reported of them."""

    def __init__(self, depot: Depot, tasks: int) -> None:
        self.depot = depot
        self.spool: Open = depot.spool
        uploads = [depot.accept(f"/{number}") for number in range(tasks)]
        self.lane = Lane(uploads[0].destination, most_bulk=1)
        self.lane.add(depot.claim())
        self.counted = Counted()
        self.allowed = Allowed()
        self.fence: Callable[[], None] = lambda: None
        self.reported: list[PushOutcome | Swept] = []
        #: How often the session had been asked to vouch when it was told that a task was pushed, and how that ended.
        self.pushed_after: list[int] = []
        self.told_after: list[int] = []

    def run(self, patience: Patience | None = None, per_instance: int = 16) -> None:
        """Push them all."""
        def config() -> Config:
            return Config(delivery=DeliverySection(per_instance=per_instance, allow=self.allowed))

        guard = Guard(fence=self.fence, is_released=ReleasedInstances(self.depot.layout).has)
        runner.run(self.lane, lambda _: self.counted, self.spool, config, self._hear, patience or Patience(), guard)

    def _hear(self, *messages: PushOutcome | Pushed | Swept) -> None:
        asked = self.counted.said.count("confirm")
        for message in messages:
            if isinstance(message, Pushed):
                self.pushed_after.append(asked)
            else:
                self.told_after.append(asked)
                self.reported.append(message)

    @property
    def codes(self) -> list[str | None]:
        """The codes of what was reported."""
        return [ended.code for ended in self.reported]


@pytest.mark.parametrize(("hold_s", "said"), [
    (60.0, ["open", "deliver", "deliver", "confirm", "close"]),
    (0.0, ["open", "deliver", "confirm", "close", "open", "deliver", "confirm", "close"]),
])
def test_session_is_let_go_of_now_and_then_while_work_keeps_coming(
        depot: Depot, monkeypatch: pytest.MonkeyPatch, hold_s: float, said: list[str]) -> None:
    """An open session blocks other operations on its instance, whether it is idle or not."""
    monkeypatch.setattr(runner, "HOLD_S", hold_s)
    monkeypatch.setattr(runner, "LINGER_S", 0.0)
    work = Work(depot, 2)
    work.run(per_instance=1)
    assert work.counted.said == said
    assert work.codes == [None, None]


def test_delivery_is_told_only_when_its_session_has_vouched_for_it(depot: Depot) -> None:
    """One question serves all that were delivered before it; that there is room for more is told at once."""
    work = Work(depot, 3)
    work.lane.low_at = 1
    work.run()
    assert work.pushed_after[:1] == [0]
    assert work.told_after == [1, 1, 1]


def test_delivery_is_told_at_once_unless_another_one_just_was(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a single upload hears of it; where one follows the other, a question serves many."""
    monkeypatch.setattr(runner, "CONFIRM_S", 60.0)
    work = Work(depot, 3)
    waiting = work.lane.hand_back()
    take = work.lane.take

    def next_one(linger_s: float, *, most: int, turn_over: bool) -> list[Push]:
        # Each comes when the runner waits for it; it waits for no more once they are all there.
        if linger_s or work.counted.said[-1:] != ["deliver"]:
            work.lane.add([waiting.pop(0)]) if waiting else work.lane.close()
        return take(0.0, most=most, turn_over=turn_over)

    monkeypatch.setattr(work.lane, "take", next_one)
    work.run()
    assert work.counted.said == ["open", "deliver", "confirm", "deliver", "deliver", "confirm", "close"]


def test_room_is_told_of_only_where_the_queue_has_more(depot: Depot) -> None:
    """The main loop has nothing to do for a lane that it has given all."""
    work = Work(depot, 3)
    work.run()
    assert work.pushed_after == []


def test_push_that_was_hurried_stays_so_when_there_is_time_again_before_that_is_told(depot: Depot) -> None:
    """The crowd may be gone by then, as those in it give up together: no attempt counts all the same."""
    work, patience = Work(depot, 1), Patience(0.5)

    def give_up() -> None:
        patience.hurried, patience.limit_s = True, math.inf
        raise Undelivered("stalled", "no answer")

    work.counted.meanwhile = give_up
    work.run(patience)
    [ended] = work.reported
    assert isinstance(ended, PushOutcome)
    assert (ended.code, ended.hurried) == ("stalled", True)


def test_delivery_is_told_before_a_bulky_push_begins(depot: Depot) -> None:
    """That may take long: whoever waits for a small file need not wait for it, too."""
    work = Work(depot, 1)
    bulky = an_upload("/bulky", b"x" * BULK_BYTES)
    depot.put(bulky, b"x" * BULK_BYTES)
    work.counted.meanwhile = lambda: work.lane.add(depot.queue.claim(work.lane.key, 1, bulk=True))
    work.run()
    assert work.counted.said == ["open", "deliver", "confirm", "deliver", "confirm", "close"]


def test_bulky_push_tells_how_far_it_is(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as its bytes were read; who reads them again begins anew."""
    monkeypatch.setattr(runner, "LINGER_S", 0.0)
    upload = an_upload("/bulky", b"x" * BULK_BYTES)
    depot.put(upload, b"x" * BULK_BYTES)
    work = Work(depot, 1)
    seen: list[int] = []

    def deliver(delivery: Delivery, source: Source, _: Callable[[], None]) -> Receipt:
        if delivery.size == BULK_BYTES:
            [push] = work.lane.pushing()
            for piece in pieces(source, delivery.size, BULK_BYTES // 2):
                assert piece[0] == ord("x")
                seen.append(push.sent_bytes)
            rewind(source)
            seen.append(push.sent_bytes)
        return Receipt(atomic=True, way="directory")

    work.counted.__dict__["deliver"] = deliver
    work.lane.add(depot.queue.claim(work.lane.key, 1, bulk=True))
    work.run()
    assert work.codes == [None, None]
    assert seen == [BULK_BYTES // 2, BULK_BYTES, 0]


def test_bulky_push_needs_no_file(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are read at the spool's door, wherever they are."""
    monkeypatch.setattr(runner, "LINGER_S", 0.0)
    data = b"x" * BULK_BYTES
    upload, spool = an_upload("/bulky", data), MemorySpool(Shelf())
    depot.put(upload, data)
    incoming = spool.begin()
    incoming.write(data)
    incoming.seal(upload).release()
    work, read = Work(depot, 1), bytearray()
    work.spool = spool

    def deliver(delivery: Delivery, source: Source, _: Callable[[], None]) -> Receipt:
        for piece in pieces(source, delivery.size, BULK_BYTES // 4):
            read.extend(piece)
        return Receipt(atomic=True, way="directory")

    work.counted.__dict__["deliver"] = deliver
    work.lane.add(depot.queue.claim(work.lane.key, 1, bulk=True))
    work.run()
    assert set(work.codes) == {"bytes_missing", None}
    assert read == data


def test_delivery_that_is_not_vouched_for_ends_as_what_came_in_between(depot: Depot) -> None:
    """None of those before the question counts."""
    work = Work(depot, 2)
    work.counted.doubt = Undelivered("instance_changed", "another one")
    work.run()
    assert work.codes == ["instance_changed", "instance_changed"]
    assert [ended.detail for ended in work.reported] == ["another one", "another one"]


@pytest.mark.parametrize(("doubt", "code"), [
    (None, "parent_not_found"), (Undelivered("instance_changed", "it was moved"), "instance_changed")])
def test_task_is_a_dead_letter_only_when_the_session_vouches_for_it(
        depot: Depot, doubt: Exception | None, code: str) -> None:
    """An instance that was moved behind the session shows nothing where its directories were."""
    def refuse() -> None:
        raise Undelivered("parent_not_found", "there is no /root")

    work = Work(depot, 2)
    work.counted.meanwhile, work.counted.doubt = refuse, doubt
    work.run()
    assert (work.codes, work.told_after) == ([code, code], [1, 1])


def test_session_that_does_not_vouch_is_let_go_of(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes next is pushed by another, to what is there now."""
    monkeypatch.setattr(runner, "CONFIRM_S", -1.0)
    work = Work(depot, 1)
    work.counted.doubt = Undelivered("instance_changed", "it was moved")

    def follow() -> None:
        if len(work.counted.delivered) == 1:
            work.depot.accept("/next")
            work.lane.add(work.depot.claim())

    work.counted.meanwhile = follow
    work.run()
    assert work.counted.said == ["open", "deliver", "confirm", "close", "open", "deliver", "confirm", "close"]


def test_delivery_is_abandoned_when_asking_for_it_is_a_mistake(depot: Depot) -> None:
    """The main loop hears of each task, whatever ends the runner."""
    work = Work(depot, 2)
    work.counted.doubt = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        work.run()
    assert len(work.lane.abandoned()) == 2
    assert work.counted.said[-1] == "close"


def test_bulky_task_is_abandoned_too_when_asking_for_what_was_delivered_before_is_a_mistake(depot: Depot) -> None:
    """It was taken, and not begun: it must not count as being pushed for ever."""
    work = Work(depot, 1)
    bulky = an_upload("/bulky", b"x" * BULK_BYTES)
    depot.put(bulky, b"x" * BULK_BYTES)
    work.counted.meanwhile = lambda: work.lane.add(depot.queue.claim(work.lane.key, 1, bulk=True))
    work.counted.doubt = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        work.run()
    assert len(work.lane.abandoned()) == 2
    assert work.lane.busy() == 0


def test_task_above_the_ceiling_is_refused_without_a_word_to_its_instance(depot: Depot) -> None:
    """With the rules of now: what was queued before they changed is held against them, too."""
    work = Work(depot, 2)
    work.allowed = Allowed(instances=["web-*"])
    work.run()
    assert work.codes == ["not_allowed", "not_allowed"]
    assert work.counted.said == []


@pytest.mark.parametrize(("text", "code"), [
    ("local/default/c1\n", "instance_released"), ("local/default/c11\n", None), ("\n", None), ("damaged", "io_error")])
def test_nothing_is_delivered_to_an_instance_that_was_let_go_of(depot: Depot, text: str, code: str | None) -> None:
    """Not a word is said to it; where that cannot be told the task is tried again."""
    work = Work(depot, 2)
    depot.layout.released.write_text(text)
    work.run()
    assert work.codes == [code, code]
    assert bool(work.counted.said) == (code is None)


def test_target_is_told_which_path_and_rights_are_above_the_ceiling(depot: Depot) -> None:
    """It alone knows where a path leads, and what is there; with nothing forbidden it has nothing to ask."""
    work = Work(depot, 2)

    def reload() -> None:
        work.allowed = Allowed(paths=["/?"], modes="1777")

    work.counted.meanwhile = reload
    work.run(per_instance=1)
    assert work.codes == [None, None]
    first, second = work.counted.delivered
    assert (first.path_rule, first.set_id_rule) == (None, None)
    assert second.path_rule
    assert second.set_id_rule
    assert second.path_rule("/etc/x") == "delivery.allow.paths does not have /etc/x"


def test_session_that_broke_is_asked_before_it_is_closed(depot: Depot) -> None:
    """What it delivered before counts all the same, if the instance is still the one."""
    work = Work(depot, 1)
    work.counted.broken = True
    work.run()
    assert work.counted.said == ["open", "deliver", "confirm", "close"]
    assert work.codes == [None]


# --- several at once ---------------------------------------------------------------------------------------


def bystanders(work: Work) -> list[bool]:
    """Which of what was reported only happened to be under way."""
    return [isinstance(ended, PushOutcome) and ended.bystander for ended in work.reported]


@pytest.mark.parametrize(("refusal", "code"), [
    (Undelivered("instance_not_found"), "instance_not_found"), (OSError(errno.EIO, "broken"), "io_error")])
def test_instance_that_cannot_be_reached_is_the_matter_of_one_task(depot: Depot, refusal: Exception, code: str) -> None:
    """However many would have been pushed with it."""
    work = Work(depot, 3)
    work.counted.refusal = refusal
    work.run()
    assert work.counted.said == ["open"]
    assert (work.codes, bystanders(work)) == ([code] * 3, [False, True, True])


@pytest.mark.parametrize(("away", "code"), [(None, "connection_lost"), (Undelivered("incus_unreachable"), "incus_unreachable")])
def test_remote_is_asked_once_when_a_connection_is_lost(depot: Depot, away: CourierError | None, code: str) -> None:
    """Each of those that were under way ends with the answer."""
    work = Work(depot, 3)
    work.counted.loses, work.counted.away = True, away
    work.run()
    assert work.counted.said == ["open", "probe", "close"]
    assert (work.codes, bystanders(work)) == ([code] * 3, [True, False, True])
    assert all(isinstance(ended, PushOutcome) and ended.left_part for ended in work.reported)


def test_task_whose_bytes_are_gone_fails_alone(depot: Depot) -> None:
    """The others of its batch are pushed."""
    work = Work(depot, 3)
    depot.spool.remove([depot.queue.page(limit=3)[1].upload])
    work.run()
    assert sorted(work.codes, key=str) == [None, None, "bytes_missing"]


def test_task_that_is_cancelled_before_its_last_moment_fails_alone(depot: Depot) -> None:
    """It is asked for each one when its turn comes."""
    work = Work(depot, 3)
    ids = [task.task_id for task in depot.queue.page(limit=3)]
    work.counted.meanwhile = lambda: work.lane.interrupt(ids[0], cancelled=True)
    work.run()
    assert sorted(work.codes, key=str) == [None, None, "cancelled"]


def test_worker_that_has_lost_its_state_decides_nothing_about_its_tasks(depot: Depot) -> None:
    """Neither that they are dead letters, nor that they left no part file: they are another one's now."""
    work = Work(depot, 2)
    first, second = work.lane.hand_back()
    work.lane.add([first])
    work.lane.sweep([second])

    def lost() -> None:
        raise CannotStart("state_lost")

    work.fence = lost
    work.run()
    assert work.codes == ["shutdown", "shutdown"]


def test_disk_that_fails_at_one_task_fails_it_alone(depot: Depot) -> None:
    """And what is not known to be well is not used any more."""
    work = Work(depot, 3)
    failpoints.arm("push.write=EIO@2")
    work.run()
    failpoints.arm("")
    assert sorted(work.codes, key=str) == [None, None, "io_error"]
    assert work.counted.said == ["open", "deliver", "deliver", "confirm", "close"]
