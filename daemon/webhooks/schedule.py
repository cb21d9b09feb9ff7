"""When a message is tried, and what an answer means (Standard Webhooks 1.0). Pure."""

import random
from dataclasses import dataclass
from typing import Final

from daemon.task_queue import Notice, NoticeResult, NoticeState

#: Before each further try after the first one, which is made at once: ten tries within 75 hours, in seconds.
DELAYS_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
#: A receiver that asks for more time than that gets so much, in seconds.
MOST_RETRY_AFTER_S: Final = 86400.0
#: So much longer, as a share, a delay may be: what failed together does not come back together.
JITTER: Final = 0.1
#: The status by which a receiver says that it wants nothing any more.
GONE: Final = 410
#: Characters that are kept of what a try said.
DETAIL_LENGTH: Final = 300


@dataclass(frozen=True, kw_only=True)
class TryAnswer:
    """How one try ended."""

    #: The HTTP status, or None: there was no answer.
    status: int | None
    #: In words.
    detail: str
    #: For how long the receiver wants to be left alone, in seconds; None: it did not say.
    retry_after_s: float | None = None

    @property
    def taken(self) -> bool:
        """True when the receiver has the message."""
        return self.status is not None and 200 <= self.status < 300


def result_of(notice: Notice, answer: TryAnswer, now: float, chance: random.Random) -> NoticeResult:
    """What becomes of a notice after a try that ended so."""
    detail = answer.detail[:DETAIL_LENGTH]
    if answer.taken:
        return NoticeResult(notice=notice, state=NoticeState.DELIVERED, due_at=now, status=answer.status, detail=detail)
    if notice.attempts >= len(DELAYS_S):
        return NoticeResult(notice=notice, state=NoticeState.FAILED, due_at=now, status=answer.status, detail=detail)
    delay_s = DELAYS_S[notice.attempts] * (1 + JITTER * chance.random())
    asked_s = min(answer.retry_after_s or 0.0, MOST_RETRY_AFTER_S)
    return NoticeResult(notice=notice, state=NoticeState.PENDING, due_at=now + max(delay_s, asked_s),
                        status=answer.status, detail=detail)
