"""The instance that a person means, with what the configuration says of remotes and projects."""

from daemon.config import LOCAL, Config
from daemon.errors import Rejected
from daemon.model.names import printable, split_instance
from daemon.model.upload import Destination
from daemon.process.exit_status import Misused


def read_instance(text: str, config: Config) -> Destination:
    """The instance of `[remote:][project/]instance`; its path does not matter. Raises Misused."""
    try:
        named, project, instance = split_instance(text)
    except Rejected as error:
        raise Misused(f"--instance {printable(text)}: {error.detail} Give [remote:][project/]instance.") from error
    remote = named or LOCAL
    return Destination(remote, project or config.project_of(remote), instance, "/x")
