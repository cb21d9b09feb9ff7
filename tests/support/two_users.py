"""A service as it is installed: two users who share a state directory that systemd-tmpfiles has made."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support import child
from tests.support.identity import User
from tests.support.processes import ROOT, Forked
from tests.support.service import Service

_GROUP: Final = 61_003
API: Final = User(61_001, _GROUP)
WORKER: Final = User(61_002, _GROUP)
#: The users and the group by the names that they have where the service is installed.
_UIDS: Final = {"root": 0, "incus-courier-api": API.uid, "incus-courier-worker": WORKER.uid}
_STATE: Final = Path("/var/lib/incus-courier")


def tidy(state: Path) -> None:
    """Do what `systemd-tmpfiles --create incus-courier.conf` does, to this state directory."""
    for line in (ROOT / "systemd/tmpfiles.conf").read_text().splitlines():
        kind, path, mode, user = line.split()[:4]
        if kind not in {"d", "f"} or not Path(path).is_relative_to(_STATE):
            continue
        here = state / Path(path).relative_to(_STATE)
        here.mkdir(exist_ok=True) if kind == "d" else here.touch()
        assert not here.is_symlink()
        os.chown(here, _UIDS[user], _GROUP)
        here.chmod(int(mode, 8))


def loosen(state: Path) -> None:
    """Make the directories what they were before: either user could rename all but its owner's, and add whatever it liked."""
    for later in ("access", "partials"):
        shutil.rmtree(state / later)
    for path in (state, *state.rglob("*")):
        if path.is_dir() and path.name != "instances":
            owner = API.uid if path.name == "spool" or "spool" in path.parts or "shard" in path.name else 0
            os.chown(path, owner, _GROUP)
            path.chmod(0o2770)


def _launch(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
    user = API if arguments[0] == "api" else WORKER
    return Forked(arguments, {**environment, child.USER: f"{user.uid}:{user.gid}"}, log)


@contextmanager
def installed(shards: int = 2) -> Iterator[Service]:
    """A service of two users; nothing runs yet."""
    directory = Path(tempfile.mkdtemp(prefix="courier-users-"))
    directory.chmod(0o711)
    try:
        with Service(directory, {"queue": {"shards": shards}}, _launch) as service:
            tidy(service.layout.directory)
            os.chown(Path(service.address.removeprefix("unix:")).parent, API.uid, API.gid)
            service.config.chmod(0o644)
            yield service
    finally:
        shutil.rmtree(directory)


def owners(state: Path) -> dict[str, int]:
    """Who owns each thing in the state, by its path."""
    return {str(path.relative_to(state)): path.lstat().st_uid for path in state.rglob("*")}
