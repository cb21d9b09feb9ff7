"""Two services that share out the instances, each with its worker; and what docs/scaling.md gives people to paste."""

import io
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from daemon import failpoints
from daemon.config import load
from daemon.model.task import State
from daemon.state import released
from tests.support.client import Client
from tests.support.command import incus_courier
from tests.support.packages import unpacked
from tests.support.processes import ROOT
from tests.support.pushing import begin_push, end_push, push
from tests.support.recipes import recipes_of
from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.full

BLOCKS = recipes_of(ROOT / "docs/scaling.md")
#: The addresses of the page, and where the cells of the test are in their place.
NAMES = ("https://north.example.org:8443", "https://south.example.org:8443")
MIB = 2**20


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Cells:
    """The two cells of the page, on one machine."""

    def __init__(self, directory: Path) -> None:
        """Nothing is started yet. Both have the same token."""
        self.ports = [free_port(), free_port()]
        self.addresses = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.both = [self._cell(directory / name, name, port) for name, port in zip(("north", "south"), self.ports, strict=True)]
        self.north, self.south = self.both
        self.token = make_token(self.north.config, "ci", may=["upload", "read"])
        (self.south.directory / "tokens.json").write_bytes((self.north.directory / "tokens.json").read_bytes())
        (self.south.directory / "tokens.json").chmod(0o600)
        self.bearer = {"Authorization": f"Bearer {self.token}"}
        self.bearer_line = f"Authorization: Bearer {self.token}"

    def _cell(self, directory: Path, name: str, port: int) -> Service:
        directory.mkdir()
        made = Service(directory)
        made.settings["api"]["listen"] = [made.address, f"127.0.0.1:{port}"]
        self.configure(made, name)
        return made

    def configure(self, cell: Service, name: str, *, redirect: bool = False) -> None:
        """Give it the configuration of that name."""
        cell.settings["cell"] = {"name": name, "redirect": redirect}
        cell.further = self.printed(name).partition("\n\n")[2]
        cell.write_config()

    def printed(self, name: str) -> str:
        """A block, for these cells."""
        text = BLOCKS[name]
        for there, here in zip(NAMES, self.addresses, strict=True):
            text = text.replace(there, here)
        return text

    def reload(self, cell: Service) -> None:
        """Have it take over its configuration."""
        before = len(cell.events("config.reloaded"))
        cell.processes["api"].send(signal.SIGHUP)
        eventually(lambda: len(cell.events("config.reloaded")) > before, what="the reload")

    def wait_delivered(self, cell: Service, instance: str, path: str, content: bytes) -> None:
        """Wait until the file is in its instance."""
        eventually(lambda: cell.delivered(instance, path) == content, what=f"{instance}{path}")

    def curl(self, folder: Path, *words: str) -> str:
        """What curl is answered in a folder, with the token."""
        shown = ("-H", self.bearer_line)
        return subprocess.run(["curl", "-sS", *shown, *words], cwd=folder, capture_output=True, text=True, check=False,
                              timeout=PATIENCE_S).stdout

    def instances_of(self, cell: Service) -> set[str]:
        """The instances that it has tasks for."""
        return {task.upload.destination.instance for task in cell.tasks()}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cells]:
    """Both run."""
    made = Cells(tmp_path_factory.mktemp("cells"))
    with made.north, made.south:
        for cell in made.both:
            cell.start()
        yield made
        for cell in made.both:
            assert not cell.mistakes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small file and a large one."""
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(os.urandom(20 * MIB))
    return tmp_path


def test_configurations_of_the_page_are_legal_and_alike(tmp_path: Path) -> None:
    """They differ by the name of the host alone."""
    both = [tomllib.loads(BLOCKS[name]) for name in ("north", "south")]
    assert both[0]["cells"] == both[1]["cells"]
    (tmp_path / "config.toml").write_text(BLOCKS["south"])
    assert load(tmp_path / "config.toml").cell.name == "south"


def test_push_finds_the_cell_of_an_instance(cells: Cells, folder: Path) -> None:
    """Small and large files and a pipe, by whichever cell is named, until they are there; each cell has its own alone."""
    known = {"INCUS_COURIER_TOKEN": cells.token}
    for server in (cells.south.address, *cells.addresses):
        done = push(folder, server, "small", "large", "web-1/srv/", "--wait", **known)
        assert done.code == 0, done
        assert cells.north.delivered("web-1", "/srv/large") == (folder / "large").read_bytes()
    process = begin_push(folder, cells.addresses[0], "-", "mail/piped", "--wait", stdin=subprocess.PIPE, variables=known)
    done = end_push(process, "0123456789abcdef" * 600_000)
    assert done.code == 0, done
    assert cells.south.delivered("mail", "/piped") == b"0123456789abcdef" * 600_000
    assert (cells.instances_of(cells.north), cells.instances_of(cells.south)) == ({"web-1"}, {"mail"})


def test_tus_client_stops_at_another_cell(cells: Cells) -> None:
    """It says with which status, also where redirects are on: it would go on at the first cell."""
    cells.configure(cells.south, "south", redirect=True)
    cells.reload(cells.south)
    try:
        client = TusClient(f"{cells.addresses[1]}/v1/tus/", headers=cells.bearer)
        upload: Any = client.uploader(file_stream=io.BytesIO(b"x"), metadata={"instance": "web-1", "path": "/tus"})
        with pytest.raises(TusCommunicationError) as caught:
            upload.upload()
        assert caught.value.status_code == 421
    finally:
        cells.configure(cells.south, "south")
        cells.reload(cells.south)


def test_push_goes_on_in_the_cell_that_it_found(cells: Cells, folder: Path) -> None:
    """An interrupted one finds its upload there again, though another cell is named, and though that one is down."""
    known = {"INCUS_COURIER_TOKEN": cells.token}
    (folder / "huge").write_bytes(os.urandom(96 * MIB))
    process = begin_push(folder, cells.addresses[1], "huge", "web-2/srv/", variables=known)
    eventually(lambda: any(event["instance"] == "web-2" for event in cells.north.events("upload.begun")),
               what="the upload in the other cell")
    process.send_signal(signal.SIGINT)
    assert end_push(process).code == 130
    begun = len(cells.north.events("upload.begun"))
    cells.south.stop("api")
    try:
        done = push(folder, cells.addresses[1], "huge", "web-2/srv/", "--wait", "--retry-for", "20", **known)
    finally:
        cells.south.start()
    assert done.code == 0, done
    assert len(cells.north.events("upload.begun")) == begun
    assert cells.north.delivered("web-2", "/srv/huge") == (folder / "huge").read_bytes()


def test_cell_that_is_down_stops_no_other(cells: Cells) -> None:
    """Its clients are told nothing; what the other has goes on."""
    cells.south.kill()
    try:
        answer = cells.north.client.put("web-1", "/srv/alone", b"1", headers=cells.bearer)
        assert answer is not None
        assert answer.status == 202
        eventually(lambda: cells.north.delivered("web-1", "/srv/alone") == b"1")
        elsewhere = cells.north.client.put("mail", "/x", b"1", headers=cells.bearer)
        assert elsewhere is not None
        assert (elsewhere.status, elsewhere.json["address"]) == (421, cells.addresses[1])
    finally:
        cells.south.start()


def test_check_compares_the_cells(cells: Cells, folder: Path) -> None:
    """All is well as it is; a list that says something else, and other tokens, are found."""
    done = incus_courier("--config", str(cells.north.config), "check")
    lines = done.out.splitlines()
    assert f"ok   cell south: {cells.addresses[1]}" in lines, done
    assert any(line.startswith("ok   cells of local: ") for line in lines), done
    tokens = (cells.south.directory / "tokens.json").read_bytes()
    make_token(cells.south.config, "more", may=["read"])
    try:
        eventually(lambda: "its file of tokens is another one" in incus_courier("--config", str(cells.north.config), "check").out)
        other = folder / "config.toml"
        other.write_text(cells.north.config.read_text().replace(cells.addresses[1], cells.addresses[0]))
        assert "FAIL cell south: " in incus_courier("--config", str(other), "check").out
    finally:
        (cells.south.directory / "tokens.json").write_bytes(tokens)


def test_curl_follows_with_a_file(cells: Cells, folder: Path) -> None:
    """As the page has it, where redirects are on; without its option the token stays behind."""
    for cell, name in zip(cells.both, ("north", "south"), strict=True):
        cells.configure(cell, name, redirect=True)
        cells.reload(cell)
    try:
        (folder / "report.pdf").write_bytes(b"report")
        command = cells.printed("curl")
        done = subprocess.run(["sh", "-ec", command], cwd=folder, env={**os.environ, "COURIER_TOKEN": cells.token}, check=True,
                              timeout=PATIENCE_S, capture_output=True)
        assert json.loads(done.stdout)["instance"] == "web-1"
        eventually(lambda: cells.north.delivered("web-1", "/srv/report.pdf") == b"report")
        # Another host to curl, and the same here.
        elsewhere = f"http://localhost:{cells.ports[1]}/v1/instances/web-1/files/srv/lost"
        assert json.loads(cells.curl(folder, "--location", "-T", "report.pdf", elsewhere))["code"] == "no_credential"
    finally:
        for cell, name in zip(cells.both, ("north", "south"), strict=True):
            cells.configure(cell, name)
            cells.reload(cell)


@pytest.mark.root
def test_caddy_routes_by_instance(cells: Cells, folder: Path) -> None:
    """Each upload to its cell by one name, and a task wherever it is."""
    caddy = unpacked("caddy", folder) / "usr/bin/caddy"
    site = f"http://127.0.0.1:{free_port()}"
    (folder / "Caddyfile").write_text("{\n    admin off\n}\n" + cells.printed("caddy").replace("courier.example.org", site, 1))
    log = (folder / "caddy.log").open("wb")
    process = subprocess.Popen([caddy, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"], stdout=log, stderr=log,
                               env={**os.environ, "HOME": str(folder)})

    try:
        eventually(lambda: "up" in cells.curl(folder, f"{site}/healthz"), what=f"Caddy ({folder}/caddy.log)")
        large = (folder / "large").read_bytes()
        for instance, cell in (("web-7", cells.north), ("db", cells.north), ("dbx", cells.south), ("other", cells.south)):
            task = json.loads(cells.curl(folder, "-T", "large", f"{site}/v1/instances/{instance}/files/srv/by-caddy"))
            assert json.loads(cells.curl(folder, f"{site}/v1/tasks/{task['id']}"))["instance"] == instance
            cells.wait_delivered(cell, instance, "/srv/by-caddy", large)
            said = cells.curl(folder, "--data-binary", "@small", "-H", f"X-Container-Name: {instance}", "-H", "X-File-Path: /srv/small", f"{site}/upload")
            assert "queued for processing" in said
            cells.wait_delivered(cell, instance, "/srv/small", b"small")
        # What it does not know is refused by the cell that gets it, and goes on from there.
        assert json.loads(cells.curl(folder, f"{site}/v1/events?instance=db"))["code"] == "other_cell"
        done = push(folder, site, "large", "web-8/srv/", INCUS_COURIER_TOKEN=cells.token)
        assert done.code == 0, done
        cells.wait_delivered(cells.north, "web-8", "/srv/large", large)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.close()


class Stream:
    """Uploads to a few paths of an instance, each with a higher number; and somebody who looks what is there."""

    PATHS = ("/srv/a", "/srv/b", "/srv/c")
    #: Those of a later stream are higher.
    NUMBERS = itertools.count(1)

    def __init__(self, cells: Cells, instance: str) -> None:
        self._cells = cells
        self._instance = instance
        self._stop = threading.Event()
        #: The highest number that was accepted, by its path.
        self.accepted = dict.fromkeys(self.PATHS, 0)
        #: What was seen after something newer.
        self.backwards: list[tuple[str, int, int]] = []
        self._seen = dict.fromkeys(self.PATHS, 0)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._look)]

    def __enter__(self) -> "Stream":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        clients = [Client(f"127.0.0.1:{port}") for port in self._cells.ports]
        at = 0
        while not self._stop.is_set():
            number = next(self.NUMBERS)
            for path in self.PATHS:
                for _ in range(2):
                    answer = clients[at].put(self._instance, path, str(number).encode(), headers=self._cells.bearer)
                    if answer is not None and answer.status == 202:
                        self.accepted[path] = number
                        break
                    # To the other one, as a client does that is told so.
                    at = 1 - at
            self._stop.wait(0.002)

    def number(self, path: str) -> int:
        """What is in the instance."""
        content = self._cells.north.delivered(self._instance, path)
        return int(content) if content else 0

    def _look(self) -> None:
        while not self._stop.is_set():
            for path in self.PATHS:
                now = self.number(path)
                if now < self._seen[path]:
                    self.backwards.append((path, self._seen[path], now))
                self._seen[path] = now
            self._stop.wait(0.001)

    def wait_more(self) -> None:
        """Wait until more was accepted."""
        before = dict(self.accepted)
        eventually(lambda: all(self.accepted[path] > before[path] for path in self.PATHS), what="more uploads")

    def wait_all(self) -> None:
        """Wait until the newest that was accepted is there."""
        eventually(lambda: all(self.number(path) == self.accepted[path] for path in self.PATHS),
                   what=f"{self.accepted}")


def give(cells: Cells, to: Service, on: Service) -> None:
    """Change the list of one host, so that the cell `to` has the instance roams."""
    names = '["web-*", "db", "roams"]' if to is cells.north else '["web-*", "db"]'
    on.further = cells.printed("north").partition("\n\n")[2].replace('["web-*", "db"]', names)
    on.write_config()
    cells.reload(on)


def move(cells: Cells, old: Service, new: Service, faults: str = "") -> None:
    """Move roams as the page says; the commands meet `faults`, and are given again."""
    for words, on in ((["release", "roams", "--timeout", "60"], old), (["adopt", "roams"], new)):
        give(cells, new, on)
        command = ("--config", str(on.config), "cell", *words)
        if faults:
            incus_courier(*command, INCUS_COURIER_FAULTS=faults)
        done = incus_courier(*command)
        assert done.code == 0, done


@pytest.fixture
def together(cells: Cells) -> Iterator[Cells]:
    """Both cells deliver to the same instances."""
    shared, place = cells.north.layout.instances, cells.south.layout.instances
    for directory in (shared, place):
        directory.mkdir(exist_ok=True)
    cells.south.stop()
    subprocess.run(["mount", "--bind", shared, place], check=True)
    try:
        cells.south.start()
        yield cells
    finally:
        cells.south.kill()
        subprocess.run(["umount", place], check=True)
    for cell, name in zip(cells.both, ("north", "south"), strict=True):
        cells.configure(cell, name)
    cells.south.start()
    cells.reload(cells.north)


@pytest.mark.root
@pytest.mark.parametrize("step", ["", *failpoints.CELL_STEPS])
def test_instance_moves_while_files_come(together: Cells, step: str) -> None:
    """There and back: no path ever goes back to something older, and the newest that was accepted is there in the end.

    Each command is killed at each of its steps, and given again; so are the processes of either cell meanwhile.
    """
    cells = together
    with Stream(cells, "roams") as stream:
        stream.wait_more()
        for old, new in ((cells.south, cells.north), (cells.north, cells.south)):
            old.kill("worker-0")
            old.start()
            move(cells, old, new, f"{step}=kill" if step else "")
            stream.wait_more()
            for cell in (old, new):
                cell.kill()
                cell.start()
            stream.wait_more()
    stream.wait_all()
    assert stream.backwards == []
    assert not [task for cell in cells.both for task in cell.tasks() if task.state is State.FAILED]


@pytest.mark.root
def test_old_cell_delivers_nothing_after_it_has_let_go(together: Cells) -> None:
    """Whatever is in its queue: that is a dead letter, bytes included, and the cell takes the instance back only without it."""
    cells = together
    move(cells, cells.south, cells.north)
    give(cells, cells.south, cells.south)
    answer = cells.south.client.put("roams", "/srv/late", b"late", headers=cells.bearer)
    assert answer is not None
    assert (answer.status, answer.code) == (503, "not_adopted")
    assert "let go of, and this one's by the list: roams" in incus_courier("--config", str(cells.south.config), "check").out
    # As if one came in the very moment.
    cells.south.kill("worker-0")
    released.adopt(cells.south.layout, "local/default/roams")
    late = cells.south.client.put("roams", "/srv/late", b"late", headers=cells.bearer)
    assert late is not None
    assert late.status == 202
    released.release(cells.south.layout, "local/default/roams")
    cells.south.start()
    [task] = eventually(lambda: [task for task in cells.south.tasks() if task.state is State.FAILED])
    assert (task.task_id, task.error_code) == (late.task_id, "instance_released")
    assert cells.north.delivered("roams", "/srv/late") is None
    config = ("--config", str(cells.south.config))
    incus_courier(*config, "tasks", "retry", late.task_id)
    refused = incus_courier(*config, "cell", "adopt", "roams")
    assert (refused.code, late.task_id in refused.err) == (1, True)
    assert incus_courier(*config, "tasks", "save", late.task_id).out == "late"
    eventually(lambda: incus_courier(*config, "tasks", "delete", late.task_id).code == 0)
    eventually(lambda: incus_courier(*config, "cell", "adopt", "roams").code == 0)
    move(cells, cells.north, cells.south)


@pytest.mark.root
def test_cell_lets_go_only_when_all_is_delivered(together: Cells) -> None:
    """What waits is waited for. Without that, an older file comes after a newer one of the other cell: the control."""
    cells = together

    def content() -> bytes | None:
        return cells.north.delivered("roams", "/srv/path")

    cells.south.kill("worker-0")
    for number in (b"1", b"older"):
        answer = cells.south.client.put("roams", "/srv/path", number, headers=cells.bearer)
        assert answer is not None
        assert answer.status == 202
    give(cells, cells.north, cells.south)
    release = ("--config", str(cells.south.config), "cell", "release", "roams", "--timeout")
    done = incus_courier(*release, "0.5")
    assert (done.code, "on the way" in done.err) == (1, True)
    assert "another cell's by the list, with tasks here: roams" in incus_courier(*release[:2], "check").out
    assert released.read(cells.south.layout) == frozenset()
    # Nobody heeds what `release` said.
    give(cells, cells.north, cells.north)
    released.adopt(cells.north.layout, "local/default/roams")
    newer = cells.north.client.put("roams", "/srv/path", b"newer", headers=cells.bearer)
    assert newer is not None
    assert newer.status == 202
    eventually(lambda: content() == b"newer")
    cells.south.start()
    eventually(lambda: content() == b"older")
    assert incus_courier(*release, "60").code == 0
    move(cells, cells.north, cells.south)


def test_cell_lets_go_of_nothing_that_is_its_own_or_not_delivered(cells: Cells) -> None:
    """The list has to say so first, and what cannot be delivered is named."""
    config = ("--config", str(cells.north.config))
    done = incus_courier(*config, "cell", "release", "web-1")
    assert (done.code, "is this cell's own" in done.err) == (1, True)
    done = incus_courier(*config, "cell", "adopt", "mail")
    assert (done.code, "is another cell's" in done.err) == (1, True)
    done = incus_courier(*config, "cell", "adopt", "web-1")
    assert (done.code, "nothing to take back" in done.out) == (0, True)


def test_every_block_is_tried() -> None:
    """Whoever adds one to the page tries it."""
    here = Path(__file__).read_text()
    assert [name for name in BLOCKS if f'"{name}"' not in here] == []
