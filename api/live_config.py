"""The configuration in force, and how it changes while the process runs."""

from typing import Final

from api.http.forwarded import TrustedProxies, trusted_proxies
from api.http.pace import Pace
from daemon.config import Config, reloaded
from daemon.errors import Rejected
from daemon.model.upload import Destination
from daemon.state.layout import Layout
from daemon.state.released import ReleasedInstances

#: Connections besides two for each upload that may run: for questions, and idle ones.
SPARE_CONNECTIONS: Final = 64


class LiveConfig:
    """Holds the configuration; who needs it asks each time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._released = ReleasedInstances(Layout(config.state.path))
        #: Whose word about others counts; the names of users are looked up here, not with each request.
        self.proxies = trusted_proxies(config.proxy)
        self._pace = _pace_of(config)

    def check_adopted(self, to: Destination) -> None:
        """Raise Rejected('not_adopted') for an instance that this cell has let go of, and 'storage_failed'."""
        try:
            if self.config.cells and self._released.has(to.instance_key):
                raise Rejected("not_adopted")
        except OSError as error:
            detail = f"{error.filename}: {error.strerror}."
            raise Rejected("storage_failed", f"What this cell has let go of cannot be read: {detail}") from error

    def pace(self) -> Pace:
        """How slowly a client may send and read."""
        return self._pace

    def max_connections(self) -> int:
        """How many connections there may be, in all API processes together."""
        return 2 * self.config.api.max_connections + SPARE_CONNECTIONS

    def adopt(self, new: Config, proxies: TrustedProxies) -> list[str]:
        """Take over from `new` what can change while the process runs; return the keys that wait for a restart.

        `proxies` are its `trusted_proxies`: to look them up may wait for the machine's database of users.
        """
        self.config, waiting = reloaded(self.config, new)
        self.proxies = proxies
        self._pace = _pace_of(self.config)
        return waiting


def _pace_of(config: Config) -> Pace:
    return Pace(config.api.body_timeout_s, config.api.min_rate_bytes_s, config.api.keep_alive_s)
