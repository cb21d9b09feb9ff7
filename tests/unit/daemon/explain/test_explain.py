"""Why something waits: every reason, and its words."""

from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from daemon.errors import ERRORS
from daemon.explain import EXPLANATION, Ahead, Explanation, ServiceFacts, explain_instance, explain_task
from daemon.model.explained import explanation_lines
from daemon.model.task import Attempt, State, Task
from daemon.model.text import is_plain
from daemon.state.activity import Activity, Blocked, Pushing, RemoteStanding
from daemon.task_queue import Standing, Total
from tests.support.depot import an_upload

NOW = 2e9
KEY = "local/default/c1"
NAME = "c1"
UPLOAD = an_upload("/x", created_at=NOW - 600)
OLDER = an_upload("/x", created_at=NOW - 700)


def a_task(state: State = State.QUEUED, code: str | None = None, message: str | None = None, **values: Any) -> Task:
    """A task, and what became of it so far."""
    known: dict[str, Any] = {"order": 1, "upload": UPLOAD, "state": state, "updated_at": NOW - 60, "error_code": code,
                             "error_message": message}
    return Task(**known | values)


def doing(**values: Any) -> Activity:
    """What a worker tells that is well."""
    known: dict[str, Any] = {"at": NOW - 0.5, "pid": 7, "started_at": NOW - 900, "lanes": 1, "keeps": 1, "threads": 1,
                             "sessions": 1, "stalled": 0}
    return Activity(**known | values)


def service(activity: Activity | None = None, **values: Any) -> ServiceFacts:
    """A shard and its worker, which runs."""
    known: dict[str, Any] = {"shard": 3, "worker": 7, "worker_since": NOW - 900, "activity": activity or doing()}
    return ServiceFacts(**known | values)


def away(code: str = "incus_unreachable") -> ServiceFacts:
    """The worker says that the remote is away."""
    return service(doing(remotes=(RemoteStanding(
        remote="local", up=False, since=NOW - 30, code=code, message="it said no", next_try_at=NOW + 1),)))


def left_alone(code: str, next_try_at: float = NOW + 9) -> ServiceFacts:
    """The worker says that it leaves the instance alone."""
    return service(doing(blocked=(Blocked(instance_key=KEY, since=NOW - 40, code=code, message="it said no",
                                          next_try_at=next_try_at),)))


def pushing(task_id: str = UPLOAD.task_id) -> Pushing:
    """A file that is half there."""
    return Pushing(task_id=task_id, instance_key=KEY, path="/x", size_bytes=2048, sent_bytes=1024, since=NOW - 2)


def explained(task: Task, facts: ServiceFacts | None = None, ahead: Ahead | None = None, *, others: bool = True) -> Explanation:
    """The explanation of a task; without more its worker does its work and nothing comes before it."""
    return explain_task(task, NOW, facts or service(), ahead or Ahead(), name=NAME, others=others)


BLOCKER = Task(order=0, upload=OLDER, state=State.QUEUED, updated_at=NOW - 50)

#: A task, its service, what is ahead of it; whether it is stuck, its code, how its summary begins, what unblocks it, when
#: the next try is, and since when.
REASONS: dict[str, tuple[Task, ServiceFacts, Ahead, bool, str | None, str, str, float | None, float | None]] = {
    "delivered": (a_task(State.DELIVERED), service(), Ahead(), False, None, "It is in the instance.", "", None, NOW - 60),
    "superseded": (a_task(State.SUPERSEDED), service(), Ahead(), False, None, "A newer upload", "", None, NOW - 60),
    "cancelled": (a_task(State.CANCELLED), service(), Ahead(), False, None, "A person cancelled it.", "", None, NOW - 60),
    "dead letter": (a_task(State.FAILED, "not_allowed", "rule 3"), service(), Ahead(), True, "not_allowed",
                    "It failed, and is kept until a person decides. What the worker may deliver does not include this",
                    f"A person: incus-courier tasks retry {UPLOAD.task_id}", None, NOW - 60),
    "dead letter without a worker": (a_task(State.FAILED, "read_only"), service(worker=None), Ahead(), True, "read_only",
                                     "It failed", "A person: ", None, NOW - 60),
    "held": (a_task(State.HELD), service(worker=None), Ahead(), False, None, "It is held back.",
             f"A person: incus-courier tasks release {UPLOAD.task_id}", None, NOW - 60),
    "held after a try": (a_task(State.HELD, "target_full", "no space"), service(), Ahead(), False, "target_full",
                         "It is held back. When it was last tried: The instance's disk or quota is full.",
                         f"A person: incus-courier tasks release {UPLOAD.task_id}", None, NOW - 60),
    "held by a rebuild": (a_task(State.HELD, "order_unknown"), service(), Ahead(), False, "order_unknown",
                          "It is held back. The queue was rebuilt", "A person: ", None, NOW - 60),
    "no worker": (a_task(), service(worker=None, activity=None, last_at=NOW - 99), Ahead(), True, "no_worker",
                  "Shard 3 has no worker.", "It goes on by itself when the worker runs.", None, NOW - 99),
    "worker of a pushed task is gone": (a_task(State.PUSHING), service(worker=None), Ahead(), True, "no_worker",
                                        "Shard 3 has no worker.", "It goes on by itself", None, None),
    "worker starts": (a_task(), ServiceFacts(shard=3, worker=7, worker_since=NOW - 5), Ahead(), False, None,
                      "The worker of shard 3 is starting", "It goes on by itself when the worker is ready.", None, NOW - 5),
    "worker rebuilds": (a_task(), ServiceFacts(shard=3, worker=7, worker_since=NOW - 100), Ahead(), True, None,
                        "The worker of shard 3 is starting", "It goes on by itself", None, NOW - 100),
    "worker hangs": (a_task(), service(doing(at=NOW - 20)), Ahead(), True, "worker_silent",
                     "The worker of shard 3, process 7, hangs.", "It goes on by itself when", None, NOW - 20),
    "disk full": (a_task(), service(doing(code="queue_full", message="no room")), Ahead(), True, "queue_full",
                  "The worker of shard 3 cannot go on. There is no room", "It goes on by itself when that is over.", None, None),
    "database damaged": (a_task(), service(code="queue_damaged", message="malformed"), Ahead(), True, "queue_damaged",
                         "Shard 3's queue cannot be used. A shard's database is damaged", "It goes on by itself", None, None),
    "being moved": (a_task(), service(code="queue_moving", message="from 1 to 2 shards"), Ahead(), True, "queue_moving",
                    "Shard 3's queue cannot be used. The queue is being moved", "It goes on by itself", None, None),
    "being pushed": (a_task(State.PUSHING), service(doing(pushing=(pushing(),))), Ahead(), False, None,
                     "It is being pushed now.", "Nothing has to be done.", None, NOW - 60),
    "claimed": (a_task(State.PUSHING), service(), Ahead(), False, None, "It is in the worker's hands", "Nothing", None, NOW - 60),
    "remote away": (a_task(), away(), Ahead(), True, "incus_unreachable",
                    "The remote local is away. Incus does not answer.", "It goes on by itself as soon as the remote answers.",
                    NOW + 1, NOW - 30),
    "remote away, and put off for longer": (a_task(State.DEFERRED, "target_full", due_at=NOW + 50), away(), Ahead(), True,
                                            "incus_unreachable", "The remote local is away.", "It goes on", NOW + 50, NOW - 30),
    "stopped": (a_task(), left_alone("instance_stopped"), Ahead(), True, "instance_stopped",
                "The instance c1 takes nothing now. The instance is stopped.",
                "It goes on by itself as soon as the instance can be reached.", NOW + 9, NOW - 40),
    "frozen": (a_task(), left_alone("stalled"), Ahead(), True, "stalled", "The instance c1 takes nothing now. Nothing moved",
               "It is tried again by itself; at once with: incus-courier tasks flush --instance c1", NOW + 9, NOW - 40),
    "missing": (a_task(), left_alone("instance_not_found"), Ahead(), True, "instance_not_found",
                "The instance c1 takes nothing now. There is no such instance.", "It is tried again", NOW + 9, NOW - 40),
    "file server lost": (a_task(), left_alone("file_server_lost"), Ahead(), True, "file_server_lost",
                         "The instance c1 takes nothing now. Incus has lost its own file server", "It is tried again", NOW + 9,
                         NOW - 40),
    "hidden path": (a_task(State.DEFERRED, "hidden_when_stopped", due_at=NOW + 5), service(), Ahead(), True,
                    "hidden_when_stopped", "It waits for something. The instance is stopped, and",
                    "It goes on by itself when the instance starts.", NOW + 5, NOW - 600),
    "put off": (a_task(State.DEFERRED, "target_full", "no space", due_at=NOW + 5, history=(
        Attempt(at=NOW - 300, duration_s=1, code="target_full"), Attempt(at=NOW - 60, duration_s=1, code="target_full"))),
                service(), Ahead(tasks=4), True, "target_full",
                "It did not work, and is tried again. The instance's disk or quota is full.",
                f"It is tried again by itself; at once with: incus-courier tasks retry {UPLOAD.task_id}", NOW + 5, NOW - 300),
    "of an instance that was not named": (a_task(code="instance_stopped"), service(doing(more=9, more_blocked=9)), Ahead(), True,
                                          "instance_stopped", "It waits for something. The instance is stopped.",
                                          "It goes on by itself as soon as the instance can be reached.", None, NOW - 600),
    "what was the matter is over": (a_task(code="instance_stopped"), service(), Ahead(), False, None,
                                    "It waits for its turn.", "Nothing", None, NOW - 600),
    "behind an older one": (a_task(), service(), Ahead(tasks=1, blocker=BLOCKER), False, None,
                            f"It waits for an older upload to the same path ({OLDER.task_id}), which comes first.",
                            "It goes on by itself when that one is done.", None, NOW - 50),
    "behind one that is put off": (
        a_task(), service(), Ahead(blocker=replace(BLOCKER, state=State.DEFERRED, error_code="target_full", due_at=NOW + 8)),
        True, "target_full", "It waits for an older upload", "It goes on by itself", NOW + 8, NOW - 50),
    "behind a part file": (
        a_task(), service(), Ahead(blocker=replace(BLOCKER, state=State.CANCELLED, left_part=True)), False, None,
        f"It waits for an older upload to the same path ({OLDER.task_id}): what its push left in the instance is removed",
        "It goes on by itself when that is done.", None, NOW - 50),
    "next": (a_task(), service(), Ahead(), False, None, "It waits for its turn. It is the next one", "Nothing", None, NOW - 600),
    "one of many": (a_task(), service(), Ahead(tasks=42), False, None, "It waits for its turn. 42 of its instance come before it.",
                    "Nothing", None, NOW - 600),
    "one of many instances": (a_task(), service(doing(lanes=64)), Ahead(), False, None,
                              "It waits for its turn. It is the next one of its instance. The worker has 64 instances in hand.",
                              "Nothing", None, NOW - 600),
    "one of very many": (a_task(), service(), Ahead(tasks=200), False, None, "It waits for its turn. 200 or more", "Nothing", None,
                         NOW - 600),
    "error of another version": (a_task(State.FAILED, "moon_phase", "it is full"), service(), Ahead(), True, "moon_phase",
                                 "It failed, and is kept until a person decides. It said moon_phase.", "A person", None, NOW - 60),
}


@pytest.mark.parametrize("reason", REASONS)
def test_task_is_explained_by_the_reason_why_it_waits(reason: str) -> None:
    """What is in the way, since when, what it said, what to do, what unblocks it, and when it is tried next."""
    task, facts, ahead, stuck, code, summary, unblocks, next_try_at, since = REASONS[reason]
    found = explained(task, facts, ahead)
    assert found.summary.startswith(summary)
    assert found.unblocks.startswith(unblocks)
    assert (found.stuck, found.code, found.next_try_at, found.since) == (stuck, code, next_try_at, since)
    assert found.hint == (ERRORS[code].hint if code in ERRORS else None)
    assert found.waiting == (ahead.tasks if task.state in {State.QUEUED, State.DEFERRED} else 0)


@pytest.mark.parametrize("code", [code for code, kind in ERRORS.items() if kind.action.value in {"wait", "retry", "dead-letter"}])
def test_every_error_of_a_delivery_has_words(code: str) -> None:
    """Whatever kept a task back, its title, its hint and what unblocks it are told, for the task and its instance."""
    states = {"dead-letter": State.FAILED}
    task = a_task(states.get(ERRORS[code].action.value, State.DEFERRED), code, due_at=NOW + 1)
    for found in (explained(task), explained(a_task(), left_alone(code)), explained(a_task(), away(code))):
        assert ERRORS[code].title in found.summary
        assert found.hint == ERRORS[code].hint
        assert found.unblocks
        assert found.stuck


def test_what_was_given_up_is_explained_by_its_cause() -> None:
    """What to do is what the last error asks for, and then to try again."""
    found = explained(a_task(State.FAILED, "gave_up", "target_full: no space left"))
    assert found.hint == f"{ERRORS['target_full'].hint} {ERRORS['gave_up'].hint}"


def test_nothing_is_told_of_other_tasks_to_who_may_not_see_them() -> None:
    """Neither the older one of the path nor what else is pushed into the instance is named."""
    facts = service(doing(pushing=(pushing(), pushing(OLDER.task_id))))
    blocked = Ahead(blocker=replace(BLOCKER, state=State.DEFERRED, error_code="target_full", error_message="secret"))
    assert [file.task_id for file in explained(a_task(), facts).pushing] == [UPLOAD.task_id, OLDER.task_id]
    found = explained(a_task(), facts, blocked, others=False)
    assert [file.task_id for file in found.pushing] == [UPLOAD.task_id]
    assert OLDER.task_id not in str(found)
    assert "secret" not in str(found)


# --- an instance -------------------------------------------------------------------------------------------


def stands(**tasks: int) -> Standing:
    """How the instance stands: numbers of tasks by states."""
    return Standing(instance_key=KEY, totals={State[name.upper()]: Total(number, number) for name, number in tasks.items()},
                    oldest_at=NOW - 600)


def of_instance(standing: Standing, *tasks: Task, facts: ServiceFacts | None = None, others: bool = True) -> Explanation:
    """The explanation of the instance."""
    return explain_instance(standing, tasks, NOW, facts or service(), name=NAME, others=others)


PUT_OFF = a_task(State.DEFERRED, "target_full", "no space", due_at=NOW + 5)
DEAD = a_task(State.FAILED, "read_only", "ro")

INSTANCES: dict[str, tuple[Explanation, bool, str | None, str, int]] = {
    "nothing": (of_instance(stands()), False, None, "Nothing waits for it.", 0),
    "nothing without a worker": (of_instance(stands(delivered=3), facts=service(worker=None)), False, None,
                                 "Nothing waits for it.", 0),
    "a queue that cannot be read": (of_instance(stands(), facts=service(code="queue_damaged", message="x")), True,
                                    "queue_damaged", "Shard 3's queue cannot be used.", 0),
    "its turn": (of_instance(stands(queued=2), a_task()), False, None,
                 "2 tasks wait. One of them waits for its turn.", 2),
    "no worker": (of_instance(stands(queued=2), a_task(), facts=service(worker=None)), True, "no_worker",
                  "2 tasks wait. Shard 3 has no worker.", 2),
    "stopped": (of_instance(stands(queued=1, delivered=9), a_task(), facts=left_alone("instance_stopped")), True,
                "instance_stopped", "1 task waits. The instance c1 takes nothing now. The instance is stopped.", 1),
    "one of its tasks": (of_instance(stands(queued=1, deferred=1), a_task(), PUT_OFF), True, "target_full",
                         "2 tasks wait. One of them did not work, and is tried again.", 2),
    "one task alone": (of_instance(stands(deferred=1), PUT_OFF), True, "target_full",
                       "1 task waits. It did not work, and is tried again. The instance's disk or quota is full.", 1),
    "held": (of_instance(stands(held=2), a_task(State.HELD)), False, None, "2 tasks wait. One of them is held back.", 2),
    "held, and stopped": (of_instance(stands(held=2), a_task(State.HELD), facts=left_alone("instance_stopped")), False, None,
                          "2 tasks wait. One of them is held back.", 2),
    "held and its turn": (of_instance(stands(held=1, queued=1), a_task(State.HELD), a_task()), False, None,
                          "2 tasks wait. One of them waits for its turn.", 2),
    "dead letters": (of_instance(stands(failed=2), DEAD), True, "read_only",
                     "2 tasks failed, and are kept until a person decides. The destination is on a read-only", 0),
    "dead letters besides": (of_instance(stands(failed=1, queued=1), DEAD, a_task(), facts=away()), True,
                             "incus_unreachable", "1 task waits. The remote local is away. Incus does not answer. 1 task failed,", 1),
    "tasks that cannot be read": (of_instance(stands(queued=1)), False, None, "1 task waits.", 1),
}


@pytest.mark.parametrize("reason", INSTANCES)
def test_instance_is_explained_by_what_keeps_most_of_it_waiting(reason: str) -> None:
    """What holds for all of it comes first, then what one of its tasks says; dead letters are never left out."""
    found, stuck, code, summary, waiting = INSTANCES[reason]
    assert found.summary.startswith(summary)
    assert (found.stuck, found.code, found.waiting) == (stuck, code, waiting)


def test_task_that_an_instance_is_explained_by_is_named_beside_the_sentence() -> None:
    """Also the dead letter; and none where all of it waits."""
    told = of_instance(stands(queued=1, deferred=1), a_task(upload=OLDER), PUT_OFF)
    assert (told.task_id, of_instance(stands(failed=1), DEAD).task_id) == (UPLOAD.task_id, UPLOAD.task_id)
    assert UPLOAD.task_id not in told.summary
    assert f"task:        {UPLOAD.task_id}" in explanation_lines(told.as_json(), NOW)
    assert of_instance(stands(queued=1), a_task(), facts=away()).task_id is None


def test_instance_is_tried_next_when_the_first_of_its_tasks_is_due() -> None:
    """Where all of them are put off for longer than it is left alone; one that is ready is tried as soon as it may be."""
    facts = left_alone("instance_not_found")
    until = of_instance(stands(queued=1), a_task(), facts=facts).next_try_at
    assert until is not None
    later = [a_task(State.DEFERRED, "instance_not_found", due_at=until + wait) for wait in (90, 50)]
    assert of_instance(stands(deferred=2), *later, facts=facts).next_try_at == until + 50
    assert of_instance(stands(deferred=2, queued=1), *later, a_task(), facts=facts).next_try_at == until


def test_instance_says_how_all_of_it_is_tried_again() -> None:
    """The commands name the instance, whatever its name makes of a shell's line."""
    assert of_instance(stands(deferred=1), PUT_OFF).unblocks.endswith("tasks flush --instance c1")
    assert of_instance(stands(failed=1), DEAD).unblocks.endswith("tasks retry --state failed --instance c1")
    evil = explain_instance(stands(failed=1), [DEAD], NOW, service(), name="$(reboot)/c1")
    assert evil.unblocks.endswith("--instance '$(reboot)/c1'")


def test_outsiders_are_not_told_what_the_service_s_own_errors_said() -> None:
    """Those of a task stay: they are about the instance. How much else the worker does is not told where tasks are hidden."""
    for hidden in (service(code="queue_failed", message="/var/x"), away(), service(doing(code="queue_full", message="/var/x"))):
        assert explained(a_task(), hidden).for_outsiders().message is None
    assert explained(PUT_OFF).for_outsiders().message == "no space"
    busy = service(doing(lanes=9))
    assert "9" in explained(a_task(), busy).summary
    assert "9" not in explained(a_task(), busy, others=False).summary


def test_instance_is_explained_without_naming_tasks_to_who_may_not_see_them() -> None:
    """Neither ids nor what their errors said are told then."""
    facts = service(doing(pushing=(pushing(),)))
    for found in (of_instance(stands(deferred=1), PUT_OFF, facts=facts, others=False),
                  of_instance(stands(failed=1), DEAD, facts=facts, others=False)):
        assert (found.pushing, found.message) == ((), None)
        assert UPLOAD.task_id not in str(found)


# --- how it is written -------------------------------------------------------------------------------------


def test_explanation_is_written_as_json_with_times_for_people() -> None:
    """Every key is there, whatever is known."""
    found = explained(a_task(State.DEFERRED, "target_full", "no space", due_at=NOW + 5), service(doing(pushing=(pushing(),))))
    assert found.as_json() == {
        "stuck": True, "summary": "It did not work, and is tried again. The instance's disk or quota is full.", "task_id": None,
        "since": "2033-05-18T03:23:20.000Z",
        "error": {"code": "target_full", "message": "no space", "hint": "Make room in the instance."},
        "unblocks": found.unblocks, "next_try_at": "2033-05-18T03:33:25.000Z",
        "pushing": [{"task_id": UPLOAD.task_id, "path": "/x", "size_bytes": 2048, "sent_bytes": 1024,
                     "since": "2033-05-18T03:33:18.000Z"}],
        "waiting": 0}
    nothing = explained(a_task(State.CANCELLED)).as_json()
    for made in (found.as_json(), nothing):
        jsonschema_rs.validate(dict(EXPLANATION), made)
    assert (nothing["error"], nothing["next_try_at"], nothing["pushing"]) == (None, None, [])


def test_explanation_is_written_in_lines_for_a_terminal() -> None:
    """What it is, since when, what it said, what to do, when it goes on, and what is being pushed."""
    found = explained(PUT_OFF, service(doing(pushing=(pushing(),))))
    assert explanation_lines(found.as_json(), NOW) == [
        "It did not work, and is tried again. The instance's disk or quota is full.",
        "since:       2033-05-18T03:23:20.000Z (10m ago)",
        "error:       target_full: no space",
        "what to do:  Make room in the instance.",
        f"goes on:     It is tried again by itself; at once with: incus-courier tasks retry {UPLOAD.task_id}",
        "next try:    2033-05-18T03:33:25.000Z (in 5s)",
        "pushing now: /x, 1.0 KiB of 2.0 KiB, for 2s"]


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nerror: none", "\u202e", "\ud800", "x" * 4096])
def test_nothing_in_a_name_or_a_message_changes_what_a_terminal_shows(evil: str) -> None:
    """Each line is one line, and shows what it holds."""
    task = a_task(State.DEFERRED, "target_full", evil, due_at=NOW + 5)
    facts = service(doing(pushing=(replace(pushing(), path=f"/{evil}"),)))
    lines = [line for found in (explained(task, facts), explain_instance(stands(deferred=1), [task], NOW, facts, name=evil))
             for line in explanation_lines(found.as_json(), NOW)]
    assert all(map(is_plain, lines))
    assert len(lines) == 15
