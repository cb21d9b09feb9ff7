"""What happens when Incus, the instance or the connection is not as it should be."""

import contextlib
import io
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.config import LOCAL, Config, Remote, TargetSection
from daemon.errors import Undelivered
from daemon.model.upload import Destination
from tests.live.host import ApiError, Container, Host
from tests.live.proxy import Proxy
from tests.live.world import World, incus_world
from tests.support.waiting import PATIENCE_S
from worker.check import probe
from worker.targets.base import Patience
from worker.targets.incus.target import IncusTarget

#: The timeout where no answer is to come.
SILENT_S = 1.0
MIB = 2**20


def code(act: Callable[[], object]) -> str:
    """Run `act`, which must end undelivered; return the code."""
    with pytest.raises(Undelivered) as caught:
        act()
    return caught.value.code


def destination(container: str, project: str = "default") -> Destination:
    """A destination in a container; its path does not matter."""
    return Destination("local", project, container, "/f")


def target(endpoint: str, timeout_s: float = PATIENCE_S) -> IncusTarget:
    """A target on a socket."""
    return IncusTarget("local", Remote(endpoint=endpoint, timeout_s=timeout_s))


@pytest.fixture
def world(incus: Host, container: Container) -> World:
    """A running container, to look behind a delivery."""
    made = incus_world("sftp", incus, container)
    made.make_directory(made.home)
    return made


@pytest.fixture
def stopped(incus: Host) -> Iterator[Container]:
    """A container that was never started."""
    with incus.container(running=False) as container:
        yield container


@pytest.mark.live
class TestIncusThatAnswers:
    """Errors that a real Incus reports."""

    def test_probe_returns(self, incus: Host) -> None:
        """A remote that answers and trusts us is up."""
        target(incus.socket).probe()

    def test_default_project_is_looked_for(self, incus: Host) -> None:
        """Its name in the configuration is right, or it is named in what `check` says."""
        target(incus.socket).find_project("default")
        with incus.project() as project:
            target(incus.socket).find_project(project)
        assert code(lambda: target(incus.socket).find_project(project)) == "project_not_found"
        named = Config(incus=Remote(endpoint=incus.socket, project=project), target=TargetSection(kind="incus"))
        assert probe(LOCAL, named)[:3] == ["remote local", False, f"local: there is no project {project}"]

    def test_instances_are_told(self, incus: Host) -> None:
        """Of all projects, by their names, so that `check` finds who is let send to one that is not there."""
        known = Config(incus=Remote(endpoint=incus.socket), target=TargetSection(kind="incus"))
        with incus.project() as project, incus.container(running=False, project=project) as other:
            told = probe(LOCAL, known)[-1]
        assert isinstance(told, list)
        assert other.name in told

    def test_missing_instance_is_not_found(self, incus: Host) -> None:
        """An instance that does not exist has its own error."""
        assert code(lambda: target(incus.socket).open(destination("no-such"), "push")) == "instance_not_found"
        assert code(lambda: target(incus.socket).open(destination("no-such"), "wait")) == "instance_not_found"

    @pytest.mark.parametrize("stopped", ["push", "wait"])
    def test_missing_project_is_not_found(self, incus: Host, container: Container, stopped: str) -> None:
        """A project that does not exist has its own error; LXD says only that there is no such instance."""
        wrong = destination(container.name, "no-such")
        missing = code(lambda: target(incus.socket).open(wrong, stopped))
        assert missing in {"project_not_found", "instance_not_found"}

    def test_file_arrives_in_a_project(self, incus: Host) -> None:
        """Instances of other projects are reached by their project's name."""
        with incus.project() as project, incus.container(running=False, project=project) as container:
            with contextlib.closing(target(incus.socket).open(destination(container.name, project), "push")) as session:
                delivery = incus_world("sftp", incus, container).delivery("/f", b"x")
                session.deliver(delivery, io.BytesIO(b"x"), lambda: None)
            assert (container.rootfs / "f").read_bytes() == b"x"

    @pytest.mark.parametrize("way", ["sftp", "files_api"])
    def test_file_arrives_in_a_stopped_container(self, incus: Host, stopped: Container, way: str) -> None:
        """A stopped container takes files, made directories included, with the owners they have inside."""
        world = incus_world(way, incus, stopped)
        world.deliver("/new/d/e", b"x", mkdirs=True)
        world.deliver("/new/d/f", b"x", mode=0o640, uid=1000, gid=1001)
        facts = world.facts("/new/d/f")
        assert (facts.data, facts.mode, facts.uid, facts.gid) == (b"x", 0o640, 1000, 1001)

    def test_absolute_link_in_a_stopped_container_stays_inside(self, incus: Host, stopped: Container) -> None:
        """In a stopped container, too, a link counts from the container's root: this machine's files are safe."""
        world = incus_world("sftp", incus, stopped)
        # Not below /dev, where a quick run has its files: what leads there waits for the start.
        with tempfile.NamedTemporaryFile(dir="/var/tmp", buffering=0) as outside:
            outside.write(b"safe")
            world.make_link("/link", outside.name)
            world.make_directory("/var/tmp")
            world.deliver("/link", b"new")
            assert Path(outside.name).read_bytes() == b"safe"
            assert world.facts(outside.name).data == b"new"

    def test_stopped_container_is_waited_for_when_asked(self, incus: Host, stopped: Container) -> None:
        """With stopped = "wait" nothing is pushed into a stopped container."""
        assert code(lambda: target(incus.socket).open(destination(stopped.name), "wait")) == "instance_stopped"

    def test_running_container_is_not_waited_for(self, incus: Host, container: Container) -> None:
        """With stopped = "wait" a running container is pushed into."""
        target(incus.socket).open(destination(container.name), "wait").close()

    @pytest.mark.parametrize("size", [10, 20 * MIB])
    def test_container_that_goes_away_loses_the_connection_or_keeps_the_file(self, incus: Host, size: int) -> None:
        """Stopping a container under a delivery ends in a typed error or in a file, never in anything else."""
        with incus.container() as container:
            world = incus_world("sftp", incus, container)
            with contextlib.closing(world.open()) as session:
                delivery = world.delivery("/f", b"x" * size)
                # LXD waits for the session to end before it stops a container; Incus ends it.
                with contextlib.suppress(ApiError):
                    container.stop(within_s=2)
                with contextlib.suppress(Undelivered):
                    session.deliver(delivery, io.BytesIO(b"x" * size), lambda: None)


@pytest.mark.live
class TestNoSftp:
    """A server without the SFTP endpoint."""

    def test_files_api_takes_over(self, incus: Host, world: World, tmp_path: Path) -> None:
        """Without SFTP the file arrives by the files API, and the receipt says that it is not atomic."""
        with (Proxy(tmp_path / "s", incus.socket, without_sftp=True) as proxy,
              contextlib.closing(target(proxy.path).open(destination(world.instance), "push")) as session):
            delivery = world.delivery(f"{world.home}/f", b"x" * MIB, mode=0o600)
            receipt = session.deliver(delivery, io.BytesIO(b"x" * MIB), lambda: None)
        assert (receipt.atomic, receipt.way) == (False, "files")
        assert (world.facts(f"{world.home}/f").data, world.facts(f"{world.home}/f").mode) == (b"x" * MIB, 0o600)

    def test_missing_instance_is_still_not_found(self, incus: Host, tmp_path: Path) -> None:
        """The fallback is not tried for an instance that does not exist."""
        with Proxy(tmp_path / "s", incus.socket, without_sftp=True) as proxy:
            assert code(lambda: target(proxy.path).open(destination("no-such"), "push")) == "instance_not_found"


@pytest.mark.live
class TestStall:
    """A connection on which nothing moves."""

    @pytest.mark.parametrize("without_sftp", [False, pytest.param(True, marks=pytest.mark.full)])
    def test_delivery_is_cut_when_nothing_moves(self, incus: Host, world: World, tmp_path: Path,
                                                without_sftp: bool) -> None:
        """A delivery that stops moving ends as stalled, and its session is broken."""
        patience = Patience()
        with (Proxy(tmp_path / "s", incus.socket, without_sftp=without_sftp, stall_after=5 * MIB) as proxy,
              ThreadPoolExecutor(1) as watching):
            session = target(proxy.path).open(destination(world.instance), "push", patience)

            def lose_patience() -> None:
                # Not before: however busy Incus is, it answers at first. The files API gives up by itself.
                assert proxy.stalled_after.wait(PATIENCE_S)
                patience.limit_s = SILENT_S

            with contextlib.closing(session):
                watching.submit(lose_patience)
                data = os.urandom(20 * MIB)
                delivery = world.delivery(f"{world.home}/f", data)
                assert code(lambda: session.deliver(delivery, io.BytesIO(data), lambda: None)) == "stalled"
                assert session.broken
                # Without SFTP there is none: the file is written in place.
                assert session.left_part is not without_sftp
                assert (delivery.part_name in world.names(world.home)) is not without_sftp

    def test_open_is_cut_when_all_of_incus_hangs(self, incus: Host, world: World, tmp_path: Path) -> None:
        """An Incus that takes connections and says nothing cannot be reached."""
        with Proxy(tmp_path / "s", incus.socket) as proxy:
            proxy.stall()
            silent = target(proxy.path, SILENT_S)
            assert code(lambda: silent.open(destination(world.instance), "push")) == "incus_unreachable"
            assert code(silent.probe) == "incus_unreachable"

    @pytest.mark.parametrize("size", [10, 20 * MIB])
    def test_delivery_ends_when_the_connection_is_cut(self, incus: Host, world: World, tmp_path: Path, size: int) -> None:
        """A connection that ends under a delivery is lost, and the old file is as it was."""
        world.make_file(f"{world.home}/f", b"old")
        with (Proxy(tmp_path / "s", incus.socket) as proxy,
              contextlib.closing(target(proxy.path).open(destination(world.instance), "push")) as session):
            delivery = world.delivery(f"{world.home}/f", b"x" * size)
            lost = code(lambda: session.deliver(delivery, io.BytesIO(b"x" * size), proxy.cut))
            assert lost == "connection_lost"
            assert session.broken
            assert session.left_part
        assert world.facts(f"{world.home}/f").data == b"old"


class TestNoIncus:
    """Nothing that answers."""

    def test_missing_socket_cannot_be_reached(self, tmp_path: Path) -> None:
        """Without a socket Incus is away, for a session and for a probe."""
        missing = target(str(tmp_path / "s"))
        assert code(missing.probe) == "incus_unreachable"
        assert code(lambda: missing.open(destination("c1"), "push")) == "incus_unreachable"

    def test_socket_that_refuses_cannot_be_reached(self, tmp_path: Path) -> None:
        """A socket that nobody listens on is an Incus that is away."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "s"))
            assert code(target(str(tmp_path / "s")).probe) == "incus_unreachable"

    def test_something_else_than_incus_cannot_be_reached(self, tmp_path: Path) -> None:
        """A server that speaks something else is no Incus."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            refusing = target(str(tmp_path / "s"))
            listener.close()
            assert code(lambda: refusing.open(destination("c1"), "push")) == "incus_unreachable"

    @pytest.mark.live
    def test_environment_changes_nothing(self, incus: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Variables that redirect other programs do not redirect this one."""
        for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
        for variable in ("LXD_DIR", "INCUS_DIR", "INCUS_SOCKET", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HOME"):
            monkeypatch.setenv(variable, str(tmp_path))
        target(incus.socket).probe()
