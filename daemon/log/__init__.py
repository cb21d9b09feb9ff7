"""The log: one structured event for each step, on a console, as JSON lines, or in the journal's own fields.

`log` takes only events of the table in `daemon.log.events`; their fields are values, never text to be parsed, so
nothing that a client sends can look like a field or a line of its own. Logging never blocks the service.
"""

import json
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from types import FrameType
from typing import Any, Final

from daemon.config import Log
from daemon.log.events import EVENTS
from daemon.log.journal import SOCKET, Journal, field_name, on_stderr
from daemon.log.stderr import Lines
from daemon.model.text import escaped, escaped_json, is_plain

#: syslog(3) priorities, as the journal wants them.
_PRIORITY: Final = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
_RANK: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: The fields that a person reading the sentence wants to see in it, in this order.
_IN_SENTENCE: Final = ("lines", "webhook", "instance", "path", "size", "code", "detail", "listen", "shard", "reason",
                      "verb", "asked_by")

_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, default=repr).encode

#: Where lines go.
_STDERR: Final = 2

_Fields = MutableMapping[str, Any]


class _State:
    """What `setup` chose for this process."""

    component = "incus-courier"
    threshold = _RANK["info"]
    journal: Journal | None = None
    lines: Lines | None = None
    #: Writes one event with the fields that it has.
    write: Callable[[str, _Fields], object]


def setup(config: Log, component: str) -> None:
    """Choose the format and the level for this process. `component` is `api`, `worker` and so on."""
    _State.component = component
    set_level(config.level)
    chosen = _choose(config.format)
    if _State.journal is not None:
        _State.journal.close()
    _State.journal = Journal(_describe_loss, SOCKET, only_way=on_stderr()) if chosen == "journal" else None
    _open_lines(console=chosen == "console")


def set_level(level: str) -> None:
    """Leave out what is less important than `level` from now on."""
    _State.threshold = _RANK[level]


def gather(later: Callable[[Callable[[], None]], object] | None) -> None:
    """Write this thread's lines together when `later`, as an event loop's `call_soon` is, calls back; None: at once."""
    lines = _State.lines or _open_lines(console=False)
    lines.gather(later)


def flush(within_s: float) -> bool:
    """Give the journal so much time to take what it has not taken yet; return False if it was not enough."""
    return _State.journal is None or _State.journal.flush(within_s)


def _choose(wanted: str) -> str:
    if wanted == "journal" and not os.path.exists(SOCKET):
        return "json"
    if wanted != "auto":
        return wanted
    if on_stderr():
        return "journal"
    return "console" if sys.stderr.isatty() else "json"


def _open_lines(*, console: bool) -> Lines:
    if _State.lines is not None:
        _State.lines.close()
    lines = _State.lines = Lines(_STDERR)
    _State.write = _for_console(lines) if console else lambda event, fields: lines.write(_as_json(event, fields))
    return lines


class _Printer:
    """What structlog hands its finished lines to."""

    def __init__(self, lines: Lines) -> None:
        self.msg: Final = lines.write


def _for_console(lines: Lines) -> Callable[[str, _Fields], object]:
    # Only here: it brings rich and pygments along, and only people read a console.
    import structlog

    processors: list[Any] = [_describe_briefly, structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
                             structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False,
                                                           repr_native_str=True)]
    # Bound once: a logger that is not is bound anew for every line.
    logger = structlog.wrap_logger(
        _Printer(lines), processors=processors, wrapper_class=structlog.BoundLogger).bind()
    return lambda event, fields: logger.msg(event, **fields)


def log(event: str, **fields: Any) -> None:
    """Write one event of the table with its fields. Never blocks. Raises KeyError for an unknown event."""
    row = EVENTS[event]
    if _RANK[row.level] < _State.threshold:
        return
    present = {key: value for key, value in fields.items() if value is not None}
    if _State.journal is not None and _State.journal.send(
            {**_journal_fields(event, present), **_code_fields(sys._getframe(1))}):
        return
    lines = _State.lines or _open_lines(console=False)
    if lost := lines.take_lost():
        _log_own("log.lost", lines=lost)
    _State.write(event, present)


def _log_own(event: str, **fields: Any) -> None:
    """Write what the log says of itself."""
    _State.write(event, fields)


def _journal_fields(event: str, fields: dict[str, Any]) -> dict[str, str]:
    row = EVENTS[event]
    return {
        "MESSAGE": _sentence(row.message, fields),
        "MESSAGE_ID": row.message_id,
        "PRIORITY": _PRIORITY[row.level],
        "SYSLOG_IDENTIFIER": f"incus-courier-{_State.component}",
        "INCUS_EVENT": event,
        **{field_name(key): str(value) for key, value in fields.items()},
    }


def _describe_loss(lost: int) -> dict[str, str]:
    return _journal_fields("log.lost", {"lines": lost})


def _code_fields(caller: FrameType) -> dict[str, str]:
    code = caller.f_code
    return {"CODE_FILE": code.co_filename, "CODE_LINE": str(caller.f_lineno), "CODE_FUNC": code.co_qualname}


def _sentence(message: str, fields: dict[str, Any]) -> str:
    where = () if "instance" in fields else ("remote",)
    shown = [f"{key}={_one_line(fields[key])}" for key in (*where, *_IN_SENTENCE) if key in fields]
    return f"{message}: {' '.join(shown)}" if shown else message


def _one_line(value: object) -> str:
    text = str(value)
    return text if is_plain(text) and " " not in text else escaped(repr(text))


def _as_json(event: str, fields: _Fields) -> str:
    own = _ENCODE({**fields, "event": event})
    return escaped_json(f'{own[:-1]}, {_end_of(event, _State.component)} "{_timestamp(time.time_ns())}"}}')


@lru_cache
def _end_of(event: str, component: str) -> str:
    """What all lines of an event end with, but for their time."""
    row = EVENTS[event]
    always = _ENCODE({"level": row.level, "component": component, "message": row.message, "timestamp": ""})
    return always.removeprefix("{").removesuffix(' ""}')


def _timestamp(time_ns: int) -> str:
    """The time in UTC, as `datetime.isoformat` writes it: a whole second has no fraction."""
    seconds, microseconds = divmod(time_ns // 1000, 10**6)
    return f"{_second(seconds)}.{microseconds:06}Z" if microseconds else f"{_second(seconds)}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


def _describe_briefly(_logger: object, _method: str, fields: _Fields) -> _Fields:
    return {**fields, "level": EVENTS[fields["event"]].level}
