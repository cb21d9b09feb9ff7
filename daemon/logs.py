"""The log: one structured event for each step, on a console, as JSON lines, or in the journal's own fields.

`log` takes only events of the table in `daemon.events`; their fields are values, never text to be parsed, so
nothing that a client sends can look like a field or a line of its own. Logging never blocks the service.
"""

import io
import os
import select
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from daemon.config import Log
from daemon.events import EVENTS
from daemon.journal import SOCKET, Journal, field_name, on_stderr

#: syslog(3) priorities, as the journal wants them.
_PRIORITY: Final = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
_RANK: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: The fields that a person reading the sentence wants to see in it, in this order.
_IN_SENTENCE: Final = ("instance", "path", "size", "code", "detail", "listen", "shard", "target", "reason")

_Fields = MutableMapping[str, Any]


class _Stderr:
    """Lines to stderr that never wait for whoever reads them: what does not fit now is counted and dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost = 0

    def msg(self, line: str) -> None:
        """Write one line, or drop it."""
        with self._lock:
            if not self._writable():
                self._lost += 1
                return
            note = f"({self._lost} log lines were lost: nobody read them)\n" if self._lost else ""
            self._lost = 0
            try:
                sys.stderr.write(f"{note}{line}\n")
                sys.stderr.flush()
            except (OSError, ValueError):
                self._lost += 1

    def _writable(self) -> bool:
        poll = select.poll()
        try:
            poll.register(sys.stderr.fileno(), select.POLLOUT)
        except (OSError, ValueError):
            # Not a file (a test's capture): it cannot block.
            return True
        return bool(poll.poll(0))


class _State:
    """What `setup` chose for this process."""

    component = "incus-courier"
    threshold = _RANK["info"]
    journal: Journal | None = None
    logger: Any = None


def setup(config: Log, component: str) -> None:
    """Choose the format and the level for this process. `component` is `api`, `worker` and so on."""
    _State.component = component
    set_level(config.level)
    chosen = _choose(config.format)
    _State.journal = Journal() if chosen == "journal" else None
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    _State.logger = _make_logger(console=chosen == "console")


def set_level(level: str) -> None:
    """Leave out what is less important than `level` from now on."""
    _State.threshold = _RANK[level]


def _choose(wanted: str) -> str:
    if wanted == "journal" and not os.path.exists(SOCKET):
        return "json"
    if wanted != "auto":
        return wanted
    if on_stderr():
        return "journal"
    return "console" if sys.stderr.isatty() else "json"


def _make_logger(*, console: bool) -> Any:
    renderer = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False, repr_native_str=True)
        if console else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console, key="timestamp")
    describe = _describe_briefly if console else _describe
    return structlog.wrap_logger(_Stderr(), processors=[describe, stamp, renderer], wrapper_class=structlog.BoundLogger)


def log(event: str, **fields: Any) -> None:
    """Write one event of the table with its fields. Never blocks. Raises KeyError for an unknown event."""
    row = EVENTS[event]
    if _RANK[row.level] < _State.threshold:
        return
    present = {key: value for key, value in fields.items() if value is not None}
    if _State.journal is not None and _State.journal.send(_journal_fields(event, present)):
        return
    if _State.logger is None:
        _State.logger = _make_logger(console=False)
    _State.logger.msg(event, **present)


def _journal_fields(event: str, fields: dict[str, Any]) -> dict[str, str]:
    row = EVENTS[event]
    caller = sys._getframe(2)
    return {
        "MESSAGE": _sentence(row.message, fields),
        "MESSAGE_ID": row.message_id,
        "PRIORITY": _PRIORITY[row.level],
        "SYSLOG_IDENTIFIER": f"incus-courier-{_State.component}",
        "CODE_FILE": caller.f_code.co_filename,
        "CODE_LINE": str(caller.f_lineno),
        "CODE_FUNC": caller.f_code.co_name,
        "INCUS_EVENT": event,
        **{field_name(key): str(value) for key, value in fields.items()},
    }


def _sentence(message: str, fields: dict[str, Any]) -> str:
    shown = [f"{key}={_one_line(fields[key])}" for key in _IN_SENTENCE if key in fields]
    return f"{message}: {' '.join(shown)}" if shown else message


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _describe(_logger: object, _method: str, fields: _Fields) -> _Fields:
    row = EVENTS[fields["event"]]
    return {**fields, "level": row.level, "component": _State.component, "message": row.message}


def _describe_briefly(_logger: object, _method: str, fields: _Fields) -> _Fields:
    return {**fields, "level": EVENTS[fields["event"]].level}
