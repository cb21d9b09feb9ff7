"""The text of the metrics, as Prometheus reads it: its own format 0.0.4, or OpenMetrics 1.0.0 for who asks for that."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest as as_prometheus
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.registry import Collector

from api.metrics.figures import Distribution, Figures, gauges_of, sums_of

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: The library says no types for this one.
_AS_OPENMETRICS: Final[Callable[[CollectorRegistry], bytes]] = as_openmetrics


class _Collected(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for metric, found in sums_of(self._figures):
            if isinstance(found, Distribution):
                histogram = HistogramMetricFamily(metric.name, metric.help)
                histogram.add_metric((), buckets=list(found.buckets), sum_value=found.sum)
                yield histogram
            else:
                counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in found:
                    counter.add_metric(labels, value)
                yield counter
        for metric, values in gauges_of(self._figures):
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, value in values:
                gauge.add_metric(labels, value)
            yield gauge


def exposed(figures: Figures, *, openmetrics: bool) -> bytes:
    """The text of all metrics, in one format or the other."""
    registry = CollectorRegistry()
    registry.register(_Collected(figures))
    return _AS_OPENMETRICS(registry) if openmetrics else as_prometheus(registry)


def wants_openmetrics(accept: Iterable[str]) -> bool:
    """True when these `Accept` fields ask for OpenMetrics 1.0.0, and for plain text not more than that."""
    asked = dict(_ranges(accept))
    openmetrics = asked.get("application/openmetrics-text", 0.0)
    return openmetrics > 0 and openmetrics >= asked.get("text/plain", 0.0)


def _ranges(accept: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The media types that are asked for, and how much; what is no number counts as nothing (RFC 9110, 12.5.1)."""
    for one in ",".join(accept).split(","):
        name, *rest = (part.strip().lower() for part in one.split(";"))
        given = dict(part.partition("=")[::2] for part in rest)
        version = given.get("version", "").strip('"')
        if name != "application/openmetrics-text" or version in {"", "1.0.0"}:
            yield name, _weight(given.get("q", "1"))


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
