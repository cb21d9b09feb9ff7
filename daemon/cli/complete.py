"""What a shell is offered for the word that is being typed: tasks and instances, as far as they are at hand.

Names come from elsewhere and end in a shell's hands: what is none is not offered.
"""

from typing import Final

from daemon.errors import Rejected
from daemon.model.names import split_instance
from daemon.model.seat import Seat, TaskFilter
from daemon.model.upload import is_task_id

#: No more of them are offered, and so many of the newest tasks are looked at.
MOST: Final = 50
_LOOKED_AT: Final = 500


def instances(seat: Seat, beginning: str) -> list[str]:
    """Instances whose names begin so."""
    return [name for name in dict.fromkeys(seat.names(beginning)) if _is_name(name)][:MOST]


def ids(seat: Seat, beginning: str) -> list[str]:
    """The newest tasks whose ids begin so."""
    found = [str(task["id"]) for task in seat.search(TaskFilter(), None, _LOOKED_AT).tasks]
    return [task_id for task_id in found if task_id.startswith(beginning) and is_task_id(task_id)][:MOST]


def _is_name(name: str) -> bool:
    try:
        split_instance(name)
    except Rejected:
        return False
    return True
