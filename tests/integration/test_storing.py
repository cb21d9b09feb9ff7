"""The process that stores what several processes take: it meets faults, it dies, and it ends after all others."""

import os
import signal
import socket
from collections.abc import Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from daemon.failpoints import VARIABLE
from daemon.model.task import State
from daemon.model.upload import Destination
from tests.integration.faults.matrix import API_STEPS
from tests.support.client import Answer, Client, Connection
from tests.support.processes import Spawned, end
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

SENT = b"what is sent"
#: From this step on the bytes have their name: a crash leaves them to recovery.
NAMED = {"spool.linksync", "spool.dirsync", "queue.insert", "queue.commit", "queue.committed"}


def a_service(directory: Path) -> Service:
    """One with two processes that take uploads, and time for all that is on its way."""
    return Service(directory, {"api": {"processes": 2, "drain_s": 60}}, launch=Spawned)


@contextmanager
def apart(service: Service, faults: str) -> Iterator[None]:
    """Start a service whose processes no supervisor started; the one that stores has a plan of faults."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for name, option, own, plan in (("api.storing", "--line", ends[0], faults), ("api", "--store", ends[1], "")):
        service.processes[name] = Spawned(
            [name, "--config", str(service.config), option, str(own.fileno())], {VARIABLE: plan}, service.log,
            pass_fds=(own.fileno(),))
    service.start()
    yield
    for own in ends:
        own.close()


def storing(service: Service) -> int:
    """The process that stores, as the log has it."""
    eventually(lambda: service.events("storage.started"), what="its start")
    pid: int = service.events("storage.started")[-1]["pid"]
    return pid


@pytest.mark.parametrize("step", sorted(API_STEPS))
def test_process_that_dies_at_a_step_leaves_the_upload_whole_or_nothing_of_it(tmp_path: Path, step: str) -> None:
    """Whoever sent it is told that nobody knows; it never comes torn, and is never stuck."""
    with Service(tmp_path) as service:
        with apart(service, f"{step}=kill@1"):
            answer = service.client.put("c1", "/a", SENT)
            assert answer is not None
            assert answer.code == "outcome_unknown"
            assert end(service.processes.pop("api.storing"), number=0) == -signal.SIGKILL
            service.stop()
        service.start()
        service.wait_quiet()
        assert service.delivered("c1", "/a") == (SENT if step in NAMED else None)
        service.stop()
        assert not service.mistakes()


@pytest.mark.parametrize(("fault", "status"), [("spool.write=ENOSPC@1", 507), ("queue.commit=EIO@1", 503)])
def test_fault_is_told_to_who_sent_the_upload_and_the_next_one_is_stored(tmp_path: Path, fault: str, status: int) -> None:
    """By way of the process that took it, with its code; nothing is left of it."""
    with Service(tmp_path) as service, apart(service, fault):
        refused, accepted = (service.client.put("c1", f"/{number}", SENT) for number in range(2))
        assert refused is not None
        assert accepted is not None
        assert (refused.status, accepted.status) == (status, 202)
        service.wait_quiet()
        assert (service.delivered("c1", "/0"), service.delivered("c1", "/1")) == (None, SENT)
        service.stop()


def test_what_was_accepted_is_delivered_however_often_the_process_that_stores_is_killed(tmp_path: Path) -> None:
    """Others are accepted as soon as there is another one; nobody waits without an end."""
    numbers, answers = count(), dict[int, Answer | None]()
    ending = False

    def send(client: Client) -> None:
        while not ending:
            number = next(numbers)
            answers[number] = client.put("c1", f"/{number}", b"%d" % number)

    with a_service(tmp_path) as service, ThreadPoolExecutor(8) as threads:
        service.start()
        sending = [threads.submit(send, Client(service.address)) for _ in range(8)]
        for _ in range(3):
            pid, enough = storing(service), len(answers) + 50
            eventually(partial(_has, answers, enough), what="uploads")
            os.kill(pid, signal.SIGKILL)
            eventually(partial(_is_another, service, pid), what="another one")
        ending = True
        for one in sending:
            one.result()
        service.wait_quiet()
        assert {answer.status for answer in answers.values() if answer is not None} <= {202, 503}
        assert {answer.code for answer in answers.values() if answer is not None} <= {"", "outcome_unknown"}
        assert None not in answers.values()
        for number, answer in answers.items():
            found = service.delivered("c1", f"/{number}")
            assert found == b"%d" % number or (found is None and answer is not None and answer.status != 202)
        assert all(task.state is State.DELIVERED for task in service.tasks())
        assert not service.mistakes()


def _has(answers: Sized, number: int) -> bool:
    return len(answers) >= number


def _is_another(service: Service, pid: int) -> bool:
    return storing(service) != pid


def test_what_is_taken_while_the_process_that_stores_is_dead_is_stored_before_the_end(tmp_path: Path) -> None:
    """The service was told to end just then: another one is started for what is on its way."""
    with a_service(tmp_path) as service, closing(Connection(service.address)) as connection:
        service.start()
        eventually(lambda: len(service.events("api.started")) == 2, what="the start of both")
        connection.connect()
        connection.sock.sendall(b"PUT /v1/instances/c1/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                                b"Expect: 100-continue\r\n\r\n")
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 100 ")
        pid = storing(service)
        os.kill(pid, signal.SIGKILL)
        # What it had open is closed when the last of its threads has ended, and the supervisor has seen that.
        eventually(lambda: not Path(f"/proc/{pid}").exists(), what="its end")
        service.processes["api"].send(signal.SIGTERM)
        # Either of them has seen the end of its links by then.
        eventually(lambda: len(service.events("api.draining")) == 2, what="the beginning of the end")
        connection.sock.sendall(b"xy")
        assert connection.sock.recv(12) == b"HTTP/1.1 202"
        assert end(service.processes.pop("api"), number=0) == 0
        service.wait_quiet()
        assert service.delivered("c1", "/a") == b"xy"


def test_process_that_stores_opens_the_spool_that_has_the_place_now(tmp_path: Path) -> None:
    """What it accepted into one that was moved away nobody would find."""
    with Service(tmp_path) as service, apart(service, ""):
        answer = service.client.put("c1", "/a", SENT)
        assert answer is not None
        assert answer.status == 202
        bucket = service.layout.bucket(Destination("local", "default", "c1", "/a").bucket)
        bucket.rename(bucket.with_name("moved"))
        bucket.mkdir(mode=0o700)
        assert end(service.processes.pop("api.storing"), number=0) == 1


def test_process_that_stores_ends_last_and_loses_nothing(tmp_path: Path) -> None:
    """What others have taken when they are told to end is stored before it ends."""
    with a_service(tmp_path) as service, ThreadPoolExecutor(8) as threads:
        service.start()
        eventually(lambda: len(service.events("api.started")) == 2, what="the start of both")
        sending = [threads.submit(service.client.put, "c1", f"/{number}", SENT) for number in range(40)]
        eventually(lambda: service.events("upload.accepted"), what="the first of them")
        service.stop("api")
        accepted = [number for number, one in enumerate(sending)
                    if (answer := one.result()) is not None and answer.status == 202]
        assert [event["event"] for event in service.events()
                if event["event"] in {"api.stopped", "storage.stopped"}] == ["api.stopped"] * 2 + ["storage.stopped"]
        service.wait_quiet()
        assert all(service.delivered("c1", f"/{number}") == SENT for number in accepted)
        assert not service.mistakes()
