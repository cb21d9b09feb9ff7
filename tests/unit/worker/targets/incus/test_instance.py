"""What the description of an instance means for a delivery."""

from typing import Any

import pytest

from daemon.errors import Undelivered
from worker.targets.incus.instance import Instance, is_being_moved, read

#: Of what Incus says about a stopped container, that which matters.
ANSWER: dict[str, Any] = {
    "type": "container", "status": "Stopped", "status_code": 102, "created_at": "2026-01-01T00:00:00Z",
    "expanded_config": {"volatile.uuid": "1534"}, "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "p"}}}


def described(*devices: dict[str, str], raw: str = "", status: int = 102) -> Instance:
    """An instance with those devices, as Incus describes it."""
    config = {**ANSWER["expanded_config"], "raw.lxc": raw}
    more = {f"device-{number}": device for number, device in enumerate(devices)}
    return read({**ANSWER, "status_code": status, "expanded_config": config,
                 "expanded_devices": {**ANSWER["expanded_devices"], **more}})


def hidden(instance: Instance, path: str) -> bool:
    """True when a file at the path waits for the start, where there are no links."""
    return instance.hides(path, lambda _: None, follow_last=True) is not None


@pytest.mark.parametrize(("status", "running"), [
    (101, True), (102, False), (103, True), (106, True), (109, True), (110, True), (111, False), (113, True)])
def test_instance_runs_unless_it_is_stopped_or_in_error(status: int, running: bool) -> None:
    """Incus writes into the namespaces of one that runs, frozen ones included, and otherwise into its root directory."""
    assert described(status=status).running is running


def test_instance_is_known_by_its_id_and_before_the_first_has_one_by_when_it_was_made() -> None:
    """LXD gives a container its id when it starts."""
    assert described().identity == "1534"
    assert read({**ANSWER, "expanded_config": {}}).identity == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("device", [
    {"type": "disk", "path": "/data", "source": "/srv"}, {"type": "disk", "path": "data/", "source": "v", "pool": "p"},
    {"type": "disk", "path": "//data/./", "source": "v", "pool": "p"}])
def test_path_on_a_disk_device_waits_for_the_start(device: dict[str, str]) -> None:
    """However the device spells it; and no longer once the instance runs."""
    assert hidden(described(device), "/data/d/f")
    assert hidden(described(device), "/data")
    assert not hidden(described(device), "/data2")
    assert not hidden(described(device, status=103), "/data/d/f")


@pytest.mark.parametrize("device", [
    {"type": "disk", "source": "cloud-init:config"}, {"type": "nic", "path": "/data"}, {"type": "disk", "path": "/", "pool": "p"}])
def test_other_device_hides_nothing(device: dict[str, str]) -> None:
    """One without a path, one that is no disk, and the root disk."""
    assert not hidden(described(device), "/data/f")


def test_path_on_a_mount_of_the_raw_configuration_waits_for_the_start() -> None:
    """LXC mounts those itself."""
    instance = described(raw="lxc.foo = x\n lxc.mount.entry=tmpfs data/t tmpfs rw 0 0\nlxc.mount.entry = /a b/c none bind\n")
    assert [hidden(instance, path) for path in ("/data/t/f", "/b/c/f", "/data/f", "/b/f")] == [True, True, False, False]


@pytest.mark.parametrize("answer", [{}, {**ANSWER, "expanded_devices": None}, {**ANSWER, "expanded_config": []}])
def test_nonsense_is_not_taken_for_an_instance(answer: dict[str, Any]) -> None:
    """It ends as Incus's own error."""
    with pytest.raises(Undelivered) as caught:
        read(answer)
    assert caught.value.code == "incus_error"


def test_instance_is_at_a_member_of_a_cluster_and_in_a_pool() -> None:
    """It keeps its identity when it is moved to others."""
    assert described().place == ("", "p")
    assert read({**ANSWER, "location": "m2"}).place == ("m2", "p")


def operations(description: str, status: int, *addresses: str) -> dict[str, Any]:
    """What Incus answers of one operation."""
    about = {"instances": list(addresses)} if addresses else None
    return {"running": [{"description": description, "status_code": status, "resources": about}]}


@pytest.mark.parametrize(("going_on", "moved"), [
    (operations("Migrating instance", 103, "/1.0/instances/c1"), True),
    (operations("Migrating instance", 105, "/1.0/instances/c1?project=p"), True),
    (operations("Creating instance", 103, "/1.0/instances/move-of-1", "/1.0/instances/c1"), True),
    (operations("Migrating instance", 200, "/1.0/instances/c1"), False),
    (operations("Migrating instance", 103, "/1.0/instances/c11"), False),
    (operations("Snapshotting instance", 103, "/1.0/instances/c1"), False),
    (operations("Evacuating cluster member", 103), False), ({}, False)])
def test_instance_is_being_moved_while_an_operation_copies_it(going_on: dict[str, Any], moved: bool) -> None:
    """One that has ended, or is about another instance, or copies nothing, is none."""
    assert is_being_moved(going_on, "c1") is moved


@pytest.mark.parametrize("answer", [
    {"running": [{}]}, {"running": 3}, {"running": [{**operations("Migrating instance", 103)["running"][0], "resources": 3}]}])
def test_list_of_operations_that_makes_no_sense_is_an_error_of_incus(answer: dict[str, Any]) -> None:
    """Nothing is delivered on the strength of it."""
    with pytest.raises(Undelivered) as refused:
        is_being_moved(answer, "c1")
    assert refused.value.code == "incus_error"
