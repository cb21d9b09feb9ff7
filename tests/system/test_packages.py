"""How the service comes onto a machine, is brought up to date, and leaves: by its package, and without one."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.live.host import Container
from tests.support.waiting import eventually
from tests.system.conftest import ROOT
from tests.system.load import Load
from tests.system.machine import CONFIG, DEBIAN_12, DOOR, INCUS_SOCKET, PATIENCE_S, Machine, ask, give_incus

pytestmark = [pytest.mark.system, pytest.mark.live, pytest.mark.timeout(600)]

UNITS = ("incus-courier-api.service", "incus-courier-worker@0.service", "incus-courier-worker@1.service")
LIBRARY = "/usr/lib/incus-courier"
STATE = "/var/lib/incus-courier"
TOKENS = "/etc/incus-courier/tokens.json"
LOOPBACK = "127.0.0.1:8420"
#: What only the Debian package has.
DEBIAN_ONLY = re.compile(r"/usr/share/(lintian.*|doc/incus-courier/(copyright|changelog\.Debian\.gz))")
#: What the machine is told of groups and of the API, and the lines in there that the version before did not have.
_HOST_FILES = ("usr/lib/sysusers.d/incus-courier.conf", "usr/lib/systemd/system/incus-courier-api.service")
_ONLY_NEW = re.compile(r"^(g incus-courier-tokens|SupplementaryGroups=|PrivateNetwork=yes|RestrictAddressFamilies="
                       r"|[0-9a-f]{32}  (" + "|".join(map(re.escape, _HOST_FILES)) + r")$).*\n", re.MULTILINE)


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, and its control files in DEBIAN."""
    folder = tmp_path_factory.mktemp("unpacked") / "root"
    subprocess.run(["dpkg-deb", "-R", package, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def older_package(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package with a lower version, a module that the new one does not have any more, and the units of before.

    Those know no tokens, and give the API a network.
    """
    control = unpacked / "DEBIAN/control"
    text = control.read_text()
    changed = {unpacked / path: (unpacked / path).read_text() for path in ("DEBIAN/md5sums", *_HOST_FILES)}
    for path, now in changed.items():
        path.write_text(_ONLY_NEW.sub("", now))
    extra = next(unpacked.glob("usr/lib/incus-courier/lib/python*/site-packages/daemon")) / "gone.py"
    control.write_text(re.sub(r"^Version: .*$", "Version: 0.0.1-1", text, flags=re.MULTILINE))
    extra.write_text('"""A module of the version before."""\n')
    older = tmp_path_factory.mktemp("older") / "incus-courier-older.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", unpacked, older], check=True,
                   stdout=subprocess.DEVNULL)
    control.write_text(text)
    for path, now in changed.items():
        path.write_text(now)
    extra.unlink()
    return older


@pytest.fixture(scope="module")
def staged(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the service, as `make install` puts them onto a machine."""
    folder = tmp_path_factory.mktemp("install") / "staged"
    folder.mkdir()
    subprocess.run([ROOT / "packaging/stage", folder, "--python", DEBIAN_12.python], check=True)
    return folder


def layout(folder: Path) -> set[str]:
    """The paths in a folder, with their permissions."""
    listed = subprocess.run(["find", ".", "-mindepth", "1", "-path", "./DEBIAN", "-prune", "-o", "-printf", "%M /%P\n"],
                            cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return {line for line in listed.stdout.splitlines() if not DEBIAN_ONLY.fullmatch(line.split(" ", 1)[1])}


def install(machine: Machine, package: str) -> None:
    """Install a package whose file is on the machine; a power cut of the machine is not what is tested here."""
    machine.run("dpkg", "--force-unsafe-io", "-i", package)


def wait_up(machine: Machine) -> None:
    """Wait until the service runs."""
    machine.wait_active(*UNITS)


@pytest.mark.full
def test_package_has_no_error_that_lintian_knows(package: Path) -> None:
    """Debian's own checker finds neither errors nor warnings."""
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", package], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


def test_package_has_nothing_of_the_machine_that_made_it(unpacked: Path) -> None:
    """No compiled file, no note on where things came from, no path of a build folder."""
    names = [path.name for path in unpacked.rglob("*")]
    assert not {"__pycache__", "direct_url.json", "RECORD", ".venv"} & set(names)
    assert not [name for name in names if name.endswith((".pyc", ".pth", ".egg-link"))]
    found = subprocess.run(["grep", "-rlE", f"{re.escape(str(ROOT))}/(daemon|api|worker|packaging)|/tmp/tmp\\.[A-Za-z0-9]{{10}}",
                            unpacked], stdout=subprocess.PIPE, text=True, check=False)
    assert found.stdout == ""


def test_documents_lead_to_what_is_there(unpacked: Path) -> None:
    """What is in several folders of the sources is in one folder here."""
    folder = unpacked / "usr/share/doc/incus-courier"
    pages = list(folder.glob("*.md"))
    led = {(page.name, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())}
    assert len(led) > 50
    assert {(page, link) for page, link in led if not (folder / link).exists()
            and not link.startswith(("/etc/incus-courier/", "/usr/share/common-licenses/"))} == set()


def test_package_has_the_dashboard(unpacked: Path) -> None:
    """Every file of it, as it is in the sources: there is no build step."""
    [folder] = unpacked.glob("usr/lib/incus-courier/lib/python3*/site-packages/api/ui/static")

    def files(top: Path) -> dict[Path, bytes]:
        return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    assert files(folder) == files(ROOT / "api/ui/static")


@pytest.mark.full
def test_service_lives_through_upgrade_removal_and_return(
    fresh_machine: Machine, older_package: Path, package: Path, instance: Container, stopped_instance: Container,
) -> None:
    """No upload is refused or lost by an upgrade; a removal keeps what waits, and the service's return delivers it."""
    machine = fresh_machine
    install(machine, machine.push(older_package, "/root"))
    give_incus(machine)
    machine.configure(endpoint=INCUS_SOCKET, stopped="wait", min_free_bytes=0, listen=[f"unix:/{DOOR}", LOOPBACK])
    machine.systemctl("restart", "incus-courier.target")
    wait_up(machine)
    assert machine.status("getent", "group", "incus-courier-tokens") != 0
    assert machine.run("dpkg", "--verify", "incus-courier").splitlines() == [f"??5?????? c {CONFIG}"]
    modules = f"{LIBRARY}/lib/python{DEBIAN_12.python}/site-packages/daemon"
    machine.run("test", "-e", f"{modules}/__pycache__/gone.cpython-{DEBIAN_12.python.replace('.', '')}.pyc")

    load, waiting = Load(machine, instance), Load(machine, stopped_instance)
    waiting.many(20)
    newer = machine.push(package, "/root")
    with load.running():
        load.wait_for(20)
        install(machine, newer)
        load.wait_for(20)
    assert not load.refused
    load.wait_delivered()
    wait_up(machine)
    assert machine.run("dpkg-query", "-W", "-f", "${Version}", "incus-courier") in package.name
    assert machine.run("find", modules, "-name", "gone*") == ""
    assert f'endpoint = "{INCUS_SOCKET}"' in machine.run("cat", CONFIG)
    pending = ask(machine.door, "GET", f"/v1/tasks?instance={stopped_instance.name}&limit=1000")[1]["tasks"]
    assert {task["id"] for task in pending} == set(waiting.promised.values())
    # What rights need is there, and the address that the older API could open is open.
    assert machine.run("stat", "-c", "%a %U", f"{STATE}/access") == "700 incus-courier-api"
    group = machine.run("getent", "group", "incus-courier-tokens").split(":")[2]
    main = machine.show(UNITS[0], "MainPID")
    assert group in machine.run("sed", "-n", "s/^Groups:\t//p", f"/proc/{main}/status").split()
    # A token lets in whom it is for, and nobody else any more. Each process of the API finds that out by itself.
    token = machine.run("incus-courier", "token", "new", "ci", "--may", "read").split()[-1]
    assert machine.run("stat", "-c", "%a %U %G", TOKENS) == "640 root incus-courier-tokens"
    ask_tasks = ["curl", "--silent", "--write-out", " %{http_code}", f"http://{LOOPBACK}/v1/tasks?limit=1"]
    eventually(lambda: machine.run(*ask_tasks).endswith(" 401"), PATIENCE_S)
    shown = ("--header", f"Authorization: Bearer {token}")
    eventually(lambda: machine.run(*ask_tasks, *shown).endswith(" 200"), PATIENCE_S)
    tokens = machine.run("cat", TOKENS)

    machine.run("dpkg", "-r", "incus-courier")
    assert machine.status("systemctl", "cat", UNITS[0]) != 0
    assert machine.run("sh", "-c", f"find {LIBRARY} /run/incus-courier -mindepth 1 2>/dev/null || true") == ""
    install(machine, newer)
    wait_up(machine)
    assert machine.run("cat", TOKENS) == tokens
    stopped_instance.start()
    waiting.wait_delivered()


def test_purge_leaves_nothing(fresh_machine: Machine, package: Path) -> None:
    """Users, groups, configuration, uploads, directories and units are gone; Incus's own group stays."""
    machine = fresh_machine
    if machine.status("dpkg", "-s", "incus-courier") != 0:
        install(machine, machine.push(package, "/root"))
    machine.write("/etc/incus-courier/credentials/client.key", "secret")
    machine.write(TOKENS, "secret")
    machine.run("dpkg", "-P", "incus-courier")
    left = machine.run("sh", "-c", "find / -xdev -name '*incus-courier*' -not -path '/root/*' -not -path '/proc/*'; "
                                   "find /run -name '*incus-courier*'; getent passwd; getent group; "
                                   "systemctl list-units --all --plain --no-legend 'incus-courier*'")
    assert [line for line in left.splitlines() if "incus-courier" in line] == []
    assert "incus-admin:" in left


@pytest.mark.full
def test_make_install_has_the_layout_of_the_package(staged: Path, unpacked: Path) -> None:
    """With apt and without, the same files are at the same places."""
    assert layout(staged) == layout(unpacked)


@pytest.mark.full
def test_make_install_and_uninstall_can_be_repeated(
    fresh_machine: Machine, package: Path, staged: Path, instance: Container, tmp_path: Path,
) -> None:
    """Twice is as good as once, both ways; configuration and uploads stay. It takes over from a package that was removed."""
    machine = fresh_machine
    install(machine, machine.push(package, "/root"))
    give_incus(machine)
    archive = tmp_path / "staged.tar"
    subprocess.run(["tar", "-C", staged.parent, "-cf", archive, "staged", "-C", ROOT, "packaging"], check=True)
    machine.run("tar", "-C", "/root", "--no-same-owner", "-xf", machine.push(archive, "/root"))
    refused = machine.incus("exec", machine.name, "--", "/root/packaging/install", "--staged", "/root/staged", check=False)
    assert refused.returncode != 0
    assert "apt-get remove" in refused.stderr
    machine.run("dpkg", "-r", "incus-courier")
    machine.run("/root/packaging/install", "--staged", "/root/staged")
    machine.run("cp", CONFIG, "/root/config.toml")
    machine.run("dpkg", "-P", "incus-courier")
    machine.run("test", "-d", f"{STATE}/spool")
    # The one file that dpkg itself takes away.
    machine.run("cp", "/root/config.toml", CONFIG)
    machine.configure(endpoint=INCUS_SOCKET)
    look = ("find", LIBRARY, "/usr/lib/systemd/system", "/etc/incus-courier", "-printf", "%M %u %g %p\n")
    before = machine.run(*look)
    machine.run("/root/packaging/install", "--staged", "/root/staged")
    assert sorted(machine.run(*look).splitlines()) == sorted(before.splitlines())
    assert f'endpoint = "{INCUS_SOCKET}"' in machine.run("cat", CONFIG)
    wait_up(machine)
    load = Load(machine, instance)
    load.many(5)
    assert not load.refused
    load.wait_delivered()
    for _ in range(2):
        machine.run("/root/packaging/uninstall")
        assert machine.run("sh", "-c", "ls -d /usr/*/incus-courier* /usr/lib/*/incus-courier* 2>/dev/null || true") == ""
        eventually(lambda: machine.run("systemctl", "list-units", "--plain", "--no-legend", "incus-courier*") == "", PATIENCE_S)
        machine.run("test", "-e", CONFIG, "-a", "-d", f"{STATE}/spool")
