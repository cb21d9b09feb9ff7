"""What a database says of sums and actions is not believed where it makes no sense."""

import pytest

from tests.support.depot import Depot, an_upload, sealed

_ROW = "INSERT OR REPLACE INTO counters VALUES (?, ?, ?)"
_ACTION = ("INSERT INTO actions (action_id, asked_at, asked_by, verb, what, tasks, done_at)"
           " VALUES (?, ?, ?, ?, ?, ?, ?)")
_SOUND = (f"act_{1:032x}", 1.0, "me", "hold", '{"task_id": "a"}', 1, None)


def test_sums_that_make_no_sense_are_left_out(depot: Depot) -> None:
    """Whoever may write the file can put anything there."""
    depot.queue.put_many(sealed(an_upload()), supersede=True)
    for name, labels, value in (("other", "", 1), ("uploads_total", 'a="b"', 1), ("uploads_total", b"x", 1),
                                (b"uploads_total", "", 1), ("upload_bytes_total", "", "much"),
                                ("delivered_bytes_total", "", float("inf")), ("attempts_total", "", -5)):
        depot.queue.durable.execute(_ROW, (name, labels, value))
    assert {(counter.name, counter.labels, counter.value) for counter in depot.queue.counters()} == {
        ("uploads_total", "", 1), ("events_total", "", 1), ("attempts_total", "", 0)}


@pytest.mark.parametrize("wrong", [
    {0: "x"}, {1: "late"}, {1: 1e99}, {2: b"me"}, {2: "a\nb"}, {3: "v" * 999}, {4: "{"}, {4: "[]"}, {4: "null"},
    {4: '{"task_id": 5}'}, {4: '{"filter": {"states": [99]}}'}, {4: '{"filter": 1}'}, {4: "[" * 9999}, {5: -1},
    {5: "many"}, {6: "x"}])
def test_action_that_makes_no_sense_is_left_out(depot: Depot, wrong: dict[int, object]) -> None:
    """And the page is no shorter for it."""
    row = tuple(wrong.get(place, value) for place, value in enumerate(_SOUND))
    depot.queue.durable.execute(_ACTION, row)
    depot.queue.durable.execute(_ACTION, (f"act_{0:032x}", *_SOUND[1:]))
    assert [action.action_id for action in depot.queue.actions(None, 1)] == [f"act_{0:032x}"]
