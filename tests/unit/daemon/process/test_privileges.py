import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.process.privileges import identity_of, identity_to_take
from daemon.state.layout import Layout
from tests.support.depot import a_state

_NOBODY = 65534
_DROP = """
import json, os, sys
from pathlib import Path
from daemon.state.layout import Layout
from daemon.errors import CannotStart
from daemon.process.privileges import drop_to_owner
drop_to_owner(Layout(Path(sys.argv[1])))
print(json.dumps([*os.getresuid(), *os.getresgid()]))
"""


def _ids_after_drop(state: Path) -> list[int]:
    done = subprocess.run([sys.executable, "-P", "-c", _DROP, str(state)], capture_output=True, check=True,
                          cwd=Path(__file__).parents[4], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])})
    found: list[int] = json.loads(done.stdout)
    return found


def test_identity_has_the_groups_of_its_user() -> None:
    """A user gets the owning group and its own."""
    identity = identity_of(_NOBODY, 12345)
    assert (identity.uid, identity.gid) == (_NOBODY, 12345)
    assert 12345 in identity.groups


def test_identity_has_only_the_owning_group_for_a_user_without_a_name() -> None:
    """An owner that is in no user database gets the owning group and no other."""
    assert identity_of(4_000_000_001, 77).groups == (77,)


def test_identity_stays_for_anyone_but_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain user cannot become another, and does not try."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identity_to_take(Layout(tmp_path)) is None


def test_drop_leaves_a_process_with_the_owners_ids_only(tmp_path: Path) -> None:
    """After the drop real, effective and saved ids are the owner's, so that there is no way back."""
    (tmp_path / "queue").mkdir()
    owner = (os.getuid(), os.getgid())
    if os.getuid() == 0:
        os.chown(tmp_path / "queue", _NOBODY, _NOBODY)
        owner = (_NOBODY, _NOBODY)
    assert _ids_after_drop(tmp_path) == [owner[0]] * 3 + [owner[1]] * 3


def test_drop_changes_nothing_without_a_state(tmp_path: Path) -> None:
    """Before the first start there is no owner to become."""
    assert _ids_after_drop(tmp_path) == [os.getuid()] * 3 + [os.getgid()] * 3


@pytest.fixture
def state(tmp_path: Path) -> Layout:
    """A state of root's alone."""
    return a_state(tmp_path)


@pytest.mark.root
def test_identity_stays_when_all_is_roots_alone(state: Layout) -> None:
    """A state directory of root's own is opened by root."""
    assert identity_to_take(state) is None


@pytest.mark.root
def test_identity_is_of_the_first_other_user_on_the_way(state: Layout) -> None:
    """Whoever may replace a directory decides about all that is below it."""
    for path in (state.directory, state.queue):
        os.chown(path, _NOBODY, _NOBODY)
    identity = identity_to_take(state)
    assert identity is not None
    assert (identity.uid, identity.gid) == (_NOBODY, _NOBODY)


@pytest.mark.root
def test_identity_cannot_be_told_when_another_user_may_put_a_link_in_the_way(tmp_path: Path, state: Layout) -> None:
    """A link of another's may lead anywhere at the next moment, also to what is root's."""
    link = tmp_path / "link"
    link.symlink_to(state.directory)
    assert identity_to_take(Layout(link)) is None
    os.lchown(link, _NOBODY, _NOBODY)
    with pytest.raises(CannotStart, match="may put another in its place"):
        identity_to_take(Layout(link))


@pytest.mark.root
@pytest.mark.parametrize(("mode", "gid"), [(0o777, 0), (0o770, _NOBODY), (0o2770, _NOBODY)])
def test_identity_cannot_be_told_when_others_may_replace_what_is_roots(state: Layout, mode: int, gid: int) -> None:
    """Root's directories lead anywhere when the one above them is open to others."""
    os.chown(state.directory, 0, gid)
    state.directory.chmod(mode)
    with pytest.raises(CannotStart, match="others may replace what is in it"):
        identity_to_take(state)


@pytest.mark.root
def test_identity_cannot_be_told_when_a_part_belongs_to_another(state: Layout) -> None:
    """Root's own queue beside another's uploads is no state that this service makes."""
    os.chown(state.bucket(3), _NOBODY, _NOBODY)
    with pytest.raises(CannotStart, match="a part of it belongs to others"):
        identity_to_take(state)


@pytest.mark.root
def test_identity_ends_with_a_ring_of_links(tmp_path: Path) -> None:
    """Links that lead to each other lead to nothing; whoever opens the state says so."""
    (tmp_path / "ring").symlink_to("ring")
    assert identity_to_take(Layout(tmp_path / "ring")) is None
