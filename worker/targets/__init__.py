"""The places that files are delivered to, and the choice between them."""

from typing import Final

from daemon.config import LOCAL, Config
from daemon.errors import CannotStart
from worker.target import Target
from worker.targets.directory import DirectoryTarget
from worker.targets.incus import IncusTarget
from worker.targets.rest import find_endpoint

#: The directory below the state directory that stands in for Incus.
INSTANCES: Final = "instances"


def open_target(remote_name: str, config: Config) -> Target:
    """Return the Target of a remote as the configuration says; nothing is connected yet.

    With `target.kind = "auto"`, the local remote without an endpoint and without a socket of Incus on this
    machine is a directory. Raises CannotStart('bad_config') for a remote that is not configured.
    """
    remote = config.remote(remote_name)
    if remote is None:
        raise CannotStart("bad_config", f"there is no [remotes.{remote_name}]")
    if is_directory(remote_name, config):
        return DirectoryTarget(config.state.path / INSTANCES)
    return IncusTarget(remote_name, remote)


def describe(remote_name: str, config: Config) -> dict[str, str]:
    """What `open_target` chooses, as fields for the log: `target` (incus or directory) and `endpoint`."""
    if is_directory(remote_name, config):
        return {"target": "directory", "endpoint": str(config.state.path / INSTANCES)}
    remote = config.remote(remote_name)
    endpoint = (remote.endpoint if remote else "") or find_endpoint() or "no socket found yet"
    return {"target": "incus", "endpoint": endpoint}


def is_directory(remote_name: str, config: Config) -> bool:
    """True if a directory stands in for the remote."""
    if config.target.kind != "auto":
        return config.target.kind == "directory"
    return remote_name == LOCAL and not config.incus.endpoint and find_endpoint() is None
