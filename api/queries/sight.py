"""What a caller sees of the tasks: the decision about rights, put to questions. Pure."""

from dataclasses import dataclass
from functools import cached_property

from daemon.access.caller import Caller
from daemon.access.decide import decide, instance_allowed, own_alone
from daemon.model.grant import Permission
from daemon.model.task import Task


@dataclass(frozen=True)
class Sight:
    """A caller's view of the tasks. What it does not hold looks as if it did not exist."""

    caller: Caller

    def sees(self, task: Task) -> bool:
        """True when the task is the caller's affair."""
        return self.refusal(task) is None

    def refusal(self, task: Task) -> str | None:
        """Why it is not, as a code; None when it is."""
        return decide(self.caller, Permission.READ, task.destination, sender=task.upload.client)

    def reaches(self, instance_key: str) -> bool:
        """True when some task of the instance may be."""
        return instance_allowed(self.caller, instance_key)

    @cached_property
    def everywhere(self) -> bool:
        """True when nothing but the sender of a task, and its path, can hide it."""
        grants = [link.grant for link in self.caller.links]
        return all(globs is None for grant in grants for globs in (grant.instances, grant.projects, grant.remotes))

    @cached_property
    def of_all(self) -> bool:
        """True when nothing can hide a task: he may be told of the whole."""
        return self.everywhere and not self.within_instances and decide(self.caller, Permission.READ) is None

    @cached_property
    def within_instances(self) -> bool:
        """True when he does not see all tasks of an instance that he may know of."""
        return any(link.grant.own or link.grant.paths is not None for link in self.caller.links)

    @cached_property
    def sender(self) -> str | None:
        """Whose tasks alone are seen; None: those of all."""
        return self.caller.name if own_alone(self.caller) else None
