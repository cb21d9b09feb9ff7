"""The tokens that an administrator made: one file beside the configuration, which only he changes.

`tokens.json` is a list in JSON, with one token on each line. It has digests of the tokens, never the tokens. It is
replaced in one step, so that who reads it finds the old tokens or the new ones. A revoked token stays in it: its name
is never given to anybody else, as tasks say by name who sent them, and that there once were tokens stays known.
"""

import contextlib
import fcntl
import grp
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from daemon import failpoints
from daemon.access.caller import Caller
from daemon.access.token_text import check_id, check_sha256
from daemon.config.validators import holder_name
from daemon.errors import CannotStart
from daemon.model.grant import KEYS, Grant
from daemon.state.files import open_own, opened
from daemon.state.layout import sync_directory

#: The file's name.
TOKENS_FILE: Final = "tokens.json"
#: Who may read the file besides root, where the service is installed: the API alone is in it.
READERS: Final = "incus-courier-tokens"
#: As many tokens stand one under the other: each request is looked at by all of them.
MAX_LINKS: Final = 4
#: So many are read quickly when one of them changes.
MANY_TOKENS: Final = 16_384
#: A token that ends within this time is said to expire soon.
SOON_S: Final = 14 * 86400
#: Before the year 10000, after which no calendar here goes.
LAST_TIME: Final = 253_402_300_800.0
#: Writing by the group, and anything by others.
_TOO_OPEN: Final = 0o026
_BETWEEN_RECORDS: Final = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One text of a token: while it is rotated, a token has two. Times are seconds since the epoch."""

    id: str
    sha256: str
    made_at: float
    #: When it ends, though the token goes on.
    until: float | None = None

    def plain(self) -> dict[str, object]:
        """The key as it is written down."""
        return _without_none(id=self.id, sha256=self.sha256, made_at=self.made_at, until=self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A name, and what who shows one of its keys may do. Times are seconds since the epoch."""

    name: str
    keys: tuple[Key, ...]
    grant: Grant
    made_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    #: The name of the token that bounds this one: its rights are cut to that one's, and it ends with it.
    under: str | None = None

    def plain(self) -> dict[str, object]:
        """The token as it is written down."""
        return {"name": self.name, **self.grant.plain(), **_without_none(
            under=self.under, made_at=self.made_at, expires_at=self.expires_at, revoked_at=self.revoked_at,
            keys=[key.plain() for key in self.keys])}


class TokenState(StrEnum):
    """How a token stands, those that it is under included."""

    VALID = "valid"
    EXPIRES_SOON = "expires soon"
    EXPIRED = "expired"
    REVOKED = "revoked"

    @property
    def is_valid(self) -> bool:
        """True when it lets somebody in."""
        return self in {TokenState.VALID, TokenState.EXPIRES_SOON}


@dataclass(frozen=True)
class Tokens:
    """All tokens that were ever made. Finding one takes as long among ten thousand as among ten."""

    every: tuple[Token, ...] = ()

    @property
    def any_made(self) -> bool:
        """True when there is or ever was a token."""
        return bool(self.every)

    def find(self, key_id: str) -> tuple[Token, Key] | None:
        """The token that has the key of that id, and the key."""
        return self._by_key.get(key_id)

    def by_name(self, name: str) -> Token | None:
        """The token of that name."""
        return self._by_name.get(name)

    def chain(self, token: Token) -> tuple[Token, ...]:
        """The token, and those that it is under, the nearest first."""
        chain = [token]
        while chain[-1].under is not None:
            chain.append(self._by_name[chain[-1].under])
        return tuple(chain)

    def expires_at(self, token: Token) -> float | None:
        """When it ends by itself, those that it is under included."""
        return min((link.expires_at for link in self.chain(token) if link.expires_at is not None), default=None)

    def state(self, token: Token, now: float) -> TokenState:
        """How it stands at that time."""
        if any(link.revoked_at is not None for link in self.chain(token)):
            return TokenState.REVOKED
        expires_at = self.expires_at(token)
        if expires_at is None or now < expires_at - SOON_S:
            return TokenState.VALID
        return TokenState.EXPIRES_SOON if now < expires_at else TokenState.EXPIRED

    def put(self, token: Token) -> "Tokens":
        """These with that one, in the place of the one of its name if there is one."""
        if self.by_name(token.name) is None:
            return Tokens((*self.every, token))
        return Tokens(tuple(token if other.name == token.name else other for other in self.every))

    @cached_property
    def digest(self) -> str:
        """The same for the same tokens on any host; it tells nothing of them. 32 hexadecimal digits."""
        # What is in a token's digest nobody can guess.
        plain = sorted(json.dumps(token.plain(), sort_keys=True) for token in self.every)
        return hashlib.sha256("\n".join(plain).encode()).hexdigest()[:32]

    @cached_property
    def callers(self) -> dict[str, Caller | None]:
        """Who shows which key, from where he came last, for as long as these tokens are in force.

        Remembered by who has found it out.
        """
        return {}

    @cached_property
    def _by_name(self) -> dict[str, Token]:
        return {token.name: token for token in self.every}

    @cached_property
    def _by_key(self) -> dict[str, tuple[Token, Key]]:
        return {key.id: (token, key) for token in self.every for key in token.keys}


def token_file_of(config_file: Path | None) -> Path | None:
    """Where the tokens are that belong to a configuration file; None: without such a file there are none."""
    return None if config_file is None else config_file.parent / TOKENS_FILE


def readers_gid() -> int | None:
    """The group of who may read the file besides root; None where the service is not installed."""
    try:
        return grp.getgrnam(READERS).gr_gid
    except KeyError:
        return None


def read_tokens(path: Path) -> Tokens:
    """The tokens of the file; none where there is no file.

    Raises CannotStart('bad_tokens') when it cannot be read or understood, or may be the work of others.
    """
    try:
        return _parse(_read(path))
    except FileNotFoundError:
        return Tokens()
    except OSError as error:
        raise CannotStart("bad_tokens", f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CannotStart("bad_tokens", f"{path}: {error}") from error


def change_tokens(path: Path, change: Callable[[Tokens], Tokens]) -> Tokens:
    """Have the file hold what `change` makes of its tokens, durably; return that.

    Nobody else changes it meanwhile. Whatever happens, the file holds all of the old tokens or all of the new ones.
    Raises as `read_tokens` does, OSError, and ValueError when they do not go together.
    """
    with _locked(path):
        before = read_tokens(path)
        after = change(before)
        fault = _first_fault(after)
        if fault is not None:
            raise ValueError(fault[1])
        if after != before:
            try:
                _replace(path, _text(after))
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error
    return after


def _read(path: Path) -> str:
    descriptor = open_own(path.parent, path, os.O_RDONLY, 0, owners={0, os.geteuid()})
    with open(descriptor, encoding="utf-8") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & _TOO_OPEN:
            raise ValueError(f"its mode is {mode:04o}: none but its owner may write it, and others may not read it")
        return file.read()


def _parse(text: str) -> Tokens:
    with contextlib.suppress(ValueError, RecursionError):
        # As it is written here; what is wrong is found by looking at the whole.
        begin, *lines, end, nothing = text.split("\n")
        commas = [line.endswith(",") for line in lines]
        if (begin, end, nothing) == ("[", "]", "") and commas == [True] * (len(lines) - 1) + [False]:
            tokens = Tokens(tuple(_token_on_line(line.removesuffix(",")) for line in lines))
            if _first_fault(tokens) is None:
                return tokens
    return _parse_whole(text)


@lru_cache(maxsize=2 * MANY_TOKENS)
def _token_on_line(line: str) -> Token:
    """The token of a line: when one of many changes, the others need not be read again."""
    return _token(_json(line))


def _json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)


def _parse_whole(text: str) -> Tokens:
    records = _json(text)
    if not isinstance(records, list):
        raise ValueError("must be a list of tokens")
    tokens: list[Token] = []
    for number, record in enumerate(records):
        try:
            tokens.append(_token(record))
        except ValueError as error:
            raise ValueError(f"line {_line_of(text, number)}: {error}") from error
    found = Tokens(tuple(tokens))
    fault = _first_fault(found)
    if fault is not None:
        raise ValueError(f"line {_line_of(text, fault[0])}: {fault[1]}")
    return found


def _text(tokens: Tokens) -> str:
    return "[" + ",".join(f"\n{json.dumps(token.plain())}" for token in tokens.every) + "\n]\n"


def _line_of(text: str, number: int) -> int:
    """The line on which the record of that number begins, also where a person has broken the lines differently."""
    decoder, at, begin = json.JSONDecoder(), text.index("[") + 1, 0
    for _ in range(number + 1):
        gap = _BETWEEN_RECORDS.match(text, at)
        begin = gap.end() if gap else at
        at = decoder.raw_decode(text, begin)[1]
    return text.count("\n", 0, begin) + 1


def _first_fault(tokens: Tokens) -> tuple[int, str] | None:
    """The number of the first token that does not go together with the others, and why; None when all do."""
    for number, token in enumerate(tokens.every):
        if tokens.by_name(token.name) is not token:
            return number, f"name: there are two tokens {token.name}"
        for key in token.keys:
            found = tokens.find(key.id)
            if found is None or found[1] is not key:
                return number, f"keys: there are two keys {key.id}"
        fault = _chain_fault(tokens, token)
        if fault is not None:
            return number, fault
    return None


def _chain_fault(tokens: Tokens, token: Token) -> str | None:
    above = token
    for _ in range(MAX_LINKS):
        if above.under is None:
            return None
        found = tokens.by_name(above.under)
        if found is None:
            return f"under: there is no token {above.under}"
        above = found
    return f"under: only {MAX_LINKS} tokens stand one under the other, and not in a circle"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice in one record: {', '.join(key for key, _ in pairs)}")
    return found


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no number")


def _values(record: object, readers: Mapping[str, Callable[[object], Any]], required: Sequence[str]) -> dict[str, Any]:
    """The values of a record. Raises ValueError naming the key."""
    if not isinstance(record, dict):
        raise ValueError("must be a record with keys and values")
    for key in required:
        if key not in record:
            raise ValueError(f"{key}: is missing")
    values = {}
    for key, value in record.items():
        if key not in readers:
            raise ValueError(f"{key}: there is no such key; the keys are: {', '.join(readers)}")
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return values


def _token(record: object) -> Token:
    if not isinstance(record, dict):
        raise ValueError("must be a token: a record with keys and values")
    own = _values({key: value for key, value in record.items() if key not in KEYS}, _TOKEN, ("name", "keys", "made_at"))
    return Token(grant=Grant.read({key: value for key, value in record.items() if key in KEYS}), **own)


def _keys(value: object) -> tuple[Key, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of keys, and not empty")
    return tuple(Key(**_values(record, _KEY, ("id", "sha256", "made_at"))) for record in value)


def _checked(check: Callable[[str], str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a text")
        return check(value)

    return read


def _time(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < LAST_TIME:
        raise ValueError("must be a time, in seconds since 1970")
    return float(value)


#: The keys of a key's record, and what reads their values.
_KEY: Final[Mapping[str, Callable[[object], Any]]] = {
    "id": _checked(check_id), "sha256": _checked(check_sha256), "made_at": _time, "until": _time}
#: Those of a token's record besides the keys of its grant.
_TOKEN: Final[Mapping[str, Callable[[object], Any]]] = {
    "name": _checked(holder_name), "keys": _keys, "made_at": _time, "expires_at": _time, "revoked_at": _time,
    "under": _checked(holder_name)}


def _without_none(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others from changing the file meanwhile. The lock is a file that only its owner can open, and so hold."""
    lock = path.parent / f".{path.name}.lock"
    descriptor = open_own(path.parent, lock, os.O_RDWR | os.O_CREAT, 0o600, owners={0, os.geteuid()})
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    draft = f".{path.name}.new"
    with opened(path.parent, path.parent) as directory:
        with contextlib.suppress(FileNotFoundError):
            # Of somebody who died while writing it.
            os.unlink(draft, dir_fd=directory)
        try:
            _write(draft, directory, text)
            failpoints.reach("tokens.rename")
            os.rename(draft, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=directory)
            raise
    if failpoints.reach("tokens.dirsync"):
        sync_directory(path.parent)


def _write(name: str, directory: int, text: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with open(descriptor, "w", encoding="utf-8") as file:
        _let_api_read(descriptor)
        failpoints.reach("tokens.write")
        file.write(text)
        file.flush()
        if failpoints.reach("tokens.sync"):
            os.fsync(descriptor)


def _let_api_read(descriptor: int) -> None:
    """Give the file to the group of who may read it, where there is one and root writes it."""
    gid = readers_gid() if os.geteuid() == 0 else None
    os.fchmod(descriptor, 0o600)
    if gid is not None:
        os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, 0o640)
