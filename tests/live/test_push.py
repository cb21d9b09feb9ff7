"""`incus-courier push` beside `incus file push`: the same trees in a real instance."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.host import Container, Host
from tests.support.pushing import push
from tests.support.service import Service

pytestmark = [pytest.mark.live, pytest.mark.full]


@pytest.fixture
def service(incus: Host, tmp_path: Path) -> Iterator[Service]:
    """A service that delivers into this machine's Incus."""
    (tmp_path / "service").mkdir()
    with Service(tmp_path / "service", {"target": {"kind": "incus"}, "incus": {"endpoint": incus.socket}, "delivery": {"mkdirs": False}}) as made:
        yield made.start()
        assert not made.mistakes()


def seen(top: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a directory: its permission bits and its bytes."""
    found = {}
    for path in top.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(top))] = (path.lstat().st_mode & 0o7777, path.read_bytes())
    return found


def test_tree_is_as_incus_file_push_makes_it(service: Service, container: Container, incus: Host, tmp_path: Path) -> None:
    """Byte for byte and mode for mode, small files and large ones, whatever their names are."""
    tree = tmp_path / "tree"
    (tree / "deep" / "er und ä 한글").mkdir(parents=True)
    for name, mode, size in (("a", 0o640, 1), ("empty", 0o600, 0), ("run.sh", 0o755, 3000), ("deep/'quote\" %41 #?&", 0o604, 12),
                             ("deep/er und ä 한글/big", 0o444, 20 * 2**20), ("set-id", 0o4755, 7), (".hidden", 0o400, 9)):
        (tree / name).write_bytes(os.urandom(size))
        (tree / name).chmod(mode)
    container.run("mkdir -p /srv/theirs /srv/ours")
    client = {**os.environ, "INCUS_SOCKET": incus.socket}
    subprocess.run(["incus", "file", "push", "-q", "-r", tree, f"{container.name}/srv/theirs/"], env=client, check=True)
    done = push(tmp_path, service.address, "-r", "tree", f"{container.name}/srv/ours/", "--wait", "--timeout", "120")
    assert done.code == 0, done
    theirs, ours = seen(container.rootfs / "srv/theirs"), seen(container.rootfs / "srv/ours")
    assert ours == theirs
    assert len(ours) == 7
    single = push(tmp_path, service.address, "tree/run.sh", f"{container.name}/srv/", "--wait", "--uid", "7", "--mode", "0711")
    assert single.code == 0, single
    assert container.run('test "$(stat -c %u:%a /srv/run.sh)" = 7:711') == 0
