"""The ids of what people did to tasks. Later ones are greater, to the millisecond."""

import re
import secrets
from typing import Final

_RANDOM_DIGITS: Final = 20
#: The form of an id.
ACTION_ID: Final = "act_[0-9a-f]{32}"
_ACTION_ID: Final = re.compile(ACTION_ID)


def new_action_id(at: float) -> str:
    """An id for something that was done at that time, in seconds since the epoch."""
    return action_id_of(at, secrets.token_hex(_RANDOM_DIGITS // 2))


def action_id_of(at: float, digits: str) -> str:
    """The id of something done at that time that has hexadecimal digits of its own already: always the same."""
    return f"{first_action_id(at)}{digits[:_RANDOM_DIGITS]:0>{_RANDOM_DIGITS}}"


def first_action_id(at: float) -> str:
    """The text that is at most the id of anything done at that time or after it, and more than any from before."""
    return f"act_{int(max(at, 0.0) * 1000):012x}"


def is_action_id(text: str) -> bool:
    """True if `text` has the form of such an id."""
    return _ACTION_ID.fullmatch(text) is not None
