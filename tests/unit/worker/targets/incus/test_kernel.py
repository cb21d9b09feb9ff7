"""Whether an instance runs on this kernel, told by the kernel's own counters."""

from dataclasses import replace
from pathlib import Path

import pytest

from worker.targets.incus import kernel
from worker.targets.incus.instance import Instance
from worker.targets.incus.kernel import COUNTERS_PATH, Kernels, counters, fits

RUNNING = Instance(identity="1", status="Running", running=True, is_container=True, mounts=frozenset())
STOPPED = replace(RUNNING, status="Stopped", running=False)
#: Nine counters.
SEEN = {b"pg%d" % number: 1000 + number for number in range(9)}


def changed(by: int) -> dict[bytes, int]:
    """The same, later or earlier."""
    return {name: value + by for name, value in SEEN.items()}


@pytest.mark.parametrize(("before", "after", "same"), [
    (SEEN, SEEN, True), (changed(-5), changed(5), True), (changed(1), changed(5), False), (changed(-5), changed(-1), False),
    ({**SEEN, b"pg0": 1001}, changed(5), False), ({**SEEN, b"pgmore": 1}, {**SEEN, b"pgmore": 1}, False), ({}, {}, False)])
def test_counters_are_of_the_same_kernel_when_they_lie_between_an_earlier_and_a_later_look(
        before: dict[bytes, int], after: dict[bytes, int], same: bool) -> None:
    """Each of them, and they have to be the same ones."""
    assert fits(before, SEEN, after) is same


def test_too_few_counters_tell_nothing() -> None:
    """A file that somebody put over the kernel's own proves nothing by being empty or short."""
    few = dict(list(SEEN.items())[:7])
    assert not fits(few, few, few)
    assert not fits({}, {}, {})


def test_counters_are_those_that_only_grow() -> None:
    """How much is free, dirty or in use goes up and down; what is no number is none."""
    assert counters(b"nr_free_pages 5\npgfault 12\npgpgin x\npgpgout\npgsteal_kswapd 3\npgrotated " + b"9" * 5000) == {
        b"pgfault": 12, b"pgsteal_kswapd": 3}


def of_this_machine(path: str) -> bytes:
    """What a container of this machine has there."""
    return Path(path).read_bytes()


def of_another(path: str) -> bytes:
    """What one of another machine has there."""
    return b"".join(b"%s %d\n" % (name, value + 10**6) for name, value in counters(of_this_machine(path)).items())


def test_running_instance_is_here_when_it_sees_this_machines_counters() -> None:
    """One that sees others, or in which they cannot be read, is elsewhere."""
    assert Kernels().is_ours(RUNNING, of_this_machine)
    assert not Kernels().is_ours(RUNNING, of_another)
    assert not Kernels().is_ours(RUNNING, lambda _path: None)


def test_every_instance_is_elsewhere_where_this_kernel_does_not_show_its_counters(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a unit with ProcSubset=pid: uploads are delivered all the same."""
    monkeypatch.setattr(kernel, "COUNTERS_PATH", str(tmp_path / "vmstat"))
    there = Path(COUNTERS_PATH).read_bytes()
    assert not Kernels().is_ours(RUNNING, lambda _path: there)


def test_nothing_is_certain_of_an_instance_that_does_not_run_unless_another_ran_in_its_place() -> None:
    """What is in its root directory is a file like any other; a virtual machine has a kernel of its own anyway."""
    kernels = Kernels()
    assert not kernels.is_ours(STOPPED, of_this_machine)
    assert kernels.is_ours(replace(RUNNING, identity="2"), of_this_machine)
    assert kernels.is_ours(STOPPED, of_another)
    assert not kernels.is_ours(replace(STOPPED, is_container=False), of_this_machine)
    assert not kernels.is_ours(replace(STOPPED, place=("m2", "default")), of_this_machine)


def test_instance_is_asked_once_for_each_place_that_it_runs_in() -> None:
    """Neither its kernel nor this one changes under it."""
    asked: list[str] = []

    def read(path: str) -> bytes | None:
        asked.append(path)
        return of_this_machine(path)

    kernels = Kernels()
    assert [kernels.is_ours(RUNNING, read) for _ in range(3)] == [True] * 3
    assert asked == [COUNTERS_PATH]
    assert kernels.is_ours(replace(RUNNING, place=("m2", "default")), read)
    assert len(asked) == 2
