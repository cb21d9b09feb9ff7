"""Starting what gives up again, as the service manager does."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.service import Service
from tests.support.waiting import eventually


def events(service: Service, event: str) -> list[dict[str, Any]]:
    """The events of that name; the log also has what processes say on stderr when they give up."""
    # The last line may be on its way.
    whole = service.log.read_text().rpartition("\n")[0] if service.log.exists() else ""
    lines = [line for line in whole.splitlines() if line.startswith("{")]
    return [fields for fields in map(json.loads, lines) if fields["event"] == event]


def is_ready(service: Service) -> bool:
    """True when the service says so."""
    answer = service.client.get("/readyz")
    return answer is not None and answer.status == 200


def keep_running(service: Service, until: Callable[[], object], patience_s: float = 60.0) -> None:
    """Start whatever does not run, again and again, until the condition holds."""
    names = ["api", *(f"worker-{shard}" for shard in range(service.shards))]

    def holds() -> object:
        for name in names:
            if name not in service.processes or service.processes[name].status() is not None:
                service.begin(name)
        return until()

    eventually(holds, patience_s)
