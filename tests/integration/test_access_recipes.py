"""The recipes of docs/access.md, as they are printed there, with a real service on a host that is pretended."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.packages import unpacked
from tests.support.pretended_host import GROUPS, USERS, PretendedHost
from tests.support.processes import ROOT
from tests.support.recipes import recipes_of
from tests.support.tokens import without_tokens
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.root

PAGE = ROOT / "docs/access.md"
BLOCKS = recipes_of(PAGE)
FILES = "https://courier.example.org:8443/v1/instances"
NAME = "courier.example.org"


class House:
    """The host with the service on it, set up as docs/install.md says, and the first token of a recipe."""

    def __init__(self, host: PretendedHost, authority: Authority) -> None:
        """Nothing is started yet."""
        self.host = host
        self.etc = host.etc / "incus-courier"
        self.state = host.directory / "state"
        self.ca = host.directory / "ca.pem"
        shutil.copy(authority.own.certificate, self.ca)
        pair = authority.issue(f"/CN={NAME}", names=f"DNS:{NAME}")
        shutil.copy(pair.certificate, self.etc / "tls/fullchain.pem")
        shutil.copy(pair.key, self.etc / "tls/privkey.pem")
        self.config: dict[str, Any] = {
            "api": {"listen": ["unix:/run/incus-courier/api.sock", "unix:/run/incus-courier/proxy.sock", "tls:0.0.0.0:8443"],
                    "processes": 1},
            "tls": {"certificate": "/etc/incus-courier/tls/fullchain.pem", "key": "/etc/incus-courier/tls/privkey.pem"},
            "state": {"directory": str(self.state)}, "queue": {"shards": 1}, "target": {"kind": "directory"},
            "limits": {"min_free_bytes": 0, "reserve_bytes": 0}, "delivery": {"mkdirs": True}, "log": {"format": "json"}}
        self.configure("")
        self.log = host.directory / "log"
        # Without it, the address that other machines reach would not open.
        self.shop = self.token("app/token")
        self.process = host.begin("incus-courier", "serve", log=self.log)

    def wait_started(self) -> None:
        """Wait until it takes uploads."""
        (self.host.run_directory / "pid").write_text(str(self.process.pid))
        eventually(lambda: self.events("api.started") and self.events("worker.started"), what=f"the start ({self.log})")
        # As the units of the sockets do.
        shutil.chown(self.host.run_directory / "api.sock", group=GROUPS["incus-courier"])

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0
        without_tokens(self.log.read_text())

    def configure(self, toml: str) -> None:
        """Put this into the configuration, each key into its section."""
        file = self.etc / "config.toml"
        if file.exists():
            self.config = tomllib.loads(file.read_text())
        for section, value in tomllib.loads(toml).items():
            if isinstance(value, list):
                self.config.setdefault(section, []).extend(value)
            else:
                self.config.setdefault(section, {}).update(value)
        file.write_text("".join(self._section(*item) for item in self.config.items()))

    def _section(self, name: str, value: Any) -> str:
        head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        return "".join("\n".join((head, *(f"{key} = {json.dumps(of)}" for key, of in one.items()), ""))
                       for one in (value if isinstance(value, list) else [value]))

    def events(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The events of that name with these fields."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines(keepends=True)
                 if line.startswith("{") and line.endswith("\n")]
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]

    @contextmanager
    def until(self, event: str) -> Iterator[None]:
        """Leave once the API has logged that one more time."""
        before = len(self.events(event, component="api"))
        yield
        eventually(lambda: len(self.events(event, component="api")) > before, what=f"{event} ({self.log})")

    def run(self, block: str, said: str = "", **variables: str) -> str:
        """Paste the block of that name into a shell."""
        return self.paste(BLOCKS[block], said, **variables)

    def paste(self, text: str, said: str = "", **variables: str) -> str:
        """Paste text into a shell that ends at the first failure; return what it writes."""
        done = self.host.run("sh", "-ec", text, said=said, CURL_CA_BUNDLE=str(self.ca), **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token(self, block: str) -> str:
        """The token that a block makes, as the last line that it writes."""
        return self.run(block).splitlines()[-1]

    def curl(self, *words: str, user: str = "root") -> dict[str, Any]:
        """What curl is answered, as JSON."""
        done = self.host.run("sudo", "-u", user, "curl", "-sS", "--cacert", str(self.ca), *words)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def put(self, token: str, place: str) -> dict[str, Any]:
        """What an upload with that token is answered."""
        return self.curl("-H", f"Authorization: Bearer {token}", "-T", "report.pdf", f"{FILES}/{place}")

    def wait_delivered(self, place: str, name: str) -> None:
        """Wait until the file of that name is in its instance."""
        content = (self.host.home / name).read_bytes()
        file = self.state / "instances" / place
        eventually(lambda: file.exists() and file.read_bytes() == content, what=f"{place} ({self.log})")


@pytest.fixture(scope="module")
def house(authority: Authority) -> Iterator[House]:
    """One service for the tests of this module."""
    with PretendedHost() as host:
        for name in ("front.jpg", "back.jpg", "side.jpg", "app.tar.gz", "dump.tar.zst", "report.pdf"):
            (host.home / name).write_text(f"This is {name}")
        house = House(host, authority)
        try:
            house.wait_started()
            yield house
        finally:
            house.stop()


def test_every_block_is_tried() -> None:
    """Whoever adds one to the page tries it here."""
    here = Path(__file__).read_text()
    assert [name for name in BLOCKS if f'"{name}"' not in here] == []


def test_app_uploads_and_waits_when_it_is_told_to(house: House) -> None:
    """Its three files arrive though two a second are let in; another instance is refused."""
    beyond = BLOCKS["app/python"] + "\nsend('front.jpg', 'web-1', '/srv/media/front.jpg')\n"
    done = house.host.run("python3", "-", said=beyond, COURIER_TOKEN=house.shop, REQUESTS_CA_BUNDLE=str(house.ca))
    assert "403 Client Error" in done.stderr
    for name in ("front.jpg", "back.jpg", "side.jpg"):
        house.wait_delivered(f"shop-1/srv/media/{name}", name)
    # A line may be written after its answer.
    eventually(lambda: house.events("upload.rejected", code="rate_limited", client="token:shop"))
    eventually(lambda: house.events("upload.rejected", code="instance_not_allowed", client="token:shop"))


def test_job_uploads_before_and_after_its_token_is_rotated(house: House) -> None:
    """Both texts are good for a while, and neither is for another path. No list of processes shows them."""
    with house.until("tokens.reloaded"):
        first = house.token("ci/token")
    with house.host.spied("curl") as arguments:
        house.run("ci/job", COURIER_TOKEN=first)
    house.wait_delivered("web-1/srv/app/app.tar.gz", "app.tar.gz")
    assert "-T app.tar.gz" in arguments.read_text()
    assert first not in arguments.read_text()
    with house.until("tokens.reloaded"):
        second = house.token("ci/rotate")
    for token in (first, second):
        house.run("ci/job", COURIER_TOKEN=token)
        assert house.put(token, "web-1/files/etc/passwd")["code"] == "path_not_allowed"


def test_script_shows_its_certificate(house: House) -> None:
    """It uploads to its directory, and nowhere else; who shows none is refused."""
    house.run("backup/certificate")
    house.run("backup/clients")
    house.configure(BLOCKS["backup/tls"])
    with house.until("tls.renewed"):
        house.run("backup/grant")
    house.run("backup/script")
    shown = ("--cert", "backup.crt", "--key", "backup.key", "-T", "report.pdf")
    assert house.curl(*shown, f"{FILES}/vault/files/etc/passwd")["code"] == "path_not_allowed"
    assert house.curl("-T", "report.pdf", f"{FILES}/vault/files/srv/backup/x")["code"] == "no_credential"
    [accepted] = house.events("upload.accepted", client="cert:backup")
    house.wait_delivered(f"vault{accepted['path']}", "dump.tar.zst")


def test_script_on_the_host_is_known_by_its_user(house: House) -> None:
    """It needs nothing else; root and the group keep all rights, and who is in neither has none."""
    house.configure(BLOCKS["backup/peers"])
    with house.until("config.reloaded"):
        house.run("backup/group")
    house.run("backup/local")
    house.wait_delivered("vault/srv/backup/dump.tar.zst", "dump.tar.zst")
    door = ("--unix-socket", "/run/incus-courier/api.sock", "-T", "report.pdf")
    place = "http://courier/v1/instances/vault/files/etc/x"
    assert house.curl(*door, place, user="backup")["code"] == "path_not_allowed"
    assert house.curl(*door, f"{place}?mode=4755&uid=0")["client"] == "peer:root"
    house.host.run("adduser", "caddy", "incus-courier")
    assert house.curl(*door, f"{place}?mode=4755&uid=0", user="caddy")["client"] == "peer:uploaders"


@pytest.fixture(scope="module")
def team(house: House) -> House:
    """The service, with a door for Caddy, and the team's rights."""
    house.run("team/socket")
    unit = dict(line.split("=", 1) for line in (house.etc.parent / "systemd/system/incus-courier-proxy.socket").read_text()
                .splitlines() if "=" in line and not line.startswith("#"))
    door = house.host.directory / unit["ListenStream"].removeprefix("/")
    os.chown(door, USERS[unit["SocketUser"]], -1)
    door.chmod(int(unit["SocketMode"], 8))
    house.configure(BLOCKS["team/users"])
    with house.until("config.reloaded"):
        house.run("team/restart")
    return house


def test_proxy_says_who_its_users_are(team: House) -> None:
    """What its own user says through its own door counts, and what anybody else says does not."""
    words = ("-T", "report.pdf", "-H", "X-Forwarded-User: alice", "-H", "X-Forwarded-Host: courier.example.org")
    door = ("--unix-socket", "/run/incus-courier/proxy.sock")
    assert team.curl(*door, *words, "http://x/v1/instances/web-1/files/srv/a", user="caddy")["client"] == "user:alice"
    assert team.curl(*door, *words, "http://x/v1/instances/db-1/files/srv/a", user="caddy")["code"] == "instance_not_allowed"
    assert team.curl(*door, "http://x/v1/tasks", user="caddy")["code"] == "no_credential"
    assert team.curl(*words, f"{FILES}/web-1/files/srv/a")["code"] == "no_credential"


@pytest.mark.full
def test_team_uploads_through_caddy(team: House) -> None:
    """By name and password, from a program and from a page of Caddy's site; a name that a client writes itself is nothing."""
    programs = unpacked("caddy", team.host.directory)
    (team.host.directory / "bin/caddy").symlink_to(programs / "usr/bin/caddy")
    team.run("team/password", said="correct horse battery staple\n")
    # Its own authority stands in for the public ones.
    file = team.etc.parent / "caddy/Caddyfile"
    file.write_text("{\n    local_certs\n    skip_install_trust\n    admin off\n}\n" + BLOCKS["team/caddyfile"])
    data = team.host.directory / "caddy-data"
    data.mkdir()
    os.chown(data, USERS["caddy"], -1)
    log, own_ca = team.host.directory / "caddy.log", team.ca
    caddy = team.host.begin("setpriv", "--reuid=caddy", "--regid=caddy", "--clear-groups", "--inh-caps=+net_bind_service",
                            "--ambient-caps=+net_bind_service", "env", f"HOME={data}", f"XDG_DATA_HOME={data}", "caddy", "run",
                            "--config", "/etc/caddy/Caddyfile", log=log)
    try:
        eventually(lambda: log.exists() and "serving initial configuration" in log.read_text(), what=f"Caddy ({log})")
        team.ca = data / "caddy/pki/authorities/local/root.crt"
        team.run("team/upload", said="correct horse battery staple\n")
        team.wait_delivered("web-1/srv/reports/report.pdf", "report.pdf")
        site, shown = f"https://{NAME}/v1/instances", ("--user", "alice:correct horse battery staple", "-T", "report.pdf")
        assert team.events("upload.accepted", client="user:alice", path="/srv/reports/report.pdf")
        assert team.curl(*shown, f"{site}/db-1/files/srv/x")["code"] == "instance_not_allowed"
        assert team.events("upload.rejected", client="user:alice", address="127.0.0.1")
        forged = ("-H", "X-Forwarded-User: bob", "-H", "X_Forwarded_User: bob", "-H", f"Origin: https://{NAME}")
        assert team.curl(*shown, *forged, f"{site}/web-1/files/srv/x")["client"] == "user:alice"
        assert team.curl(*shown, "-H", "Origin: https://other.example", f"{site}/web-1/files/srv/x")["code"] == "cross_site"
        assert team.host.run("curl", "-sS", "--cacert", str(team.ca), "-o", "/dev/null", "-w", "%{http_code}", *forged,
                             f"https://{NAME}/v1/tasks").stdout == "401"
    finally:
        team.ca = own_ca
        caddy.terminate()
        caddy.wait(PATIENCE_S)


def test_link_is_good_for_one_file(house: House) -> None:
    """Whoever has it sends that, and then nothing more; from another address than it is for it is nothing."""
    with house.until("tokens.reloaded"):
        maker = house.token("link/maker")
    link = house.run("link/make", COURIER_TOKEN=maker).strip()
    assert house.put(link, "web-1/files/srv/inbox/other.pdf")["code"] == "path_not_allowed"
    house.run("link/send", UPLOAD_TOKEN=link)
    house.wait_delivered("web-1/srv/inbox/report.pdf", "report.pdf")
    assert house.put(link, "web-1/files/srv/inbox/report.pdf")["code"] == "used_up"
    [more] = re.findall(r"With `(\"addresses\": .*)` among these", PAGE.read_text())
    bound = BLOCKS["link/make"].replace('"max_uploads": 1', f'"max_uploads": 1, {more}')
    elsewhere = house.paste(bound, COURIER_TOKEN=maker).strip()
    assert house.put(elsewhere, "web-1/files/srv/inbox/report.pdf")["code"] == "address_not_allowed"
