"""The supervisor of a service of several processes: children that are started again when they die.

`incus-courier serve` has API processes, workers and the sender as its children; the API's unit, where it is of several
processes, those of the API, and the one that stores what they take. Children end when the supervisor ends, however it
ends (`daemon.process.parent_death`). They are out of the terminal's reach, so that Ctrl-C is one signal to each of
them, and a second Ctrl-C is the second. What they tell the service manager the supervisor tells for all of them
(`daemon.process.relay`).
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.config import Config
from daemon.log import log
from daemon.process import sd_notify
from daemon.process.exit_status import EXIT_CONFIG, EXIT_OK
from daemon.process.isolated import python
from daemon.process.listeners import Door
from daemon.process.parent_death import VARIABLE
from daemon.process.relay import Relay, environment, new_line, watchdog_s
from daemon.process.shared_counts import SharedCounts, create

#: Before a child that died is started again: the first time, and at most.
_FIRST_DELAY_S: Final = 0.2
_MAX_DELAY_S: Final = 10.0
#: A child that lived so long starts with a short delay again.
_STEADY_S: Final = 10.0
#: Longest time between two turns of the main loop, each of which tells the watchdog that it is alive.
_TURN_S: Final = 1.0
#: After the children's own drain times, before they are killed.
_GRACE_S: Final = 10.0


#: The process that stores what others have taken; it ends last.
STORING: Final = "api.storing"


@dataclass
class _Child:
    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    deaths: int = 0


class StorageLine:
    """By which processes that take uploads hand over links to the one that stores them.

    The supervisor keeps both ends: whichever process is started again finds what was handed over meanwhile.
    """

    def __init__(self) -> None:
        self.storing, self.taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def descriptors(self) -> tuple[int, int]:
        """What is inherited."""
        return self.storing.fileno(), self.taking.fileno()


def api_commands(
    config: Config, config_file: str | None, addresses: Sequence[str], counts_fd: int, line: StorageLine | None = None,
) -> list[list[str]]:
    """The module and the arguments of every process of the API that this configuration wants.

    Where there is a `line` to it, one more stores what they take.
    """
    sockets = [word for address in addresses for word in ("--listen", address)]
    store = [] if line is None else ["--store", str(line.taking.fileno())]
    takers = [["api", *_file(config_file), *sockets, "--counts", f"{counts_fd}:{row}", *store]
              for row in range(config.api.process_count)]
    storer = [] if line is None else [[STORING, *_file(config_file), "--line", str(line.storing.fileno())]]
    return takers + storer


def worker_commands(config: Config, config_file: str | None) -> list[list[str]]:
    """The module and the arguments of every worker that this configuration wants."""
    return [["worker", "--shard", str(shard), *_file(config_file)] for shard in range(config.queue.shards)]


def sender_commands(config: Config, config_file: str | None) -> list[list[str]]:
    """The module and the arguments of the sender, where there are webhooks."""
    return [["sender", *_file(config_file)]] if config.webhooks else []


def _file(config_file: str | None) -> list[str]:
    return ["--config", config_file] if config_file else []


def restart_delay_s(deaths: int) -> float:
    """How long to wait before a child is started again that died so often in a row."""
    return float(min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(deaths - 1, 30)))


def cause_of(status: int) -> str | None:
    """What ended a process from outside, in words; None when it ended by itself.

    A bus error is what a filesystem without room does to who writes to a mapped file (btrfs, under SQLite).
    """
    return signal.strsignal(-status) if status < 0 else None


class Supervisor:
    """Keeps the children running until it is told to stop."""

    def __init__(
        self, config: Config, config_file: str | None, doors: Sequence[Door], *, with_workers: bool,
    ) -> None:
        """The API's processes listen at `doors`, which they inherit."""
        self._doors = doors
        counts_fd = create(config.api.process_count)
        self._counts = SharedCounts(counts_fd)
        #: Several take uploads: one stores the small ones of all of them.
        self._line = StorageLine() if config.api.process_count > 1 else None
        self._inherited = (*(door.socket.fileno() for door in doors), counts_fd,
                           *(self._line.descriptors if self._line else ()))
        drains_s = [config.api.drain_s, *([config.delivery.drain_s] if with_workers else [])]
        self._drain_s = max(drains_s)
        workers = worker_commands(config, config_file) + sender_commands(config, config_file) if with_workers else []
        addresses = [door.inherited for door in doors]
        self._children = [_Child(words[0], words)
                          for words in api_commands(config, config_file, addresses, counts_fd, self._line) + workers]
        self._relay = Relay.if_managed(len(self._children))
        self._signals: list[int] = []
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._terminal = next((descriptor for descriptor in range(3) if os.isatty(descriptor)), None)

    def run(self) -> int:
        """Supervise; return the exit code: EXIT_CONFIG when a child found the configuration wrong."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda taken, _frame: self._signals.append(taken))
        code: int | None = None
        while code is None:
            self._start_due()
            self._wait(self._wait_s())
            code = self._handle_signals()
            code = self._reap() if code is None else code
            self._relay_turn()
        self._stop()
        return code

    def _relay_turn(self) -> None:
        """Tell the service manager how the children are, and end those that stand still for too long."""
        if self._relay is None:
            return
        now = time.monotonic()
        self._relay.turn(now)
        limit_s = watchdog_s()
        hung = self._relay.hung(now, limit_s) if limit_s else []
        for child in self._children:
            if child.process is None:
                continue
            # By `poll` and `kill`: they know whether the number is still the child's.
            ended = child.process.poll() is not None
            if not ended and child.process.pid in hung:
                log("service.child_hangs", pid=child.process.pid, silent_s=limit_s)
                child.process.kill()
                ended = True
            if ended:
                # It says nothing more.
                self._relay.ended(child.process.pid)

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and now >= child.start_at:
                child.started_at = now
                try:
                    child.process = self._start(child.arguments)
                except OSError as error:
                    # No process, memory or descriptor is left just now.
                    self._plan_restart(child, detail=error.strerror)

    def _start(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        if self._relay is None:
            return self._spawn(arguments, {})
        upper, lower = new_line()
        with lower:
            try:
                process = self._spawn(arguments, environment(lower), lower.fileno())
            except OSError:
                upper.close()
                raise
        self._relay.begun(process.pid, upper)
        return process

    def _spawn(self, arguments: list[str], variables: Mapping[str, str], *more: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            python(*arguments), env={**os.environ, VARIABLE: str(os.getpid()), **variables},
            pass_fds=(*self._inherited, *more), stdin=subprocess.DEVNULL, process_group=0)

    def _wait(self, seconds: float) -> None:
        """Wait for a signal, or for something to be told, at most so long."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for line in self._relay.lines if self._relay is not None else ():
            poll.register(line, select.POLLIN)
        poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _wait_s(self) -> float:
        now = time.monotonic()
        starts = [max(0.0, child.start_at - now) for child in self._children if child.process is None]
        return min([*starts, _TURN_S])

    def _handle_signals(self) -> int | None:
        taken, self._signals = self._signals, []
        for number in taken:
            if number == signal.SIGHUP and not _is_closed(self._terminal):
                if self._relay is not None:
                    self._relay.reload()
                self._send(signal.SIGHUP)
            elif number != signal.SIGCHLD:
                return EXIT_OK
        return None

    def _reap(self) -> int | None:
        for child in self._children:
            status = child.process.poll() if child.process else None
            if status is None:
                continue
            if status == EXIT_CONFIG:
                child.process = None
                return EXIT_CONFIG
            if self._relay is not None and child.process is not None:
                self._relay.ended(child.process.pid)
            self._forget_counts(child)
            self._plan_restart(child, status=status, detail=cause_of(status))
        return None

    def _forget_counts(self, child: _Child) -> None:
        """What a process of the API was receiving when it died is received no more."""
        if child.name == "api":
            self._counts.clear(self._children.index(child))

    def _plan_restart(self, child: _Child, *, status: int | None = None, detail: str | None = None) -> None:
        now = time.monotonic()
        child.process = None
        child.deaths = 1 if now - child.started_at > _STEADY_S else child.deaths + 1
        delay_s = restart_delay_s(child.deaths)
        child.start_at = now + delay_s
        log("service.child_died", child=" ".join(child.arguments), status=status, detail=detail,
            restart_in_s=delay_s)

    def _send(self, number: int, children: Iterable[_Child] | None = None) -> None:
        for child in self._children if children is None else children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _keep(self, children: Iterable[_Child]) -> None:
        """Start those again that have ended."""
        for child in children:
            if not _is_alive(child):
                if self._relay is not None and child.process is not None:
                    self._relay.ended(child.process.pid)
                with contextlib.suppress(OSError):
                    # There is another turn.
                    child.process = self._start(child.arguments)

    def _stop(self) -> None:
        """Tell the children to finish, once more when asked again, and kill those that take too long.

        Who stores what others have taken is told when they have ended, and started again if it dies before.
        """
        sd_notify.stopping(self._drain_s + _GRACE_S)
        storers = [child for child in self._children if child.name == STORING]
        takers = [child for child in self._children if child.name == "api"]
        self._send(signal.SIGTERM, [child for child in self._children if child not in storers])
        for door in self._doors:
            door.stop_listening()
        deadline = time.monotonic() + self._drain_s + _GRACE_S
        while self._alive() and time.monotonic() < deadline:
            if any(map(_is_alive, takers)):
                self._keep(storers)
            elif storers:
                self._send(signal.SIGTERM, storers)
                storers = []
            self._wait(min(_TURN_S, max(0.0, deadline - time.monotonic())))
            self._relay_turn()
            taken, self._signals = self._signals, []
            if any(number in {signal.SIGINT, signal.SIGTERM} for number in taken):
                self._send(signal.SIGTERM)
        self._send(signal.SIGKILL)
        for child in self._children:
            if child.process is not None:
                child.process.wait()

    def _alive(self) -> bool:
        return any(map(_is_alive, self._children))


def _is_alive(child: _Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _is_closed(terminal: int | None) -> bool:
    """True when there was a terminal and it is closed: SIGHUP says that then, and nobody can give Ctrl-C any more."""
    if terminal is None:
        return False
    poll = select.poll()
    poll.register(terminal, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
