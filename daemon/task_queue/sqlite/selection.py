"""The filter of a command, as its row has it."""

import json

from daemon.model.task import State
from daemon.model.upload import END_OF_TIME_S
from daemon.task_queue.values import Selection


def selection_in(text: str) -> Selection:
    """The selection that a command's row has as JSON. Raises ValueError, TypeError or KeyError when it has none."""
    values = json.loads(text)
    found = Selection(**{**values, "states": tuple(State(state) for state in values["states"])})
    if not (isinstance(found.instance_key, str | None) and isinstance(found.client, str | None)
            and _is_number(found.accepted_before, END_OF_TIME_S) and _is_number(found.up_to_order, 2**63)):
        raise ValueError("the selection is not what it should be")
    return found


def _is_number(value: object, end: int) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < end)
