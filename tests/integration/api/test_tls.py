"""TLS at the door of a real process, with real clients."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

from client.http import NoAnswer
from client.server import ServerOptions, find_server
from tests.integration.api.running import Api, wait_until
from tests.support.certificates import Authority, Pair
from tests.support.tokens import make_token
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

    def served(self) -> str:
        """The certificate that a new connection gets."""
        text = ssl.get_server_certificate(("127.0.0.1", self.tls_port), timeout=PATIENCE_S)
        return ssl.PEM_cert_to_DER_cert(text).hex()


def launched(
    directory: Path, authority: Authority, processes: int = 1, host: str = "127.0.0.1", **environment: str,
) -> Tls:
    """Start a process."""
    issued = authority.issue()
    pair = Pair(directory / "own.crt", directory / "own.key")
    shutil.copy(issued.certificate, pair.certificate)
    shutil.copy(issued.key, pair.key)
    api = Tls(directory, {
        "api": {"listen": [f"tls:{host}:0", "127.0.0.1:0", f"unix:{directory / 'sock'}"], "body_timeout_s": 1.0,
                "processes": processes},
        "tls": {**pair.tls, "client_ca": str(authority.own.certificate)}}, environment)
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


def test_push_trusts_whom_it_is_told_to(api: Tls, authority: Authority) -> None:
    """The client of the command line shows its certificate, and speaks to nobody whose certificate is not vouched for."""
    pair = authority.issue("/CN=web")
    with find_server(ServerOptions(server=api.url), {"INCUS_COURIER_CA": str(api.ca)}).connect() as client:
        assert client.request("PUT", f"{PLACE}/push", body=b"hello").status == 202
    shown = ServerOptions(server=api.url, ca=api.ca, certificate=pair.certificate, key=pair.key)
    with find_server(shown, {}).connect() as client:
        assert client.request("PUT", f"{PLACE}/push", body=b"hello").problem("code") == "bad_credential", "nobody knows it"
        assert client.request("GET", "/healthz").status == 200
    with find_server(ServerOptions(server=api.url), {}).connect() as client:
        with pytest.raises(NoAnswer, match="certificate is not trusted") as refusal:
            client.request("GET", "/healthz")
        assert not refusal.value.passes


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


def test_each_client_gets_what_its_credential_allows(tmp_path: Path, authority: Authority) -> None:
    """At an address for other machines: curl, requests and node with tokens, and curl with a certificate."""
    pair = authority.issue("/CN=backup")
    listed = [{"name": "backup", "fingerprint": pair.fingerprint, "may": ["upload"], "paths": ["/backup/*"]}]
    config = tmp_path / "config.toml"
    sender = make_token(config, "a", may=["upload", "read"], instances=["web-*"], paths=["/srv/**"], max_file_bytes=10)
    other = make_token(config, "b", may=["upload", "read"], instances=["db-*"])
    reader = make_token(config, "c", may=["read"])
    with launched(tmp_path, authority, host="0.0.0.0", INCUS_COURIER__CERTIFICATES=json.dumps(listed)) as api:
        api.started()
        root = f"{api.url}/v1/instances"

        def curl(url: str, *options: str | Path) -> str:
            return output(["curl", "-sS", "--cacert", api.ca, "-w", " %{http_code}", *options, url], b"hello")

        def shown(token: str) -> tuple[str, str]:
            return "-H", f"Authorization: Bearer {token}"

        sent = curl(f"{root}/web-1/files/srv/x", "-T", "-", *shown(sender))
        task = json.loads(sent.rpartition(" ")[0])
        assert (sent[-3:], task["client"]) == ("202", "token:a")
        refused = [(f"{root}/db-1/files/srv/x", "instance_not_allowed"), (f"{root}/web-1/files/etc/x", "path_not_allowed"),
                   (f"{root}/web-1/files/srv/x?mode=4755", "mode_not_allowed")]
        for url, code in refused:
            assert f'"{code}"' in curl(url, "-T", "-", *shown(sender))
        with requests.Session() as session:
            session.verify, session.trust_env = str(api.ca), False
            for token, status in ((other, 404), (reader, 200), (sender, 200)):
                answer = session.get(f"{api.url}/v1/tasks/{task['id']}", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S)
                assert answer.status_code == status
            answer = session.put(f"{root}/web-1/files/srv/large", data=b"x" * 11, timeout=PATIENCE_S,
                                 headers={"Authorization": f"Bearer {sender}"})
            assert (answer.status_code, answer.json()["code"]) == (403, "size_not_allowed")
        script = ("const ask = (url, token, options = {}) => fetch(url, {...options, headers: {Authorization: `Bearer ${token}`}})"
                  f".then(answer => answer.status); Promise.all([ask('{root}/web-1/files/srv/n', '{sender}', {{method: 'PUT', body: 'x'}}),"
                  f"ask('{root}/web-1/files/srv/n', '{reader}', {{method: 'PUT', body: 'x'}}), ask('{api.url}/v1/tasks', '{reader}')])"
                  ".then(all => console.log(all.join()))")
        assert output(["node", "-e", script], NODE_EXTRA_CA_CERTS=str(api.ca)).strip() == "202,403,200"
        cert: list[str | Path] = ["--cert", pair.certificate, "--key", pair.key]
        stored = curl(f"{root}/web-1/files/backup/x", "-T", "-", *cert)
        assert json.loads(stored.rpartition(" ")[0])["client"] == "cert:backup"
        assert '"path_not_allowed"' in curl(f"{root}/web-1/files/srv/x", "-T", "-", *cert)
        assert '"no_credential"' in curl(f"{root}/web-1/files/srv/x", "-T", "-")
        stranger = authority.issue("/CN=backup")
        assert '"bad_credential"' in curl(f"{api.url}/v1/tasks", "--cert", stranger.certificate, "--key", stranger.key)
