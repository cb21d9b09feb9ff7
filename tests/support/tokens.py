"""Tokens for a test, made as an administrator makes them."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

from daemon.access.token_file import Key, Token, Tokens, change_tokens, token_file_of
from daemon.access.token_text import PATTERN, make
from daemon.model.grant import Grant

_TOKEN = re.compile(PATTERN)


def without_tokens(text: str) -> str:
    """The text of a log; whatever test it is of, it has no token in it."""
    assert _TOKEN.search(text) is None, "there is a token in a log"
    return text


def _file(config: Path) -> Path:
    file = token_file_of(config)
    assert file is not None
    return file


def make_token(config: Path, name: str, *, expires_at: float | None = None, under: str | None = None, **keys: Any) -> str:
    """Make a token beside that configuration file; the keys are those of a grant. Return its text."""
    made = make()
    now = time.time()
    token = Token(name=name, keys=(Key(id=made.key_id, sha256=made.sha256, made_at=now),), grant=Grant.read(keys),
                  made_at=now, expires_at=expires_at, under=under)
    change_tokens(_file(config), lambda tokens: tokens.put(token))
    return made.text


def change_token(config: Path, name: str, **fields: Any) -> None:
    """Give a token other values."""

    def changed(tokens: Tokens) -> Tokens:
        token = tokens.by_name(name)
        assert token is not None
        return tokens.put(dataclasses.replace(token, **fields))

    change_tokens(_file(config), changed)


def revoke_token(config: Path, name: str) -> None:
    """End a token."""
    change_token(config, name, revoked_at=time.time())
