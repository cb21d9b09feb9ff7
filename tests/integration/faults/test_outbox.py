"""What webhooks are told meets faults: each outcome is told, at least once, and always under one id."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon import failpoints
from tests.support.hooked import HookedService, keeps_ids, outcomes, told
from tests.support.processes import Forked
from tests.support.receiver import Receiver
from tests.support.waiting import eventually

_FAULTS = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "kill")
_CELLS = [(step, fault) for step in failpoints.OUTBOX_STEPS for fault in _FAULTS]
#: Those in which most is left half done; the others are tried by `make test-full` alone.
_TELLING = [("outbox.tell", "ENOSPC"), ("outbox.told", "kill"), ("outbox.settle", "kill")]


@contextmanager
def serving(directory: Path) -> Iterator[tuple[HookedService, Receiver]]:
    """A service and whom it tells."""
    with Receiver() as receiver, HookedService(directory, receiver.url) as service:
        service.start()
        service.begin("sender")
        yield service, receiver
        service.stop()
        assert service.mistakes() == []


def meet(service: HookedService, step: str, fault: str, path: str) -> None:
    """Have the worker meet a fault at a step, once, while an upload is delivered and another becomes a dead letter."""
    worker = service.processes["worker-0"]
    assert isinstance(worker, Forked)
    worker.arm(f"{step}={fault}@1")
    for each in (path, f"/file{path}"):
        answer = service.client.put("c1", each, b"hello")
        assert answer is not None
        assert answer.status == 202
    if fault == "kill":
        eventually(lambda: worker.status() is not None, what=f"{step} to be reached")
        assert worker.status() == -signal.SIGKILL
        del service.processes["worker-0"]
        service.start()
    else:
        eventually(worker.fired, what=f"{step} to be reached")
        worker.arm("")


def check(directory: Path, cells: list[tuple[str, str]]) -> list[str]:
    """Meet one fault after the other; each outcome is told, and each under one id. Return the ids as they came."""
    with serving(directory) as (service, receiver):
        # A file where a directory should be makes dead letters.
        assert service.client.put("c1", "/file", b"in the way") is not None
        eventually(lambda: service.delivered("c1", "/file"))
        for number, (step, fault) in enumerate(cells):
            meet(service, step, fault, f"/{number}")
            eventually(service.idle)
            eventually(lambda: told(receiver) == outcomes(service), what=f"all to be told after {step}={fault}")
        # What was sent while its result could not be kept may come once more: under the same id.
        eventually(lambda: service.ask("")["webhooks"][0]["pending"] == 0)
        assert len(outcomes(service)) == 2 * len(cells) + 1
        assert {state for _, state in outcomes(service)} == {"delivered", "failed"}
        assert keeps_ids(receiver)
        assert len({received.message_id for received in receiver.received}) == len(outcomes(service))
        return [received.message_id for received in receiver.received]


def test_every_outcome_is_told_under_one_id_when_the_outbox_failed(quick_path: Path) -> None:
    """Also when the worker dies after the message was sent and before that is kept: it is sent again, as the same."""
    ids = check(quick_path, _TELLING)
    assert len(set(ids)) < len(ids)


@pytest.mark.full
@pytest.mark.parametrize("step", failpoints.OUTBOX_STEPS)
def test_every_outcome_is_told_under_one_id_whatever_failed(step: str, quick_path: Path) -> None:
    """Every fault at every step."""
    check(quick_path, [cell for cell in _CELLS if cell[0] == step])
