"""What `incus-courier check` says of cells."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.access.token_file import read_tokens
from daemon.cli.check_cells import cell_findings
from daemon.config import Cell, CellSection, Config
from daemon.model.glob import globs_meet, name_matches
from daemon.model.upload import Destination
from tests.support.tokens import make_token
from worker.check import faults

#: The answers to GET /healthz that cells give.
UP = {"status": "up"}


@contextmanager
def answering(said: object) -> Iterator[str]:
    """The address of what answers so."""
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer."""
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def findings(file: Path, *cells: tuple[str, str, str]) -> list[str]:
    """What is said of cells, by name, address and glob; the first one is this host's."""
    config = Config(cell=CellSection(name=cells[0][0]), cells=[
        Cell(name=name, address=address, instances=[glob]) for name, address, glob in cells])
    return [f"{'ok' if found.ok else 'FAIL'} {found.what}: {found.detail}" for found in cell_findings(config, file)]


def test_each_cell_is_asked_who_it_is(tmp_path: Path) -> None:
    """One that is silent, has another name or other tokens is found; this host's own may not run."""
    file = tmp_path / "config.toml"
    make_token(file, "ci", may=["upload"])
    tokens = read_tokens(tmp_path / "tokens.json").digest
    with socket.create_server(("127.0.0.1", 0)) as free:
        silent = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (answering({**UP, "cell": "b", "tokens": tokens}) as well, answering({**UP, "cell": "b", "tokens": "x"}) as other,
          answering(UP) as alone, answering([1]) as foreign):
        told = findings(file, ("a", silent, "a-*"), ("b", well, "b-*"), ("c", well, "c-*"), ("d", silent, "d-*"),
                        ("e", alone, "e-*"), ("f", foreign, "f-*"))
        assert told == [
            "ok cells: a (this one), b, c, d, e, f", f"ok cell a: {silent}: Connection refused; this service may not run",
            f"ok cell b: {well}", f"FAIL cell c: {well} is the cell b", f"FAIL cell d: {silent}: Connection refused",
            f"FAIL cell e: {alone} is a service that is no cell", f"FAIL cell f: {foreign}: what answers is not this service"]
        assert findings(file, ("a", silent, "a-*"), ("b", other, "b-*"))[2].startswith(
            f"FAIL cell b: {other}: its file of tokens")
        assert findings(file, ("a", silent, "web-*"), ("b", well, "*-1"))[0] == (
            "FAIL cells: two can claim the same instance: a and b")


def test_nothing_is_said_where_there_are_no_cells(tmp_path: Path) -> None:
    """A service alone has nothing to compare."""
    assert list(cell_findings(Config(), tmp_path / "config.toml")) == []


def test_each_instance_is_of_one_cell() -> None:
    """Who is claimed twice or by nobody is named; where one cell has the rest nobody is left out."""
    web, db, rest = (Cell(name="web", address="http://w", instances=["web-*", "x"]),
                     Cell(name="db", address="http://d", instances=["*-db", "x"]), Cell(name="rest", address="http://r"))
    known = [Destination("local", "default", name, "/") for name in ("web-1", "web-db", "mail")]
    known.append(Destination("eu", "shop", "mail", "/"))
    config = Config(cell=CellSection(name="web"), cells=[web, db])
    assert faults(known, config) == [
        "web-db is claimed by web and db", "mail is in no cell", "eu:shop/mail is in no cell"]
    assert faults(known, config.model_copy(update={"cells": [web, rest, db]})) == ["web-db is claimed by web and db"]


@given(st.text("ab*?", min_size=1, max_size=6), st.text("ab*?", min_size=1, max_size=6), st.text("ab", min_size=1, max_size=6))
def test_globs_that_share_a_name_meet(one: str, other: str, name: str) -> None:
    """Whatever both mean, they meet in it; whether they do does not depend on which is first."""
    if name_matches(one, name) and name_matches(other, name):
        assert globs_meet(one, other)
    assert globs_meet(one, other) == globs_meet(other, one)


@pytest.mark.parametrize(("one", "other", "meet"), [
    ("web-*", "*-1", True), ("web-*", "db-*", False), ("a?c", "a*", True), ("a?c", "ab", False), ("*", "?", True), ("ab", "ab", True),
    ("*a", "*b", False), ("a*b*c", "*x*", True), ("??", "?", False),
])
def test_globs_meet(one: str, other: str, meet: bool) -> None:
    """They meet where a name fits both."""
    assert globs_meet(one, other) is meet
