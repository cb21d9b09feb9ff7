import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from site import getsitepackages as site_packages

import pytest

from daemon.config import Config, load
from daemon.process.exit_status import EXIT_CONFIG, EXIT_OK
from daemon.process.supervisor import api_commands, cause_of, restart_delay_s, sender_commands, worker_commands
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[4]

#: A child: it says that it runs and what signals it gets, until it is told to end in a certain way.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from daemon.process import sd_notify
from daemon.process.parent_death import tie_to_parent
tie_to_parent()
notes = Path(os.environ["NOTES"])
name = "-".join(word for word in (__package__, *sys.argv[1:]) if word.isalnum())
def note(text):
    with (notes / "log").open("a") as log:
        log.write(f"{name} {text}\\n")
def told(number, frame):
    note(signal.Signals(number).name)
    deaf = (notes / "deaf").exists() or (notes / f"deaf-{name}").exists()
    if not deaf and number == signal.SIGTERM:
        sys.exit(0)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, told)
note(f"pid {os.getpid()}")
sd_notify.ready()
while True:
    sd_notify.watchdog()
    if (notes / f"exit-{name}").exists():
        code = int((notes / f"exit-{name}").read_text())
        (notes / f"exit-{name}").unlink()
        sys.exit(code)
    time.sleep(0.01)
"""
PARENT = """
import sys
from daemon.process import supervisor
from daemon.config import load
from daemon.log import setup
supervisor._GRACE_S = float(sys.argv[1])
config = load(None)
config = config.model_copy(update={
    "api": config.api.model_copy(update={"drain_s": 0.0, "processes": 1}),
    "delivery": config.delivery.model_copy(update={"drain_s": 0.0})})
setup(config.log, "serve")
sys.exit(supervisor.Supervisor(config, None, [], with_workers=True).run())
"""
CHILDREN = {"api", "worker-0", "worker-1"}


def interpreter(directory: Path, packages: Path) -> Path:
    """A virtual environment whose Python finds what is in `packages` before all that this one finds."""
    site = directory / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    site.mkdir(parents=True)
    (site / "paths.pth").write_text("\n".join(map(str, (packages, ROOT, *site_packages()))))
    (directory / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (directory / "bin").mkdir()
    (directory / "bin/python3").symlink_to(sys.executable)
    return directory / "bin/python3"


class Family:
    """A supervisor in a process of its own, with children that do nothing but live."""

    def __init__(self, directory: Path, grace_s: float = PATIENCE_S, **variables: str) -> None:
        self.notes = directory / "notes"
        self.notes.mkdir()
        for package in ("api", "worker"):
            (directory / package).mkdir()
            (directory / package / "__init__.py").touch()
            (directory / package / "__main__.py").write_text(CHILD)
        python = interpreter(directory / "venv", directory)
        environment = {**os.environ, "NOTES": str(self.notes), "INCUS_COURIER__LOG__LEVEL": "error", **variables}
        self.process = subprocess.Popen([python, "-I", "-c", PARENT, str(grace_s)], env=environment)

    def exit(self, name: str, code: int) -> None:
        """Have a child end with an exit code."""
        order = self.notes / f"order-{name}"
        order.write_text(str(code))
        # The child never reads half of it.
        order.rename(self.notes / f"exit-{name}")

    def log(self) -> list[str]:
        """What the children said."""
        return (self.notes / "log").read_text().splitlines() if (self.notes / "log").exists() else []

    def pids(self, name: str) -> list[int]:
        """The process ids that a child has had, the last one last."""
        return [int(line.split()[2]) for line in self.log() if line.startswith(f"{name} pid ")]

    def wait_complete(self) -> None:
        """Wait until every child runs."""
        self.wait(lambda: all(self.pids(name) for name in CHILDREN))

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for something."""
        eventually(condition)

    def end(self) -> int:
        """Wait for the supervisor's end; return its exit code."""
        return self.process.wait(PATIENCE_S)

    def alive(self) -> set[str]:
        """The children whose last process runs."""
        return {name for name in CHILDREN if self.pids(name) and _runs(self.pids(name)[-1])}


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def living(family: Family) -> Iterator[Family]:
    """Wait until all children run; afterwards none does."""
    try:
        family.wait_complete()
        yield family
    finally:
        family.process.kill()
        family.process.wait()
        for name in family.alive():
            with suppress(ProcessLookupError):
                os.kill(family.pids(name)[-1], signal.SIGKILL)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """A supervisor whose children all run."""
    with living(Family(tmp_path)) as made:
        yield made


def test_children_are_an_api_for_each_process_and_a_worker_for_each_shard() -> None:
    """Each gets the configuration file; the API gets the sockets, and where its processes count together."""
    config = load(None)
    config = config.model_copy(update={"api": config.api.model_copy(update={"processes": 2})})
    assert api_commands(config, "/etc/x.toml", ["fd://7", "tls:fd://8"], 9) == [
        ["api", "--config", "/etc/x.toml", "--listen", "fd://7", "--listen", "tls:fd://8", "--counts", "9:0"],
        ["api", "--config", "/etc/x.toml", "--listen", "fd://7", "--listen", "tls:fd://8", "--counts", "9:1"]]
    assert worker_commands(config, "/etc/x.toml") == [
        ["worker", "--shard", "0", "--config", "/etc/x.toml"], ["worker", "--shard", "1", "--config", "/etc/x.toml"]]
    hook = {"name": "ci", "url": "https://a.example/", "secret": "/etc/secret"}
    assert sender_commands(config, None) == []
    assert sender_commands(Config.model_validate({"webhooks": [hook]}), "/etc/x.toml") == [
        ["sender", "--config", "/etc/x.toml"]]


@pytest.mark.parametrize(("deaths", "delay_s"), [(1, 0.2), (2, 0.4), (3, 0.8), (6, 6.4), (7, 10.0), (100_000, 10.0)])
def test_delay_before_a_restart_grows_up_to_its_limit(deaths: int, delay_s: float) -> None:
    """A child that dies at once is not started a hundred times a second, however often it died."""
    assert restart_delay_s(deaths) == pytest.approx(delay_s)


@pytest.mark.slow
def test_child_is_started_later_when_the_machine_has_nothing_left_to_start_it_with(family: Family) -> None:
    """Without descriptors, processes or memory the supervisor waits like after any death, and the others go on."""
    supervisor = family.process.pid
    before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{supervisor}/fd"))
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    os.kill(family.pids("worker-0")[0], signal.SIGKILL)
    tried_at = time.monotonic() + 2 * restart_delay_s(1)
    family.wait(lambda: time.monotonic() > tried_at)
    assert family.alive() == {"api", "worker-1"}
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
    family.wait(lambda: len(family.pids("worker-0")) == 2)
    assert family.alive() == CHILDREN


def test_children_run_the_installed_code_whatever_the_environment_says(tmp_path: Path) -> None:
    """Nobody's PYTHONPATH, and no package in the working directory, takes the place of the service's own."""
    planted = tmp_path / "planted"
    (planted / "api").mkdir(parents=True)
    (planted / "api/__init__.py").write_text(f"import pathlib; pathlib.Path({str(planted / 'ran')!r}).touch()")
    with living(Family(tmp_path, PYTHONPATH=str(planted))):
        assert not (planted / "ran").exists()


def test_child_that_dies_is_started_again_and_the_others_go_on(family: Family) -> None:
    """Whatever ended it: a signal or a mistake."""
    os.kill(family.pids("worker-0")[0], signal.SIGKILL)
    family.wait(lambda: len(family.pids("worker-0")) == 2)
    family.exit("api", 1)
    family.wait(lambda: len(family.pids("api")) == 2)
    assert len(family.pids("worker-1")) == 1
    assert family.alive() == CHILDREN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_is_passed_on_and_waited_for(family: Family, number: int) -> None:
    """Every child is told to finish, and the supervisor ends after the last, well."""
    family.process.send_signal(number)
    assert family.end() == EXIT_OK
    assert family.alive() == set()
    assert {line for line in family.log() if "SIG" in line} == {f"{name} SIGTERM" for name in CHILDREN}


def test_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """After its time is over a child is not waited for any longer."""
    with living(Family(tmp_path, grace_s=0.5)) as family:
        (family.notes / "deaf").touch()
        family.process.send_signal(signal.SIGTERM)
        assert family.end() == EXIT_OK
        assert family.alive() == set()


@pytest.mark.slow
def test_stop_gives_a_child_its_time_whatever_has_become_of_the_others(tmp_path: Path) -> None:
    """A child that ended at once is not taken for one that stands still, also after the watchdog's time."""
    watchdog_s = 2
    with living(Family(tmp_path, NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC=f"{watchdog_s}000000")) as family:
        (family.notes / "deaf-worker-0").touch()
        family.process.send_signal(signal.SIGTERM)
        family.wait(lambda: family.alive() == {"worker-0"})
        over_at = time.monotonic() + 2 * watchdog_s
        family.wait(lambda: time.monotonic() > over_at)
        assert family.alive() == {"worker-0"}
        family.exit("worker-0", 0)
        assert family.end() == EXIT_OK
        assert family.log().count("worker-0 SIGTERM") == 1


def test_reload_is_passed_on(family: Family) -> None:
    """Every child reads the configuration again; none is restarted."""
    family.process.send_signal(signal.SIGHUP)
    family.wait(lambda: {f"{name} SIGHUP" for name in CHILDREN} <= set(family.log()))
    assert family.alive() == CHILDREN
    assert all(len(family.pids(name)) == 1 for name in CHILDREN)


def test_wrong_configuration_of_a_child_ends_all(family: Family) -> None:
    """A restart does not help then: the exit code says so, and nothing stays behind."""
    family.exit("worker-1", EXIT_CONFIG)
    assert family.end() == EXIT_CONFIG
    assert family.alive() == set()


def test_children_end_when_the_supervisor_is_killed(family: Family) -> None:
    """Whatever ends it: no worker goes on alone and keeps its shard from the next one."""
    family.process.kill()
    family.process.wait()
    family.wait(lambda: family.alive() == set())
    assert {line for line in family.log() if "SIG" in line} == {f"{name} SIGTERM" for name in CHILDREN}


def test_end_by_a_signal_is_said_in_words() -> None:
    """A bus error tells a person of a disk without room; a status of its own tells nothing more."""
    assert cause_of(-signal.SIGBUS) == "Bus error"
    assert cause_of(1) is None
