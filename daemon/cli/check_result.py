"""What `incus-courier check` says of one thing."""

from typing import NamedTuple


class CheckResult(NamedTuple):
    """The answer to one question of the check."""

    what: str
    ok: bool
    detail: str
    hint: str = ""
