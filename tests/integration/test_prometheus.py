"""A real Prometheus that scrapes a real service, as docs/metrics.md has it set up, with the alerts of the package."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.prometheus]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/prometheus/alerts.yml"
#: In what was shipped, what a test has no time to wait for; and what it waits for.
SOONER = ((r"for: \d+m", "for: 1s"), (r"> 3600", "> 1"))
#: What of a line of its log tells where it listens.
LISTENS = re.compile(r'msg="Listening on" address=(\S+)')
READY = "Server is ready to receive web requests"


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._address = eventually(self._listens, what=f"Prometheus to be ready ({log})")

    def _listens(self) -> str | None:
        text = self._log.read_text()
        found = LISTENS.search(text)
        return found[1] if found and READY in text else None

    def ask(self, target: str) -> Any:
        """The data of an answer of its own API."""
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{target}", timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service whose disk is broken where its instances are."""
    with Service(tmp_path, {"delivery": {"mkdirs": False, "drain_s": 5}, "retry": {"first_delay_s": 600, "max_delay_s": 600}}) as made:
        made.settings["api"]["listen"] = [made.address, "127.0.0.1:0"]
        made.write_config()
        (made.layout.instances / "c1" / "there").mkdir(parents=True)
        yield made.start("push.rename=EIO")


@pytest.fixture
def prometheus(service: Service, tmp_path: Path) -> Iterator[Prometheus]:
    """As the documentation says, but for where things are, and sooner."""
    token = tmp_path / "prometheus.token"
    token.write_text(make_token(service.config, "prometheus", may=["metrics"]) + "\n")
    rules = RULES.read_text()
    for shipped, sooner in SOONER:
        rules = re.sub(shipped, sooner, rules)
    (tmp_path / "alerts.yml").write_text(rules)
    [started] = service.events("api.started")
    listens = next(door for door in started["listen"].split(", ") if door.startswith("127."))
    page = (ROOT / "docs/metrics.md").read_text()
    config = page.partition("```yaml\n")[2].partition("```")[0]
    for documented, here in {"/usr/share/incus-courier/prometheus/alerts.yml": str(tmp_path / "alerts.yml"),
                             "/etc/prometheus/incus-courier.token": str(token), "127.0.0.1:8420": listens}.items():
        assert config.count(documented) == 1
        config = config.replace(documented, here)
    (tmp_path / "prometheus.yml").write_text(f"global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\n{config}")
    log = tmp_path / "prometheus.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
             "--web.listen-address=127.0.0.1:0"], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield Prometheus(log)
    finally:
        process.terminate()
        process.wait(30)


def test_alerts_fire_when_something_is_stuck(service: Service, prometheus: Prometheus) -> None:
    """None while all is well; then those, and no others, that say what is wrong."""
    def value(metric: str) -> float | None:
        found = prometheus.ask(f"query?query={metric}")["result"]
        return float(found[0]["value"][1]) if found else None

    eventually(lambda: value("incus_courier_worker_up") == 1, what="the service to be scraped")
    eventually(lambda: len(prometheus.ask("rules")["groups"]) == 1, what="the rules to be read")
    assert prometheus.firing() == set()

    shown = {"Authorization": f"Bearer {make_token(service.config, 'root', may=['admin'])}"}

    def put(path: str) -> bool:
        answer = service.client.put("c1", path, b"bytes", headers=shown, mkdirs="false")
        return answer is not None and answer.status == 202

    eventually(lambda: put("/missing/a"), what="the token to be known")
    assert put("/there/a")
    eventually(lambda: prometheus.firing() == {"IncusCourierDeadLetters", "IncusCourierDeliveryLate"},
               what="the alerts for what is stuck")
    [late] = [alert for alert in prometheus.ask("alerts")["alerts"] if alert["labels"]["alertname"] == "IncusCourierDeliveryLate"]
    assert late["annotations"]["summary"].endswith("ask incus-courier explain.")
    assert value("incus_courier_accept_seconds_count") == 2

    service.kill("worker-0")
    eventually(lambda: "IncusCourierNoWorker" in prometheus.firing(), what="the alert for the worker")
    assert "IncusCourierDown" not in prometheus.firing()
    service.kill("api")
    eventually(lambda: "IncusCourierDown" in prometheus.firing(), what="the alert for the service")
