"""The configuration in force, and how it changes while the process runs."""

from api.http.forwarded import trusted_proxies
from api.http.pace import Pace
from daemon.config import Config, reloaded


class LiveConfig:
    """Holds the configuration; who needs it asks each time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        #: Whose word about others counts; the names of users are looked up here, not with each request.
        self.proxies = trusted_proxies(config.proxy)
        self._pace = _pace_of(config)

    def pace(self) -> Pace:
        """How slowly a client may send and read."""
        return self._pace

    def adopt(self, new: Config) -> list[str]:
        """Take over from `new` what can change while the process runs; return the keys that wait for a restart.

        It may wait for the machine's database of users.
        """
        proxies = trusted_proxies(new.proxy)
        self.config, waiting = reloaded(self.config, new)
        self.proxies = proxies
        self._pace = _pace_of(self.config)
        return waiting


def _pace_of(config: Config) -> Pace:
    return Pace(config.api.body_timeout_s, config.api.min_rate_bytes_s, config.api.keep_alive_s)
