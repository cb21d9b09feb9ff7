"""The containers of the tests come and go, whatever becomes of them."""

import pytest

from tests.live.host import ApiError, Host

pytestmark = pytest.mark.live

#: With this a container is made and does not start.
NO_INIT = {"raw.lxc": "lxc.init.cmd=/no/such/init"}


def names(incus: Host, project: str) -> list[str]:
    """The instances of a project."""
    return [instance["name"] for instance in incus.call("GET", f"/instances?recursion=1&project={project}")]


def test_container_that_does_not_start_tells_why_and_is_removed(incus: Host) -> None:
    """The error ends with what the container's log says, and neither the container nor its project stays."""
    with incus.project() as project:
        with pytest.raises(ApiError, match=r"does not start: .*\n(.*\n)*.*/no/such/init"), \
                incus.container(project=project, config=NO_INIT):
            pass
        assert names(incus, project) == []


def test_container_that_was_removed_before_its_end_is_no_error(incus: Host) -> None:
    """What is gone needs no removing."""
    with incus.container(running=False) as container:
        container.remove()
    assert container.name not in names(incus, "default")
