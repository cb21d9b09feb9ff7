"""How slow a client may be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How slow a body may be: no pause over `timeout_s`, and `min_rate_bytes_s` once `timeout_s` of waiting is used.

    Between two requests a connection may be idle for `keep_alive_s`.
    """

    timeout_s: float
    min_rate_bytes_s: int
    keep_alive_s: float

    def patience_s(self, received_bytes: int, waited_s: float) -> float:
        """Seconds to wait for the next piece, when `received_bytes` came in `waited_s` of waiting."""
        if self.min_rate_bytes_s == 0:
            return self.timeout_s
        allowed_s = self.timeout_s + received_bytes / self.min_rate_bytes_s
        return min(self.timeout_s, max(0.0, allowed_s - waited_s))
