"""The configuration in force, and how it changes while the process runs."""

from api.http.pace import Pace
from daemon.config import Config, reloaded


class LiveConfig:
    """Holds the configuration; who needs it asks each time."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def pace(self) -> Pace:
        """How slowly a client may send and read."""
        api = self.config.api
        return Pace(api.body_timeout_s, api.min_rate_bytes_s, api.keep_alive_s)

    def adopt(self, new: Config) -> list[str]:
        """Take over from `new` what can change while the process runs; return the keys that wait for a restart."""
        self.config, waiting = reloaded(self.config, new)
        return waiting
