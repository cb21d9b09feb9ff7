"""What a session to one instance refuses, and what it vouches for, whatever Incus says meanwhile."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config import Config
from daemon.errors import Undelivered
from daemon.model.task import State, Task
from daemon.spool import Source
from tests.support.depot import an_upload
from worker.dispatch.runner import delivery_of
from worker.targets.base import Delivery, Ended, Parcel, Receipt, one_by_one
from worker.targets.incus.bound_session import BoundSession
from worker.targets.incus.instance import Instance
from worker.targets.incus.kernel import Kernels

RUNNING = Instance(identity="1", status="Running", running=True, is_container=True, mounts=frozenset({"/data", "/proc"}))
STOPPED = replace(RUNNING, status="Stopped", running=False)
MACHINE = replace(RUNNING, is_container=False)


class Carrying:
    """What carries files: it delivers all, and sees the links that it was made with."""

    broken = False
    left_part = False

    def __init__(self, links: dict[str, str]) -> None:
        self._links = links

    def link_at(self, path: str) -> str | None:
        """Where a link leads."""
        return self._links.get(path)

    def read_file(self, path: str) -> bytes | None:
        """Read a file of this machine, whose containers have the same counters."""
        return Path(path).read_bytes()

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Deliver."""
        return Receipt(atomic=True, way="sftp")

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver."""
        return one_by_one(self, parcels)

    def sweep(self, delivery: Delivery) -> bool:
        """Find one."""
        return True

    def close(self) -> None:
        """End."""


def session(*instances: Instance, sees_proc: bool = True) -> BoundSession:
    """A session to an instance that is like that at each look."""
    looks = iter(instances)
    return BoundSession(Carrying({"/proc/mounts": "self/mounts"} if sees_proc else {}), lambda: next(looks), Kernels())


def code(act: Callable[[], object]) -> str:
    """The code that it ends with; none if it is well."""
    try:
        act()
    except Undelivered as error:
        return error.code
    return ""


def delivered(to: BoundSession, path: str) -> str:
    """The code that a delivery ends with."""
    delivery = delivery_of(Task(order=1, upload=an_upload(path), state=State.PUSHING), Config())
    ends = {code(lambda: to.deliver(delivery, io.BytesIO(), lambda: None)), code(lambda: to.sweep(delivery))}
    beside = replace(delivery, destination=replace(delivery.destination, path="/beside"))
    parcels = [Parcel(delivery=some, source=io.BytesIO(), before_rename=lambda: None) for some in (delivery, beside)]
    errors = {ended.parcel.delivery.destination.path: ended.error for ended in to.deliver_all(parcels)}
    assert errors.pop("/beside") is None
    ends |= {error.code if isinstance(error, Undelivered) else "" for error in errors.values()}
    assert len(ends) == 1
    return ends.pop()


def test_what_another_instance_of_the_name_had_is_not_delivered_to_the_one_that_came_after() -> None:
    """It went with the one that is gone. What is not known to have been delivered to another one is compared."""
    delivery = delivery_of(Task(order=1, upload=an_upload("/f"), state=State.PUSHING, recheck=True), Config())
    for identity, ends in (("1", Receipt(atomic=True, way="sftp")), (None, Receipt(atomic=True, way="sftp")), ("2", None)):
        parcel = Parcel(delivery=replace(delivery, delivered_to=identity), source=io.BytesIO(), before_rename=lambda: None)
        ended, = session(RUNNING).deliver_all([parcel])
        assert (ended.receipt, ended.error) == (ends, None)


@pytest.mark.parametrize(("instance", "sees_proc", "hidden"), [
    (RUNNING, True, ""), (STOPPED, False, "hidden_when_stopped"), (MACHINE, False, ""),
    # Incus took it for a stopped one when it opened the session.
    (RUNNING, False, "hidden_when_stopped")])
def test_path_waits_unless_the_session_is_in_the_running_instance(instance: Instance, sees_proc: bool, hidden: str) -> None:
    """What the session itself sees counts, not only what Incus says; the other paths never wait."""
    assert delivered(session(instance, sees_proc=sees_proc), "/data/f") == hidden
    assert delivered(session(instance, sees_proc=sees_proc), "/f") == ""


def test_delivery_that_is_refused_leaves_no_part_file_whatever_the_one_before_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was written for it."""
    monkeypatch.setattr(Carrying, "left_part", True)
    opened = session(STOPPED)
    assert (delivered(opened, "/f"), opened.left_part) == ("", True)
    assert (delivered(opened, "/data/f"), opened.left_part) == ("hidden_when_stopped", False)


@pytest.mark.parametrize(("then", "now", "ends"), [
    (RUNNING, RUNNING, ""), (STOPPED, STOPPED, ""), (RUNNING, replace(RUNNING, status="Frozen"), ""),
    (RUNNING, replace(RUNNING, mounts=frozenset()), ""), (RUNNING, replace(RUNNING, identity="2"), "instance_changed"),
    (RUNNING, STOPPED, "instance_changed"), (STOPPED, RUNNING, "instance_changed"),
    (STOPPED, replace(STOPPED, place=("m2", "default")), "instance_changed")])
def test_delivery_counts_as_long_as_it_is_the_instance_and_runs_or_not_as_before(
    then: Instance, now: Instance, ends: str,
) -> None:
    """Other changes take nothing away from what was delivered."""
    assert code(session(then, now).confirm) == ends


def test_delivery_counts_where_incus_took_a_running_instance_for_a_stopped_one() -> None:
    """What was not hidden is there."""
    assert code(session(RUNNING, RUNNING, sees_proc=False).confirm) == ""


def test_receipt_says_whether_the_file_may_be_on_another_machine() -> None:
    """One sync of this machine has the files of its running containers on the disk; of others nothing is certain."""
    delivery = delivery_of(Task(order=1, upload=an_upload("/f"), state=State.PUSHING), Config())
    for instance, elsewhere in ((RUNNING, False), (STOPPED, True)):
        opened = session(instance)
        assert opened.deliver(delivery, io.BytesIO(), lambda: None).elsewhere is elsewhere
        ended, = opened.deliver_all([Parcel(delivery=delivery, source=io.BytesIO(), before_rename=lambda: None)])
        assert ended.receipt is not None
        assert ended.receipt.elsewhere is elsewhere


def test_receipt_of_a_file_on_another_machine_says_which_instance_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not run may get its identity only when it starts."""
    monkeypatch.setattr(Carrying, "read_file", lambda *_: None)
    delivery = delivery_of(Task(order=1, upload=an_upload("/f"), state=State.PUSHING), Config())
    for instance, identity in ((RUNNING, "1"), (STOPPED, None)):
        receipt = session(instance).deliver(delivery, io.BytesIO(), lambda: None)
        assert (receipt.elsewhere, receipt.identity) == (True, identity)
