"""`--wait`: until it is known what became of each file that was accepted."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from random import random
from typing import Final

from client.http import Address, HttpClient, NoAnswer
from client.push.outcomes import PushedFile, decided, unsent
from client.push.plan import PlannedFile
from client.push.unsent import Unsent
from client.retry import passes, pause_s

#: For how long the service is asked to wait with its answer, in seconds; it may answer earlier.
_WAIT_S: Final = 30
SHORT_WAIT_S: Final = 3
#: Between two questions where it did not wait.
_PAUSE_S: Final = 1.0
#: What a question says that is no use to be asked again.
_BLIND: Final = frozenset({401, 403, 404})


@dataclass(frozen=True)
class AwaitedFile:
    """A file that was accepted."""

    file: PlannedFile
    task_id: str
    #: Where its task is.
    address: Address


class AwaitedFiles:
    """The files whose outcomes are waited for. For several threads."""

    def __init__(self, stop: threading.Event, timeout_s: float | None) -> None:
        """Ends early when `stop` is set; else so long after all was sent, in seconds; None: when all is decided."""
        self._stop = stop
        self._timeout_s = timeout_s
        self._lock = threading.Condition()
        self._tasks: deque[AwaitedFile] = deque()
        self._asked = 0
        self._no_more = False
        self._deadline: float | None = None
        self._reasons: set[str] = set()

    def is_new(self, reason: str) -> bool:
        """True for the first who comes with that reason why it takes so long."""
        with self._lock:
            new = reason not in self._reasons
            self._reasons.add(reason)
            return new

    def add(self, awaited: AwaitedFile) -> None:
        """One more."""
        with self._lock:
            self._tasks.append(awaited)
            self._lock.notify()

    def no_more(self) -> None:
        """All is sent: from now on the time counts."""
        with self._lock:
            self._no_more = True
            self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
            self._lock.notify_all()

    def wake(self) -> None:
        """Have those that wait look at `stop`."""
        with self._lock:
            self._lock.notify_all()

    def take(self) -> AwaitedFile | None:
        """One to ask about; None when there is none left."""
        with self._lock:
            while not self._tasks:
                if self._stop.is_set() or (self._no_more and not self._asked):
                    return None
                self._lock.wait()
            self._asked += 1
            return self._tasks.popleft()

    def give_back(self, awaited: AwaitedFile, *, decided: bool) -> None:
        """What was taken was asked about; unless it is decided, it is asked again later."""
        with self._lock:
            self._asked -= 1
            if not decided:
                self._tasks.append(awaited)
            self._lock.notify_all()

    def rest(self) -> list[AwaitedFile]:
        """Those that nobody asked about; there are none then."""
        with self._lock:
            left = list(self._tasks)
            self._tasks.clear()
            return left

    @property
    def wait_s(self) -> int:
        """How long the service is asked to wait with its answer, in seconds."""
        left_s = self.left_s
        if left_s is not None:
            return max(0, min(_WAIT_S, round(left_s)))
        # The time may begin to count while it waits.
        return _WAIT_S if self._timeout_s is None else min(SHORT_WAIT_S, int(self._timeout_s))

    @property
    def left_s(self) -> float | None:
        """How long it is still waited; None: without an end."""
        with self._lock:
            return None if self._deadline is None else self._deadline - time.monotonic()


class Waiter:
    """Asks about one file after the other. For one thread."""

    def __init__(
        self, waiting: AwaitedFiles, client: HttpClient, stop: threading.Event, tell: Callable[[str], None],
    ) -> None:
        """`tell` is told, once, what keeps files from being delivered."""
        self._waiting = waiting
        self._client = client
        self._stop = stop
        self._tell = tell
        self._tries = 0
        self._patient = False

    def ask(self, awaited: AwaitedFile) -> PushedFile | None:
        """What became of a file; None when that is not known yet, after a while."""
        file, task_id = awaited.file, awaited.task_id
        if awaited.address != self._client.address:
            self._client.move(awaited.address)
        if self._stop.is_set():
            return unsent(file, Unsent("undecided"), task_id=task_id)
        # The first question is a short one: who waits in vain learns that soon.
        found = self._ask(file, task_id, self._waiting.wait_s if self._patient else min(
            self._waiting.wait_s, SHORT_WAIT_S))
        self._patient = True
        left_s = self._waiting.left_s
        if found is None and (self._stop.is_set() or (left_s is not None and left_s <= 0)):
            return unsent(file, Unsent("undecided"), task_id=task_id)
        return found

    def _ask(self, file: PlannedFile, task_id: str, wait_s: int) -> PushedFile | None:
        response = None
        try:
            response = self._client.request(
                "GET", f"/v1/tasks/{task_id}", headers={"Prefer": f"wait={wait_s}"}, patience_s=wait_s + 60.0)
        except NoAnswer as error:
            if not error.passes:
                return unsent(file, Unsent("no_server", f"{error}."), task_id=task_id)
        if response is None or passes(response):
            self._tries += 1
            self._pause(pause_s(self._tries, response, random()))
            return None
        self._tries = 0
        task = response.json() if response.status == 200 else None
        if isinstance(task, dict):
            found = decided(file, task)
            if found is None:
                self._look_why(task_id)
            if found is None and "preference-applied" not in response.headers:
                self._pause(_PAUSE_S)
            return found
        reason = Unsent("outcome_unseen") if response.status in _BLIND else Unsent.refused(response)
        return unsent(file, reason, task_id=task_id)

    def _look_why(self, task_id: str) -> None:
        """Tell what keeps it back, if something else than its turn does, and that was not told before."""
        try:
            response = self._client.request("GET", f"/v1/tasks/{task_id}/explanation")
        except NoAnswer:
            return
        why = response.json() if response.status == HTTPStatus.OK else None
        if not isinstance(why, dict) or why.get("stuck") is not True:
            return
        error = why.get("error")
        said = [why.get("summary"), error.get("hint") if isinstance(error, dict) else None]
        reason = " ".join(text for text in said if isinstance(text, str))
        if reason and self._waiting.is_new(reason):
            self._tell(reason)

    def _pause(self, seconds: float) -> None:
        left_s = self._waiting.left_s
        self._stop.wait(seconds if left_s is None else max(0.0, min(seconds, left_s)))
