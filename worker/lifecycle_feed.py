"""Messages about what happens to instances, for the main loop."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InstanceChanged:
    """A message: an instance started or appeared, and its tasks may go at once."""

    instance_key: str
