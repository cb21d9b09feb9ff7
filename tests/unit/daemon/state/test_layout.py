import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.model.upload import BUCKETS
from daemon.process.exit_status import EXIT_CONFIG, EXIT_FAILED
from daemon.state.layout import Layout
from daemon.state.tenure import NAME_FILE
from tests.support.identity import User

ROOT = Path(__file__).parents[4]
#: Where `struct statvfs` has its flags, as os.statvfs_result is built.
_FLAG = 8


def test_create_is_refused_on_a_read_only_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that the kernel made read-only ends a process with a sentence, and a restart may find it mended."""
    layout = Layout(tmp_path / "state")
    layout.create()
    real = list(os.statvfs(layout.directory))
    real[_FLAG] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(real))
    with pytest.raises(CannotStart, match=r"state\.directory .* is on a read-only filesystem") as refused:
        layout.create()
    assert refused.value.code == "read_only_state"
    assert refused.value.kind.exit_status == EXIT_FAILED


def test_create_is_refused_in_a_directory_of_others(tmp_path: Path) -> None:
    """A directory like /tmp would be shut for everyone: what holds other things and is open to all is left as it is."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "of-somebody").touch()
    with pytest.raises(CannotStart, match=r"state\.directory .* is open to everyone and holds other things") as refused:
        Layout(shared).create()
    assert refused.value.code == "bad_config"
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert [entry.name for entry in shared.iterdir()] == ["of-somebody"]


@pytest.mark.parametrize("inside", [[], ["lost+found"], ["spool", "queue", "notes"]])
def test_create_shuts_everyone_else_out_of_a_directory_of_its_own(tmp_path: Path, inside: list[str]) -> None:
    """An empty directory, a new filesystem and one that has been in use before are taken, and closed to others."""
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o755)
    for name in inside:
        (own / name).mkdir()
    Layout(own).create()
    assert stat.S_IMODE(own.stat().st_mode) == 0o750


def test_create_is_content_with_what_another_process_makes_meanwhile(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a service start at the same time, also in a directory that was made for them open to all."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    list_now = os.listdir

    def list_late(path: Path) -> list[str]:
        monkeypatch.undo()
        Layout(state).create()
        return list_now(path)

    monkeypatch.setattr(os, "listdir", list_late)
    Layout(state).create()
    assert not state.stat().st_mode & stat.S_IRWXO


def test_missing_directory_that_cannot_be_made_is_wrong_configuration(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sandbox all above it is read-only: no restart helps, somebody has to make it."""
    def fail(path: Path, mode: int = 0o777) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(CannotStart, match="systemd-tmpfiles --create") as refused:
        Layout(tmp_path / "state").create()
    assert refused.value.kind.exit_status == EXIT_CONFIG


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EROFS])
def test_restart_is_worth_a_try_when_the_disk_is_in_trouble_at_a_start(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A disk that fails or is full is no wrong configuration, after which nothing would start the service again."""
    def fail(path: Path, mode: int = 0o777) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))

    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(CannotStart, match=r"^state\.directory ") as refused:
        Layout(state).create()
    assert refused.value.kind.exit_status == EXIT_FAILED


def test_create_is_not_shared_because_of_the_directory_above(tmp_path: Path) -> None:
    """A set-group-ID bit that a new directory got from where it is says nothing about who uses it."""
    tmp_path.chmod(0o2755)
    layout = Layout(tmp_path / "state")
    layout.create()
    assert not layout.shared


@pytest.mark.root
def test_what_is_kept_about_access_is_closed_to_a_group_that_shares_the_state() -> None:
    """One user may let a group into its state; who may do what stays with that user."""
    user = User(61_001, 61_003)
    with tempfile.TemporaryDirectory(prefix="courier-shared-") as state:
        os.chown(state, *user)
        os.chmod(state, 0o2770)
        layout = Layout(Path(state))
        with user.acting():
            layout.create()
        assert layout.shared
        assert [stat.S_IMODE(path.stat().st_mode) & 0o777 for path in (layout.queue, layout.access)] == [0o770, 0o700]
        # Resumable uploads may be counted by the group; their files are the user's own.
        assert stat.S_IMODE(layout.partials.stat().st_mode) & 0o777 == 0o750


def test_installed_directories_are_those_of_the_layout() -> None:
    """What systemd-tmpfiles makes is all that the service needs: where it is installed, it cannot make them itself."""
    state = Path("/var/lib/incus-courier")
    lines = [line.split() for line in (ROOT / "systemd/tmpfiles.conf").read_text().splitlines() if not line.startswith("#")]
    layout = Layout(state)
    made = {Path(path) for kind, path, *_ in lines if kind == "d" and Path(path).is_relative_to(state)}
    buckets = {layout.bucket(number) for number in range(BUCKETS)}
    assert made == {state, layout.spool, layout.queue, layout.locks, layout.bells, layout.activities, layout.lost_found, layout.instances,
                    layout.access, layout.partials, *buckets}
    assert {Path(path) for kind, path, *_ in lines if kind == "f"} == {
        layout.append_lock, layout.migration_lock, layout.schema_lock, NAME_FILE}


def test_shown_file_is_opened_where_a_full_quota_takes_no_change(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker begins on a full disk, and makes room: nothing that is right already is written before."""
    os.close(layout.open_shown(layout.host_token))

    def full(descriptor: int, mode: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fchmod", full)
    os.close(layout.open_shown(layout.host_token))
    assert stat.S_IMODE(layout.host_token.stat().st_mode) == layout.file_mode & 0o640
