"""The administrator's tokens in force, and how they change while the process runs.

Guarantees: a file that cannot be read leaves the last good tokens in force, and says so.
"""

from pathlib import Path
from typing import Final

from daemon.access.token_file import Tokens, read_tokens
from daemon.errors import CannotStart
from daemon.log import log
from daemon.state.files import stamp_of

#: Seconds between two looks at the file.
LOOK_S: Final = 0.25


class LiveTokens:
    """Holds the tokens; who needs them asks each time. One thread at a time looks at the file."""

    def __init__(self, file: Path | None, *, tells: bool) -> None:
        """Read `file`; without one there are no tokens. One process of the service `tells` of changes.

        Raises CannotStart('bad_tokens').
        """
        self._file = file
        self._tells = tells
        self._seen = stamp_of(file) if file else None
        self.tokens: Tokens = Tokens() if file is None else read_tokens(file)
        self._before = self.tokens
        #: Why the file cannot be read, for people; None while all is well.
        self.trouble: str | None = None
        #: True when it is to be read again, though it has not changed.
        self._again = False

    def look(self) -> bool:
        """Read the file again if it has changed; True when there are other tokens, of which `tell` tells. Blocks."""
        if self._file is None:
            return False
        seen = stamp_of(self._file)
        if seen == self._seen and not self._again:
            return False
        self._seen = seen
        try:
            if seen is None and self.tokens.any_made:
                raise CannotStart("bad_tokens", f"{self._file} is not there any more")
            self._before, self.tokens = self.tokens, read_tokens(self._file)
        except CannotStart as error:
            # Of the machine, such as want of descriptors: it may be over at the next look, and nothing else tells that.
            self._again = isinstance(error.__cause__, OSError)
            if error.detail != self.trouble:
                log("tokens.rejected", detail=error.detail)
            self.trouble = error.detail
            return False
        self._again = False
        self.trouble = None
        return True

    def tell(self) -> None:
        """Log what the last look has changed: once it is in force."""
        log("tokens.reloaded", tokens=len(self.tokens.every))
        if self._tells:
            for event, name in changes(self._before, self.tokens):
                log(event, name=f"token:{name}", by="administrator")


def changes(before: Tokens, after: Tokens) -> list[tuple[str, str]]:
    """What became of which token, as events: pure. One that has another text now counts as made."""
    told: list[tuple[str, str]] = []
    for token in after.every:
        old = before.by_name(token.name)
        if token.revoked_at is None and (old is None or old.keys != token.keys):
            told.append(("access.token_made", token.name))
        if token.revoked_at is not None and (old is None or old.revoked_at is None):
            told.append(("access.token_ended", token.name))
    kept = {token.name for token in after.every}
    return told + [("access.token_ended", token.name) for token in before.every
                   if token.revoked_at is None and token.name not in kept]
