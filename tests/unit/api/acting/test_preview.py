"""Choosing tasks: up to a number, for a bounded time, and so that what is applied is in order."""

from collections.abc import Iterator

import pytest

from api.acting import preview as module
from api.acting.preview import SAMPLES, choose, read_preview
from daemon.config import Config
from daemon.model.task import FINISHED, State, Task
from daemon.model.upload import first_id_of
from tests.support.depot import an_upload


def tasks(number: int) -> list[Task]:
    """Dead letters, newest first."""
    found = [Task(order=order, upload=an_upload(f"/{order}", bytes(order)), state=State.FAILED) for order in range(number)]
    return found[::-1]


def test_members_are_kept_oldest_first_and_the_newest_are_shown() -> None:
    """Of one path the newest is asked for last."""
    found = tasks(9)
    chosen = choose(found, 1)
    assert chosen.members == {0: [task.task_id for task in found[::-1]]}
    assert chosen.samples == found[:SAMPLES]
    assert (chosen.size_bytes, chosen.cut) == (sum(range(9)), False)
    assert sum(map(len, choose(found, 64).members.values())) == 9


def test_what_is_more_than_a_selection_may_have_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, by time, and where the process is to end; what was found stays."""
    monkeypatch.setattr(module, "MAX_MEMBERS", 4)
    assert [(len(chosen.members[0]), chosen.cut) for chosen in (choose(tasks(4), 1), choose(tasks(5), 1))] == [
        (4, False), (4, True)]
    assert choose(tasks(1), 1, ended=lambda: True).cut
    monkeypatch.setattr(module, "MAX_LOOKING_S", -1.0)
    assert choose(tasks(1), 1).cut


def test_no_more_is_read_than_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of millions is not gone through."""
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    read: list[Task] = []

    def endless() -> Iterator[Task]:
        while True:
            read.append(tasks(1)[0])
            yield read[-1]

    choose(endless(), 1)
    assert len(read) == 3


def test_a_filter_says_which_states_are_acted_on() -> None:
    """Those that fit the action; finished tasks are forgotten only where their state is named."""
    wish = read_preview({"action": "delete", "filter": {}}, Config())
    assert wish.question.states == wish.states == {State.FAILED}
    wish = read_preview({"action": "delete", "filter": {"state": [state.label for state in FINISHED] + ["held"]}}, Config())
    assert wish.question.states == FINISHED
    assert wish.states == FINISHED | {State.FAILED}
    wish = read_preview({"action": "cancel", "filter": {"state": "deferred", "before": "2030-01-31T12:00:00Z"}}, Config())
    assert wish.question.states == {State.DEFERRED}
    assert State.QUEUED in wish.states
    assert wish.question.after == first_id_of(1896091200.0)
