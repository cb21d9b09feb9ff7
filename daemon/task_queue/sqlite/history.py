"""The last attempts of a task, as its row has them: a list in JSON, to which SQL adds."""

import json
from collections.abc import Mapping
from typing import Any, Final

from daemon.model.task import Attempt
from daemon.model.upload import END_OF_TIME_S, MAX_ID, MAX_MODE

#: So many attempts of a task are kept, the last ones.
MOST_KEPT: Final = 20
#: So many characters are kept of what an attempt said.
MESSAGE_LENGTH: Final = 300
#: No history is longer, in characters.
_LONGEST: Final = 64 * 1024
_TEXT_LENGTH: Final = 1024
#: A text as JSON has it.
_quoted: Final = json.encoder.encode_basestring_ascii

#: The history with one more attempt, in SQL: {0} is the attempt as JSON, or NULL. What is no list begins anew. The
#: first attempt, which is nearly always the last one, too, is not parsed.
_LIST: Final = "iif(json_valid(history), iif(json_type(history) = 'array', history, '[]'), '[]')"
APPENDED: Final = ("CASE WHEN {0} IS NULL THEN history WHEN history IS NULL THEN '[' || {0} || ']'"
                   f" ELSE json_insert(iif(json_array_length({_LIST}) >= {MOST_KEPT},"
                   f" json_remove({_LIST}, '$[0]'), {_LIST}), '$[#]', json({{0}})) END")

#: Whether the last attempt of a row says that its file may be on another machine, in SQL.
LAST_ELSEWHERE: Final = f"coalesce(json_extract({_LIST}, '$[#-1].elsewhere'), 0)"


def to_json(attempt: Attempt | None) -> str | None:
    """An attempt as a row has it."""
    if attempt is None:
        return None
    # Each delivery pays for it: json.dumps takes three times as long.
    written = f'{{"at":{attempt.at:.3f},"duration_s":{attempt.duration_s:.4f}'
    if attempt.code is not None:
        written += f',"code":{_quoted(attempt.code)}'
    if attempt.message is not None:
        written += f',"message":{_quoted(attempt.message[:MESSAGE_LENGTH])}'
    if attempt.way is not None:
        written += f',"way":{_quoted(attempt.way)}'
    if attempt.mode is not None:
        written += f',"mode":{attempt.mode}'
    if attempt.uid is not None:
        written += f',"uid":{attempt.uid}'
    if attempt.gid is not None:
        written += f',"gid":{attempt.gid}'
    if attempt.elsewhere:
        written += ',"elsewhere":true'
    if attempt.identity is not None:
        written += f',"identity":{_quoted(attempt.identity)}'
    return written + "}"


def from_json(text: object) -> tuple[Attempt, ...]:
    """The attempts that a row has, oldest first. Raises ValueError when they are not what they should be."""
    if text is None:
        return ()
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ValueError("the row's history is not what it should be")
    try:
        attempts = tuple(Attempt(**values) for values in json.loads(text))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the row's history is not what it should be: {error}") from error
    if len(attempts) > MOST_KEPT or not all(_is_legal(vars(attempt)) for attempt in attempts):
        raise ValueError("the row's history is not what it should be")
    return attempts


def _is_legal(values: Mapping[str, Any]) -> bool:
    return (isinstance(values["elsewhere"], bool)
            and all(_is_within(values[name], END_OF_TIME_S) for name in ("at", "duration_s"))
            and all(values[name] is None or (isinstance(values[name], str) and len(values[name]) <= _TEXT_LENGTH)
                    for name in ("code", "message", "way", "identity"))
            and all(values[name] is None or (isinstance(values[name], int) and _is_within(values[name], most))
                    for name, most in (("mode", MAX_MODE), ("uid", MAX_ID), ("gid", MAX_ID))))


def _is_within(value: object, most: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
