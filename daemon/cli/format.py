"""How times and names are shown to people."""

from typing import Final

from daemon.config import LOCAL, Config
from daemon.model.upload import Destination

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400


def age(seconds: float) -> str:
    """A length of time in one unit, as `tasks --older-than` takes it."""
    whole = max(0, round(seconds))
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if whole >= 2 * unit_s:
            return f"{whole // unit_s}{unit}"
    return f"{whole}s"


def instance_name(to: Destination, config: Config) -> str:
    """An instance as `tasks --instance` takes it: `[remote:][project/]instance`."""
    remote = "" if to.remote == LOCAL else f"{to.remote}:"
    project = "" if to.project == config.project_of(to.remote) else f"{to.project}/"
    return f"{remote}{project}{to.instance}"
