"""How times and names are shown to people."""

from daemon.config import LOCAL, Config
from daemon.model.upload import Destination
from daemon.model.words import age

__all__ = ["age", "instance_name"]


def instance_name(to: Destination, config: Config) -> str:
    """An instance as `tasks --instance` takes it: `[remote:][project/]instance`."""
    remote = "" if to.remote == LOCAL else f"{to.remote}:"
    project = "" if to.project == config.project_of(to.remote) else f"{to.project}/"
    return f"{remote}{project}{to.instance}"
