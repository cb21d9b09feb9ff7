"""The store of what was handed on: for whatever keeps it, and what a damaged file and a dead process leave."""

import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon import failpoints
from daemon.delegation import Budget, Child, Delegations, open_delegations
from daemon.errors import Rejected
from daemon.model.grant import Grant, Permission
from daemon.state.layout import Layout

ROOT = Path(__file__).parents[4]
GRANT = Grant(may=frozenset({Permission.UPLOAD}), paths=("/srv/**",), max_uploads=3)
NOW_S = 1000.0
ONCE = {"uploads": 1, "size_bytes": 10}


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A new state directory."""
    made = Layout(quick_path / "state")
    made.create()
    return made


@pytest.fixture
def open_store(layout: Layout) -> Iterator[Callable[[], Delegations]]:
    """Opens the same store again and again."""
    opened: list[Delegations] = []

    def open_one() -> Delegations:
        opened.append(open_delegations(layout))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Delegations]) -> Delegations:
    """An empty store."""
    return open_store()


def a_child(key_id: str, parent: str = "token:ci", **values: Any) -> Child:
    """A child that lives for an hour."""
    root = parent.partition("/")[0]
    made = Child(key_id=key_id, sha256="0" * 64, root=root, parent=parent, grant=GRANT, made_at=NOW_S,
                 expires_at=NOW_S + 3600)
    return replace(made, **values)


def put(store: Delegations, *children: Child, now: float = NOW_S) -> None:
    """Put them one after the other."""
    for child in children:
        store.put(child, now=now)


def names(store: Delegations, below: str, now: float = NOW_S) -> list[str]:
    """Who lives below a name."""
    return [child.name for child in store.below(below, limit=100, now=now)]


def test_child_is_found_with_all_above_it(store: Delegations, open_store: Callable[[], Delegations]) -> None:
    """What was put is there for every process, as it was put; an id that is nobody's leads to nobody."""
    first = a_child("A", label="for ☃", made_from="10.0.0.1")
    put(store, first, a_child("B", "token:ci/A"), a_child("C", "token:ci/nightly", root="token:ci/nightly"))
    for each in (store, open_store()):
        assert each.lineage("A") == [first]
        assert [child.name for child in each.lineage("B")] == ["token:ci/A/B", "token:ci/A"]
        assert [child.name for child in each.lineage("C")] == ["token:ci/nightly/C"]
        assert each.lineage("D") == []


def test_nothing_is_made_by_looking(store: Delegations, layout: Layout) -> None:
    """Where nothing was handed on, there is no file; the first change makes it, for its user alone."""
    assert (store.lineage("A"), store.below("token:ci", limit=1, now=NOW_S)) == ([], [])
    assert not layout.handed_on.exists()
    put(store, a_child("A"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in layout.handed_on.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "data.db" in modes
    assert stat.S_IMODE(layout.handed_on.stat().st_mode) == 0o700


def test_children_are_listed_below_a_name_page_by_page(store: Delegations) -> None:
    """At any depth, in the order of their names, without those of a name that only begins alike, or has expired."""
    put(store, a_child("A"), a_child("B", "token:ci/A"), a_child("C"), a_child("D", "token:ci-2"),
        a_child("E", expires_at=NOW_S))
    assert names(store, "token:ci") == ["token:ci/A", "token:ci/A/B", "token:ci/C"]
    assert names(store, "token:ci/A") == ["token:ci/A/B"]
    page = store.below("token:ci", limit=2, now=NOW_S)
    rest = store.below("token:ci", after=page[-1].name, limit=2, now=NOW_S)
    assert [child.key_id for child in (*page, *rest)] == ["A", "B", "C"]


def test_ending_a_child_ends_all_below_it(store: Delegations) -> None:
    """And nobody else; ending it again ends nothing."""
    put(store, a_child("A"), a_child("B", "token:ci/A"), a_child("AB"))
    assert (store.revoke("token:ci/A"), store.revoke("token:ci/A")) == (2, 0)
    assert (store.lineage("B"), names(store, "token:ci")) == ([], ["token:ci/AB"])


def test_child_of_one_that_ended_is_not_put(store: Delegations) -> None:
    """Whoever is ended while he hands on hands nothing on."""
    put(store, a_child("A", expires_at=NOW_S + 1))
    for parent, now in (("token:ci/A", NOW_S + 1), ("token:ci/Z", NOW_S)):
        with pytest.raises(Rejected) as caught:
            store.put(a_child("B", parent), now=now)
        assert caught.value.code == "bad_credential"


def test_only_so_many_live_below_one_identity(store: Delegations) -> None:
    """Those that expired make room, and are forgotten; another identity has its own."""
    put(store, a_child("A", expires_at=NOW_S + 1), a_child("B", "token:ci/A"))
    with pytest.raises(Rejected) as caught:
        store.put(a_child("C"), now=NOW_S, most_below=2)
    assert caught.value.code == "too_many_tokens"
    store.put(a_child("D", "token:other"), now=NOW_S, most_below=2)
    store.put(a_child("C"), now=NOW_S + 1, most_below=2)
    assert store.lineage("A") == []
    assert (store.clear_expired(NOW_S + 9999, 2), store.clear_expired(NOW_S + 9999, 2)) == (2, 1)


def test_amounts_are_used_up_of_all_or_none(store: Delegations) -> None:
    """Where one of several has not enough left, none of them is touched; what is given back can be used again."""
    put(store, a_child("A"))
    child = Budget(name="token:ci/A", is_child=True, max_uploads=2)
    parent = Budget(name="token:ci", max_total_bytes=15)
    assert store.reserve([child, parent], **ONCE)
    assert not store.reserve([child, parent], **ONCE)
    [found] = store.lineage("A")
    assert (found.used_uploads, found.used_bytes) == (1, 10)
    store.give_back([parent], **ONCE)
    assert store.reserve([child, parent], **ONCE)
    assert not store.reserve([child], **ONCE)
    assert store.reserve([child], uploads=0, size_bytes=2**40)


def test_amounts_of_a_child_that_ended_cannot_be_used(store: Delegations) -> None:
    """Not even by an upload that began before."""
    put(store, a_child("A"))
    store.revoke("token:ci/A")
    assert not store.reserve([Budget(name="token:ci/A", is_child=True, max_uploads=2)], **ONCE)


def _reserve_all(directory: Path, begin: "multiprocessing.synchronize.Event", taken: "multiprocessing.Queue[int]") -> None:
    store = open_delegations(Layout(directory))
    budget = Budget(name="token:ci", max_uploads=50)
    assert begin.wait(60)
    taken.put(sum(store.reserve([budget], **ONCE) for _ in range(40)))
    store.close()


def test_no_more_is_handed_out_than_there_is_by_all_processes_together(layout: Layout) -> None:
    """Also when they all come first, and have to make the file."""
    context = multiprocessing.get_context("spawn")
    begin, taken = context.Event(), context.Queue()
    processes = [context.Process(target=_reserve_all, args=(layout.directory, begin, taken)) for _ in range(3)]
    for process in processes:
        process.start()
    begin.set()
    assert sum(taken.get(timeout=60) for _ in processes) == 50
    for process in processes:
        process.join()


@pytest.mark.parametrize(("step", "left"), [("delegation.commit", True), ("delegation.committed", False)])
def test_killed_process_leaves_an_amount_whole_or_used(
    step: str, left: bool, layout: Layout, store: Delegations,
) -> None:
    """After the commit it stays used up, though nobody was told; before it, it is whole. Never is more handed out."""
    code = ("import sys; from pathlib import Path; from daemon.state.layout import Layout\n"
            "from daemon.delegation import Budget, open_delegations\n"
            "store = open_delegations(Layout(Path(sys.argv[1])))\n"
            "store.reserve([Budget(name='token:ci', max_uploads=1)], uploads=1, size_bytes=1)")
    done = subprocess.run([sys.executable, "-c", code, str(layout.directory)], cwd=ROOT, timeout=60, check=False,
                          env={**os.environ, failpoints.VARIABLE: f"{step}=kill"})
    assert done.returncode == -signal.SIGKILL
    budget = Budget(name="token:ci", max_uploads=1)
    assert [store.reserve([budget], **ONCE) for _ in range(2)] == [left, False]


@pytest.mark.parametrize(("fault", "code"), [("ENOSPC", "no_room"), ("EDQUOT", "no_room"), ("EIO", "delegation_unreadable")])
def test_change_that_the_disk_refuses_is_not_made(fault: str, code: str, store: Delegations) -> None:
    """It is told with its code, and works again when the disk does."""
    put(store, a_child("A"))
    failpoints.arm(f"delegation.commit={fault}@1")
    with pytest.raises(Rejected) as caught:
        store.revoke("token:ci/A")
    assert caught.value.code == code
    assert store.lineage("A")
    assert store.revoke("token:ci/A") == 1


def _spoil(path: Path) -> None:
    path.write_bytes(b"something else" * 1000)


def _cut(path: Path) -> None:
    os.truncate(path, 4096)


def _another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")


def _trigger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TRIGGER more AFTER INSERT ON used BEGIN DELETE FROM used; END")


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [_spoil, _cut, _another_version, _trigger, _link])
def test_damaged_database_is_set_aside_and_begun_anew(
    harm: Callable[[Path], None], layout: Layout, open_store: Callable[[], Delegations],
) -> None:
    """Whatever is no database of this version's making: what was handed on ends, nothing is lost, and all goes on."""
    store = open_store()
    put(store, a_child("A"))
    store.close()
    harm(layout.handed_on / "data.db")
    assert store.lineage("A") == []
    assert [path.name[:10] for path in layout.lost_found.iterdir()] == ["handed-on-"]
    put(store, a_child("B"))
    assert names(open_store(), "token:ci") == ["token:ci/B"]


@pytest.mark.parametrize("harm", [_spoil, _lose])
def test_every_process_finds_the_database_that_took_the_place_of_another(
    harm: Callable[[Path], None], layout: Layout, open_store: Callable[[], Delegations],
) -> None:
    """Also those that have the old one open: nobody goes on with what was set aside, and no old log is taken in."""
    first, second = open_store(), open_store()
    put(first, a_child("A"))
    assert second.lineage("A")
    harm(layout.handed_on / "data.db")
    third = open_store()
    put(third, a_child("B"))
    for store in (first, second, third):
        assert (store.lineage("A"), names(store, "token:ci")) == ([], ["token:ci/B"])
    put(first, a_child("C"))
    first.close()
    assert names(second, "token:ci") == ["token:ci/B", "token:ci/C"]


def test_what_may_not_be_moved_to_lost_and_found_stays_beside(
    layout: Layout, store: Delegations, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where two users share the state, lost+found is the worker's."""
    layout.handed_on.parent.mkdir(exist_ok=True)
    layout.handed_on.write_text("no directory")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if target.parent == layout.lost_found:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    put(store, a_child("A"))
    assert store.lineage("A")
    assert len([path for path in layout.access.iterdir() if path.name.startswith("handed-on-")]) == 1


def test_threads_of_one_process_share_a_store(store: Delegations) -> None:
    """They read while others write, and no amount is handed out twice."""
    budget = Budget(name="token:ci", max_uploads=20)
    taken: list[bool] = []

    def take() -> None:
        for _ in range(10):
            taken.append(store.reserve([budget], **ONCE))
            store.lineage("A")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (40, 20)


def test_rights_that_this_program_does_not_know_are_no_rights(store: Delegations, layout: Layout) -> None:
    """Whoever was handed them is nobody; the others are not concerned."""
    put(store, a_child("A"), a_child("B"), a_child("C", "token:ci/A"))
    store.close()
    with closing(sqlite3.connect(layout.handed_on / "data.db")) as database, database:
        database.execute("""UPDATE children SET grant_json = '{"may": ["fly"]}' WHERE key_id = 'A'""")
    assert (store.lineage("A"), store.lineage("C"), [child.key_id for child in store.lineage("B")]) == ([], [], ["B"])
    assert names(store, "token:ci") == ["token:ci/A/C", "token:ci/B"]
