"""`incus-courier tail`: what happens to tasks, as it happens, until Ctrl-C."""

from daemon.model.seat import Seat, TaskFilter, Values
from daemon.process.output import flush, say, say_json, warn


def tail(seat: Seat, wanted: TaskFilter, *, as_json: bool) -> None:
    """Print a line for each event; never ends by itself."""
    for event in seat.happenings(wanted):
        if event is None:
            warn("Something may have been missed here; see: incus-courier tasks list")
        elif as_json:
            say_json(event)
        else:
            say(event_line(event, seat.name_of(event)))
        flush()


def event_line(event: Values, name: str) -> str:
    """An event in one line. Pure."""
    error = f"  {event['error_code']}" if event["error_code"] else ""
    return f"{event['at']}  {event['state']:10} {event['task_id']}  {name}{event['path']}{error}"
