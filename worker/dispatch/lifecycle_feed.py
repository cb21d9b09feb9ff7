"""What Incus's lifecycle events mean to the main loop: messages about instances and remotes that changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from worker.targets.base import Feed, Target

_RESUMED: Final = "instance-resumed"
_STARTED: Final = frozenset({"instance-started", "instance-restarted"})
#: After these an instance can be written to that perhaps could not before.
_OPENING: Final = frozenset({
    "instance-started", "instance-ready", "instance-created", "instance-agent-started", _RESUMED,
    "instance-restarted", "instance-renamed",
})


@dataclass(frozen=True)
class InstanceChanged:
    """A message: an instance started or appeared, and its tasks may go at once."""

    instance_key: str
    #: It was only paused. Incus does that for each snapshot, too.
    resumed: bool = False
    #: It began to run, perhaps because its machine did.
    started: bool = False


@dataclass(frozen=True)
class RemoteUnheard:
    """A message: the events of a remote cannot be followed (any more). It may be away."""

    remote: str


@dataclass(frozen=True)
class RemoteConnected:
    """A message: a remote's events can be followed (again); what happened before was missed."""

    remote: str


def feed(remote: str, target: Target, report: Callable[[Any], None]) -> Feed | None:
    """Follow a remote's events and report what matters; None when the remote has no events."""

    def on_event(project: str, instance: str, action: str) -> None:
        if action in _OPENING:
            report(InstanceChanged(f"{remote}/{project}/{instance}", resumed=action == _RESUMED,
                                   started=action in _STARTED))

    return target.follow(
        on_event, lambda: report(RemoteConnected(remote)), lambda _reason: report(RemoteUnheard(remote)))
