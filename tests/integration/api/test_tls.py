"""TLS at the door of a real process, with real clients."""

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.integration.api.running import Api, wait_until
from tests.integration.api.test_limits import CONTINUE, begin_upload
from tests.support.certificates import Authority, Pair
from tests.support.waiting import PATIENCE_S

Start = Callable[..., Api]
PLACE = "/v1/instances/c1/files/root"


class Tls(Api):
    """An API process that speaks TLS at one of its addresses, with a certificate that can be replaced."""

    pair: Pair
    ca: Path

    @property
    def tls_port(self) -> int:
        """The TCP port where TLS is spoken."""
        return int(next(address for address in self.listens_on if address.startswith("tls:")).rpartition(":")[2])

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.tls_port}"

    @contextmanager
    def secure(self) -> Iterator[ssl.SSLSocket]:
        """A connection after its handshake."""
        context = ssl.create_default_context(cafile=str(self.ca))
        with (socket.create_connection(("127.0.0.1", self.tls_port), PATIENCE_S) as plain,
              context.wrap_socket(plain, server_hostname="localhost") as connection):
            yield connection

    def served(self) -> str:
        """The certificate that a new connection gets."""
        text = ssl.get_server_certificate(("127.0.0.1", self.tls_port), timeout=PATIENCE_S)
        return ssl.PEM_cert_to_DER_cert(text).hex()


def launched(directory: Path, authority: Authority, processes: int = 1) -> Tls:
    """Start a process."""
    issued = authority.issue()
    pair = Pair(directory / "own.crt", directory / "own.key")
    shutil.copy(issued.certificate, pair.certificate)
    shutil.copy(issued.key, pair.key)
    api = Tls(directory, {
        "api": {"listen": ["tls:127.0.0.1:0", "127.0.0.1:0", f"unix:{directory / 'sock'}"], "body_timeout_s": 1.0,
                "processes": processes},
        "tls": {**pair.tls, "client_ca": str(authority.own.certificate)}}, {})
    api.pair, api.ca = pair, authority.own.certificate
    return api


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Tls]:
    """One process for the tests of this module."""
    with launched(tmp_path_factory.mktemp("tls"), authority) as api:
        yield api.started()


def der(pair: Pair) -> str:
    """A certificate as `Tls.served` has it."""
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()).hex()


def serves(api: Tls, pair: Pair) -> bool:
    """True when new connections get this certificate."""
    return api.served() == der(pair)


def output(command: list[str | Path], stdin: bytes = b"", **environment: str) -> str:
    """What a program says."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE_S, check=False,
                          env={**os.environ, **environment})
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize("options", [["--http1.1"], ["--http2"], ["--tls-max", "1.2"], ["--tlsv1.3"]])
def test_curl_uploads(api: Tls, options: list[str]) -> None:
    """With TLS 1.2 and 1.3, also where it would rather speak HTTP/2."""
    said = output(["curl", "-sS", *options, "--cacert", api.ca, "-T", "-", "-w", "%{http_code} %{http_version}",
                   f"{api.url}{PLACE}/curl"], b"hello")
    assert said.endswith("202 1.1")


def test_curl_shows_a_certificate(api: Tls, authority: Authority) -> None:
    """One that has expired gets no answer."""
    for pair, answered in ((authority.issue("/CN=web"), True), (authority.expired("/CN=web"), False)):
        said = output(["curl", "-sS", "--cacert", api.ca, "--cert", pair.certificate, "--key", pair.key, f"{api.url}/healthz"])
        assert ('"ok"' in said or '"status"' in said) is answered, said
    assert api.logged_with("tls.refused", code="certificate_verify_failed", detail="certificate has expired", peer="127.0.0.1")


def test_requests_uploads(api: Tls) -> None:
    """In one session, whose connection stays."""
    with requests.Session() as session:
        session.verify, session.trust_env = str(api.ca), False
        for number in range(3):
            answer = session.put(f"{api.url}{PLACE}/requests{number}", data=b"x" * 300_000, timeout=PATIENCE_S)
            assert answer.status_code == 202
            assert session.get(f"{api.url}{answer.headers['location']}", timeout=PATIENCE_S).json()["size"] == 300_000


def test_node_uploads(api: Tls) -> None:
    """By its own fetch."""
    script = f"fetch('{api.url}{PLACE}/node', {{method: 'PUT', body: 'hello'}}).then(answer => console.log(answer.status))"
    assert output(["node", "-e", script], NODE_EXTRA_CA_CERTS=str(api.ca)).strip() == "202"


def test_openssl_finds_what_is_spoken(api: Tls) -> None:
    """Nothing older than TLS 1.2, no renegotiation, HTTP/1.1 for whoever asks for it, whatever name is asked for."""
    client = ["openssl", "s_client", "-connect", f"127.0.0.1:{api.tls_port}"]
    assert "ALPN protocol: http/1.1" in output([*client, "-alpn", "h2,http/1.1", "-servername", "elsewhere.example"])
    assert "No ALPN negotiated" in output([*client, "-alpn", "h2"])
    assert "Cipher is (NONE)" in output([*client, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
    said = output([*client, "-tls1_2", "-legacy_renegotiation"], b"R\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


def test_other_protocol_than_that_of_the_door_is_refused(api: Tls) -> None:
    """Plain HTTP where TLS is spoken is closed, with an event; TLS where it is not is answered in plain."""
    with socket.create_connection(("127.0.0.1", api.tls_port), PATIENCE_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert http_of(connection) == b""
    assert api.logged_with("tls.refused", code="http_request")["listen"] == f"tls:127.0.0.1:{api.tls_port}"
    with socket.create_connection(("127.0.0.1", api.port), PATIENCE_S) as connection:
        outgoing = ssl.MemoryBIO()
        session = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        connection.sendall(outgoing.read() + b"\r\n\r\n")
        assert http_of(connection).startswith(b"HTTP/1.1 400 ")


def http_of(connection: socket.socket) -> bytes:
    """What comes until the connection ends."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        return received
    return received


def test_handshake_that_hangs_is_cut_off(api: Tls) -> None:
    """After as long as a head may take; the log says so, and nothing is an error of the service's."""
    with socket.create_connection(("127.0.0.1", api.tls_port), PATIENCE_S) as connection:
        assert http_of(connection) == b""
    assert api.logged_with("tls.refused", code="handshake_timeout")
    with socket.create_connection(("127.0.0.1", api.tls_port), PATIENCE_S) as connection:
        connection.sendall(b"\x16\x03\x01")
    assert not [event for event in api.events if event["level"] == "error"]
    assert not api.other_lines


def test_large_upload_takes_no_memory(api: Tls) -> None:
    """Whatever its size; what is stored is what was sent."""
    size = 256 * 2**20
    before = api.memory_bytes()
    grown: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(size // 2**20):
            grown.append(api.memory_bytes() - before)
            yield bytes([number]) * 2**20

    answer = requests.put(f"{api.url}{PLACE}/large", data=pieces(), verify=str(api.ca), timeout=PATIENCE_S)
    assert answer.status_code == 202
    assert answer.json()["size"] == size
    assert max(grown) < 64 * 2**20


def replace(pair: Pair, by: Pair, order: str) -> None:
    """Put another pair in its place, one file after the other, each in one step."""
    for name in order.split():
        new = getattr(pair, name).with_suffix(".new")
        shutil.copy(getattr(by, name), new)
        new.rename(getattr(pair, name))


def test_renewed_certificate_is_served_and_no_request_is_refused(api: Tls, authority: Authority) -> None:
    """By itself within seconds, whichever file comes first, under load; a reload reads it at once."""
    ended = threading.Event()

    def ask() -> int:
        number = 0
        while not ended.is_set():
            # Each on a connection of its own.
            connection = http.client.HTTPSConnection(
                "localhost", api.tls_port, timeout=PATIENCE_S, context=ssl.create_default_context(cafile=str(api.ca)))
            connection.request("PUT", f"{PLACE}/renewed", b"x", {"Connection": "close"})
            assert connection.getresponse().status == 202
            connection.close()
            number += 1
        return number

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        try:
            for order in ("certificate key", "key certificate"):
                new = authority.issue()
                replace(api.pair, new, order)
                wait_until(partial(serves, api, new), "the new certificate is served")
            new = authority.issue()
            replace(api.pair, new, "certificate key")
            api.send(signal.SIGHUP)
            api.logged_with("tls.renewed", certificate=new.fingerprint)
            assert api.served() == der(new)
        finally:
            ended.set()
        assert all(done.result() for done in asking)
    assert not [event for event in api.events if event["level"] == "error"]


def test_certificate_that_cannot_be_used_changes_nothing(api: Tls, authority: Authority) -> None:
    """A pair that does not match keeps the old one, and the log says so once; when it is mended, it is served."""
    before, new = api.served(), authority.issue()
    replace(api.pair, new, "certificate")
    refused = api.logged("tls.rejected")
    assert "mismatch" in refused[0]["detail"]
    api.pair.key.unlink()
    assert "No such file" in api.logged("tls.rejected", 2)[1]["detail"]
    assert api.served() == before
    replace(api.pair, new, "key")
    wait_until(partial(serves, api, new), "the new certificate is served")
    assert len(api.logged("tls.rejected")) == 2


@pytest.mark.parametrize("spoiled", ["certificate", "key"])
def test_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path, authority: Authority, spoiled: str) -> None:
    """Exit 78, and the key is named; also without one."""
    api = launched(tmp_path, authority)
    with api:
        api.started().stop()
        getattr(api.pair, spoiled).write_text("spoiled")
        for settings in (api.settings, {**api.settings, "tls": {}}):
            again = Tls(tmp_path, settings, {})
            assert again.end() == 78
            assert f"tls.{'certificate' if spoiled == 'certificate' or settings['tls'] == {} else 'key'}" in "".join(again.other_lines)


def test_every_process_speaks_tls(tmp_path: Path, authority: Authority) -> None:
    """The children inherit the socket, are told what is spoken there, and each gets the new certificate."""
    with launched(tmp_path, authority, processes=2) as api:
        api.logged("api.started", 2)
        api.started()
        assert requests.get(f"{api.url}/healthz", verify=str(api.ca), timeout=PATIENCE_S).status_code == 200
        new = authority.issue()
        replace(api.pair, new, "key certificate")
        assert {event["certificate"] for event in api.logged("tls.renewed", 2)} == {new.fingerprint}
        assert api.served() == der(new)


def test_client_that_says_farewell_within_a_body_is_gone(api: Tls) -> None:
    """There is no half-closed connection: nothing of the upload stays, and nothing is answered."""
    before = api.spooled()
    with api.secure() as connection:
        assert begin_upload(connection) == CONTINUE
        # It comes back when the service has said farewell, too.
        connection.unwrap()
    api.logged("upload.aborted")
    assert api.spooled() == before


def test_service_ends_while_connections_are_open(tmp_path: Path, authority: Authority) -> None:
    """One that is idle and one that never greets keep it from nothing, and it makes no mistake; an upload gets its answer."""
    with (launched(tmp_path, authority) as api, api.started().secure() as idle, api.secure() as uploading,
          socket.create_connection(("127.0.0.1", api.tls_port))):
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200 ")
        assert begin_upload(uploading) == CONTINUE
        api.send(signal.SIGTERM)
        api.logged("api.draining")
        uploading.sendall(b"cde")
        assert uploading.recv(100).startswith(b"HTTP/1.1 202 ")
        assert api.end() == 0
    assert not [event for event in api.events if event["level"] == "error"]
    assert not api.other_lines
