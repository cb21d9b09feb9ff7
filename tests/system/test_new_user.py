"""From the package to a delivered folder, by what the documentation says alone: installed here, sent from elsewhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.live.host import Container, Host
from tests.support.certificates import Authority, Pair
from tests.support.waiting import eventually
from tests.system.conftest import make_image, make_package
from tests.system.elsewhere import HERE, PORT, SITE, Elsewhere, elsewhere
from tests.system.machine import (
    DEBIAN_12,
    DEBIAN_13,
    INCUS_SOCKET,
    PATIENCE_S,
    Machine,
    Release,
    give_incus,
    launched,
    own_incus,
)

pytestmark = [pytest.mark.system, pytest.mark.live, pytest.mark.browser, pytest.mark.prometheus, pytest.mark.full,
              pytest.mark.timeout(900)]

UNITS = ("incus-courier-api.service", "incus-courier-worker@0.service", "incus-courier-worker@1.service")
DROP_IN = "/etc/systemd/system/incus-courier-api.socket.d"
EXAMPLES = "/usr/share/doc/incus-courier/examples"
ALERTS = "/usr/share/incus-courier/prometheus/alerts.yml"
FILES = {"site/index.html": b"<h1>hello</h1>", "site/css/main.css": b"body {}", "site/big.bin": b"x" * 9_000_000}


@dataclass(frozen=True)
class Fresh:
    """A machine on which the package has just been installed, and the Incus that it delivers into."""

    machine: Machine
    incus: Host


@contextmanager
def _debian_12(incus: Host, package: Path) -> Iterator[Fresh]:
    """Its Incus is at a place of its own, which the configuration has to name."""
    with launched(incus, DEBIAN_12) as machine:
        install(machine, package)
        give_incus(machine)
        machine.configure(endpoint=INCUS_SOCKET)
        yield Fresh(machine, incus)


@contextmanager
def _debian_13(incus: Host, package: Path) -> Iterator[Fresh]:
    """Its Incus is Debian's own, and is found."""
    with launched(incus, DEBIAN_13, "--config", "security.nesting=true") as machine:
        inside = own_incus(machine)
        install(machine, package)
        yield Fresh(machine, inside)


MADE = {DEBIAN_12: _debian_12, DEBIAN_13: _debian_13}


@pytest.fixture(params=list(MADE), ids=str)
def fresh(incus: Host, tools: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fresh]:
    """A machine with that Debian, on which all services run."""
    release: Release = request.param
    make_image(release)
    with MADE[release](incus, make_package(release, tmp_path / "package")) as made:
        made.machine.configure(min_free_bytes=0)
        restart(made.machine)
        yield made


def install(machine: Machine, package: Path) -> None:
    """Install the package."""
    machine.run("dpkg", "--force-unsafe-io", "-i", machine.push(package, "/root"))


def restart(machine: Machine) -> None:
    """Have it read its configuration."""
    machine.systemctl("restart", "incus-courier.target")
    machine.wait_active(*UNITS)


def open_to_others(machine: Machine, pair: Pair) -> None:
    """Have the service listen for other machines with TLS, as docs/install.md says."""
    directory = "/etc/incus-courier/tls"
    machine.run("install", "-d", "-m", "750", "-g", "incus-courier-tokens", directory)
    for file in (pair.certificate, pair.key):
        machine.run("install", "-m", "640", "-g", "incus-courier-tokens", machine.push(file, "/root"), f"{directory}/")
    machine.configure(listen=["unix:/run/incus-courier/api.sock", f"tls:0.0.0.0:{PORT}"],
                      certificate=f"{directory}/{pair.certificate.name}", key=f"{directory}/{pair.key.name}")


def open_socket(machine: Machine) -> None:
    """Put the documented drop-in there."""
    machine.run("install", "-D", "-m", "644", "-t", DROP_IN, f"{EXAMPLES}/listen-address.conf")
    machine.run("sed", "-i", f"s/^ListenStream=.*/ListenStream=0.0.0.0:{PORT}/", f"{DROP_IN}/listen-address.conf")
    machine.systemctl("daemon-reload")
    machine.systemctl("restart", "incus-courier-api.socket", "incus-courier-api.service")
    machine.wait_active(*UNITS)


def make_token(machine: Machine, name: str, *options: str) -> str:
    """A new token: the last line that the command writes."""
    return machine.run("incus-courier", "token", "new", name, *options).splitlines()[-1]


def found(machine: Machine, level: str) -> dict[str, str]:
    """What `check` finds of that level: the detail of each, by what it is."""
    done = machine.incus("exec", machine.name, "--", "incus-courier", "check", "--json", check=False)
    return {finding["what"]: finding["detail"] for finding in json.loads(done.stdout)["findings"]
            if finding["level"] == level}


def explained(machine: Machine, what: str) -> tuple[int, str]:
    """The exit status and the words of `explain`, at the machine's own terminal."""
    done = machine.incus("exec", machine.name, "--", "incus-courier", "explain", what, check=False)
    return done.returncode, done.stdout


def there(instance: Container, below: str) -> Callable[[], bool]:
    """True when all files are in the instance, whole."""
    return lambda: all((path := instance.rootfs / below / name).is_file() and path.read_bytes() == body
                       for name, body in FILES.items())


def sign_in(page: Page, token: str) -> None:
    """Open the dashboard, with a token."""
    page.goto("")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is stuck")


def retry(page: Page) -> None:
    """Have the dead letters of the instance whose page it is tried again."""
    page.get_by_role("region", name="Dead letters").get_by_role("button", name="Retry").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=f"Retry {len(FILES)} tasks").click()
    expect(dialog).to_contain_text(f"{len(FILES)} tasks changed")
    dialog.get_by_role("button", name="Close").click()


def test_new_user_finds_out_why_a_folder_does_not_arrive(fresh: Fresh, tmp_path: Path) -> None:
    """Install, check, token, push from elsewhere; what fails is told, seen and alerted; mended and retried, it arrives."""
    machine = fresh.machine
    assert found(machine, "error") == {}
    # As that of this machine.
    assert found(machine, "warning").keys() <= {"clock"}
    authority = Authority(tmp_path)
    open_to_others(machine, authority.issue(names=f"IP:{HERE}"))
    token = make_token(machine, "web", "--may", "upload,read", "--paths", "/srv/**")
    admin = make_token(machine, "admin", "--may", "admin")
    watcher = make_token(machine, "prometheus", "--may", "metrics")
    # The address without its drop-in: the check says so, before anybody wonders.
    assert f"0.0.0.0:{PORT}" in found(machine, "error")[f"sandbox of {UNITS[0]}"]
    open_socket(machine)
    assert found(machine, "error") == {}
    assert found(machine, "warning").keys() <= {"clock"}

    for name, body in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
    rules = machine.run("sed", "s/for: .*/for: 1s/", ALERTS)
    with (fresh.incus.container() as instance, fresh.incus.container(running=False) as stopped,
          elsewhere(machine, authority.own.certificate, tmp_path) as other,
          other.prometheus(watcher, rules), other.browser() as browser):
        sent = other.push(token, "-r", "site", f"{instance.name}/srv/", "--wait")
        assert sent.returncode == 0, sent.stderr
        assert there(instance, "srv")()
        page = browser.new_page()
        sign_in(page, admin)
        eventually(lambda: other.metric("incus_courier_uploads_total") == [len(FILES)], PATIENCE_S, "the metrics")
        assert other.alerts() == set()

        a_path_fails(machine, instance, other, page, token)
        an_instance_is_stopped(machine, stopped, other, page, token)
        eventually(lambda: other.alerts() == set(), PATIENCE_S, "no alert fires any more")
    eventually(lambda: explained(machine, stopped.name)[0] == 0, PATIENCE_S, "nothing is stuck any more")


def a_path_fails(machine: Machine, instance: Container, other: Elsewhere, page: Page, token: str) -> None:
    """A file where the folder is to go: nothing arrives until it is away and somebody presses `Retry`."""
    instance.run("echo in the way >/srv/blocked")
    sent = other.push(token, "-r", "site", f"{instance.name}/srv/blocked/", "--wait")
    assert sent.returncode != 0
    assert "not a directory" in explained(machine, instance.name)[1]
    failed = other.get(f"{SITE}/v1/tasks?instance={instance.name}&state=failed", token)["tasks"]
    assert len(failed) == len(FILES)
    status, words = explained(machine, failed[0]["id"])
    assert status == 1
    assert "not a directory" in words
    eventually(lambda: "IncusCourierDeadLetters" in other.alerts(), PATIENCE_S, "the alert fires")
    # The page is open since before.
    expect(page.get_by_role("main")).to_contain_text(f"{instance.name} {len(FILES)} tasks failed")
    page.get_by_role("link", name=instance.name).first.click()
    expect(page.get_by_role("region", name="Why is this stuck?")).to_contain_text("not a directory")
    instance.run("rm /srv/blocked")
    retry(page)
    eventually(there(instance, "srv/blocked"), PATIENCE_S, "all of the folder is there")
    expect(page.get_by_role("region", name="How it stands")).to_contain_text("Nothing waits for it.")
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is stuck")


def an_instance_is_stopped(machine: Machine, instance: Container, other: Elsewhere, page: Page, token: str) -> None:
    """What is for it waits where that is configured, says why, and arrives as soon as it runs."""
    machine.configure(stopped="wait")
    restart(machine)
    sent = other.push(token, "-r", "site", f"{instance.name}/srv/")
    assert sent.returncode == 0, sent.stderr
    eventually(lambda: explained(machine, instance.name)[0] == 1, PATIENCE_S, "it is stuck")
    assert "The instance is stopped." in explained(machine, instance.name)[1]
    expect(page.get_by_role("main")).to_contain_text("The instance is stopped.")
    instance.start()
    eventually(there(instance, "srv"), PATIENCE_S, "all of the folder is there")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is stuck")
