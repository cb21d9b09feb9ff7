"""Targets for what never delivers."""

from daemon.config import Config
from worker.targets.base import Target


def no_target(remote: str, _config: Config) -> Target:
    """Stand where a target is opened, in tests in which none ever is."""
    raise AssertionError(f"remote {remote} was opened")
