"""Another machine, at the end of a cable: it has curl, the command, a browser and Prometheus, and nothing of the service."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, sync_playwright

from tests.conftest import CHROMIUM, NO_CHROMIUM
from tests.support.waiting import eventually
from tests.system.machine import PATIENCE_S, Machine

#: As pip installs it.
COMMAND = str(Path(sys.executable).with_name("incus-courier"))
#: The machine, who sends to it, and where the service is.
HERE, THERE, PORT = "198.51.100.1", "198.51.100.2", 8443
SITE = f"https://{HERE}:{PORT}"
_PROMETHEUS = f"{THERE}:9090"


@dataclass(frozen=True)
class Elsewhere:
    """That machine; `authority` is the certificate of who signed the service's."""

    namespace: str
    authority: Path
    home: Path

    def _command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command there."""
        return subprocess.run(self._command(*command), env={"PATH": os.environ["PATH"], "HOME": str(self.home), **environment},
                              cwd=self.home, text=True, capture_output=True, check=False, timeout=PATIENCE_S)

    def push(self, token: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Send files; server, token and authority are in the environment."""
        return self.run(COMMAND, "push", *arguments, INCUS_COURIER_SERVER=SITE, INCUS_COURIER_TOKEN=token,
                        INCUS_COURIER_CA=str(self.authority))

    def get(self, url: str, token: str = "") -> Any:
        """What curl gets there, as JSON."""
        done = self.run("curl", "--silent", "--show-error", "--fail", "--cacert", str(self.authority),
                        "--header", f"Authorization: Bearer {token}", url)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def browser(self) -> Iterator[BrowserContext]:
        """Somebody's browser there. No policy of the page is broken, and no script of it fails."""
        assert CHROMIUM.exists(), NO_CHROMIUM
        inside = self.home / "chromium"
        inside.write_text(f'#!/bin/sh\nexec {" ".join(self._command(str(CHROMIUM)))} "$@"\n')
        inside.chmod(0o755)
        complaints: list[str] = []
        with ExitStack() as stack:
            playwright = stack.enter_context(sync_playwright())
            browser = stack.enter_context(playwright.chromium.launch(executable_path=str(inside), args=["--no-sandbox"]))
            # It does not know the authority.
            context = stack.enter_context(browser.new_context(base_url=f"{SITE}/ui/", ignore_https_errors=True))
            context.set_default_timeout(PATIENCE_S * 1000)
            context.on("weberror", lambda error: complaints.append(str(error.error)))
            yield context
        assert complaints == []

    @contextmanager
    def prometheus(self, token: str, rules: str) -> Iterator[None]:
        """A Prometheus there, which asks the service every second, as docs/metrics.md says."""
        files = {"token": token, "rules.yml": rules, "prometheus.yml": _SCRAPE.format(
            target=f"{HERE}:{PORT}", authority=self.authority, home=self.home)}
        for name, text in files.items():
            (self.home / name).write_text(text)
        with (self.home / "prometheus.log").open("w") as log:
            process = subprocess.Popen(
                self._command("prometheus", f"--config.file={self.home}/prometheus.yml", f"--web.listen-address={_PROMETHEUS}",
                              f"--storage.tsdb.path={self.home}/metrics"), stdout=log, stderr=log)
            try:
                eventually(lambda: self.run("curl", "--silent", "--fail", f"http://{_PROMETHEUS}/-/ready").returncode == 0,
                           PATIENCE_S, f"Prometheus ({log.name})")
                yield
            finally:
                process.terminate()
                process.wait(PATIENCE_S)

    def alerts(self) -> set[str]:
        """The names of the alerts that fire in Prometheus."""
        found = self.get(f"http://{_PROMETHEUS}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def metric(self, name: str) -> list[float]:
        """The values that Prometheus has now of that name."""
        found = self.get(f"http://{_PROMETHEUS}/api/v1/query?query={name}")["data"]["result"]
        return [float(one["value"][1]) for one in found]


_SCRAPE = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: incus-courier
    scheme: https
    tls_config: {{ca_file: {authority}}}
    authorization: {{credentials_file: {home}/token}}
    static_configs: [{{targets: ["{target}"]}}]
"""


@contextmanager
def elsewhere(machine: Machine, authority: Path, home: Path) -> Iterator[Elsewhere]:
    """A network of its own, with a cable to the machine."""
    name = f"courier-{uuid.uuid4().hex[:8]}"
    pid = machine.pid
    at_machine = ["nsenter", "-t", str(pid), "-n", "ip"]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "link", "add", "cable0", "netns", name, "type", "veth",
                        "peer", "name", "cable0", "netns", str(pid)], check=True)
        for ip, address in ((at_machine, HERE), (["ip", "-n", name], THERE)):
            subprocess.run([*ip, "address", "add", f"{address}/24", "dev", "cable0"], check=True)
            subprocess.run([*ip, "link", "set", "cable0", "up"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield Elsewhere(name, authority, home)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
