"""What a disk says when it is asked for room."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.state.room import explained, trouble_in

_LIMIT_BYTES = 1024 * 1024


@pytest.fixture
def _small_files() -> Iterator[None]:
    """No file of this process may be larger than _LIMIT_BYTES, as `ulimit -f` or LimitFSIZE= may say."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LIMIT_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_is_wrong_and_nothing_is_left_where_a_file_can_be_made(tmp_path: Path) -> None:
    """A trial needs no name."""
    assert trouble_in(tmp_path) is None
    assert os.listdir(tmp_path) == []


def test_trouble_is_what_the_system_says_where_no_file_can_be_made(tmp_path: Path) -> None:
    """A directory that is gone, and one whose filesystem makes no files."""
    gone, proc = trouble_in(tmp_path / "gone"), trouble_in(Path("/proc"))
    assert gone is not None
    assert gone.errno == errno.ENOENT
    assert proc is not None


@pytest.mark.usefixtures("_small_files")
def test_limit_of_a_file_is_found_where_a_file_has_grown_up_to_it(tmp_path: Path) -> None:
    """There is room on the disk, and for any new file, but the largest can grow no more."""
    assert trouble_in(tmp_path) is None
    (tmp_path / "largest").write_bytes(bytes(_LIMIT_BYTES - 1))
    trouble = trouble_in(tmp_path)
    assert trouble is not None
    assert trouble.errno == errno.EFBIG


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    """Only a disk without inodes has something to add."""
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explained(error, tmp_path) is error
    assert explained(error, tmp_path / "gone") is error
