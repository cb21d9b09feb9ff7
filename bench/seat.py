"""How long an operator waits for what he looks at, when a million tasks wait."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Final

from bench import fill
from bench.figures import Figure, Goal, Section, median
from bench.plan import Plan
from bench.service import Service

#: What an operator looks at.
TARGETS: Final = {
    "the overview": "/v1/overview", "the metrics": "/metrics", "50 instances": "/v1/instances",
    "one instance": "/v1/instances/pending-7", "a page of tasks, searched by path": "/v1/tasks?path=nothing-has-this",
}
#: Longer than anything that is found out is kept.
_PAUSE_S: Final = 1.1


def run(plan: Plan) -> Section:
    """Fill a queue, and look."""
    state = plan.directory("seat")
    fill.fill(state, plan.pending, files=False)
    with Service(state, target="directory") as service:
        service.start_api()
        figures = list(_looks(service.port, plan))
    return Section(
        title="The operator's seat", figures=figures,
        method=f"{plan.pending:,} tasks for {fill.INSTANCES:,} instances wait; no worker runs. Each address is asked"
               " every second and a bit, so that nothing of before is told; beside it, at once again.")


def _looks(port: int, plan: Plan) -> Iterator[Figure]:
    for what, target in TARGETS.items():
        first, again = [], []
        for _ in range(plan.rounds):
            time.sleep(_PAUSE_S)
            first.append(_ask_s(port, target))
            again.append(_ask_s(port, target))
        limit = 800 if "searched" in what else 200
        yield Figure(what=what, value=1000 * median(first), unit="ms", peer="at once again",
                     peer_value=1000 * median(again), goals=[Goal("value", "<=", limit)])


def _ask_s(port: int, target: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    connection.request("GET", target)
    response = connection.getresponse()
    body = response.read()
    took_s = time.perf_counter() - began
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"{target}: {json.loads(body)}")
    return took_s
