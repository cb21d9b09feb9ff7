"""The alert rules, as Prometheus's own tool tries them."""

import re
import subprocess
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("alerts_test.yml")
RULES = Path(__file__).parents[3] / "packaging/prometheus/alerts.yml"


def test_each_alert_is_tried() -> None:
    """There is a case in which it fires."""
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert sorted(re.findall(r"alertname: (\w+)", CASES.read_text())) == sorted(alerts)


@pytest.mark.full
@pytest.mark.prometheus
def test_alerts_fire_when_they_should() -> None:
    """And none does while all is well."""
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(CASES)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
