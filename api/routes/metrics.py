"""The address of the metrics."""

from typing import Final

from api.http.description import Content, Description, Outcome, Parameter, Where
from api.http.parameters import read_query
from api.http.response import Answer, Receive, Scope
from api.metrics.exposition import OPENMETRICS, PROMETHEUS, exposed, wants_openmetrics
from api.metrics.figures import Figures
from api.overview.fresh import ANSWERS_WITHIN_S, Fresh
from api.routes.endpoint import Audit, Endpoint, Route, caller_in
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.schema import text

METRICS_ADDRESS: Final = "/metrics"
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
SCRAPING: Final = Description(
    operation_id="getMetrics", group="The service", summary="Metrics, for Prometheus",
    text="This needs the right `metrics`. With `Accept: application/openmetrics-text` they come as OpenMetrics 1.0.0."
    " They are found out once a second at most, for all who ask. [metrics.md](metrics.md) has all of them.",
    parameters=(Parameter(name="Accept", meaning="the format", schema=text(), place=Where.HEADER, refuses=()),),
    outcomes={200: Outcome(meaning="As they are now.", content=Content(media_type=PROMETHEUS, schema=text()))},
    refuses=("bad_query", "action_not_allowed", "address_not_allowed", "queue_unreadable", "no_room"),
    example="curl http://127.0.0.1:8420/metrics")


class MetricRoutes:
    """What the address does."""

    def __init__(self, figures: Fresh[Figures]) -> None:
        self._figures = figures

    def routes(self, audit: Audit) -> list[Route]:
        """The address."""
        return [Route(METRICS_ADDRESS, Endpoint({"GET": SCRAPING.by(self.get_metrics)}, audit=audit))]

    async def get_metrics(self, scope: Scope, receive: Receive) -> Answer:
        """GET /metrics."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        code = decide(caller_in(scope), Permission.METRICS)
        if code is not None:
            raise Rejected(code)
        found = await self._figures.get()
        if found.late:
            # Numbers of before would look as if nothing went on.
            raise Rejected("queue_unreadable", f"The disk has not answered for {ANSWERS_WITHIN_S:.0f} seconds.")
        openmetrics = wants_openmetrics(
            value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        return Answer(200, OPENMETRICS if openmetrics else PROMETHEUS, exposed(found.value, openmetrics=openmetrics),
                      (("Cache-Control", "no-store"), ("Vary", "Accept")))
