import json
import os
import subprocess
import sys
from pathlib import Path

from daemon.process.privileges import identity_to_take

_NOBODY = 65534
_DROP = """
import json, os, sys
from pathlib import Path
from daemon.state.layout import Layout
from daemon.process.privileges import drop_to_owner
drop_to_owner(Layout(Path(sys.argv[1])))
print(json.dumps([*os.getresuid(), *os.getresgid()]))
"""


def _ids_after_drop(state: Path) -> list[int]:
    done = subprocess.run([sys.executable, "-P", "-c", _DROP, str(state)], capture_output=True, check=True,
                          cwd=Path(__file__).parents[4], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])})
    found: list[int] = json.loads(done.stdout)
    return found


def test_identity_is_the_owners_for_root() -> None:
    """Root takes the owner's user, group and the groups of that user."""
    identity = identity_to_take(0, _NOBODY, 12345)
    assert identity is not None
    assert (identity.uid, identity.gid) == (_NOBODY, 12345)
    assert 12345 in identity.groups


def test_identity_has_only_the_owning_group_for_a_user_without_a_name() -> None:
    """An owner that is in no user database gets the owning group and no other."""
    identity = identity_to_take(0, 4_000_000_001, 77)
    assert identity is not None
    assert identity.groups == (77,)


def test_identity_stays_for_anyone_but_root() -> None:
    """A plain user cannot become another, and does not try."""
    assert identity_to_take(1000, _NOBODY, _NOBODY) is None


def test_identity_stays_when_root_owns_the_state() -> None:
    """A state directory of root's own is opened by root."""
    assert identity_to_take(0, 0, 0) is None


def test_drop_leaves_a_process_with_the_owners_ids_only(tmp_path: Path) -> None:
    """After the drop real, effective and saved ids are the owner's, so that there is no way back."""
    (tmp_path / "queue").mkdir()
    owner = (os.getuid(), os.getgid())
    if os.getuid() == 0:
        os.chown(tmp_path / "queue", _NOBODY, _NOBODY)
        owner = (_NOBODY, _NOBODY)
    assert _ids_after_drop(tmp_path) == [owner[0]] * 3 + [owner[1]] * 3


def test_drop_takes_the_spools_owner_where_root_owns_the_queue(tmp_path: Path) -> None:
    """An installed service has a queue of root's that two users share by their group."""
    (tmp_path / "queue").mkdir()
    (tmp_path / "spool").mkdir()
    owner = (os.getuid(), os.getgid())
    if os.getuid() == 0:
        os.chown(tmp_path / "spool", _NOBODY, _NOBODY)
        owner = (_NOBODY, _NOBODY)
    assert _ids_after_drop(tmp_path) == [owner[0]] * 3 + [owner[1]] * 3


def test_drop_changes_nothing_without_a_state(tmp_path: Path) -> None:
    """Before the first start there is no owner to become."""
    assert _ids_after_drop(tmp_path) == [os.getuid()] * 3 + [os.getgid()] * 3
