"""What a runner does to a lane, one task at a time."""

from worker.dispatch.lane import Lane, Push


def take_one(lane: Lane) -> Push | None:
    """The next task beside those that are being pushed, without waiting."""
    pushing = lane.busy() - lane.waiting(bulk=False) - lane.waiting(bulk=True)
    return next(iter(lane.take(0, most=pushing + 1, turn_over=False)), None)
