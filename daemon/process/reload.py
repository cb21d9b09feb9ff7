"""Reading the configuration anew while a process runs."""

from daemon.config import Config, find_file, load
from daemon.errors import CannotStart
from daemon.log import log, set_level


def load_again(chosen: str | None) -> Config | None:
    """The configuration as it is now, its level of the log in force; None, and a log line, when it is wrong."""
    try:
        config = load(find_file(chosen))
    except CannotStart as error:
        log("config.rejected", detail=error.detail)
        return None
    set_level(config.log.level)
    return config
