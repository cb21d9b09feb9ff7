"""What needs a person, in the order in which it does."""

from typing import Any

from daemon.errors import Rejected
from daemon.explain import Explanation, ServiceFacts
from daemon.explain.problems import MOST, MOST_INSTANCES, DiskRoom, in_order, late
from daemon.explain.standing import remotes_of
from daemon.state.activity import Activity, RemoteStanding

NOW = 1_700_000_000.0
AWAY = RemoteStanding(remote="far", up=False, since=NOW - 60, code="incus_refused", message="No.")
UP = RemoteStanding(remote="far", up=True, since=NOW - 90)


def serving(shard: int, *remotes: RemoteStanding, at: float = NOW) -> ServiceFacts:
    """A shard whose worker does its work, and told so then."""
    told = Activity(at=at, pid=7, started_at=NOW - 100, lanes=1, keeps=0, threads=1, sessions=0, stalled=0, remotes=remotes)
    return ServiceFacts(shard=shard, worker=7, worker_since=NOW - 100, activity=told)


def stuck(code: str | None, summary: str = "3 tasks wait.") -> Explanation:
    """What is stuck."""
    return Explanation(stuck=True, summary=summary, code=code, hint="Mend it.")


def found(**known: Any) -> list[tuple[str, str | None]]:
    """The codes of the problems, and their instances."""
    nothing: dict[str, Any] = {"now": NOW, "services": [serving(0)], "reasons": [], "remotes": [], "room": DiskRoom(), "stuck": [],
                               "dead": 0}
    return [(problem.code, problem.instance) for problem in in_order(**{**nothing, **known})]


def test_nothing_needs_a_person_when_all_is_well() -> None:
    """Also where something waits, or a remote is up."""
    assert found(remotes=[UP], stuck=[("c1", Explanation(stuck=False, summary="1 task waits."))]) == []


def test_what_stops_everything_comes_first_and_dead_letters_last() -> None:
    """Shards, what keeps uploads out, remotes, room that will be missing, instances, and what can wait."""
    assert found(
        services=[ServiceFacts(shard=0, worker=None), serving(1, at=NOW - 60)], reasons=[Rejected("no_worker"), Rejected("no_room")],
        remotes=[AWAY], room=DiskRoom(free_bytes=3, total_bytes=9, min_free_bytes=1), stuck=[("c1", stuck("instance_stopped"))],
        dead=2) == [
            ("no_worker", None), ("worker_silent", None), ("no_room", None), ("incus_refused", None), ("disk_nearly_full", None),
            ("instance_stopped", "c1"), ("dead_letters", None)]


def test_what_is_told_once_is_not_told_again_for_each_instance() -> None:
    """A remote that is away holds up all of its instances: it is the one to be mended."""
    assert found(remotes=[AWAY], stuck=[("far:c1", stuck("incus_refused")), ("c2", stuck(None))]) == [
        ("incus_refused", None), ("instance_stuck", "c2")]


def test_problems_are_few_enough_to_be_read() -> None:
    """However many instances are stuck: those with most waiting are told."""
    many = [(f"c{number}", stuck("instance_stopped")) for number in range(100)]
    assert found(stuck=many, dead=1)[-2:] == [("instance_stopped", f"c{MOST_INSTANCES - 1}"), ("dead_letters", None)]
    assert len(found(services=[ServiceFacts(shard=shard, worker=None) for shard in range(100)])) == MOST


def test_room_is_a_problem_before_it_is_missing() -> None:
    """Where nothing has to stay free, or where it cannot be told, it is none; where it is missing, readiness says so."""
    for room in (DiskRoom(free_bytes=0), DiskRoom(min_free_bytes=9), DiskRoom(free_bytes=4, min_free_bytes=1),
                 DiskRoom(free_bytes=1, min_free_bytes=2)):
        assert found(room=room) == []


def test_disk_that_does_not_answer_goes_before_all_else() -> None:
    """What was known before stays."""
    problems = in_order(now=NOW, services=[], reasons=[], remotes=[], room=DiskRoom(), stuck=[], dead=1)
    assert [problem.code for problem in late(problems)] == ["not_answering", "dead_letters"]


def test_remote_is_away_where_one_worker_says_so() -> None:
    """Since the first of them said it."""
    later = RemoteStanding(remote="far", up=False, since=NOW - 10)
    other = RemoteStanding(remote="a", up=True, since=NOW)
    assert remotes_of([serving(0, UP), serving(1, later, other), serving(2, AWAY), ServiceFacts(shard=3, worker=None)]) == (other, AWAY)
