"""The configuration in force, and how it changes while the process runs."""

from api.http.pace import Pace
from daemon.config import Config

#: Sections that change live; in [api] only the keys below. All the rest needs a restart.
LIVE_SECTIONS = ("limits", "delivery", "retry", "retention", "log", "incus", "remotes")
LIVE_API_KEYS = ("hosts", "drain_s", "body_timeout_s", "min_rate_bytes_s", "max_connections")


class Settings:
    """Holds the configuration; who needs it asks each time."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def pace(self) -> Pace:
        """How slowly a client may send and read."""
        return Pace(self.config.api.body_timeout_s, self.config.api.min_rate_bytes_s)

    def adopt(self, new: Config) -> None:
        """Take over from `new` what can change while the process runs."""
        api = self.config.api.model_copy(update={key: getattr(new.api, key) for key in LIVE_API_KEYS})
        live = {section: getattr(new, section) for section in LIVE_SECTIONS}
        self.config = self.config.model_copy(update={**live, "api": api})
