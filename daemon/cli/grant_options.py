"""The keys of a grant as options of a command: one for each, and what makes a plain value of what was typed."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from daemon.model.grant import MEANINGS, Grant
from daemon.process.exit_status import Misused

_SIZE: Final = re.compile(r"(?P<number>[0-9]{1,15})(?P<unit>[KMGT]?)")
_UNIT_BYTES: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class GrantOption:
    """One option, without a default: what is not given does not limit, or has the default of the key."""

    key: str
    #: What the command line makes of it.
    type: Any
    #: What stands for its value in the help; None for a flag.
    metavar: str | None
    #: Makes the plain value of the key. Raises ValueError.
    read: Callable[[Any], object]

    @property
    def name(self) -> str:
        """The option as it is typed."""
        return f"--{self.key.replace('_', '-')}"

    @property
    def declared(self) -> str:
        """The option; where it stands for what is so anyway, with the one that says the opposite."""
        return f"{self.name}/--no-{self.name[2:]}" if getattr(Grant(), self.key) is True else self.name

    @property
    def help(self) -> str:
        """What it means, for the command's help."""
        meaning = MEANINGS[self.key]
        return f"{meaning[0].upper()}{meaning[1:]}."


def read_grant(given: Mapping[str, Any]) -> Grant:
    """The grant that the options describe; those that were not given are None or empty. Raises Misused."""
    plain = {}
    for key, value in given.items():
        if value is None or value == []:
            continue
        try:
            plain[key] = GRANT_OPTIONS[key].read(value)
        except ValueError as error:
            raise Misused(f"{GRANT_OPTIONS[key].name}: {error}") from error
    try:
        return Grant.read(plain)
    except ValueError as error:
        key, _, why = str(error).partition(": ")
        raise Misused(f"{GRANT_OPTIONS[key].name}: {why}") from error


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no size: give a number of bytes, or one with K, M, G or T, for example 10M")
    return int(found["number"]) * _UNIT_BYTES[found["unit"]]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**63))):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no number") from error


def _words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in text.split(",")]


def _table(*rows: GrantOption) -> dict[str, GrantOption]:
    return {row.key: row for row in rows}


def _list(key: str, metavar: str) -> GrantOption:
    return GrantOption(key, list[str] | None, f"{metavar},…", _words)


def _text(key: str, metavar: str, read: Callable[[str], object]) -> GrantOption:
    return GrantOption(key, str | None, metavar, read)


def _flag(key: str) -> GrantOption:
    return GrantOption(key, bool | None, None, bool)


#: The options, by their keys. Lists have commas in between, or the option is repeated.
GRANT_OPTIONS: Final = _table(
    _list("may", "ACTION"), _flag("own"), _list("instances", "GLOB"), _list("projects", "GLOB"),
    _list("remotes", "GLOB"), _list("paths", "GLOB"), _text("max_file_bytes", "SIZE", _size),
    _text("max_uploads_s", "NUMBER", _decimal),
    _text("max_bytes_s", "SIZE", _size), _text("max_pending_tasks", "NUMBER", _number),
    _text("max_pending_bytes", "SIZE", _size), _text("max_uploads", "NUMBER", _number),
    _text("max_total_bytes", "SIZE", _size), _text("modes", "OCTAL", str), _list("uids", "ID"), _list("gids", "ID"),
    _flag("mkdirs"), _list("addresses", "NETWORK"),
)
