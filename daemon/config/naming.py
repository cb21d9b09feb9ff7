"""What things are called by people who know the configuration."""

from daemon.config import LOCAL, Config
from daemon.model.upload import Destination


def instance_name(to: Destination, config: Config) -> str:
    """An instance as `tasks --instance` takes it: `[remote:][project/]instance`."""
    remote = "" if to.remote == LOCAL else f"{to.remote}:"
    project = "" if to.project == config.project_of(to.remote) else f"{to.project}/"
    return f"{remote}{project}{to.instance}"


def name_of_key(instance_key: str, config: Config) -> str:
    """The same of an instance as the queue knows it."""
    remote, project, instance = instance_key.split("/", 2)
    return instance_name(Destination(remote, project, instance, "/"), config)
