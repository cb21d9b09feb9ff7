"""Selections on the disk: kept for their maker, worked off by one at a time, and gone after their time."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.acting import selections as module
from api.acting.selections import LIFETIME_S, MAX_ALL, MAX_OWN, MAX_UNDER_ROOT, FrozenSelection, Selections, Step
from daemon import failpoints
from daemon.errors import Rejected
from daemon.state.layout import Layout
from tests.support.depot import new_id

WISH = FrozenSelection(id="", owner="me", root="me", action="retry", force=False, states=[9], made_at=1.0, filter={},
                       members={}, size_bytes=7, cut=False)


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A state directory."""
    made = Layout(quick_path / "state")
    made.create()
    return made


@pytest.fixture
def selections(layout: Layout) -> Selections:
    """What keeps them."""
    return Selections(layout, 3)


@pytest.fixture
def ids() -> dict[int, list[str]]:
    """Members in two of three shards."""
    return {0: [new_id() for _ in range(3)], 1: [], 2: [new_id()]}


@pytest.fixture(autouse=True)
def whole_disk() -> Iterator[None]:
    """No fault is left for the next test."""
    yield
    failpoints.arm("")


def code_of(error: pytest.ExceptionInfo[Rejected]) -> str:
    """The code of a refusal."""
    return error.value.code


def age(layout: Layout, selection_id: str, seconds: float) -> None:
    """Let a selection be so old."""
    path = layout.selections / selection_id
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_members_are_read_as_they_were_put_and_steps_as_they_were_noted(
    layout: Layout, selections: Selections, ids: dict[int, list[str]],
) -> None:
    """By whoever opens the state next; what a crash left of a note says nothing."""
    made = selections.put(WISH, ids)
    found = selections.find(made.id, "me")
    assert (found.selection, found.running, found.applied) == (made, False, False)
    assert (made.count, made.members) == (4, {0: 3, 2: 1})
    taken = selections.take(made.id, "me")
    assert taken is not None
    assert (taken.next_members(0, 2), taken.next_members(2, 9)) == (ids[0][:2], ids[2])
    taken.note(0, Step(done=2, changed=1, skipped=1))
    taken.close()
    with (layout.selections / made.id).open("ab") as file:
        file.write(b'{"shard": 0, "done": 3')
    again = Selections(layout, 3).take(made.id, "me")
    assert again is not None
    assert again.steps == {0: Step(done=2, changed=1, skipped=1), 2: Step()}
    assert again.next_members(0, 9) == ids[0][2:]
    again.note(0, Step(done=3, changed=2, skipped=1))
    again.note(2, Step(done=1, refused=1))
    again.close()
    assert selections.find(made.id, "me").applied


def test_one_at_a_time_applies_it(selections: Selections, ids: dict[int, list[str]]) -> None:
    """Another is told that it is under way; it ends with the descriptor, so with a process."""
    made = selections.put(WISH, ids)
    taken = selections.take(made.id, "me")
    assert taken is not None
    assert selections.take(made.id, "me") is None
    assert selections.find(made.id, "me").running
    taken.close()
    assert not selections.find(made.id, "me").running


def test_it_is_its_makers_alone_and_ends(layout: Layout, selections: Selections, ids: dict[int, list[str]]) -> None:
    """For all others it is not there. It does not end while it is applied, and each note gives it new time.

    Where the number of shards is another one by now, its members are elsewhere: it has ended.
    """
    made = selections.put(WISH, ids)
    for wrong in (made.id[::-1], "x", "", "../../tokens"):
        with pytest.raises(Rejected) as error:
            selections.find(wrong, "me")
        assert code_of(error) == "selection_not_found"
    with pytest.raises(Rejected) as error:
        selections.take(made.id, "you")
    assert code_of(error) == "selection_not_found"
    taken = selections.take(made.id, "me")
    assert taken is not None
    age(layout, made.id, LIFETIME_S + 1)
    assert selections.find(made.id, "me").running
    taken.note(2, Step(done=1))
    taken.close()
    assert selections.find(made.id, "me").steps[2].done == 1
    age(layout, made.id, LIFETIME_S + 1)
    with pytest.raises(Rejected):
        selections.find(made.id, "me")
    newer = selections.put(WISH, ids)
    assert not (layout.selections / made.id).exists()
    with pytest.raises(Rejected):
        Selections(layout, 2).find(newer.id, "me")


def test_an_identity_keeps_few_and_those_under_one_root_no_more_than_some(
    selections: Selections, ids: dict[int, list[str]], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oldest of its own make way, unless it is being applied; of others' none does."""
    made = [selections.put(WISH, ids) for _ in range(MAX_OWN)]
    held = [selections.take(each.id, "me") for each in made]
    with pytest.raises(Rejected) as error:
        selections.put(WISH, ids)
    assert code_of(error) == "too_many_selections"
    for each in held[1:]:
        assert each is not None
        each.close()
    selections.put(WISH, ids)
    assert selections.find(made[0].id, "me").running
    assert held[0] is not None
    held[0].close()
    for number in range(MAX_UNDER_ROOT - MAX_OWN):
        selections.put(replace(WISH, owner=f"me/{number}"), ids)
    with pytest.raises(Rejected) as error:
        selections.put(replace(WISH, owner="me/last"), ids)
    assert code_of(error) == "too_many_selections"
    monkeypatch.setattr(module, "MAX_ALL", MAX_UNDER_ROOT)
    assert MAX_ALL > MAX_UNDER_ROOT
    with pytest.raises(Rejected) as error:
        selections.put(replace(WISH, owner="you", root="you"), ids)
    assert code_of(error) == "too_busy"


@pytest.mark.parametrize(("fault", "code"), [("ENOSPC", "no_room"), ("EIO", "selections_unreadable")])
def test_trouble_with_the_disk_is_told_and_leaves_nothing_half_done(
    layout: Layout, selections: Selections, ids: dict[int, list[str]], fault: str, code: str,
) -> None:
    """A selection that could not be kept is not there; a step that could not be noted was not made."""
    failpoints.arm(f"selection.write={fault}")
    with pytest.raises(Rejected) as error:
        selections.put(WISH, ids)
    assert (code_of(error), list(layout.selections.iterdir())) == (code, [])
    failpoints.arm(f"selection.note={fault}")
    taken = selections.take(selections.put(WISH, ids).id, "me")
    assert taken is not None
    with pytest.raises(Rejected) as error:
        taken.note(0, Step(done=1))
    assert (code_of(error), taken.steps[0]) == (code, Step())
    taken.close()


def test_what_stands_where_a_selection_should_is_not_followed(
    layout: Layout, selections: Selections, ids: dict[int, list[str]],
) -> None:
    """Neither a link nor a file of another form; a directory in another's place is not written into."""
    made = selections.put(WISH, ids)
    path = layout.selections / made.id
    copy = path.rename(path.with_name("0" * 32))
    path.symlink_to(copy)
    for name in (made.id, copy.name):
        with pytest.raises(Rejected):
            selections.find(name, "me")
    for text in (b"", b"{}\n", b'{"members": {}}\n', b"\xff\n", copy.read_bytes()[:-1]):
        path.unlink()
        path.write_bytes(text)
        with pytest.raises(Rejected) as error:
            selections.find(made.id, "me")
        assert code_of(error) == "selection_not_found"
    layout.selections.rename(layout.access / "elsewhere")
    layout.selections.symlink_to(layout.access / "elsewhere")
    with pytest.raises(Rejected) as error:
        selections.put(WISH, ids)
    assert code_of(error) == "selections_unreadable"
