"""A state that another host used: who may begin there, and what the host before does then."""

from os import EX_TEMPFAIL
from pathlib import Path

from daemon.state.layout import Layout
from daemon.state.tenure import Host, Tenure, read_token
from tests.support.command import incus_courier
from tests.support.service import Service
from tests.support.waiting import eventually


def be_there(layout: Layout, host: Host) -> None:
    """Say in the state that a host uses it, as one that works there just now does."""
    there = Tenure(layout, host)
    there.take(take_over=True)
    there.close()


def test_service_waits_for_the_other_host_unless_it_takes_the_state_over(tmp_path: Path) -> None:
    """No command to start it works there, nothing is repaired, and the API takes nothing; all is there afterwards."""
    with Service(tmp_path) as service:
        service.layout.create()
        be_there(service.layout, Host("node-2", "a boot of another kernel"))
        worker = service.begin("worker-0")
        eventually(lambda: worker.status() == EX_TEMPFAIL)
        for command in (["serve"], ["fsck", "--repair"], ["check"]):
            told = incus_courier("--config", str(service.config), *command)
            assert "node-2 said" in told.err + told.out
            assert told.code != 0
        api = service.begin("api")
        eventually(lambda: [event for event in service.events("api.waiting") if "node-2" in event["detail"]])
        assert api.status() is None
        service.begin("worker-0", "", "--take-over")
        service.wait_ready()
        assert service.client.put("c1", "/a", b"hello") is not None
        service.wait_quiet()
        assert service.delivered("c1", "/a") == b"hello"
        [taken] = service.events("state.taken")
        assert (taken["host_before"], taken["in_use"]) == ("node-2", True)
        service.stop()
        # It has ended in order: whoever comes next need not wait.
        token = read_token(service.layout)
        assert token is not None
        assert token.ended


def test_worker_ends_when_another_host_has_its_state(tmp_path: Path) -> None:
    """It delivers nothing more, and writes nothing more; the next one says whose the state is."""
    with Service(tmp_path) as service:
        service.start("push.write=EIO")
        assert service.client.put("c1", "/a", b"hello") is not None
        be_there(service.layout, Host("node-2", "a boot of another kernel"))
        worker = service.processes.pop("worker-0")
        eventually(lambda: worker.status() == EX_TEMPFAIL)
        assert service.delivered("c1", "/a") is None
        assert not service.mistakes()
        assert "node-2 has it" in service.log.read_text()
        service.begin("worker-0", "", "--take-over")
        service.wait_quiet()
        assert service.delivered("c1", "/a") == b"hello"
