"""Requests for the instances of another cell."""

import json
import signal

import pytest

from daemon.state import released
from daemon.state.layout import Layout
from tests.integration.api.conftest import Start
from tests.integration.api.running import Api
from tests.integration.api.test_limits import answer
from tests.support.tokens import make_token
from tests.support.waiting import eventually

SOUTH = "https://south.example:8443"
CELLS = json.dumps([
    {"name": "north", "address": "https://north.example", "instances": ["c1"]},
    {"name": "south", "address": SOUTH, "instances": ["web-*", "c9"], "remotes": ["local", "eu"]}])
THERE = "/v1/instances/web-1/files/srv/x"
NAMED = ("421", "south", SOUTH)


@pytest.fixture
def north(start: Start) -> Api:
    """One of two cells; north has c1."""
    return start(environment={"INCUS_COURIER__CELLS": CELLS}, cell={"name": "north"}, delivery={"mkdirs": True})


def named(api: Api, method: str, target: str, body: bytes | None = None, **headers: str) -> tuple[str, str, str]:
    """How a request was refused, and what its head names."""
    reply = api.ask(method, target, body, **headers)
    assert reply.code == "other_cell"
    return str(reply.status), reply.headers["cell-name"], reply.headers["cell-address"]


def test_request_for_another_cell(north: Api) -> None:
    """It gets that cell's name and address, before its body, after it is known who asks, and nothing is kept of it."""
    reply = north.ask("PUT", THERE, b"x")
    assert (reply.status, reply.json()["cell"], reply.json()["address"]) == (421, "south", SOUTH)
    upload = {"X_Container_Name": "web-1", "X_File_Path": "/srv/x"}
    # "instance" and "path" in metadata: web-1 and /x.
    creation = {"Tus_Resumable": "1.0.0", "Upload_Length": "1", "Upload_Metadata": "instance d2ViLTE=,path L3g="}
    form = (b'--b\r\nContent-Disposition: form-data; name="instance"\r\n\r\nweb-1\r\n--b\r\nContent-Disposition: form-data;'
            b' name="path"\r\n\r\n/srv/\r\n--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n--b--\r\n')
    assert named(north, "PUT", THERE, b"x") == NAMED
    assert named(north, "PUT", "/v1/instances/eu:c9/files/x", b"x") == NAMED
    assert named(north, "PUT", THERE, b"x", Upload_Complete="?1", Upload_Draft_Interop_Version="6") == NAMED
    assert named(north, "POST", "/upload", b"x", **upload) == NAMED
    assert named(north, "POST", "/v1/tus/", b"", **creation) == NAMED
    assert named(north, "GET", "/v1/tasks?instance=web-1") == NAMED
    assert named(north, "GET", "/v1/events?instance=web-1") == NAMED
    assert named(north, "GET", "/v1/instances/web-1") == NAMED
    assert north.ask("POST", "/v1/tus/", b"", **creation).headers["tus-resumable"] == "1.0.0"
    reply = north.ask("POST", "/v1/uploads", form, Content_Type="multipart/form-data; boundary=b")
    assert (reply.status, reply.json()["cell"], reply.json()["problem"]["address"]) == (421, "south", SOUTH)
    assert north.put("mine").status == 202
    assert north.ask("PUT", "/v1/instances/other/files/x", b"x").code == "no_cell"
    assert north.ask("GET", "/v1/tasks?instance=other").json()["tasks"] == []
    with north.raw() as connection:
        connection.sendall(f"PUT {THERE} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert answer(connection).startswith(b"HTTP/1.1 421 ")
    assert [task["path"] for task in north.tasks()] == ["/mine"]
    layout = Layout(north.state)
    released.release(layout, "local/default/c1")
    assert [north.put("mine").code, north.ask("POST", "/v1/tus/", b"", **{
        **creation, "Upload_Metadata": "instance YzE=,path L3g="}).code] == ["not_adopted"] * 2
    released.adopt(layout, "local/default/c1")
    assert north.put("mine").status == 202
    _redirects(north)
    _asks_for_rights_first(north)


def _redirects(north: Api) -> None:
    """After a reload clients that can follow are sent there, with the address as they wrote it."""
    north.configure(north.settings, {"cell": {"redirect": True}})
    north.send(signal.SIGHUP)
    north.logged("config.reloaded")
    reply = north.ask("PUT", f"{THERE}%20y?mode=0600&mkdirs=true", b"x")
    assert (reply.status, reply.headers["location"]) == (307, f"{SOUTH}{THERE}%20y?mode=0600&mkdirs=true")
    assert reply.json()["status"] == 307
    assert north.ask("GET", "/v1/tasks?instance=web-1").headers["location"] == f"{SOUTH}/v1/tasks?instance=web-1"
    creation = {"Tus_Resumable": "1.0.0", "Upload_Length": "1", "Upload_Metadata": "instance d2ViLTE=,path L3g="}
    assert north.ask("POST", "/v1/tus/", b"", **creation).status == 421


def _asks_for_rights_first(north: Api) -> None:
    """Who may not reach the instance is not told whose it is; all are told which cell this is."""
    before = north.ask("GET", "/healthz").json()
    token = f"Bearer {make_token(north.file, 'db', may=['upload', 'read'], instances=['db-*'])}"
    eventually(lambda: north.ask("GET", "/v1/me", Authorization=token).status == 200)
    assert north.ask("PUT", THERE, b"x").code == "no_credential"
    assert north.ask("PUT", THERE, b"x", Authorization=token).code == "instance_not_allowed"
    assert north.ask("GET", "/v1/tasks?instance=web-1", Authorization=token).status == 200
    told = north.ask("GET", "/healthz").json()
    assert (told["status"], told["cell"], len(told["tokens"])) == ("up", "north", 32)
    assert told["tokens"] != before["tokens"]
