"""What somebody may do: permissions and their limits, as one value with one table of keys.

The same keys stand in the configuration, in the file of tokens, in the options of `token new` and in a request that
hands rights on. A limit that is not named does not limit, but for two: set-id bits, and an explicit owner or group 0,
have to be granted.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from daemon.model.glob import MAX_GLOB, check_name_glob, check_path_glob
from daemon.model.schema import YES_OR_NO, Schema, many, one_of, text, whole_number
from daemon.model.upload import MAX_ID, MAX_MODE, MODE, is_mode


class Permission(StrEnum):
    """What can be allowed."""

    UPLOAD = "upload"
    #: To see tasks at the destinations that are allowed.
    READ = "read"
    CANCEL = "cancel"
    #: To hold tasks, and to release them.
    HOLD = "hold"
    RETRY = "retry"
    DELETE = "delete"
    #: To fetch the bytes of dead letters, and of tasks that are held.
    SAVE = "save"
    #: To hand on a part of one's own rights.
    DELEGATE = "delegate"
    METRICS = "metrics"
    #: All of these, and to see why the service is not ready.
    ADMIN = "admin"


_PERMISSIONS: Final = frozenset[str](Permission)
#: Lowest and highest of a run of user or group ids.
Range = tuple[int, int]
#: Where an address would stand for who comes through a Unix socket.
UNIX: Final = "unix"
#: All permission bits but set-id.
PLAIN_MODES: Final = 0o1777
_ALL_IDS: Final[tuple[Range, ...]] = ((0, MAX_ID),)
_ALL_BUT_ROOT: Final[tuple[Range, ...]] = ((1, MAX_ID),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Permissions, and the limits of all of them. None means no limit."""

    may: frozenset[Permission] = frozenset()
    #: Only tasks that the holder sent.
    own: bool = False
    #: Globs.
    instances: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None
    remotes: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    max_file_bytes: int | None = None
    max_uploads_s: float | None = None
    max_bytes_s: float | None = None
    max_pending_tasks: int | None = None
    max_pending_bytes: int | None = None
    #: In all, over the whole life of the credential.
    max_uploads: int | None = None
    max_total_bytes: int | None = None
    #: Mode bits that an upload may ask for.
    modes: int = PLAIN_MODES
    #: Owners and groups that an upload may ask for.
    uids: tuple[Range, ...] = _ALL_BUT_ROOT
    gids: tuple[Range, ...] = _ALL_BUT_ROOT
    #: Whether missing directories may be made.
    mkdirs: bool = True
    #: Networks that the holder has to come from; UNIX stands for Unix sockets.
    addresses: tuple[str, ...] | None = None

    @classmethod
    def read(cls, keys: Mapping[str, object]) -> "Grant":
        """The grant that these keys and plain values describe. Raises ValueError naming what is wrong."""
        unknown = keys.keys() - KEYS.keys()
        if unknown:
            raise ValueError(f"{min(unknown)}: there is no such key; the keys of a grant are: {', '.join(KEYS)}")
        values: dict[str, Any] = {}
        for key, value in keys.items():
            try:
                values[key] = KEYS[key](value)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if not values.get("may"):
            raise ValueError(f"may: must name at least one of: {', '.join(Permission)}")
        return cls(**values)

    def plain(self) -> dict[str, object]:
        """The keys and plain values that `read` makes this grant of; those with their defaults are left out."""
        default = Grant()
        return {field.name: _plain(field.name, getattr(self, field.name)) for field in fields(self)
                if getattr(self, field.name) != getattr(default, field.name)}


#: All rights without limits.
EVERYTHING: Final = Grant(may=frozenset(Permission), modes=MAX_MODE, uids=_ALL_IDS, gids=_ALL_IDS)


def _plain(key: str, value: Any) -> object:
    match key:
        case "may":
            return [str(permission) for permission in Permission if permission in value]
        case "modes":
            return f"{value:04o}"
        case "uids" | "gids":
            return [str(low) if low == high else f"{low}-{high}" for low, high in value]
    return list(value) if isinstance(value, tuple) else value


_NAME_GLOBS: Final = many(text(pattern=r"[^/\x00-\x1f\x7f-\x9f]+", most=MAX_GLOB), least=1)
_PATH_GLOBS: Final = many(text(pattern=r"(?:/(?:\*\*|(?!\.{1,2}(?:/|$))(?![^/]*\*\*)[^/\x00-\x1f\x7f-\x9f]+)(?=/|$))+",
                               most=MAX_GLOB), least=1)
_RANGES: Final = many(text(pattern=r"[0-9]{1,10}(?:-[0-9]{1,10})?"), least=1)
_RATE: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 2**63}
_NETWORKS: Final = many({"anyOf": [{"const": UNIX}, {"type": "string", "format": "ipv4"},
                                   {"type": "string", "format": "ipv6"},
                                   text(pattern=r"[0-9a-fA-F.:]+/[0-9]{1,3}")]}, least=1)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError("must be a list of texts, and not empty")
    return list(value)


def _permissions(value: object) -> frozenset[Permission]:
    names = _texts(value)
    unknown = [name for name in names if name not in _PERMISSIONS]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r}; there are: {', '.join(Permission)}")
    found = frozenset(Permission(name) for name in names)
    return frozenset(Permission) if Permission.ADMIN in found else found


def _globs(check: Callable[[str], str]) -> Callable[[object], tuple[str, ...]]:
    return lambda value: tuple(check(text) for text in _texts(value))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _count(least: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
            raise ValueError(f"must be a whole number from {least} on")
        return value

    return read


def _rate(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 2**63:
        raise ValueError("must be a number over 0, for each second")
    return float(value)


def _modes(value: object) -> int:
    if not isinstance(value, str) or not is_mode(value):
        raise ValueError('must be the permission bits that are allowed, octal in quotes, for example "0777"')
    return int(value, 8)


def _ids(value: object) -> tuple[Range, ...]:
    return tuple(_range(text) for text in _texts(value))


def _range(text: str) -> Range:
    low, dash, high = text.partition("-")
    ends = [low, high] if dash else [low, low]
    if not all(end.isascii() and end.isdigit() and len(end) <= len(str(MAX_ID)) for end in ends):
        raise ValueError(f"{text!r} is neither a number nor a range such as 1000-1999")
    found = int(ends[0]), int(ends[1])
    if not found[0] <= found[1] <= MAX_ID:
        raise ValueError(f"{text!r} is no range of ids from 0 to {MAX_ID}")
    return found


def _networks(value: object) -> tuple[str, ...]:
    return tuple(_network(text) for text in _texts(value))


@lru_cache(maxsize=4096)
def _network(text: str) -> str:
    if text == UNIX:
        return text
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an address, a network such as 10.0.0.0/8, nor {UNIX!r}") from error


#: Each key of a grant, and what makes its value of a plain one.
KEYS: Final[Mapping[str, Callable[[object], Any]]] = {
    "may": _permissions, "own": _flag, "instances": _globs(check_name_glob), "projects": _globs(check_name_glob),
    "remotes": _globs(check_name_glob), "paths": _globs(check_path_glob), "max_file_bytes": _count(0),
    "max_uploads_s": _rate, "max_bytes_s": _rate, "max_pending_tasks": _count(1), "max_pending_bytes": _count(1),
    "max_uploads": _count(1), "max_total_bytes": _count(1), "modes": _modes, "uids": _ids, "gids": _ids,
    "mkdirs": _flag, "addresses": _networks,
}

#: What its plain value looks like.
SCHEMAS: Final[Mapping[str, Schema]] = {
    "may": many(one_of(Permission), least=1), "own": YES_OR_NO, "instances": _NAME_GLOBS, "projects": _NAME_GLOBS,
    "remotes": _NAME_GLOBS, "paths": _PATH_GLOBS, "max_file_bytes": whole_number(0, 2**63 - 1),
    "max_uploads_s": _RATE, "max_bytes_s": _RATE, "max_pending_tasks": whole_number(1, 2**63 - 1),
    "max_pending_bytes": whole_number(1, 2**63 - 1), "max_uploads": whole_number(1, 2**63 - 1),
    "max_total_bytes": whole_number(1, 2**63 - 1), "modes": text(pattern=MODE), "uids": _RANGES, "gids": _RANGES,
    "mkdirs": YES_OR_NO, "addresses": _NETWORKS,
}

#: What each key means, for people. A key that is not given has the default of `Grant`.
MEANINGS: Final[Mapping[str, str]] = {
    "may": f"what is allowed: {', '.join(Permission)}; the last is all of them",
    "own": "only tasks that the holder sent",
    "instances": "instances, as globs: * stands for any characters, ? for one",
    "projects": "projects, as globs",
    "remotes": "remotes, as globs",
    "paths": "paths, as globs: * and ? stand for all but a slash, ** for any number of directories",
    "max_file_bytes": "the largest file, in bytes",
    "max_uploads_s": "uploads a second",
    "max_bytes_s": "bytes a second",
    "max_pending_tasks": "tasks that wait to be delivered at once",
    "max_pending_bytes": "bytes that wait to be delivered at once",
    "max_uploads": "uploads in all",
    "max_total_bytes": "bytes in all",
    "modes": "mode bits that an upload may ask for, octal; set-id bits have to be granted",
    "uids": "owners that an upload may ask for: numbers and ranges; 0 has to be granted",
    "gids": "groups that an upload may ask for: numbers and ranges; 0 has to be granted",
    "mkdirs": "whether an upload may ask for missing directories to be made",
    "addresses": f"addresses and networks that the holder has to come from; {UNIX} stands for Unix sockets",
}


def within(ranges: Iterable[Range], number: int) -> bool:
    """True when a range holds the number."""
    return any(low <= number <= high for low, high in ranges)
