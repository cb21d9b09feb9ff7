"""What commands show of a real service: the same by HTTP as from its state."""

import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.support.command import incus_courier
from tests.support.depot import new_id
from tests.support.processes import ROOT
from tests.support.service import Service
from tests.support.shell import Shell
from tests.support.waiting import PATIENCE_S, eventually

#: The command. Whoever is started in the background of a script ignores what Ctrl-C sends, and so do all below it.
_RUN = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from client.main import main; main()")
#: The same, with its standard input as the controlling terminal, as a shell's window is.
_OWN = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {_RUN}"
EVIL = "/there/a\u202eb"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one instance that has a directory."""
    with Service(tmp_path_factory.mktemp("looking"), {"queue": {"shards": 2}}) as made:
        (made.layout.instances / "c1" / "there").mkdir(parents=True)
        yield made.start()
        assert made.mistakes() == []


@pytest.fixture(params=["http", "state"])
def way(request: pytest.FixtureRequest, service: Service) -> list[str]:
    """How the service is reached."""
    return ["--server", service.address] if request.param == "http" else ["--config", str(service.config)]


@pytest.fixture
def shell(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, in this process."""
    return Shell(service.config, monkeypatch, capsys)


def put(service: Service, path: str) -> str:
    """Upload; the task's id."""
    answer = service.client.put("c1", path, b"bytes", mkdirs="false")
    assert answer is not None
    return answer.task_id


class Begun:
    """A command that does not end by itself; what it writes goes into files."""

    def __init__(self, directory: Path, *words: str, stdout: int | None = None) -> None:
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _RUN, *words], env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out if stdout is None else stdout, stderr=err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def out(self) -> list[str]:
        """The whole lines of standard output so far."""
        return self._out.read_text().split("\n")[:-1]

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text()


def test_commands_show_what_became_of_uploads(service: Service, shell: Shell, way: list[str]) -> None:
    """One is delivered and one is a dead letter: awaited, listed by what they are, explained, and in the overview."""
    good, bad = put(service, EVIL), put(service, f"/missing/{new_id()}")
    done = shell("wait", good, *way)
    assert (done.code, done.out) == (0, f"{good}  delivered  c1/there/a\\u202eb\n")
    done = shell("wait", bad, good, *way, "--json")
    assert (done.code, [task["state"] for task in done.json]) == (1, ["failed", "delivered"])
    done = shell("tasks", "list", *way, "--json", "--path", "missing", "--error", "parent_not_found", "--since", "1h")
    assert (done.code, done.json[0]["id"]) == (0, bad)
    assert shell("tasks", "list", *way, "--until", "1h").out == ""
    done = shell("explain", bad, *way)
    assert (done.code, "parent_not_found" in done.out) == (1, True)
    done = shell("top", *way)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^c1 +0 ", done.out, re.MULTILINE)
    assert shell("wait", "--instance", "c1", "--timeout", "30", *way).code == 0
    assert shell("wait", "01a203af-ced4-760f-ae26-10636e7e5bca", *way).code == 1


def test_commands_act_on_tasks(service: Service, shell: Shell, way: list[str], tmp_path: Path) -> None:
    """One by one and many at once: what became of each is told, and what is refused makes the command fail."""
    bad, gone = put(service, f"/missing/{new_id()}"), "01a203af-ced4-760f-ae26-10636e7e5bca"
    assert shell("wait", bad, *way).code == 1
    done = shell("tasks", "show", bad, gone, *way)
    assert (done.code, done.err) == (1, f"{gone}: there is no such task\n")
    assert "error            parent_not_found: " in done.out
    assert "history " in done.out
    with (tmp_path / "saved").open("wb") as sink:
        assert incus_courier("tasks", "save", bad, *way, to=sink).code == 0
    assert (tmp_path / "saved").read_bytes() == b"bytes"
    done = shell("tasks", "cancel", bad, gone, "x", *way)
    assert (done.code, [line.split(": ")[:2] for line in done.out.splitlines()]) == (
        1, [[bad, "refused"], [gone, "refused"], ["x", "refused"]])
    done = shell("tasks", "retry", "--state", "failed", "--instance", "c1", *way, "--json")
    assert (done.code, sum(reply["changed"] for reply in done.json) > 0) == (0, True)
    assert shell("wait", bad, *way).code == 1
    done = shell("tasks", "delete", bad, *way)
    assert (done.code, done.out) == (0, f"{bad}: cancelled\n")
    # Not before its bytes are gone.
    eventually(lambda: shell("tasks", "delete", bad, *way) == (0, f"{bad}: deleted\n", ""), what="the row to go")
    assert shell("tasks", "delete", *way).code == 2


def test_status_tells_whether_a_person_is_needed(service: Service, shell: Shell) -> None:
    """By HTTP in the words of the overview."""
    task = put(service, f"/missing/{new_id()}")
    assert shell("wait", task, "--server", service.address).code == 1
    done = shell("status", "--server", service.address)
    assert (done.code, "! " in done.out) == (1, True)
    assert shell("status", "--server", service.address, "--all").code == 2


def test_tail_tells_what_happens_until_it_is_interrupted(service: Service, way: list[str], tmp_path: Path) -> None:
    """Ctrl-C ends it with 130, and nothing is said of that."""
    with Begun(tmp_path, "tail", *way, "--json", "--state", "delivered", "--instance", "c1") as tail:
        # It is not known when it began to listen: it is told of one upload after the other until it does.
        eventually(lambda: put(service, "/there/a") and tail.out, what="an event")
        tail.process.send_signal(signal.SIGINT)
        assert (tail.process.wait(PATIENCE_S), tail.err) == (130, "")
        assert {json.loads(line)["state"] for line in tail.out} == {"delivered"}


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)], ids=["q", "Ctrl-C"])
def test_top_gives_the_terminal_back(service: Service, shell: Shell, key: bytes, code: int) -> None:
    """It has all of it while it runs, and without $NO_COLOR what needs a person stands out."""
    task = put(service, f"/missing/{new_id()}")
    assert shell("wait", task, "--server", service.address).code == 1
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    os.set_blocking(master, False)
    seen = bytearray()

    def shown() -> bool:
        with suppress(BlockingIOError):
            seen.extend(os.read(master, 65536))
        return b"dead letter" in seen

    top = subprocess.Popen([sys.executable, "-P", "-c", _OWN, "top", "--server", service.address], stdin=slave,
                           stdout=slave, stderr=slave, start_new_session=True,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "60"})
    try:
        eventually(shown, what="the overview")
        os.write(master, key)
        assert top.wait(PATIENCE_S) == code
        shown()
        assert (b"\x1b[1;31m! " in seen, seen.endswith(b"\x1b[?1049l")) == (True, True)
        assert termios.tcgetattr(slave) == before
    finally:
        top.kill()
        top.wait()
        os.close(master)
        os.close(slave)


def test_closed_pipe_ends_a_command_quietly(service: Service, way: list[str], tmp_path: Path) -> None:
    """Whoever reads the output has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    with Begun(tmp_path, "tail", *way, stdout=writer) as tail:
        os.close(writer)
        eventually(lambda: put(service, "/there/b") and tail.process.poll() is not None, what="the end")
        assert (tail.process.returncode, tail.err) == (1, "")


def complete(words: str, server: str = "", config: str = "") -> list[str]:
    """What bash is offered for the last of these words."""
    return incus_courier(_INCUS_COURIER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")),
                         INCUS_COURIER_SERVER=server, INCUS_COURIER_CONFIG=config).out.split()


@pytest.mark.full
def test_shell_is_offered_commands_options_tasks_and_instances(service: Service) -> None:
    """By HTTP as from the state; where neither can be had, nothing is offered and nothing said."""
    task = put(service, f"/missing/{new_id()}")
    assert incus_courier("wait", task, "--server", service.address).code == 1
    for server, config in ((service.address, ""), ("", str(service.config))):
        assert complete("incus-courier ta", server, config) == ["tail", "tasks"]
        assert complete("incus-courier tasks list --st", server, config) == ["--state"]
        assert "failed" in complete("incus-courier tasks list --state fa", server, config)
        assert complete("incus-courier wait --instance c", server, config) == ["c1"]
        assert task in complete("incus-courier wait 0", server, config)
    assert task in complete("incus-courier tasks retry 0", config=str(service.config))
    assert complete("incus-courier wait 0", config="/nowhere") == []
    assert complete("incus-courier wait 0", server="http://127.0.0.1:9") == []


@pytest.mark.full
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_for_each_shell(shell: str) -> None:
    """To be read by it."""
    done = incus_courier("completion", shell)
    assert (done.code, "_INCUS_COURIER_COMPLETE" in done.out, done.err) == (0, True, "")


@pytest.mark.full
def test_tail_goes_on_after_the_service_was_away(tmp_path: Path) -> None:
    """Nothing that happens meanwhile is missed, and nothing is told twice."""
    with Service(tmp_path) as service:
        service.start()
        with Begun(tmp_path, "tail", "--server", service.address, "--json", "--state", "delivered") as tail:
            def told(path: str) -> bool:
                return any(path in line for line in tail.out)

            eventually(lambda: put(service, "/first") and told("/first"), what="an event")
            service.stop("api")
            service.begin("api")
            service.wait_ready()
            put(service, "/second")
            eventually(lambda: told("/second"), what="the stream to go on")
            assert len(set(tail.out)) == len(tail.out)
            assert tail.err.count("trying again") == 1


def test_service_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    """Without a traceback, whatever is asked of it."""
    done = incus_courier("top", "--server", f"unix:{tmp_path}/no.sock")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
