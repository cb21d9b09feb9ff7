"""`incus-courier explain`, over a real queue and a worker that runs or does not."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.explain import words
from daemon.state import activity
from tests.support.depot import Depot, new_id
from tests.support.service import Service
from tests.support.shell import Shell
from tests.support.waiting import eventually


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service whose Incus is away, and whose worker is not started yet."""
    with Service(tmp_path, {"target": {"kind": "incus"}, "incus": {"endpoint": str(tmp_path / "away.socket")}}) as made:
        yield made


@pytest.fixture
def depot(service: Service) -> Iterator[Depot]:
    """The service's state, to put uploads into."""
    with Depot(service.layout.directory) as made:
        yield made


@pytest.fixture
def shell(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line."""
    return Shell(service.config, monkeypatch, capsys)


def explained(shell: Shell, what: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the explanation."""
    done = shell("explain", what, "--json")
    [found] = done.json
    return done.code, found


def code_of(found: dict[str, Any]) -> str | None:
    """The code of the error in an explanation."""
    code: str | None = found["error"] and found["error"]["code"]
    return code


def test_explain_says_why_a_task_and_its_instance_wait(
    service: Service, depot: Depot, shell: Shell, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No worker, then an Incus that is away, then a worker that hangs: each in the worker's own words, for both alike."""
    upload = depot.accept("/a")
    task = upload.task_id
    code, found = explained(shell, task)
    assert (code, found["id"], code_of(found)) == (1, task, "no_worker")
    assert found["summary"] == "Shard 0 has no worker."

    service.begin("worker-0")
    eventually(lambda: code_of(explained(shell, task)[1]) == "incus_unreachable")
    code, found = explained(shell, "c1")
    assert (code, found["instance"], found["waiting"], code_of(found)) == (1, "c1", 1, "incus_unreachable")
    assert found["summary"] == "1 task waits. The remote local is away. Incus does not answer."
    assert None not in {found["since"], found["next_try_at"]}
    told = activity.read(service.layout, 0)
    assert told is not None
    assert (told.pid, told.threads, told.sessions) == (service.processes["worker-0"].pid, 0, 0)
    assert told.wal_bytes > 0
    # Another remote, or another instance of this one, that nothing waits for.
    assert explained(shell, "c2") == (0, {**found, "instance": "c2", "stuck": False, "summary": "Nothing waits for it.",
                                          "task_id": None, "since": None, "error": None, "unblocks": "", "next_try_at": None, "waiting": 0})

    monkeypatch.setattr(words, "SILENT_S", 0.0)
    service.processes["worker-0"].send(signal.SIGSTOP)
    code, found = explained(shell, task)
    assert (code, code_of(found)) == (1, "worker_silent")
    assert found["summary"] == f"The worker of shard 0, process {told.pid}, hangs."
    service.kill("worker-0")
    code, found = explained(shell, task)
    assert (code, code_of(found)) == (1, "no_worker")
    assert found["since"] is not None


def test_explain_says_what_no_worker_changes(depot: Depot, shell: Shell, service: Service) -> None:
    """Dead letters and held tasks wait for a person, finished ones for nothing; and what there is not is said."""
    failed = depot.failed("/b", instance="Cc2")
    code, found = explained(shell, failed.task_id)
    assert (code, code_of(found)) == (1, "parent_not_found")
    done = shell("explain", "Cc2")
    assert done.code == 1
    assert done.out.splitlines()[0].startswith("1 task failed, and is kept until a person decides. The directory of the")
    assert "goes on:     A person: incus-courier tasks retry --state failed --instance Cc2" in done.out

    missing = shell("explain", new_id())
    assert (missing.code, missing.out) == (1, "")
    assert "there is no such task" in missing.err
    misused = shell("explain", "no\x1b[31m/such/thing")
    assert misused.code == 2
    assert "\x1b" not in misused.err

    newer, older = depot.accept("/same\u202e"), depot.accept("/same\u202e")
    assert explained(shell, newer.task_id)[1]["summary"] == "A newer upload to the same path took its place."
    assert explained(shell, older.task_id)[0] == 1

    depot.close()
    service.layout.database(0).write_bytes(b"nothing that anybody made")
    code, found = explained(shell, "c1")
    assert (code, found["summary"].split(".")[0]) == (1, "Shard 0's queue cannot be used")
    assert code_of(found) == "queue_damaged"
