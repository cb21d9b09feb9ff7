"""Cancelling the task of an upload that is ended."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from api.acting.cancelling import Canceller
from api.acting.errands import Errand, Errands, Report
from daemon.access.caller import Caller, Link
from daemon.model.grant import Grant, Permission
from daemon.model.upload import Destination
from daemon.task_queue import Command, CommandAnswer

TO = Destination("local", "default", "c1", "/x")


class Asked:
    """Errands to a worker whose answer is known."""

    def __init__(self, report: Report) -> None:
        """Nothing was asked yet."""
        self.commands: list[tuple[int, Command]] = []
        self._report = report

    async def ask(self, shard: int, commands: Sequence[Command]) -> Errand:
        """Remember it."""
        self.commands += [(shard, command) for command in commands]
        return Errand(shard, "epoch", (1,))

    async def report(self, _errand: Errand, _patience_s: float) -> Report:
        """What the worker says."""
        return self._report


def cancelled(report: Report, grant: Grant) -> tuple[bool, list[tuple[int, Command]]]:
    """Whether a task counts as cancelled, and what was asked for that."""
    asked = Asked(report)
    caller = Caller(name="token:ci", links=(Link("token:ci", grant),))
    canceller = Canceller(cast(Errands, asked), 4)
    return asyncio.run(canceller.cancel(caller, TO, "an id")), asked.commands


@pytest.mark.parametrize(("report", "expected"), [
    (Report({1: CommandAnswer(number=1, changed=1)}, complete=True, attended=True), True),
    (Report({1: CommandAnswer(number=1, refused=1)}, complete=True, attended=True), False),
    (Report({}, complete=False, attended=False), True),
])
def test_worker_is_asked_and_what_it_says_counts(report: Report, *, expected: bool) -> None:
    """One that does not answer in time does it later: what it has not begun waits."""
    done, commands = cancelled(report, Grant(may=frozenset({Permission.CANCEL})))
    assert done is expected
    assert commands == [(TO.shard(4), Command(verb="cancel", task_id="an id", asked_by="token:ci"))]


def test_who_may_not_cancel_does_not_by_ending_his_upload() -> None:
    """Nobody is asked."""
    assert cancelled(Report({}, complete=True, attended=True), Grant(may=frozenset({Permission.UPLOAD}))) == (False, [])
