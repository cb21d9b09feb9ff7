"""Whom the service knows, and how that changes while the process runs.

Guarantees: once somebody was given rights, strangers get none by `auto`, whatever becomes of those rights later.
"""

import os
from pathlib import Path

from api.access.identify import Known
from api.access.live_tokens import LiveTokens
from api.live_config import LiveConfig
from daemon.access.openness import close_for_good, has_identities, is_closed
from daemon.access.peers import known_peers
from daemon.access.token_file import token_file_of
from daemon.log import log
from daemon.state.layout import Layout


class Roster:
    """Holds whom the service knows; who needs it asks each time. One thread at a time looks for changes."""

    def __init__(self, live: LiveConfig, layout: Layout, config_file: Path | None, *, tells: bool) -> None:
        """Read the tokens beside `config_file`; one process of the service `tells` of changes.

        Raises CannotStart('bad_tokens') and OSError.
        """
        self._live = live
        self._layout = layout
        self._tokens = LiveTokens(token_file_of(config_file), tells=tells)
        self._marked = self._closed = is_closed(layout)
        self._complaint = ""
        self._known = self._look_around()

    @property
    def known(self) -> Known:
        """Whom the service knows now."""
        return self._known

    @property
    def trouble(self) -> str | None:
        """Why the file of tokens cannot be read, for people; None while all is well."""
        return self._tokens.trouble

    @property
    def tokens_digest(self) -> str:
        """Changes with the tokens, and tells nothing of them."""
        return self._known.tokens.digest

    def look(self) -> bool:
        """Look for changes of the tokens and the configuration; True when others are known. Blocks."""
        other_tokens = self._tokens.look()
        to_be_marked = self._known.closed and not self._marked
        if not (other_tokens or to_be_marked or self._known.config is not self._live.config):
            return False
        self._known = self._look_around()
        if other_tokens:
            self._tokens.tell()
        return True

    def _look_around(self) -> Known:
        config, tokens = self._live.config, self._tokens.tokens
        # Also while the mark cannot be written.
        self._closed = self._closed or has_identities(config, tokens)
        if self._closed and not self._marked:
            self._mark()
        return Known(config=config, tokens=tokens, peers=known_peers(config.peers), closed=self._closed)

    def _mark(self) -> None:
        """Write down that strangers get nothing any more; it is tried again at the next look."""
        try:
            close_for_good(self._layout)
            self._marked = True
        except OSError as error:
            complaint = f"{self._layout.access}: {error.strerror or os.strerror(error.errno or 0)}"
            if complaint != self._complaint:
                log("access.not_marked", detail=complaint)
            self._complaint = complaint
