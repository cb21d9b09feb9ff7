"""`python -m api.storing`: the process that stores small uploads. What the supervisor starts beside several APIs.

It ends after the last of them: what they have taken is stored. Exit status as that of `python -m api`.
"""

import argparse
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from api.opening import raise_descriptor_limit, wait_for
from api.storing.desk import Desk
from api.uploads.store_link import take_over
from daemon import log
from daemon.config import Config, find_file, load
from daemon.errors import CourierError
from daemon.process import sd_notify
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, end_with
from daemon.process.parent_death import tie_to_parent
from daemon.process.reload import load_again
from daemon.spool import open_spool
from daemon.state.append_lease import AppendLease
from daemon.state.layout import Layout

#: Longest time between two turns of the main loop, each of which tells the watchdog that it is alive.
_TURN_S: Final = 1.0
#: While it waits for its threads to end.
_ENDING_TURN_S: Final = 0.05
#: How often the directories of the spool are looked at.
_LOOKS_EVERY_S: Final = 2.0


def main() -> int:
    """Store uploads until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m api.storing", description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="the configuration file")
    parser.add_argument("--line", metavar="FD", type=int, required=True,
                        help="the inherited line by which processes that take uploads hand over their links")
    options = parser.parse_args()
    # Until it can be taken: what is read below is as new as what a reload would read.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        tie_to_parent()
        config = load(find_file(options.config))
        log.setup(config.log, "api")
        return _serve(config, options.config, socket.socket(fileno=options.line))
    except (CourierError, OSError) as error:
        return end_with("incus-courier api", error)


def _serve(config: Config, file: str | None, line: socket.socket) -> int:
    layout = Layout(config.state.path)
    layout.create()
    raise_descriptor_limit()
    lease = AppendLease(layout, config.queue.shards)
    wait_for(lease, layout, config)
    spool = open_spool(layout)
    desks = _Desks(line, spool.is_in_place)
    desks.open([Desk(layout, shard, spool, when_dead=desks.fail) for shard in range(config.queue.shards)])
    log.log("storage.started", pid=os.getpid())
    sd_notify.ready()
    if not desks.run(file):
        # Something may be stored yet: it goes with the process.
        return EXIT_FAILED
    spool.close()
    lease.release()
    log.log("storage.stopped", pid=os.getpid())
    return EXIT_OK


class _Desks:
    """Hands links to the threads of their shards, until it is told to stop and the last link has ended."""

    def __init__(self, line: socket.socket, is_in_place: Callable[[], bool]) -> None:
        """Signals are taken from now on. A spool that is not in its place any more is a failure."""
        self._line = line
        self._is_in_place = is_in_place
        self._looked_at = time.monotonic()
        self._desks: list[Desk] = []
        self._signals: list[int] = []
        self._failed = threading.Event()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda taken, _frame: self._signals.append(taken))

    def fail(self) -> None:
        """From any thread: stop, because uploads of one shard cannot be stored any more."""
        self._failed.set()
        with suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def open(self, desks: list[Desk]) -> None:
        """Begin with these, one for each shard."""
        self._desks = desks
        for desk in desks:
            desk.start()

    def run(self, file: str | None) -> bool:
        """Serve; False after a failure."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._line, select.POLLIN)
        stopping = False
        while not self._failed.is_set() and not (stopping and all(desk.join(0) for desk in self._desks)):
            sd_notify.watchdog()
            poll.poll((_ENDING_TURN_S if stopping else _TURN_S) * 1000)
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._take_links()
            self._look_at_spool()
            taken, self._signals = self._signals, []
            if signal.SIGHUP in taken:
                _reload(file)
            if not stopping and {signal.SIGTERM, signal.SIGINT} & set(taken):
                stopping = True
                for desk in self._desks:
                    desk.end()
        return not self._failed.is_set()

    def _look_at_spool(self) -> None:
        """Whoever opens the spool anew finds the one that has its place now."""
        now = time.monotonic()
        if now - self._looked_at > _LOOKS_EVERY_S:
            self._looked_at = now
            if not self._is_in_place():
                self.fail()

    def _take_links(self) -> None:
        while (handed := take_over(self._line)) is not None:
            shard, link = handed
            self._desks[shard].add(link)


def _reload(file: str | None) -> None:
    sd_notify.reloading()
    load_again(file)
    sd_notify.ready()


if __name__ == "__main__":
    status = main()
    log.flush(within_s=1.0)
    sys.exit(status)
