"""The places that files are delivered to, and the choice between them."""

from typing import Final

from daemon.config import LOCAL, Config
from daemon.errors import CannotStart
from daemon.state.layout import Layout, inode
from worker.targets.base import Target
from worker.targets.directory.target import DirectoryTarget
from worker.targets.incus.endpoints import find_endpoint
from worker.targets.incus.target import IncusTarget

#: The directory below the state directory that stands in for Incus.
INSTANCES: Final = "instances"


def open_target(remote_name: str, config: Config) -> Target:
    """Return the Target of a remote as the configuration says; nothing is connected yet.

    With `target.kind = "auto"`, the local remote without an endpoint and without a socket of Incus on this
    machine, now or before, is a directory. Raises CannotStart('bad_config') for a remote that is not configured.
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
    endpoint = ", ".join(remote.endpoints if remote else ()) or find_endpoint() or "no socket found yet"
    return {"target": "incus", "endpoint": endpoint}


def is_directory(remote_name: str, config: Config) -> bool:
    """True if a directory stands in for the remote."""
    met_before = inode(Layout(config.state.path).incus_met) != 0
    return choose(config.target.kind, local=remote_name == LOCAL, named=bool(config.incus.endpoints),
                  found=find_endpoint() is not None, met_before=met_before) == "directory"


def choose(kind: str, *, local: bool, named: bool, found: bool, met_before: bool) -> str:
    """What uploads to a remote are delivered to: "incus" or "directory".

    `named`: the configuration has an endpoint; `found`: there is a socket of Incus now; `met_before`: uploads of this
    state directory were delivered to this machine's Incus. A directory never takes what was meant for an Incus that
    is only away.
    """
    if kind != "auto":
        return kind
    return "directory" if local and not (named or found or met_before) else "incus"


def remember_incus(config: Config) -> None:
    """Note in the state directory that this machine's Incus was there, for `choose`. Raises OSError."""
    if not is_directory(LOCAL, config) and find_endpoint() is not None:
        layout = Layout(config.state.path)
        layout.touch(layout.incus_met)
