"""What Prometheus reads."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from api.metrics.exposition import exposed, wants_openmetrics
from api.metrics.figures import Figures, instance_values
from api.metrics.table import INSTANCES, METRICS, PREFIX, series_names
from api.overview.surveyor import Stock
from daemon.errors import ERRORS
from daemon.explain import ServiceFacts
from daemon.explain.problems import DiskRoom
from daemon.model import counters
from daemon.model.task import State
from daemon.partials import Census
from daemon.state.activity import Activity, RemoteStanding
from daemon.task_queue import Total

PACKAGING = Path(__file__).parents[4] / "packaging"
NOW = 1_700_000_000.0
REMOTES = (RemoteStanding(remote='a"b\n', up=False, since=NOW),)
TOLD = Activity(at=NOW, pid=7, started_at=NOW, lanes=1, keeps=2, threads=1, sessions=3, stalled=0, wal_bytes=9)


def figures() -> Figures:
    """Some values of every metric."""
    counted = {counters.UPLOADS: 5.0, counters.attempts("delivered", ""): 4.0, counters.finished(State.DELIVERED): 4.0,
               counters.webhook_attempts("delivered"): 1.0, **counters.observed(counters.PUSH_SECONDS, [0.001, 1e9])}
    stock = Stock(
        at=NOW, counts=dict.fromkeys(State, Total(2, 10)), oldest_at=NOW - 5,
        room=DiskRoom(free_bytes=3, total_bytes=9, min_free_bytes=1, spool_bytes=2), partials=Census(number=1, present_bytes=4),
        services=(ServiceFacts(shard=0, worker=7, activity=TOLD), ServiceFacts(shard=1, worker=None)), remotes=REMOTES,
        counted=counted)
    return Figures(stock=stock, counted={counters.REPLAYED: 2.0, **counters.observed(counters.ACCEPT_SECONDS, [0.1])}, waiting=[("c1", 3)], connections=1, streams=0)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_both_formats_have_every_metric_of_the_table(openmetrics: bool) -> None:
    """They are read as what they are, with their labels, whatever these are; histograms add up."""
    read: Any = read_openmetrics if openmetrics else read_prometheus
    samples = [sample for family in read(exposed(figures(), openmetrics=openmetrics).decode()) for sample in family.samples]
    assert {sample.name for sample in samples} == set(series_names())
    value: dict[Any, float] = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert value[f"{PREFIX}uploads_total",] == 5
    assert value[f"{PREFIX}attempts_total", "", "delivered"] == 4
    assert value[f"{PREFIX}push_seconds_bucket", "0.005"] == 1
    assert value[f"{PREFIX}push_seconds_bucket", "+Inf"] == value[f"{PREFIX}push_seconds_count",] == 2
    assert value[f"{PREFIX}remote_up", 'a"b\n'] == value[f"{PREFIX}worker_up", "1"] == 0
    assert value[f"{PREFIX}webhook_attempts_total", "failed"] == value[f"{PREFIX}tasks_finished_total", "failed"] == 0
    assert value[f"{PREFIX}oldest_task_age_seconds",] == 5
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    assert [sample for sample in samples if sample.name in labels and set(sample.labels) != labels[sample.name]] == []


def test_what_cannot_be_read_is_told_and_no_counter_goes_back() -> None:
    """The queue's counters are not there while a shard is missing from their sums; all else is."""
    some = figures()
    text = exposed(replace(some, stock=replace(some.stock, counted=None, unreadable=frozenset({1}))), openmetrics=False).decode()
    shown = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert (shown[f'{PREFIX}shard_readable{{shard="0"}}'], shown[f'{PREFIX}shard_readable{{shard="1"}}']) == ("1.0", "0.0")
    assert f"{PREFIX}uploads_total" not in shown
    assert f"{PREFIX}end_to_end_seconds_count" not in shown
    assert shown[f'{PREFIX}tasks{{state="queued"}}'] == shown[f'{PREFIX}accepted_total{{result="replayed"}}'] == "2.0"
    assert shown[f"{PREFIX}accept_seconds_count"] == "1.0"


def test_refusals_for_our_own_trouble_are_there_from_the_beginning() -> None:
    """The first one is an increase, too; those that clients cause come when there are some."""
    text = exposed(figures(), openmetrics=False).decode()
    assert f'{PREFIX}refusals_total{{code="no_room"}} 0.0' in text
    assert 'code="bad_path"' not in text


def test_instances_are_bounded() -> None:
    """Those with most have numbers of their own, the rest is one; an instance called so is part of that."""
    many = [(f"c{number}", 2) for number in range(INSTANCES + 5)]
    values = instance_values(many, 100)
    assert len(values) == INSTANCES + 1
    assert dict(values)["other",] == 100 - 2 * INSTANCES
    assert dict(instance_values([("other", 3), ("c1", 0)], 4)) == {("other",): 4}
    assert dict(instance_values([("c1", 3)], 2))["other",] == 0


@pytest.mark.parametrize(("accept", "wanted"), [
    ([], False), (["*/*"], False), (["text/plain"], False), (["application/openmetrics-text"], True),
    (["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"], True),
    (["text/plain", "application/openmetrics-text; version=1.0.0; q=0.3"], False),
    (["application/openmetrics-text;version=0.0.1,text/plain"], False), (["application/openmetrics-text;q=0"], False),
    (["application/openmetrics-text;q=x"], False), (["application/openmetrics-text;q=nan"], False), ([";;=,,"], False)])
def test_openmetrics_is_for_who_asks_for_it(accept: list[str], wanted: bool) -> None:
    """Everybody else gets Prometheus's own format."""
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize("name", ["prometheus/alerts.yml", "grafana/incus-courier.json"])
def test_what_is_shipped_names_metrics_that_exist(name: str) -> None:
    """An alert or a panel on a metric that nobody makes would be silent for ever."""
    text = (PACKAGING / name).read_text()
    if name.endswith(".json"):
        text = "\n".join(target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"])
    used = set(re.findall(rf"{PREFIX}\w+", text))
    assert used
    assert used <= set(series_names())
    assert {code for codes in re.findall(r'[{,]code=~?"([^"]*)"', text) for code in codes.split("|")} <= ERRORS.keys()
