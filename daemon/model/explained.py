"""An explanation in lines for a terminal, from its JSON values, whoever told them. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from daemon.model.names import printable
from daemon.model.text import escaped
from daemon.model.view import seconds_of
from daemon.model.words import age, amount

#: So much of a path is shown in a line.
_PATH_LENGTH: Final = 200


def explanation_lines(told: Mapping[str, Any], now: float) -> list[str]:
    """What `Explanation.as_json` made; nothing in it can colour, move or forge anything.

    Raises ValueError for what is no time.
    """
    lines, error = [("", told["summary"]), ("task", told["task_id"] or "")], told["error"] or {}
    if told["since"] is not None:
        lines.append(("since", f"{told['since']} ({age(now - seconds_of(told['since']))} ago)"))
    if error:
        lines.append(("error", f"{error['code']}: {error['message']}" if error["message"] else error["code"]))
    lines += [("what to do", error.get("hint") or ""), ("goes on", told["unblocks"])]
    if told["next_try_at"] is not None:
        left_s = seconds_of(told["next_try_at"]) - now
        lines.append(("next try", f"{told['next_try_at']} (in {age(left_s)})" if left_s > 0 else "now"))
    lines += [("pushing now", _progress(file, now)) for file in told["pushing"]]
    return [escaped(f"{name + ':':13}{words}" if name else words) for name, words in lines if words]


def _progress(file: Mapping[str, Any], now: float) -> str:
    """How far a push is, in words."""
    size, sent = amount(file["size_bytes"]), file["sent_bytes"]
    done = f"{amount(sent)} of {size}" if sent else size
    return f"{printable(file['path'], _PATH_LENGTH)}, {done}, for {age(now - seconds_of(file['since']))}"
