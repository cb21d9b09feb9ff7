import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.command import incus_courier
from tests.support.hooked import HookedService
from tests.support.processes import ROOT
from tests.support.receiver import SECRET, Receiver
from tests.support.waiting import eventually

OTHER_SECRET = "whsec_" + "eHh4" * 9


def test_webhook_is_told_what_becomes_of_uploads(tmp_path: Path) -> None:
    """Signed, also when the sender comes late, the webhook refuses, or has gone for a while; people see and help."""
    with Receiver() as receiver, HookedService(tmp_path, receiver.url) as service:
        def arrived(number: int) -> list[str]:
            eventually(lambda: len(receiver.received) >= number)
            return [received.verified()["data"].get("path") for received in receiver.received]

        service.start()
        service.client.put("c1", "/a", b"hello")
        eventually(lambda: service.events("sender.away"))
        service.begin("sender")
        assert arrived(1) == ["/a"]
        first = receiver.received[0].verified()
        assert (first["type"], first["data"]["state"]) == ("task.delivered", "delivered")
        # It refuses, and is told again, under the same id, when somebody asks for it.
        receiver.answers = [503]
        service.client.put("c1", "/b", b"hello")
        arrived(2)
        [pending] = eventually(lambda: [each for each in service.ask("/ci/deliveries?state=pending")["deliveries"]
                                        if each["attempts"]])
        assert (pending["status"], pending["id"]) == (503, receiver.received[1].message_id)
        receiver.answers = [204]
        assert service.ask(f"/ci/deliveries/{pending['id']}/replay", "POST")["attempts"] == 0
        assert arrived(3)[1:] == ["/b", "/b"]
        assert receiver.received[2].message_id == pending["id"]
        # It wants nothing any more, until a person says so; what happens meanwhile waits, whatever dies.
        receiver.answers = [410]
        service.client.put("c1", "/c", b"hello")
        arrived(4)
        eventually(lambda: service.ask("")["webhooks"][0]["disabled"])
        service.kill("worker-0", "sender")
        service.client.put("c1", "/d", b"hello")
        receiver.answers = [204]
        service.start()
        service.begin("sender")
        service.wait_quiet()
        eventually(lambda: service.ask("")["webhooks"][0]["pending"] == 2)
        assert len(receiver.received) == 4
        status = incus_courier("--config", str(service.config), "status")
        assert "2 messages wait for the webhook ci" in status.out
        assert "the webhook ci is disabled: it answered 410" in status.out
        # A secret is changed by its file alone: the newer one first, as long as both are known.
        service.secret.write_text(f"{OTHER_SECRET}\n{SECRET}\n")
        assert service.command("enable", "ci").code == 0
        assert sorted(arrived(6)[4:]) == ["/c", "/d"]
        assert receiver.received[5].verified(OTHER_SECRET)
        done = service.command("test", "ci")
        assert (done.code, done.out) == (0, "ci: HTTP 204\n")
        assert receiver.received[-1].verified()["type"] == "webhook.test"
        eventually(lambda: service.ask("")["webhooks"][0]["delivered"] == 5)
        [listed] = service.command("list", "--json").json
        assert listed.items() >= {"name": "ci", "pending": 0, "failed": 0, "disabled": None}.items()
        assert listed["url"].endswith("/hook?…")
        service.stop()
        assert service.mistakes() == []
        assert SECRET not in service.log.read_text()


@pytest.mark.full
def test_nothing_is_lost_however_often_everything_is_killed(tmp_path: Path) -> None:
    """Each upload is told at least once, whatever died in between, and always under one id."""
    with Receiver() as receiver, HookedService(tmp_path, receiver.url) as service:
        service.start()
        service.begin("sender")
        expected = set()
        for turn in range(12):
            for number in range(20):
                path = f"/{turn}-{number}"
                answer = service.client.put("c1", path, b"hello")
                assert answer is not None
                expected.add(path)
            service.kill(("worker-0", "sender")[turn % 2])
            service.start()
            if "sender" not in service.processes:
                service.begin("sender")
        service.wait_quiet()

        def told() -> dict[str, set[str]]:
            found: dict[str, set[str]] = {}
            for received in list(receiver.received):
                found.setdefault(received.verified()["data"]["path"], set()).add(received.message_id)
            return found

        eventually(lambda: told().keys() == expected, 60)
        assert {len(ids) for ids in told().values()} == {1}
        service.stop()


@pytest.mark.full
def test_serve_brings_a_sender_along(tmp_path: Path) -> None:
    """One command runs all of it: over TLS, again when the sender dies, and it ends in order."""
    authority = Authority(tmp_path)
    own = authority.issue()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own.certificate, own.key)
    with Receiver(tls=tls) as receiver, HookedService(tmp_path, receiver.url) as service, service.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from daemon.cli.main import main; main()", "--config", str(service.config), "serve"],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(authority.own.certificate)})
        eventually(lambda: service.events("api.started") and service.events("worker.started"))

        def started(number: int) -> None:
            eventually(lambda: len(service.events("sender.started")) == number)

        def arrived(number: int) -> None:
            paths = {f"/{done}" for done in range(1, number + 1)}
            eventually(lambda: {each.verified()["data"]["path"] for each in receiver.received} == paths)

        for number in range(1, 4):
            started(number)
            assert service.client.put("c1", f"/{number}", b"hello") is not None
            arrived(number)
            if number < 3:
                os.kill(service.events("sender.started")[-1]["pid"], signal.SIGKILL)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert service.events("sender.stopped")
        assert service.mistakes() == []
