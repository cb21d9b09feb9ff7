"""Trouble that lasts: a step that fails again and again, while uploads keep coming, and then works."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon import failpoints
from tests.integration.faults.matrix import API_STEPS, BARRIER_STEPS, DEAD_LETTER_STEP
from tests.support.processes import Forked
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

STEPS = [step for step in failpoints.STEPS if step not in API_STEPS and step != DEAD_LETTER_STEP]
#: A full disk means more to the queue than to anything else: there is a reserve.
CASES = [(step, "EIO") for step in STEPS] + [(step, "ENOSPC") for step in STEPS if step.startswith("queue.")]
#: So often a step fails before it works again; a barrier has long pauses between its attempts.
_FAILURES = 3
_BARRIER_FAILURES = 1
#: Uploads that come meanwhile, at most.
_UPLOADS = 60
_AT_ONCE = 8


def endure(step: str, error: str, directory: Path) -> None:
    """Upload while `step` fails again and again; all of it must be delivered once that is over."""
    with Service(directory) as service:
        service.start()
        worker = service.processes["worker-0"]
        assert isinstance(worker, Forked)
        worker.arm(f"{step}={error}")
        failures = _BARRIER_FAILURES if step in BARRIER_STEPS else _FAILURES
        sent: list[str] = []

        def failed_often() -> bool:
            if len(sent) < _UPLOADS:
                path = f"/{len(sent)}"
                answer = service.client.put(f"c{len(sent) % 3}", path, path.encode())
                assert answer is not None
                assert answer.status == 202
                sent.append(path)
            return worker.fired() >= failures

        eventually(failed_often, what=f"{failures} failures")
        worker.arm("")
        service.wait_quiet()
        assert worker.status() is None
        for number, path in enumerate(sent):
            assert service.delivered(f"c{number % 3}", path) == path.encode()
        assert not service.mistakes()
        assert not service.part_files()


@pytest.fixture(scope="module")
def trials(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[tuple[str, str], Future[None]]]:
    """All selected cases, carried out side by side."""
    chosen = [(str(item.callspec.params["step"]), str(item.callspec.params["error"])) for item in request.session.items
              if isinstance(item, pytest.Function) and item.module is request.module]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {(step, error): pool.submit(endure, step, error, tmp_path_factory.mktemp(step)) for step, error in chosen}


@pytest.mark.parametrize(("step", "error"), CASES)
def test_everything_is_delivered_by_the_same_processes_when_a_step_fails_for_a_while(
    trials: dict[tuple[str, str], Future[None]], step: str, error: str,
) -> None:
    """A worker whose disk fails again and again forgets nothing, and goes on as soon as it works."""
    trials[step, error].result()
