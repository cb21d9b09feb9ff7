"""Whether somebody without a credential may anything: the mark that this ended for good, and the rule."""

import os
from pathlib import Path
from typing import Literal

from daemon.access.token_file import Tokens, read_tokens, token_file_of
from daemon.config import Config
from daemon.state.layout import Layout, sync_directory

#: `api.anonymous`.
Anonymous = Literal["auto", "none", "all"]


def is_closed(layout: Layout) -> bool:
    """True when somebody was given rights once: `auto` lets in no strangers from then on. Raises OSError."""
    try:
        os.lstat(_mark(layout))
    except FileNotFoundError:
        return False
    return True


def close_for_good(layout: Layout) -> None:
    """Write down, durably, that somebody was given rights. Raises OSError."""
    layout.touch(_mark(layout))
    sync_directory(layout.access)


def strangers_may(mode: Anonymous, *, closed: bool, at_home: bool, proxied: bool, allow_anonymous: bool) -> bool:
    """True when somebody without a credential may everything: pure.

    `at_home` is true on loopback and at a Unix socket, `proxied` for whom a trusted proxy serves, who is elsewhere;
    `allow_anonymous` is the administrator's word for all others.
    """
    if mode == "auto":
        return not closed and ((at_home and not proxied) or allow_anonymous)
    return mode == "all" and (at_home or allow_anonymous)


def has_identities(config: Config, tokens: Tokens) -> bool:
    """True when an administrator has given somebody rights: pure."""
    return bool(tokens.any_made or config.certificates or config.peers or config.users)


def only_known_may(config: Config, config_file: Path | None) -> bool:
    """True when nobody gets rights but whom an administrator gave them. Raises CannotStart('bad_tokens')."""
    file = token_file_of(config_file)
    return config.api.anonymous != "all" and has_identities(config, Tokens() if file is None else read_tokens(file))


def _mark(layout: Layout) -> Path:
    return layout.access / "closed"
