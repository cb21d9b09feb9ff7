import random
from dataclasses import replace
from itertools import pairwise

from daemon.task_queue import Notice, NoticeState
from daemon.webhooks.schedule import DELAYS_S, JITTER, MOST_RETRY_AFTER_S, TryAnswer, result_of

NOTICE = Notice(message_id="msg_1", webhook="ci", type="task.delivered", task_id=None, body="{}", created_at=0.0)
REFUSED = TryAnswer(status=500, detail="HTTP 500")


class NoJitter(random.Random):
    """Chance that adds nothing."""

    def random(self) -> float:
        """The least."""
        return 0.0


def test_message_is_tried_ten_times_in_75_hours() -> None:
    """At once, then ever more seldom; after the tenth try it is given up."""
    notice, now = NOTICE, 1000.0
    tries = [now]
    while (result := result_of(notice, REFUSED, now, NoJitter())).state is NoticeState.PENDING:
        now = result.due_at
        tries.append(now)
        notice = replace(notice, attempts=notice.attempts + 1)
    assert result.state is NoticeState.FAILED
    assert len(tries) == 10
    assert [later - before for before, later in pairwise(tries)] == [
        5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert 75 * 3600 <= tries[-1] - tries[0] < 76 * 3600


def test_wait_is_left_to_chance_a_little() -> None:
    """Longer by a tenth at most, never shorter."""
    waits = {result_of(NOTICE, REFUSED, 0.0, random.Random(seed)).due_at for seed in range(50)}
    assert DELAYS_S[0] <= min(waits) < max(waits) <= DELAYS_S[0] * (1 + JITTER)


def test_receiver_says_when_it_wants_to_be_asked_again() -> None:
    """Later than planned, never sooner, and no later than a day."""
    def wait_s(retry_after_s: float) -> float:
        return result_of(NOTICE, replace(REFUSED, retry_after_s=retry_after_s), 0.0, NoJitter()).due_at

    assert (wait_s(60.0), wait_s(1.0), wait_s(1e9)) == (60.0, 5.0, MOST_RETRY_AFTER_S)


def test_only_success_counts() -> None:
    """A redirect and an answer that is none do not."""
    states = {status: result_of(NOTICE, TryAnswer(status=status, detail=""), 0.0, NoJitter()).state
              for status in (200, 204, 299, 300, 302, 400, 410, 503, None)}
    assert [status for status, state in states.items() if state is NoticeState.DELIVERED] == [200, 204, 299]
