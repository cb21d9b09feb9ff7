"""What `incus-courier check` says of one thing."""

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How well something is. Only an error makes the check fail."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class CheckResult(NamedTuple):
    """The answer to one question of the check."""

    what: str
    ok: bool
    detail: str
    #: What mends it: a command where there is one.
    hint: str = ""
    #: What comes of it if it stays as it is.
    why: str = ""
    #: It works now, and is to be looked at all the same.
    warning: bool = False

    @property
    def level(self) -> Level:
        """How well it is."""
        if not self.ok:
            return Level.ERROR
        return Level.WARNING if self.warning else Level.OK

    def as_json(self) -> dict[str, str]:
        """The answer for programs."""
        return {"what": self.what, "level": self.level.value, "detail": self.detail, "why": self.why, "hint": self.hint}


def warning(what: str, detail: str, why: str, hint: str) -> CheckResult:
    """What works now, and is to be mended."""
    return CheckResult(what, True, detail, hint, why, warning=True)


def error(what: str, detail: str, why: str, hint: str) -> CheckResult:
    """What keeps the service from its work, or opens it to whom it should not."""
    return CheckResult(what, False, detail, hint, why)
