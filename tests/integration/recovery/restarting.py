"""Starting what gives up again, as the service manager does."""

from collections.abc import Callable

from tests.support.service import Service
from tests.support.waiting import eventually


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
