"""What a request says in its address and headers, read by name: pure functions that refuse what is not legal."""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from daemon.config import LOCAL, Config
from daemon.config.cells import refuse_elsewhere
from daemon.errors import Rejected
from daemon.model.names import printable, split_instance
from daemon.model.upload import MAX_ID, Destination, is_mode

_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False}
Headers = Mapping[bytes, list[bytes]]


def collect(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of an ASGI scope by their lower-case names, with all the values of each."""
    collected: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        collected.setdefault(name, []).append(value)
    return collected


def read_instance(text: str) -> tuple[str, str]:
    """Split `instance` or `remote:instance` into the names of a remote and an instance, whether they exist or not."""
    named, project, instance = split_instance(text)
    remote = named or LOCAL
    if project is not None:
        raise Rejected("bad_instance", f"{printable(text)!r} names a project, which has no place here.")
    return remote, instance


def check_configured(to: Destination, config: Config) -> None:
    """Raise Rejected('unknown_remote') unless the remote is configured, and OtherCell when it is another cell's then.

    Whoever may not use a remote is not told that: ask this after the decision about rights.
    """
    if config.remote(to.remote) is None:
        refuse_elsewhere(to, config)
        raise Rejected("unknown_remote", f"The remote {to.remote!r} is not configured.")


def read_query(query: bytes, known: frozenset[str]) -> dict[str, str]:
    """The parameters of a query string; every one must be `known` and be given once."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError as error:
        raise Rejected("bad_query", "The query string cannot be read.") from error
    parameters = dict(pairs)
    unknown = parameters.keys() - known
    if unknown:
        raise Rejected("bad_query", f"The parameter {printable(min(unknown))!r} is not known here.")
    if len(parameters) != len(pairs):
        raise Rejected("bad_query", "A parameter is given twice.")
    return parameters


def read_mode(text: str | None) -> int | None:
    """Permission bits from octal digits, or None."""
    if text is None:
        return None
    if not is_mode(text):
        raise Rejected("bad_mode", f"The mode {printable(text)!r} is not legal.")
    return int(text, 8)


def read_owner(text: str | None) -> int | None:
    """A uid or gid, or None."""
    if text is None:
        return None
    if not (_NUMBER.fullmatch(text) and int(text) <= MAX_ID):
        raise Rejected("bad_owner", f"The uid or gid {printable(text)!r} is not legal.")
    return int(text)


def read_flag(text: str | None) -> bool | None:
    """A yes/no value: true, false, 1 or 0; None when it is not given."""
    if text is None:
        return None
    flag = _FLAGS.get(text.lower())
    if flag is None:
        raise Rejected("bad_flag", f"{printable(text)!r} is neither true nor false.")
    return flag


def unescape(text: str, code: str) -> str:
    """Undo the percent-encoding of a part of an address; raise Rejected(code) unless it is sound UTF-8.

    An encoded slash or NUL and a bare '#' are refused: whoever checked the address before us may have read it
    differently.
    """
    raw = text.encode("ascii")
    if b"#" in raw:
        raise Rejected(code, "A '#' in the address must be written %23.")
    if _BROKEN_ESCAPE.search(raw):
        raise Rejected(code, "A percent sign in the address is not followed by two hexadecimal digits.")
    if b"%2f" in raw.lower() or b"%00" in raw:
        raise Rejected(code, "An encoded slash or NUL is not allowed in the address.")
    try:
        return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(code, "The address is not UTF-8.") from error


def header(headers: Headers, name: bytes, code: str) -> str | None:
    """The text of a header, or None; raise Rejected(code) when it is given twice or is not UTF-8."""
    values = headers.get(name)
    if values is None:
        return None
    label = name.decode("ascii")
    if len(values) > 1:
        raise Rejected(code, f"The header {label} is given twice.")
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(code, f"The header {label} is not UTF-8.") from error
