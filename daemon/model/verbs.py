"""What people can ask for with tasks: the table of verbs, and the words in which one is refused.

Who asks and who does it are two processes; both go by this table.
"""

from typing import Final

from daemon.model.task import State

#: The states in which a verb applies, and the state it leads to. `delete` also forgets what is finished.
VERBS: Final[dict[str, dict[State, State]]] = {
    "retry": {State.FAILED: State.QUEUED, State.DEFERRED: State.QUEUED},
    "cancel": dict.fromkeys((State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD), State.CANCELLED),
    "hold": dict.fromkeys((State.QUEUED, State.PUSHING, State.DEFERRED), State.HELD),
    "release": {State.HELD: State.QUEUED},
    "delete": {State.FAILED: State.CANCELLED},
    "flush": {State.DEFERRED: State.QUEUED},
}
#: What to do instead, where people are likely to ask.
_INSTEAD: Final = {
    ("cancel", State.FAILED): "; delete removes a dead letter", ("retry", State.HELD): "; release it",
    **dict.fromkeys((("delete", state) for state in (State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD)),
                    "; cancel it")}

#: Why something is refused although the state of its task would do.
NEWER_EXISTS: Final = "a newer upload to the same path exists; --force delivers the older bytes over it"
BYTES_STILL_THERE: Final = "its bytes are not gone yet; try again in a moment"
NO_SUCH_TASK: Final = "there is no such task"


def wrong_state(verb: str, state: State) -> str:
    """Why `verb` does not apply to a task in `state`, and what does."""
    return f"cannot {verb} a task that is {state.label}{_INSTEAD.get((verb, state), '')}"
