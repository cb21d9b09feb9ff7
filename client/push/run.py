"""A push from its plan to its exit code: threads that send, threads that wait, and signals that end both."""

import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from client.http import HttpClient
from client.push.outcomes import PushedFile, PushEnd, accepted, exit_code, is_finished, left_out, unsent
from client.push.plan import PlannedFile, PushPlan
from client.push.progress import FileProgress, Stage
from client.push.report import Reporter
from client.push.sending import FileSender, PushOrder
from client.push.unsent import Unsent
from client.push.waiting import AwaitedFile, AwaitedFiles, Waiter
from client.server import ChosenServer

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Threads that ask for outcomes.
_WAITERS: Final = 4
#: Between two looks at what was told by a signal.
_LOOK_S: Final = 0.5
#: How long threads may take to let go when the run is to end.
_LET_GO_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class PushCourse:
    """How a plan is carried out."""

    #: Files that are sent at once.
    jobs: int
    #: Whether it is waited for the outcomes, and how long at most after all was sent; None: without an end.
    wait: bool
    timeout_s: float | None


class PushRun:
    """Carries a plan out."""

    def __init__(
        self, made: PushPlan, order: PushOrder, server: ChosenServer, course: PushCourse, reporter: Reporter,
    ) -> None:
        """Nothing is sent yet."""
        self._order = order
        self._server = server
        self._course = course
        self._reporter = reporter
        self._left_out = made.left_out
        self._all = made.files
        self._files = deque(made.files)
        self._lock = threading.Lock()
        self._clients: list[HttpClient] = []
        self._ended: list[PushedFile] = []
        self._hopeless: Unsent | None = None
        self._waiting = AwaitedFiles(order.stop, course.timeout_s)
        self._sending = 0
        self._at_work = 0
        self._done = threading.Event()

    def run(self) -> int:
        """Send everything, and return the exit code. For the main thread."""
        for what in self._left_out:
            self._end(left_out(what))
        with _signals_set(self._order.stop):
            self._work()
        interrupted = self._order.stop.is_set()
        # Of a thread that ended by a mistake nothing counts as sent.
        self._end_what_is_left(Unsent("interrupted", resumable=True) if interrupted
                               else Unsent("internal", "This command made a mistake."))
        code = exit_code(self._ended, interrupted=interrupted)
        self._order.record.close(finished=not interrupted and is_finished(self._ended))
        self._reporter.close(self._ended, code)
        return code

    def _work(self) -> None:
        self._sending = min(self._course.jobs, len(self._all))
        waiters = min(_WAITERS, len(self._all)) if self._course.wait else 0
        threads = [threading.Thread(target=self._send, daemon=True) for _ in range(self._sending)]
        threads += [threading.Thread(target=self._wait, daemon=True) for _ in range(waiters)]
        self._at_work = len(threads)
        for thread in threads:
            thread.start()
        while threads and not self._done.wait(_LOOK_S) and not self._order.stop.is_set():
            continue
        if self._order.stop.is_set():
            with self._lock:
                for client in self._clients:
                    client.abort()
            self._waiting.wake()
            # One that waits for standard input may never let go.
            self._done.wait(_LET_GO_S)

    def _end_what_is_left(self, reason: Unsent) -> None:
        """What no thread has ended, because it was not begun, or hangs."""
        for awaited in self._waiting.rest():
            self._end(unsent(awaited.file, Unsent("undecided"), task_id=awaited.task_id))
        with self._lock:
            told = {file.to for file in self._ended}
        for file in self._all:
            if file.to not in told:
                self._end(unsent(file, reason))

    def _end(self, ended: PushedFile) -> None:
        with self._lock:
            self._ended.append(ended)
        self._reporter.ended(ended)

    @contextmanager
    def _connection(self) -> Iterator[HttpClient]:
        with self._server.connect() as client:
            with self._lock:
                self._clients.append(client)
            yield client

    def _leave(self) -> None:
        with self._lock:
            self._at_work -= 1
            if not self._at_work:
                self._done.set()

    def _next(self) -> PlannedFile | None:
        with self._lock:
            return self._files.popleft() if self._files and not self._order.stop.is_set() else None

    def _send(self) -> None:
        try:
            with self._connection() as client:
                sender = FileSender(self._order, client)
                while file := self._next():
                    self._send_one(file, sender, client)
        finally:
            with self._lock:
                self._sending -= 1
                is_last = not self._sending
            if is_last:
                self._waiting.no_more()
            self._leave()

    def _send_one(self, file: PlannedFile, sender: FileSender, client: HttpClient) -> None:
        progress = FileProgress(file.source, file.size)
        self._reporter.begun(file, progress)
        try:
            if self._hopeless is not None:
                raise self._hopeless
            task_id = sender.send(file, progress)
        except Unsent as reason:
            if reason.concerns_all:
                self._hopeless = reason
            self._end(unsent(file, reason))
            return
        if self._course.wait:
            progress.begin(Stage.DELIVERING)
            self._waiting.add(AwaitedFile(file, task_id, client.address))
        else:
            self._end(accepted(file, task_id))

    def _wait(self) -> None:
        try:
            with self._connection() as client:
                waiter = Waiter(self._waiting, client, self._order.stop, self._reporter.kept_back)
                while taken := self._waiting.take():
                    ended = waiter.ask(taken)
                    if ended is not None:
                        self._end(ended)
                    self._waiting.give_back(taken, decided=ended is not None)
        finally:
            self._leave()


def would_be_sent(made: PushPlan, reporter: Reporter) -> int:
    """Tell what a push would do, and return its exit code; nothing is asked of any service."""
    ended = [left_out(what) for what in made.left_out]
    ended += [PushedFile(source=file.source, to=file.to, size=file.size, end=PushEnd.PLANNED) for file in made.files]
    for file in ended:
        reporter.ended(file)
    code = exit_code(ended)
    reporter.close(ended, code)
    return code


def refuse(made: PushPlan, reporter: Reporter) -> int:
    """Tell what of the command itself is wrong, and return the exit code; nothing is sent."""
    ended = [left_out(what) for what in made.wrong]
    for file in ended:
        reporter.ended(file)
    code = exit_code(ended)
    reporter.close(ended, code)
    return code


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """The signals that end a process set `stop`; the second one ends it at once."""
    def note(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    # What is ignored stays so, as nohup wants it.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
