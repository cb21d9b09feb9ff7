"""A remote over TLS: the real Incus on loopback, a pinned certificate, and a client certificate for one project."""

import contextlib
import io
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.config import Remote
from daemon.errors import Undelivered
from daemon.model.upload import Destination
from tests.live.host import Container, Host
from tests.live.world import incus_world
from tests.support.waiting import PATIENCE_S
from worker.targets.incus.target import IncusTarget

pytestmark = pytest.mark.live


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


def make_pair(directory: Path, name: str) -> Pair:
    """Make a self-signed certificate."""
    pair = Pair(directory / f"{name}.crt", directory / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1", "-sha384", "-nodes",
         "-days", "2", "-subj", f"/CN={name}", "-keyout", pair.key, "-out", pair.cert], check=True, capture_output=True)
    return pair


@dataclass(frozen=True)
class Tls:
    """A restricted project with a container in it, and the way there."""

    url: str
    client: Pair
    server_cert: Path
    project: str
    container: Container

    def target(self, **changes: str) -> IncusTarget:
        """A target with this certificate, or with something changed."""
        values = {"endpoint": self.url, "client_cert": str(self.client.cert), "client_key": str(self.client.key),
                  "server_cert": str(self.server_cert)}
        return IncusTarget("far", Remote(**{**values, **changes}, timeout_s=PATIENCE_S))

    def destination(self) -> Destination:
        """A destination in the container."""
        return Destination("far", self.project, self.container.name, "/f")


@pytest.fixture(scope="module")
def tls(incus: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """Incus listening on loopback, and a certificate that may use one project."""
    client = make_pair(tmp_path_factory.mktemp("tls"), "courier-test")
    with contextlib.ExitStack() as stack:
        project = stack.enter_context(incus.project())
        container = stack.enter_context(incus.container(project=project))
        url = stack.enter_context(incus.https())
        stack.enter_context(incus.trusted(client.cert, [project]))
        yield Tls(url, client, incus.certificate, project, container)


def code(act: Callable[[], object]) -> str:
    """Run `act`, which must end undelivered; return the code."""
    with pytest.raises(Undelivered) as caught:
        act()
    return caught.value.code


@pytest.mark.parametrize("size", [10, 20 * 2**20])
def test_file_arrives_over_tls_atomically(incus: Host, tls: Tls, size: int) -> None:
    """SFTP works over TLS as over the socket."""
    target = tls.target()
    target.probe()
    delivery = incus_world("sftp", incus, tls.container).delivery("/f", b"x" * size, mode=0o600, verify="digest")
    with contextlib.closing(target.open(tls.destination(), "wait")) as session:
        receipt = session.deliver(delivery, io.BytesIO(b"x" * size), lambda: None)
    assert (receipt.atomic, receipt.way) == (True, "sftp")
    assert (tls.container.rootfs / "f").stat().st_size == size


def test_other_projects_are_refused_to_a_restricted_certificate(incus: Host, tls: Tls, container: Container) -> None:
    """A certificate for one project does not reach the instances of another, and the remote is not down for it."""
    other = Destination("far", "default", container.name, "/f")
    assert code(lambda: tls.target().open(other, "push")) == "instance_refused"
    tls.target().probe()
    tls.target().find_project(tls.project)
    assert code(lambda: tls.target().find_project("default")) == "incus_refused"


def test_unknown_client_certificate_is_refused(tls: Tls, tmp_path: Path) -> None:
    """A certificate that Incus does not trust is refused, by the probe too."""
    stranger = make_pair(tmp_path, "stranger")
    target = tls.target(client_cert=str(stranger.cert), client_key=str(stranger.key))
    assert code(target.probe) == "incus_refused"
    assert code(lambda: target.open(tls.destination(), "push")) == "incus_refused"


def test_no_client_certificate_is_refused(tls: Tls) -> None:
    """Without a certificate the remote lets nobody in."""
    assert code(tls.target(client_cert="", client_key="").probe) == "incus_refused"


def test_other_server_certificate_is_refused(tls: Tls, tmp_path: Path) -> None:
    """A server that shows another certificate than the pinned one is not talked to."""
    assert code(tls.target(server_cert=str(make_pair(tmp_path, "other").cert)).probe) == "incus_refused"


def test_server_certificate_is_checked_when_none_is_pinned(tls: Tls) -> None:
    """Without a pin a self-signed server is refused."""
    assert code(tls.target(server_cert="").probe) == "incus_refused"


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_unreadable_certificate_stops_nothing_else(tls: Tls, tmp_path: Path, content: str | None) -> None:
    """A certificate file that is missing or damaged is an error of its remote, with a code."""
    file = tmp_path / "server.crt"
    if content is not None:
        file.write_text(content)
    assert code(tls.target(server_cert=str(file)).probe) == "incus_refused"


def test_closed_port_cannot_be_reached(tls: Tls) -> None:
    """A port that nobody listens on is a remote that is away."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert code(tls.target(endpoint=f"https://127.0.0.1:{port}").probe) == "incus_unreachable"


def test_environment_cannot_lift_the_pin(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a CA bundle nor a proxy in the environment changes whom it talks to."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(tls.server_cert.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    tls.target().probe()
    other = make_pair(tmp_path, "other").cert
    assert code(tls.target(server_cert=str(other)).probe) == "incus_refused"
