"""`incus-courier token`: make, show and end tokens. It works on their file alone, also while nothing runs.

A token is written once, to standard output, by the command that makes it. Exit codes: EXIT_OK when all was done,
EXIT_FAILED when it cannot be done with the tokens that there are.
"""

import os
import pwd
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from daemon.access import token_text
from daemon.access.token_file import (
    LAST_TIME,
    Key,
    Token,
    Tokens,
    TokenState,
    change_tokens,
    read_tokens,
    token_file_of,
)
from daemon.cli.grant_options import read_grant
from daemon.cli.tables import show_table
from daemon.cli.typed import read_age
from daemon.config.validators import holder_name
from daemon.errors import CannotStart
from daemon.model.grant import Grant, Permission
from daemon.model.names import printable
from daemon.model.view import when
from daemon.process.exit_status import EXIT_OK, Misused, Unable
from daemon.process.output import say, say_json, warn

_COLUMNS: Final = ("name", "may", "where", "expires", "state", "under")


def new(
    config_file: Path | None, name: str, grant: Mapping[str, object], *, expires: str | None, under: str | None,
    as_json: bool,
) -> int:
    """Make a token and write it to standard output."""
    now = time.time()
    made = token_text.make()
    token = Token(name=_name(name), keys=(_key(made, now),), grant=read_grant(grant), made_at=now,
                  expires_at=None if expires is None else read_end(expires, now), under=under)

    def add(tokens: Tokens) -> Tokens:
        if tokens.by_name(name) is not None:
            raise Unable(f"there is, or was, a token {name}: a name is never given twice")
        if under is not None:
            _valid(tokens, under, now)
        return tokens.put(token)

    tokens = _change(config_file, add)
    _warn_of_what_is_cut(tokens, token)
    _tell_new(made, tokens, token, now, as_json=as_json)
    return EXIT_OK


def rotate(config_file: Path | None, name: str, *, keep: str, as_json: bool) -> int:
    """Make a token in the place of an old one, which stays valid for a while, and write it to standard output."""
    now = time.time()
    until = min(now + read_age(keep, "--keep"), LAST_TIME - 1)
    made = token_text.make()

    def add_key(tokens: Tokens) -> Tokens:
        token = _valid(tokens, name, now)
        old = [replace(key, until=until if key.until is None else min(key.until, until)) for key in token.keys]
        kept = [key for key in old if key.until is not None and key.until > now]
        return tokens.put(replace(token, keys=(*kept, _key(made, now))))

    tokens = _change(config_file, add_key)
    _tell_new(made, tokens, _named(tokens, name), now, as_json=as_json)
    return EXIT_OK


def revoke(config_file: Path | None, name: str, *, as_json: bool) -> int:
    """End a token and those under it; one that was revoked before stays so."""
    now = time.time()

    def end(tokens: Tokens) -> Tokens:
        token = _named(tokens, name)
        return tokens if token.revoked_at is not None else tokens.put(replace(token, revoked_at=now))

    tokens = _change(config_file, end)
    token = _named(tokens, name)
    if as_json:
        say_json(describe(tokens, token, now))
        return EXIT_OK
    say(f"{name}: revoked")
    for other in tokens.every:
        if other is not token and token in tokens.chain(other):
            say(f"{other.name}: ended with it")
    return EXIT_OK


def list_tokens(config_file: Path | None, *, every: bool, as_json: bool) -> int:
    """Print a line for each token, in the order in which they were made."""
    now = time.time()
    tokens = _read(config_file)
    chosen = [token for token in tokens.every if every or tokens.state(token, now) is not TokenState.REVOKED]
    if as_json:
        _print_json(describe(tokens, token, now) for token in chosen)
    elif chosen:
        show_table(_COLUMNS, [_row(tokens, token, now) for token in chosen])
    return EXIT_OK


def show(config_file: Path | None, name: str, *, as_json: bool) -> int:
    """Print all that is known of a token."""
    tokens = _read(config_file)
    described = describe(tokens, _named(tokens, name), time.time())
    if as_json:
        say_json(described)
        return EXIT_OK
    keys = described.pop("keys")
    for key, value in described.items():
        say(f"{key:17} {_shown(value)}")
    for key in keys:
        until = f", until {key['until']}" if "until" in key else ""
        say(f"{'key':17} {key['id']}, made at {key['made_at']}{until}")
    return EXIT_OK


def describe(tokens: Tokens, token: Token, now: float) -> dict[str, Any]:
    """A token as JSON values, without what is kept of its secret. Times are RFC 3339, in UTC."""
    plain = token.plain()
    keys = [{name: value for name, value in _with_times(key.plain()).items() if name != "sha256"} for key in token.keys]
    return {"name": token.name, "state": str(tokens.state(token, now)), **_with_times(plain), "keys": keys}


def read_end(text: str, now: float) -> float:
    """The time that `90d`, `12h` or `2027-01-01` means. Raises Misused."""
    if text[-1:] in set("smhd"):
        end = now + read_age(text, "--expires")
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError as error:
            raise Misused(f"--expires {printable(text)}: give a length of time, such as 90d or 12h, or a date, "
                          "such as 2027-01-01") from error
        end = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if not now < end < LAST_TIME:
        raise Misused(f"--expires {printable(text)}: must be in the future, and before the year 10000")
    return end


def where(grant: Grant) -> str:
    """The places of a grant in short: `[remotes:][projects/]instances[:paths]`."""
    text = ",".join(grant.instances or ("*",))
    if grant.projects is not None:
        text = f"{','.join(grant.projects)}/{text}"
    if grant.remotes is not None:
        text = f"{','.join(grant.remotes)}:{text}"
    return text if grant.paths is None else f"{text}:{','.join(grant.paths)}"


def may(grant: Grant) -> str:
    """The permissions of a grant in short."""
    if Permission.ADMIN in grant.may:
        return str(Permission.ADMIN)
    return ",".join(permission for permission in Permission if permission in grant.may)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _row(tokens: Tokens, token: Token, now: float) -> list[object]:
    expires_at = tokens.expires_at(token)
    return [token.name, may(token.grant), where(token.grant), "never" if expires_at is None else when(expires_at),
            tokens.state(token, now), token.under or ""]


def _name(text: str) -> str:
    try:
        return holder_name(text)
    except ValueError as error:
        raise Misused(f"{printable(text)}: {error}") from error


def _key(made: token_text.MadeToken, now: float) -> Key:
    return Key(id=made.key_id, sha256=made.sha256, made_at=now)


def _named(tokens: Tokens, name: str) -> Token:
    token = tokens.by_name(name)
    if token is None:
        raise Unable(f"there is no token {printable(name)}")
    return token


def _valid(tokens: Tokens, name: str, now: float) -> Token:
    token = _named(tokens, name)
    state = tokens.state(token, now)
    if not state.is_valid:
        raise Unable(f"the token {name} is {state}")
    return token


def _warn_of_what_is_cut(tokens: Tokens, token: Token) -> None:
    for above in tokens.chain(token)[1:]:
        missing = [permission for permission in Permission if permission in token.grant.may - above.grant.may]
        if missing:
            warn(f"{above.name} does not allow {', '.join(missing)}, so {token.name} does not either")


def _tell_new(made: token_text.MadeToken, tokens: Tokens, token: Token, now: float, *, as_json: bool) -> None:
    if as_json:
        say_json({"token": made.text, **describe(tokens, token, now)})
        return
    expires_at = tokens.expires_at(token)
    ends = "it never expires" if expires_at is None else f"it expires at {when(expires_at)}"
    warn(f"{token.name} may {may(token.grant)} at {where(token.grant)}; {ends}.")
    for key in token.keys[:-1]:
        if key.until is not None:
            warn(f"The old one stays valid until {when(key.until)}.")
    warn("This is the only time that the token is shown:")
    say(made.text)


def _with_times(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: when(value) if key == "until" or key.endswith("_at") else value for key, value in values.items()}


def _print_json(values: Iterable[dict[str, Any]]) -> None:
    for value in values:
        say_json(value)


def _file(config_file: Path | None) -> Path:
    path = token_file_of(config_file)
    if config_file is None or path is None:
        raise Misused("there is no configuration file, and the tokens are kept beside it: name one with --config FILE")
    if not config_file.is_file():
        raise CannotStart("bad_config", f"{config_file}: there is no such file")
    return path


def _read(config_file: Path | None) -> Tokens:
    path = _file(config_file)
    if path.exists() and not os.access(path, os.R_OK):
        raise Unable(f"{path}: only {_user(path.stat().st_uid)} and the service may read it; run this as that user")
    return read_tokens(path)


def _change(config_file: Path | None, change: Callable[[Tokens], Tokens]) -> Tokens:
    path = _file(config_file)
    owner = os.stat(path.parent).st_uid
    if owner != os.geteuid():
        raise Unable(f"{path}: only {_user(owner)} changes it, whose directory it is in; run this as that user")
    try:
        return change_tokens(path, change)
    except ValueError as error:
        raise Unable(str(error)) from error


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
