"""What commands show of a service, whichever way they reach it; and how shards become one."""

from collections.abc import Iterator
from typing import Any

import pytest

from daemon.cli.all_shards import joined
from daemon.cli.complete import ids, instances
from daemon.cli.tail import event_line, tail
from daemon.cli.task_list import list_tasks
from daemon.cli.top import overview_lines, sparkline
from daemon.cli.wait import exit_code, wait_for_instance, wait_for_tasks
from daemon.model.seat import BUSIEST, Overview, SearchedTasks, TaskFilter, TaskReply, Values, instance_words
from daemon.model.task import State, Task
from daemon.model.text import is_plain
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, EXIT_UNDECIDED
from daemon.task_queue import FoundTasks
from tests.support.depot import an_upload, new_id

EVIL = "/a\x1b[31m\n\u202eb"
#: When tasks were accepted, and changed last.
AT = "2030-01-31T12:00:00.000Z"


def task(task_id: str, state: str = "queued", path: str = "/a") -> Values:
    """A task as JSON values."""
    return {"id": task_id, "state": state, "remote": "local", "project": "default", "instance": "c1", "path": path, "size": 1,
            "attempts": 0, "created_at": AT, "updated_at": AT, "error": None}


class Pretended:
    """A service with these tasks, which are looked at one by one."""

    def __init__(self, *tasks: Values, later: tuple[Values, ...] = (), events: tuple[Values | None, ...] = ()) -> None:
        self.tasks, self.later, self.events = list(tasks), list(later), events

    def name_of(self, values: Values) -> str:
        """The instance."""
        return instance_words(values)

    def find(self, task_id: str, wait_s: float = 0.0) -> Values | None:
        """The task, as it is later if it is waited for."""
        among = [*self.later, *self.tasks] if wait_s else self.tasks
        return next((one for one in among if one["id"] == task_id), None)

    def search(self, wanted: TaskFilter, after: str | None, limit: int, patience_s: float = 0.0) -> SearchedTasks:
        """One task at most, whether it is wanted or not."""
        left = [one for one in self.tasks if after is None or one["id"] < after]
        known = {state.label for state in wanted.states}
        found = tuple(one for one in left[:1] if not known or one["state"] in known)
        return SearchedTasks(found, left[0]["id"] if len(left) > 1 else None)

    def happenings(self, wanted: TaskFilter) -> Iterator[Values | None]:
        """What happens."""
        yield from self.events

    def explain(self, task_id: str | None, instance: str | None) -> Values | None:
        """Nothing."""

    def overview(self, most: int = BUSIEST) -> Overview:
        """Nobody asks."""
        raise AssertionError

    def act(self, verb: str, wanted: TaskFilter, *, force: bool, wait: bool) -> tuple[TaskReply, ...]:
        """Nobody asks."""
        raise AssertionError

    def save(self, task_id: str, sink: int) -> bool:
        """Nobody asks."""
        raise AssertionError

    def names(self, beginning: str) -> list[str]:
        """Names, and what is none."""
        return ["c1", "c1", "eu:shop/c2", "c3;reboot", EVIL]

    def unread(self) -> list[str]:
        """All can be read."""
        return []


def test_list_is_filled_from_pages_that_find_less(capsys: pytest.CaptureFixture[str]) -> None:
    """A page may hold nothing though there is more behind it; that there is more is said, and where to go on."""
    first, *others = sorted((new_id() for _ in range(4)), reverse=True)
    seat = Pretended(task(first, "held"), *(task(one, "failed", EVIL) for one in others))
    wanted = TaskFilter(states=frozenset({State.FAILED}))
    assert list_tasks(seat, wanted, limit=2, after=None, as_json=False) == EXIT_OK
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["id", *others[:2]]
    assert err == f"There are more: add --after {others[1]}\n"
    assert all(map(is_plain, out.splitlines()))
    assert list_tasks(seat, wanted, limit=3, after=None, as_json=True) == EXIT_OK
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("states", "code"), [
    ([], EXIT_OK), (["delivered"], EXIT_OK), (["delivered", "queued"], EXIT_UNDECIDED), (["queued", "failed"], EXIT_FAILED),
    (["superseded"], EXIT_FAILED), (["cancelled"], EXIT_FAILED), ([None, "delivered"], EXIT_FAILED), (["held"], EXIT_UNDECIDED),
])
def test_wait_ends_well_when_all_is_delivered(states: list[str | None], code: int) -> None:
    """What is not delivered for sure comes before what is not known yet."""
    assert exit_code(states) == code


def test_wait_tells_what_became_of_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is known; what is not known in time stays as it was."""
    one, other = new_id(), new_id()
    seat = Pretended(task(one), task(other), later=(task(one, "delivered", EVIL),))
    assert wait_for_tasks(seat, [one], timeout_s=None, as_json=False) == EXIT_OK
    assert capsys.readouterr().out == f"{one}  delivered  c1/a\\x1b[31m\\n\\u202eb\n"
    assert wait_for_tasks(seat, [other], timeout_s=0, as_json=False) == EXIT_UNDECIDED
    assert wait_for_tasks(seat, [new_id()], timeout_s=None, as_json=False) == EXIT_FAILED


def test_wait_for_an_instance_fails_only_for_what_failed_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    """A dead letter of before is no failure of what was waited for."""
    older, newer = sorted((new_id(), new_id()))
    seat = Pretended(task(newer, "held"), task(older, "failed"))
    assert wait_for_instance(seat, "c1", timeout_s=0, as_json=True) == EXIT_UNDECIDED
    seat.tasks = [task(older, "failed")]
    assert wait_for_instance(seat, "c1", timeout_s=None, as_json=False) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[1] == "c1: nothing waits"


def test_tail_shows_hostile_text_in_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """What may have been missed is said on stderr."""
    event = {**task(""), "task_id": new_id(), "at": AT, "error_code": "gave_up", "path": EVIL}
    tail(Pretended(events=(event, None)), TaskFilter(), as_json=False)
    out, err = capsys.readouterr()
    assert out == f"{AT}  queued     {event['task_id']}  c1/a\\x1b[31m\\n\\u202eb  gave_up\n"
    assert err.startswith("Something may have been missed")
    assert event_line({**event, "error_code": None, "path": "/b"}, "c1").endswith("c1/b")


def test_only_names_are_completed() -> None:
    """They end in a shell's hands: what no instance and no task can be called is not offered."""
    found = new_id()
    assert instances(Pretended(), "") == ["c1", "eu:shop/c2"]
    assert ids(Pretended(task(found)), found[:8]) == [found]
    assert ids(Pretended(task("$(reboot)")), "") == []


def test_shards_are_joined_down_to_where_all_were_looked_through() -> None:
    """What one shard has found further down waits until the others were looked at so far; no task comes twice."""
    names = sorted((new_id() for _ in range(4)), reverse=True)
    tasks = [Task(order=1, upload=an_upload(task_id=name), state=State.QUEUED) for name in names]
    found = joined([FoundTasks((tasks[0], tasks[3]), None), FoundTasks((tasks[0], tasks[1]), names[2])], 10)
    assert ([one.task_id for one in found.tasks], found.next_before) == (names[:2], names[2])
    found = joined([FoundTasks((tasks[0], tasks[2]), None), FoundTasks((tasks[1],), None)], 2)
    assert ([one.task_id for one in found.tasks], found.next_before) == (names[:2], names[1])
    assert joined([FoundTasks((), None)], 2) == FoundTasks((), None)


@pytest.mark.parametrize(("values", "bars"), [
    ((), ""), ((None, None), ""), ((0, 0), "▁▁"), ((0, 1, None, 4), "▁▃ █"), ((0.001, 1000.0), "▂█"), ((None, 5), " █"),
])
def test_sparkline_is_as_high_as_the_largest(values: tuple[float | None, ...], bars: str) -> None:
    """What is little is seen all the same; what nobody counted is a gap."""
    assert sparkline(values, len(values)) == bars


def test_sparkline_shows_the_largest_of_many() -> None:
    """A short burst does not vanish."""
    assert sparkline([0] * 50 + [7] + [0] * 69, 12) == "▁▁▁▁▁█▁▁▁▁▁▁"


def test_top_says_first_what_needs_a_person() -> None:
    """Then what comes and goes, the shards, the remotes and the instances; no cell breaks a line."""
    counts = {state.label: {"tasks": 1, "bytes": 2} for state in State}
    whole: dict[str, Any] = {
        "now": AT, "version": "1", "rates": dict.fromkeys(("uploads_s", "deliveries_s", "upload_bytes_s", "delivery_bytes_s")),
        "counts": counts, "oldest_age_s": 7300.0, "disk": {"free_bytes": None, "total_bytes": 2048, "spool_bytes": 0},
        "partials": {"number": 0, "bytes": 0}, "problems": [{"message": "Away.", "hint": "Look.", "instance": "c1"}] * 9,
        "shards": [{"shard": 0, "worker": None, "lanes": 0, "sessions": 0, "pushing": 0, "fault": "No\nworker."}],
        "remotes": [{"remote": "eu", "up": False, "since": AT, "error": {"code": "incus_unreachable"}}]}
    row = {"name": "c1", "waiting": 3, "counts": counts, "oldest_age_s": None, "stuck": True, "why": EVIL}
    lines = list(overview_lines(Overview(whole, (row,))))
    assert lines[1:3] == ["! c1: Away.", "  Look."]
    assert "! and 1 more" in lines
    assert any(line.split() == ["in", "-/s,", "-/s"] for line in lines)
    assert any(line.split()[:2] == ["0", "none"] and line.endswith("No\\nworker.") for line in lines)
    assert any(line.startswith("eu") and "away: incus_unreachable" in line for line in lines)
    assert lines[-1].split()[:2] == ["c1", "3"]
    assert all(map(is_plain, lines))
    assert "Nothing needs a person." in list(overview_lines(Overview({**whole, "problems": []}, ())))
