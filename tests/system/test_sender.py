"""The sender of the installed service: it has the network, and nothing else."""

import json
import re

import pytest

from tests.support.receiver import SECRET, Received
from tests.support.waiting import eventually
from tests.system.load import Load
from tests.system.machine import CONFIG, PATIENCE_S, Machine

pytestmark = [pytest.mark.system, pytest.mark.live, pytest.mark.full, pytest.mark.timeout(600)]

SERVICE = "incus-courier-sender.service"
SOCKET = "/run/incus-courier/sender.sock"
TAKEN = "/root/taken"
#: A receiver that writes each request into a file.
RECEIVER = f"""
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fields = {{name.lower(): value for name, value in self.headers.items()}}
        with open("{TAKEN}", "a") as file:
            print(json.dumps([self.path, fields, body.decode()]), file=file, flush=True)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""


def test_installed_service_tells_webhooks(machine: Machine, load: Load) -> None:
    """With a secret that only its own process has; the workers start it, and nobody else gets to its socket."""
    assert not machine.active(SERVICE)
    machine.write("/root/receiver.py", RECEIVER)
    machine.run("systemd-run", "--unit", "receiver", "python3", "/root/receiver.py")
    machine.write("/etc/incus-courier/webhooks/ci", SECRET)
    machine.run("chmod", "600", "/etc/incus-courier/webhooks/ci")
    machine.run("sh", "-c", f"cat >>{CONFIG}", text="""
[[webhooks]]
name = "ci"
url = "http://127.0.0.1:8099/hook"
secret = "$CREDENTIALS_DIRECTORY/webhooks_ci"
""")
    machine.configure(allow=["127.0.0.0/8"])
    machine.systemctl("restart", "incus-courier.target")
    machine.wait_active("incus-courier-api", "incus-courier-worker@0", "incus-courier-worker@1")
    load.many(3)
    load.wait_delivered()

    def told() -> set[str]:
        if machine.status("test", "-e", TAKEN) != 0:
            return set()
        lines = machine.run("cat", TAKEN).splitlines()
        requests = [Received(path, fields, body.encode()) for path, fields, body in map(json.loads, lines)]
        return {request.verified()["data"]["task_id"] for request in requests}

    eventually(lambda: told() >= set(load.promised.values()), PATIENCE_S, "all are told")
    assert "ok   webhook ci" in machine.incus("exec", machine.name, "--", "incus-courier", "check", check=False).stdout
    pid = machine.show(SERVICE, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    assert "CapEff:\t0000000000000000" in status
    inside = ("nsenter", "-t", pid, "-m", "--")
    for hidden in ("/var/lib/incus-courier", "/var/lib/incus"):
        assert machine.status(*inside, "setpriv", "--reuid=incus-courier-sender", "--clear-groups", "ls", f"{hidden}/x") != 0
    probe = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET}')"
    for user, may in (("incus-courier-worker", True), ("incus-courier-api", False), ("nobody", False)):
        assert (machine.status("runuser", "-u", user, "--", "python3", "-c", probe) == 0) is may
    text = machine.run("systemd-analyze", "security", "--no-pager", SERVICE)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert found
    # What it is rated worse for than the others is the network.
    assert float(found[1]) <= 1.9, text
    assert not machine.said("mistake", f"_SYSTEMD_UNIT={SERVICE}")
    machine.systemctl("stop", "receiver")
    machine.run("rm", "/etc/incus-courier/webhooks/ci")
