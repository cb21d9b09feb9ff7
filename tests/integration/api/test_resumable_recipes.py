"""The snippets of docs/resumable.md, as they are printed there: proxies from Debian, and clients behind them."""

import base64
import contextlib
import json
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load
from tests.integration.api.running import Api, Reply
from tests.support import node_clients
from tests.support.bodies import body, digest, pieces
from tests.support.packages import unpacked
from tests.support.pretended_host import PretendedHost
from tests.support.processes import ROOT
from tests.support.recipes import recipes_of
from tests.support.tokens import make_token
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.root, pytest.mark.full]

BLOCKS = recipes_of(ROOT / "docs/resumable.md")
SITE = "http://courier.example.org"
SIZE = 64 * 2**20
#: How curl speaks to each proxy: by HTTP/2 where that is said to be a trap.
OVER = {"nginx": ["--http2-prior-knowledge"], "caddy": []}


class Behind:
    """A host with the service on it, and a proxy of that kind in front."""

    def __init__(self, host: PretendedHost, kind: str) -> None:
        """The service runs; the proxy does not yet."""
        self.host = host
        self.state = host.directory / "state"
        (host.etc / "incus-courier/config.toml").write_text(
            f'[api]\nprocesses = 1\norigins = ["{SITE}"]\n[state]\ndirectory = "{self.state}"\n[queue]\nshards = 1\n[target]\nkind = "directory"\n'
            '[limits]\nmin_free_bytes = 0\nreserve_bytes = 0\n[delivery]\nmkdirs = true\n[log]\nformat = "json"\n')
        self.log = host.directory / "log"
        self.begin()
        self.proxy = getattr(self, f"_begin_{kind}")()

    def begin(self) -> None:
        """Start the service."""
        before = len(self.events("api.started"))
        self.service = self.host.begin("incus-courier", "serve", log=self.log)
        eventually(lambda: len(self.events("api.started")) > before, what=f"the start ({self.log})")

    def events(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The events of that name with these fields."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [line for line in found if line["event"] == event and fields.items() <= line.items()]

    def _begin_nginx(self) -> Any:
        nginx = unpacked("nginx", self.host.directory) / "usr/sbin/nginx"
        configuration = self.host.directory / "nginx.conf"
        configuration.write_text(
            f"user root;\npid {self.host.directory}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n"
            f"  client_body_temp_path {self.host.directory}/body;\n  proxy_temp_path {self.host.directory}/proxy;\n"
            f"  fastcgi_temp_path {self.host.directory}/f; uwsgi_temp_path {self.host.directory}/u; scgi_temp_path {self.host.directory}/s;\n"
            f"  server {{\n    listen 80;\n    listen 8080 http2;\n{BLOCKS['nginx']}\n  }}\n}}\n")
        return self.host.begin(nginx, "-c", configuration, "-e", "stderr", "-g", "daemon off;", log=self.host.directory / "proxy.log")

    def _begin_caddy(self) -> Any:
        caddy = unpacked("caddy", self.host.directory) / "usr/bin/caddy"
        configuration = self.host.directory / "Caddyfile"
        configuration.write_text(f"{{\n    admin off\n}}\n{SITE} {{\n{BLOCKS['caddy']}\n}}\n")
        return self.host.begin(caddy, "run", "--adapter", "caddyfile", "--config", configuration, log=self.host.directory / "proxy.log")

    def curl(self, *words: str) -> str:
        """What curl writes."""
        return self.host.run("curl", "-sS", *words).stdout

    def file(self, seed: int, size: int) -> Path:
        """A file with these bytes."""
        file = self.host.home / f"file-{seed}"
        with file.open("wb") as opened:
            opened.writelines(pieces(seed, size))
        return file

    def begin_upload(self, job: dict[str, Any]) -> "Any":
        """Start a job of a client in node."""
        out = self.host.directory / "client"
        out.write_text("")
        return self.host.begin("node", node_clients.HERE / "upload.mjs", json.dumps(job), log=out), out

    def upload(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run it to its end."""
        process, out = self.begin_upload(job)
        process.wait(PATIENCE_S)
        told: dict[str, Any] = json.loads(out.read_text().splitlines()[-1])
        return told

    def accepted(self, path: str) -> dict[str, Any]:
        """How the upload to a path was logged, once."""
        [line] = eventually(lambda: self.events("upload.accepted", path=path), what=f"{path} ({self.log})")
        return line

    def stop(self) -> None:
        """End all."""
        for process in (self.proxy, self.service):
            process.terminate()
            process.wait(PATIENCE_S)


def encoded(text: str) -> str:
    """A value of metadata."""
    return base64.b64encode(text.encode()).decode()


@contextlib.contextmanager
def behind_proxy(kind: str) -> Iterator[Behind]:
    """The whole host."""
    node_clients.install()
    with PretendedHost() as host:
        behind = Behind(host, kind)
        try:
            eventually(lambda: "up" in behind.curl(f"{SITE}/courier/healthz"), what=f"the proxy ({host.directory}/proxy.log)")
            yield behind
        finally:
            behind.stop()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, str]]:
    """A service, and a token for it."""
    with Api(tmp_path_factory.mktemp("door"), {}, {}) as api:
        token = make_token(api.started().file, "clients", may=["upload", "read"])
        eventually(lambda: shown(api, token).status == 200, what="the token")
        yield api, token


def shown(api: Api, token: str) -> Reply:
    """The tasks, for who has the token."""
    return api.ask("GET", "/v1/tasks", Authorization=f"Bearer {token}")


def printed(name: str, api: Api) -> str:
    """A block, for the address of this service."""
    return BLOCKS[name].replace("https://courier.example.org", f"http://127.0.0.1:{api.port}")


def test_examples_for_python_do_what_they_say(door: tuple[Api, str], tmp_path: Path) -> None:
    """As they are printed, but for the address."""
    api, token = door
    (tmp_path / "dump.tar").write_bytes(body(5, 3_000_000))
    inside = textwrap.indent(printed("aiotus", api), "    ")
    programs = [printed("tuspy", api), f"import asyncio\nasync def upload():\n{inside}    print(where)\nasyncio.run(upload())\n"]
    said = []
    for program in programs:
        done = subprocess.run([sys.executable, "-c", f"token = {token!r}\n{program}"], cwd=tmp_path, capture_output=True, text=True,
                              check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    tasks = [task for task in shown(api, token).json()["tasks"] if task["instance"] == "vault"]
    assert [task["sha256"] for task in tasks] == [digest(5, 3_000_000)] * 2
    assert said[0] == tasks[1]["id"]
    assert f":{api.port}/v1/tus/" in said[1]


PRELUDE = """
import fs from 'node:fs'
const token = process.argv[2]
const file = Object.assign(fs.readFileSync(process.argv[3]), { name: 'a.mp4' })
"""
UPPY = """
uppy.addFile({ name: 'b.mp4', type: 'video/mp4', data: file })
console.log((await uppy.upload()).failed.length)
"""


def test_examples_for_javascript_do_what_they_say(door: tuple[Api, str], tmp_path: Path) -> None:
    """As they are printed, but for the address, and the file that a page has from its user."""
    node_clients.install()
    api, token = door
    (tmp_path / "node_modules").symlink_to(node_clients.HERE / "node_modules")
    file = tmp_path / "file"
    file.write_bytes(body(1, 1000))
    imports = {"draft": "import { Upload } from 'tus-js-client'\n"}
    for name, more in (("tus-js-client", ""), ("uppy", UPPY), ("draft", "")):
        program = tmp_path / f"{name}.mjs"
        program.write_text(PRELUDE + imports.get(name, "") + printed(name, api) + more)
        done = subprocess.run(["node", program, token, file], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
    paths = sorted(task["path"] for task in shown(api, token).json()["tasks"] if task["instance"] == "web-1")
    assert paths == ["/srv/media/a.mp4", "/srv/media/a.mp4", "/srv/media/b.mp4"]


def test_configuration_for_pages_is_legal(tmp_path: Path) -> None:
    """It is taken as it is printed."""
    (tmp_path / "config.toml").write_text(BLOCKS["pages"])
    assert load(tmp_path / "config.toml").api.cors_origins == ["https://shop.example.org"]


def test_every_block_is_tried() -> None:
    """Whoever adds one to the page tries it."""
    here = Path(__file__).read_text()
    assert [name for name in BLOCKS if f'"{name}"' not in here and f"'{name}'" not in here] == []


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_uploads_go_on_behind_a_proxy_also_when_the_service_is_killed(kind: str) -> None:
    """Under a path of the proxy, by all protocols; bytes are safe as they come, and a restart makes nobody begin anew."""
    with behind_proxy(kind) as behind:
        about = node_clients.metadata("c1", "/behind/tus")
        source = str(behind.file(1, SIZE))
        tus = f"{SITE}/courier/v1/tus/"
        # A part that is cut off is stored as far as it came: the proxy keeps nothing back.
        version = ("-H", "Tus-Resumable: 1.0.0")
        made = behind.curl("-i", "-X", "POST", tus, *version, "-H", f"Upload-Length: {SIZE}", "-H",
                           f"Upload-Metadata: instance {encoded('c1')},path {encoded('/behind/cut')}")
        [name] = re.findall(r"(?mi)^location: (\S+)", made)
        behind.curl("--limit-rate", "8M", "--max-time", "1", "-X", "PATCH", "-T", source, tus + name, *version,
                    "-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream")
        [offset] = re.findall(r"(?mi)^upload-offset: (\d+)", behind.curl("-I", tus + name, *version))
        assert 0 < int(offset) < SIZE
        process, out = behind.begin_upload({
            "endpoint": tus, "source": source, "metadata": about, "options": {"chunkSize": 2**20}, "talkative": True,
            "retryDelays": [0, 200, 500, 1000, 1000, 2000, 2000, 4000]})
        eventually(lambda: out.read_text().count('"PATCH"') > 5, what="some parts")
        behind.service.send_signal(signal.SIGKILL)
        behind.service.wait(PATIENCE_S)
        eventually(lambda: not behind.curl(f"{SITE}/courier/healthz").startswith("{"), what="the end of the service")
        assert "423" in behind.curl("-o", "/dev/null", "-w", "%{http_code}", "-I", f"{tus}x", "-H", "Tus-Resumable: 1.0.0")
        behind.begin()
        process.wait(PATIENCE_S)
        told = json.loads(out.read_text().splitlines()[-1])
        assert [method for method, _ in told["requests"]].count("POST") == 1, told
        assert told["url"].startswith(f"{tus}")
        assert behind.accepted("/behind/tus")["sha256"] == digest(1, SIZE)
        for protocol in ("ietf-draft-03", "ietf-draft-05"):
            path = f"/behind/{protocol}"
            told = behind.upload({"endpoint": f"{SITE}/courier/v1/instances/c1/files{path}", "source": source, "metadata": {},
                                  "options": {"protocol": protocol, "chunkSize": 2**24}})
            assert told["url"].startswith(f"{SITE}/courier/v1/resumable/")
            assert behind.accepted(path)["sha256"] == digest(1, SIZE)
        # A head before the answer comes through, or none is sent.
        said = behind.curl("-i", *OVER[kind], "-T", source, "-H", "Upload-Draft-Interop-Version: 6", "-H", "Upload-Complete: ?1",
                           f"{SITE}{':8080' if kind == 'nginx' else ''}/courier/v1/instances/c1/files/behind/whole")
        assert re.findall(r"HTTP/\S+ ([1-5]\d\d)", said)[-1] == "202"
        assert ("HTTP/1.1 104" in said) == (kind == "caddy")
