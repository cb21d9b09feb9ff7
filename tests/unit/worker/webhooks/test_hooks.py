import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.config import Config
from daemon.model.task import State
from daemon.task_queue import Notice, NoticeState, WebhookStanding
from daemon.webhooks.schedule import TryAnswer
from daemon.webhooks.telling import a_test
from tests.support.depot import Depot
from tests.support.receiver import SECRET
from worker.webhooks import hooks
from worker.webhooks.hooks import Webhooks
from worker.webhooks.link import SenderLink, SenderLost, SenderUp, Tried

TAKEN = TryAnswer(status=204, detail="HTTP 204")
REFUSED = TryAnswer(status=503, detail="HTTP 503")


class Link:
    """A link to the sender that only notes what it is given."""

    def __init__(self) -> None:
        self.opened: list[Path] = []
        self.handed: list[Notice] = []

    def open(self, path: Path, answer_s: float) -> None:
        """Note it."""
        self.opened.append(path)

    def hand_over(self, notices: list[Notice]) -> None:
        """Note them."""
        self.handed += notices


class Yard:
    """The webhooks of a shard, and a clock that a test sets."""

    def __init__(self, depot: Depot, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.depot = depot
        self.link = Link()
        self.hooks = Webhooks(0, depot.queue, cast(SenderLink, self.link), config(*names))
        self.log: list[str] = []
        monkeypatch.setattr(hooks, "_REST_S", 0.0)
        monkeypatch.setattr(hooks, "log", lambda event, **_: self.log.append(event))

    def turn(self) -> list[Notice]:
        """Turn until nothing more is to be done now; return what was handed over."""
        before = len(self.link.handed)
        while self.hooks.turn():
            pass
        return self.link.handed[before:]

    def tried(self, notices: list[Notice], answer: TryAnswer) -> list[Notice]:
        """Tell how tries ended, and turn."""
        for notice in notices:
            self.hooks.tried(Tried(notice, answer))
        return self.turn()

    def ended(self) -> bool:
        """True when the worker need not wait any more."""
        return self.hooks.ended

    def standing(self, name: str = "ci") -> WebhookStanding:
        """How a webhook stands."""
        return next(found for found in self.depot.queue.webhook_standings() if found.name == name)


def config(*names: str) -> Config:
    """A configuration with these webhooks."""
    return Config.model_validate({"webhooks": [
        {"name": name, "url": "https://a.example/", "secret": SECRET} for name in names]})


@pytest.fixture
def yard(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Yard]]:
    """What makes a shard with webhooks."""
    with Depot(quick_path / "state") as depot:
        yield lambda *names: Yard(depot, monkeypatch, *names)


def delivered(depot: Depot, number: int) -> list[str]:
    """So many uploads that are in their instance."""
    uploads = [depot.accept(f"/{index}") for index in range(number)]
    for upload in uploads:
        depot.settle(upload, State.DELIVERED)
    return [upload.task_id for upload in uploads]


def test_without_webhooks_nothing_is_done(yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """No message, no sender, no transaction, and no event is kept."""
    quiet = yard()
    quiet.turn()
    delivered(quiet.depot, 2)
    monkeypatch.setattr(quiet.depot.queue, "write", None)
    monkeypatch.setattr(quiet.depot.queue, "read", None)
    assert quiet.turn() == []
    assert quiet.link.opened == []


def test_messages_go_when_the_sender_is_there_and_again_when_it_was_lost(yard: Callable[..., Yard]) -> None:
    """Under the same ids; what was answered goes no more."""
    busy = yard("ci")
    busy.turn()
    assert busy.link.opened == []
    task_ids = delivered(busy.depot, 3)
    assert busy.turn() == []
    assert len(busy.link.opened) == 1
    busy.hooks.sender_up(SenderUp())
    first = busy.turn()
    assert [notice.task_id for notice in first] == task_ids
    assert busy.tried(first[:1], TAKEN) == []
    busy.hooks.sender_lost(SenderLost("gone"))
    assert busy.turn() == []
    busy.hooks.sender_up(SenderUp())
    assert [notice.message_id for notice in busy.turn()] == [notice.message_id for notice in first[1:]]
    assert busy.log == ["webhook.delivered", "sender.away", "sender.back"]


def test_webhook_that_fails_gets_one_at_a_time_and_delays_no_other(yard: Callable[..., Yard]) -> None:
    """More again as they arrive."""
    busy = yard("ci", "other")
    busy.hooks.sender_up(SenderUp())
    busy.turn()
    delivered(busy.depot, 20)
    first = busy.turn()
    mine = [notice for notice in first if notice.webhook == "ci"]
    assert (len(mine), len(first)) == (8, 16)
    more = busy.tried(mine, REFUSED)
    assert [notice.webhook for notice in more] == ["ci"]
    more = busy.tried(more, TAKEN)
    assert len(more) == 2
    assert len(busy.tried(more, TAKEN)) == 8
    assert (busy.log.count("webhook.down"), busy.log.count("webhook.up")) == (1, 1)
    [other] = [found for found in busy.depot.queue.webhook_standings() if found.name == "other"]
    assert other.pending == 20


def test_gone_disables(yard: Callable[..., Yard]) -> None:
    """Nothing more goes until a person enables it; what happens is kept."""
    busy = yard("ci")
    busy.hooks.sender_up(SenderUp())
    busy.turn()
    delivered(busy.depot, 1)
    assert busy.tried(busy.turn(), TryAnswer(status=410, detail="HTTP 410")) == []
    delivered(busy.depot, 1)
    assert busy.turn() == []
    assert (busy.standing().pending, busy.standing().disabled_why) == (2, "it answered 410")
    busy.depot.queue.disable("ci", None)
    assert len(busy.turn()) == 1
    assert "webhook.disabled" in busy.log


def test_message_that_was_tried_ten_times_is_given_up_and_kept(yard: Callable[..., Yard]) -> None:
    """The log says so."""
    busy = yard("ci")
    busy.hooks.sender_up(SenderUp())
    busy.turn()
    delivered(busy.depot, 1)
    [notice] = busy.turn()
    while busy.standing().pending:
        busy.tried([notice], REFUSED)
        [notice] = busy.depot.queue.notices("ci", None, None, 9)
    assert (notice.attempts, notice.state, notice.detail) == (10, NoticeState.FAILED, "HTTP 503")
    assert busy.log.count("webhook.deferred") == 9
    assert busy.log.count("webhook.given_up") == 1


def test_outbox_is_bounded_and_says_what_it_gives_up(yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many that wait, and all of a webhook that is configured no more."""
    monkeypatch.setattr(hooks, "_MOST_PENDING", 2)
    busy = yard("ci")
    busy.depot.queue.post([a_test(name, time.time() + number) for number in range(5) for name in ("ci", "old")])
    busy.turn()
    assert (busy.standing().pending, busy.standing().failed) == (2, 3)
    assert (busy.standing("old").pending, busy.standing("old").failed) == (0, 5)
    assert busy.log.count("webhook.outbox_full") == 2
    busy.hooks.configure(config())
    busy.turn()
    assert busy.standing().failed == 5
    assert busy.depot.queue.untold(9) is None


def test_worker_that_ends_waits_for_what_is_under_way(yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment, and hands nothing more over."""
    busy = yard("ci")
    busy.hooks.sender_up(SenderUp())
    busy.turn()
    delivered(busy.depot, 1)
    notices: list[Any] = busy.turn()
    busy.hooks.begin_drain()
    assert not busy.ended()
    delivered(busy.depot, 1)
    assert busy.turn() == []
    busy.tried(notices, TAKEN)
    assert busy.ended()
    assert busy.standing().delivered == 1
    monkeypatch.setattr(hooks, "_DRAIN_S", 0.0)
    busy.hooks._traffic["ci"].under_way.add("msg_x")
    busy.hooks.begin_drain()
    assert busy.ended()
