"""Resumable uploads by the clients for Python, as they are, and by a client of the draft."""

import asyncio
import io
import re
import socket
from pathlib import Path
from typing import Any

import aiotus
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.uploader.uploader import Uploader

from tests.integration.api.running import Api
from tests.support.bodies import body, digest
from tests.support.cut_line import CutLine
from tests.support.waiting import PATIENCE_S

SIZE = 3 * 2**20 + 17


def task_at(api: Api, path: str) -> dict[str, Any]:
    """The task to a path."""
    [task] = [task for task in api.tasks() if task["path"] == path]
    return task


def uploader(port: int, path: str, content: bytes, **options: Any) -> Uploader:
    """An uploader of tuspy."""
    client = TusClient(f"http://127.0.0.1:{port}/v1/tus/")
    return client.uploader(file_stream=io.BytesIO(content), metadata={"instance": "c1", "path": path, "caption": "ü"}, **options)


def test_tuspy_uploads_in_parts_with_checksums(shared: Api) -> None:
    """The last answer has the task's id; a file without bytes is complete with its making."""
    upload: Any = uploader(shared.port, "/tuspy", body(1, SIZE), chunk_size=2**20, upload_checksum=True)
    upload.upload()
    task = task_at(shared, "/tuspy")
    assert (task["size"], task["sha256"], task["id"]) == (SIZE, digest(1, SIZE), upload.request.response_headers["task-id"])
    uploader(shared.port, "/tuspy-empty", b"", chunk_size=2**20).upload()
    assert task_at(shared, "/tuspy-empty")["size"] == 0


def test_tuspy_goes_on_where_another_one_ended(shared: Api) -> None:
    """It has the address, and asks how far it is."""
    content = body(2, SIZE)
    first = uploader(shared.port, "/again", content, chunk_size=2**20)
    first.upload(stop_at=2**20)
    second = uploader(shared.port, "/again", content, chunk_size=2**21, url=first.url)
    assert second.offset == 2**20
    second.upload()
    assert task_at(shared, "/again")["sha256"] == digest(2, SIZE)


@pytest.mark.parametrize("hangs", [False, True])
def test_tuspy_goes_on_when_its_line_was_cut(shared: Api, hangs: bool) -> None:
    """Nothing that was answered is sent again, also where the service has not seen that the client is gone."""
    with CutLine(shared.port, cuts=4, span=(2**18, 2**20), hangs=hangs) as line:
        upload = uploader(line.port, f"/cut-{hangs}", body(3, SIZE), chunk_size=2**20, retries=9, retry_delay=0)
        upload.upload()
    assert line.cut == 4
    assert task_at(shared, f"/cut-{hangs}")["sha256"] == digest(3, SIZE)
    assert [part.offset for part in line.parts] == sorted(part.offset for part in line.parts)


def test_tuspy_is_told_what_is_wrong_with_its_metadata(shared: Api) -> None:
    """It sends the header always, also with nothing in it."""
    client = TusClient(f"http://127.0.0.1:{shared.port}/v1/tus/")
    with pytest.raises(TusCommunicationError) as told:
        client.uploader(file_stream=io.BytesIO(b"x"), chunk_size=1).upload()
    assert told.value.status_code == 400
    assert b"bad_instance" in told.value.response_content


def test_aiotus_uploads_and_reads_its_metadata_back(shared: Api, tmp_path: Path) -> None:
    """It asks how far an upload is before its first part, and finds a relative address in its own way."""
    file = tmp_path / "file"
    file.write_bytes(body(4, SIZE))
    about = {"instance": b"c1", "path": b"/dir/", "filename": b"aiotus", "binary": b"\xff\x00", "flag": None}

    async def upload() -> Any:
        with file.open("rb") as opened:
            where = await aiotus.upload(f"http://127.0.0.1:{shared.port}/v1/tus/", opened, about, chunksize=2**20)
        assert where is not None
        return await aiotus.metadata(where)

    assert asyncio.run(upload()) == about
    assert task_at(shared, "/dir/aiotus")["sha256"] == digest(4, SIZE)


def ask(connection: socket.socket, head: str, content: bytes = b"") -> bytes:
    """Send a request, and return all that comes until nothing more is expected."""
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + content)
    connection.settimeout(PATIENCE_S)
    received = b""
    while not re.search(rb"HTTP/1\.1 [2-5]\d\d .*\r\n\r\n", received, re.DOTALL):
        data = connection.recv(65536)
        assert data, received
        received += data
    return received


def test_client_of_the_draft_goes_on_where_it_was_told_before_its_answer(shared: Api) -> None:
    """The head that says where comes before a byte of the body is sent, and what came until the line broke is kept."""
    head = ("PUT /v1/instances/c1/files/draft HTTP/1.1\nHost: a\nUpload-Draft-Interop-Version: 6\nUpload-Complete: ?1\n"
            "Content-Length: 10\nExpect: 100-continue\n")
    with shared.raw() as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
        told = b""
        while b"HTTP/1.1 100 " not in told:
            told += connection.recv(65536)
        connection.sendall(b"abcd")
    # All that came has been read then; who asks before ends what is under way.
    shared.logged_with("upload.interrupted", path="/draft")
    [location] = re.findall(rb"HTTP/1\.1 104 .*\r\nlocation: \.\./\.\./\.\./(\S+)\r\n", told, re.DOTALL)
    target = f"/v1/{location.decode()}"
    with shared.raw() as connection:
        stands = ask(connection, f"HEAD {target} HTTP/1.1\nHost: a\nUpload-Draft-Interop-Version: 6\n")
        assert b"upload-offset: 4\r\n" in stands
        assert b"upload-complete: ?0\r\n" in stands
        last = ask(connection, f"PATCH {target} HTTP/1.1\nHost: a\nUpload-Draft-Interop-Version: 6\nUpload-Complete: ?1\n"
                   "Content-Type: application/partial-upload\nUpload-Offset: 4\nContent-Length: 6\n", b"efghij")
    assert b"HTTP/1.1 202 " in last
    assert task_at(shared, "/draft")["size"] == 10
