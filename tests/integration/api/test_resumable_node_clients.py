"""Resumable uploads by tus-js-client and Uppy, as they are, in node."""

import hashlib
import math
import signal
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from api.resumable.appending import KEEP_BYTES
from daemon.partials import open_partials
from daemon.spool import open_spool
from daemon.state.layout import Layout
from tests.integration.api.running import Api
from tests.support import node_clients
from tests.support.bodies import digest, pieces
from tests.support.cut_line import CutLine
from tests.support.node_clients import as_file, metadata
from tests.support.waiting import eventually

Start = Callable[..., Api]
pytestmark = pytest.mark.full

SIZE = 3 * 2**20 + 17
LARGE_BYTES = 2**30
#: What a process has read of one body and not written yet is less.
HELD_BYTES = 2 * 2**20
DRAFTS = ["ietf-draft-03", "ietf-draft-05"]


@pytest.fixture(scope="module", autouse=True)
def clients() -> None:
    """They are installed."""
    node_clients.install()


def file_of(directory: Path, seed: int, size: int) -> str:
    """A file with these bytes."""
    file = directory / f"file-{seed}"
    with file.open("wb") as opened:
        opened.writelines(pieces(seed, size))
    return str(file)


def sha256_at(api: Api, path: str) -> str:
    """The digest of what was uploaded to a path, once."""
    [task] = [task for task in api.tasks() if task["path"] == path]
    return str(task["sha256"])


def tus(port: int) -> str:
    """The address of tus."""
    return f"http://127.0.0.1:{port}/v1/tus/"


@pytest.mark.parametrize("options", [
    {}, {"chunkSize": 2**20}, {"uploadDataDuringCreation": True, "chunkSize": 2**20}, {"overridePatchMethod": True},
    {"uploadDataDuringCreation": True},
])
def test_tus_js_client_uploads(shared: Api, tmp_path: Path, options: dict[str, Any]) -> None:
    """In one part or in several, the first along with the making or not, by PATCH or by what stands for it."""
    path = "/js/" + hashlib.sha256(repr(options).encode()).hexdigest()
    told = node_clients.upload({"endpoint": tus(shared.port), "source": file_of(tmp_path, 1, SIZE), "options": options,
                                "metadata": metadata("c1", path, caption="ü")})
    assert told["taskId"]
    assert sha256_at(shared, path) == digest(1, SIZE)


@pytest.mark.parametrize("protocol", DRAFTS)
@pytest.mark.parametrize("options", [{}, {"chunkSize": 2**20}, {"uploadDataDuringCreation": True, "chunkSize": 2**20}, {"uploadDataDuringCreation": True}])
@pytest.mark.parametrize("buffered", [False, True])
def test_tus_js_client_uploads_by_the_draft(shared: Api, tmp_path: Path, protocol: str, options: dict[str, Any], buffered: bool) -> None:
    """It asks the address of the file, and is told another one. Of a file it never says that a part is the last of several."""
    path = "/js/" + hashlib.sha256(repr((protocol, options, buffered)).encode()).hexdigest()
    told = node_clients.upload({
        "endpoint": f"http://127.0.0.1:{shared.port}/v1/instances/c1/files{path}?mode=0640", "source": file_of(tmp_path, 2, SIZE),
        "metadata": {}, "buffered": buffered, "options": {"protocol": protocol, **options}})
    assert told["taskId"]
    assert sha256_at(shared, path) == digest(2, SIZE)


def test_tus_js_client_ends_an_upload(shared: Api, tmp_path: Path) -> None:
    """And nothing becomes of it."""
    told = node_clients.upload({"endpoint": tus(shared.port), "source": file_of(tmp_path, 3, SIZE), "terminate": True,
                                "options": {"chunkSize": 2**20}, "metadata": metadata("c1", "/js/ended")})
    assert told["requests"][-1] == ["DELETE", 204]
    assert [task for task in shared.tasks() if task["path"] == "/js/ended"] == []


def test_empty_file_is_uploaded_by_its_making_alone(shared: Api, tmp_path: Path) -> None:
    """By each protocol: the clients send nothing more."""
    source = str(as_file(tmp_path, "empty", b""))
    node_clients.upload({"endpoint": tus(shared.port), "source": source, "metadata": metadata("c1", "/js/empty")})
    for protocol in DRAFTS:
        node_clients.upload({"endpoint": f"http://127.0.0.1:{shared.port}/v1/instances/c1/files/js/empty-{protocol}",
                             "source": source, "metadata": {}, "options": {"protocol": protocol}})
    for path in ("/js/empty", *(f"/js/empty-{protocol}" for protocol in DRAFTS)):
        assert sha256_at(shared, path) == hashlib.sha256().hexdigest()


def test_uppy_uploads_files_and_folders(shared: Api, tmp_path: Path) -> None:
    """All its metadata comes along, and only what has a meaning here counts."""
    first, second = file_of(tmp_path, 4, SIZE), file_of(tmp_path, 5, 10)
    about = {"instance": "c1", "path": "/uppy/", "mkdirs": "true"}
    told = node_clients.upload({"client": "uppy", "endpoint": tus(shared.port), "options": {"chunkSize": 2**20}, "files": [
        {"name": "a.txt", "source": first, "meta": {**about, "relativePath": "/trip/day 1/a.txt"}},
        {"name": "b.txt", "source": second, "meta": {**about, "relativePath": None}}]})
    assert (len(told["successful"]), told["failed"]) == (2, [])
    assert (sha256_at(shared, "/uppy/trip/day 1/a.txt"), sha256_at(shared, "/uppy/b.txt")) == (digest(4, SIZE), digest(5, 10))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def stands_at(api: Api) -> int:
    """The offset of the only upload that is not finished, as it is on the disk."""
    layout = Layout(api.state)
    partials = open_partials(layout, open_spool(layout))
    [head] = layout.partials.glob("*.head")
    found = partials.find(head.stem)
    partials.close()
    assert found is not None
    return found[1].offset


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", ["tus-v1", *DRAFTS])
def test_a_gigabyte_arrives_through_a_line_that_is_cut_and_a_service_that_is_killed(
    launch: Callable[..., Api], tmp_path: Path, protocol: str,
) -> None:
    """What is sent again is no more than what the service had not read, or what was not on the disk when it was killed.

    It is never what was answered.
    """
    port = free_port()
    listening = {"listen": [f"127.0.0.1:{port}"], "processes": 1}
    api = launch(api=listening).started()
    stood: dict[int, int] = {}
    with CutLine(port, cuts=8, span=(32 * 2**20, 160 * 2**20), seed=7, down_at=(3, 6)) as line:
        where = tus(line.port) if protocol == "tus-v1" else f"http://127.0.0.1:{line.port}/v1/instances/c1/files/js/large"
        with node_clients.running({
            "endpoint": where, "source": file_of(tmp_path, 6, LARGE_BYTES), "options": {"protocol": protocol},
            "metadata": metadata("c1", "/js/large") if protocol == "tus-v1" else {},
            "retryDelays": [0, 200, 500, 1000, 1000, 2000, 2000, 4000]}) as process:
            for _ in line.down_at:
                # However long it takes: what hangs is ended by the time that a test has.
                eventually(lambda: line.is_down or process.poll() is not None, math.inf)
                assert process.poll() is None, process.communicate()
                with line.down() as part:
                    api.send(signal.SIGKILL)
                    api.end()
                    stood[line.parts.index(part)] = stands_at(api)
                    api = launch(api=listening).started()
            out, err = process.communicate()
    assert '"url"' in out, (out, err)
    assert sha256_at(api, "/js/large") == digest(6, LARGE_BYTES)
    assert (line.cut, len(stood)) == (8, 2)
    assert [part.offset for part in line.parts] == [part.told for part in line.parts]
    for number, (part, then) in enumerate(pairwise(line.parts)):
        assert part.unread_bytes is not None
        read = part.offset + part.sent_bytes - part.unread_bytes - HELD_BYTES
        if number in stood:
            assert then.offset == stood[number]
            read -= KEEP_BYTES
        assert then.offset >= read
