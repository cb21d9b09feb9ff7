"""The remotes of a worker: their targets, and which of them answer.

Only the main loop uses it, apart from `target`. A remote that does not answer is probed once a second, by one
thread; meanwhile none of its tasks is tried, and none of them ages. One whose events are not heard is probed, too,
though less often: where nothing is to be delivered, nobody else would find that it is away.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from daemon.config import Config
from daemon.errors import ERRORS, CourierError, Scope, Undelivered
from daemon.log import log
from daemon.model.names import printable
from daemon.process.thread_pools import begin_pool
from daemon.state.activity import RemoteStanding
from worker.dispatch.lifecycle_feed import feed
from worker.dispatch.outages import Outages
from worker.targets.base import Feed, Target

#: Remotes that are probed at the same time, at most.
_MOST_PROBES: Final = 64
#: Between two probes of a remote that is away.
PROBE_EVERY_S: Final = 1.0
#: Between two probes of one whose events are not heard: much less than `delivery.keep_s`.
UNHEARD_EVERY_S: Final = 5.0
#: So much of what a remote said is told.
_DETAIL_LENGTH: Final = 300


@dataclass(frozen=True)
class Probed:
    """A message: what a probe of a remote found; `code` is None when it answers."""

    remote: str
    code: str | None
    detail: str = ""


@dataclass
class _Down:
    code: str
    detail: str
    #: In seconds since the epoch.
    since: float
    #: Monotonic time.
    probe_at: float
    probing: bool = False


class Remotes:
    """The remotes that this worker's tasks go to."""

    def __init__(
        self, outages: Outages, config: Config, open_target: Callable[[str, Config], Target],
        report: Callable[[Any], None],
    ) -> None:
        self._outages = outages
        self._config = config
        self._open_target = open_target
        self._report = report
        self._targets: dict[str, Target] = {}
        self._feeds: dict[str, Feed] = {}
        self._lock = threading.Lock()
        self._down: dict[str, _Down] = {}
        #: Those whose events are not heard, and when to probe them next, in monotonic time.
        self._unheard: dict[str, float] = {}
        #: Since when the others are known to answer, in seconds since the epoch.
        self._up_since: dict[str, float] = {}
        # Each may take seconds to say nothing: none waits for another's probe.
        self._pool = begin_pool(min(_MOST_PROBES, 1 + len(config.remotes)), "probe")

    def target(self, remote: str) -> Target:
        """The target of a remote, opened when it is first asked for. Raises Undelivered for an unknown remote."""
        with self._lock:
            if remote not in self._targets:
                if self._config.remote(remote) is None:
                    raise Undelivered("invalid_row", f"The remote {remote!r} is not in the configuration any more.")
                self._targets[remote] = self._open_target(remote, self._config)
                events = feed(remote, self._targets[remote], self._report)
                if events is not None:
                    self._feeds[remote] = events
            return self._targets[remote]

    def configure(self, config: Config) -> None:
        """Use another configuration from now on: remotes that it describes otherwise are connected anew."""
        with self._lock:
            changed = [name for name in self._targets if config.remote(name) != self._config.remote(name)]
            self._config = config
            for name in changed:
                self._unheard.pop(name, None)
            feeds = [self._feeds.pop(name) for name in changed if name in self._feeds]
            targets = [self._targets.pop(name) for name in changed]
        for connected in (*feeds, *targets):
            self._pool.submit(connected.close)

    def answers(self, remote: str) -> bool:
        """True unless the remote is known to be away."""
        return remote not in self._down

    def note_down(self, remote: str, code: str, detail: str = "") -> bool:
        """Remember that a remote is away; return True if that is news."""
        if remote in self._down:
            return False
        self._down[remote] = _Down(code, detail, time.time(), probe_at=time.monotonic() + PROBE_EVERY_S)
        self._outages.begin(remote)
        return True

    def note_up(self, remote: str) -> bool:
        """Remember that a remote answers; return True if that is news."""
        self._outages.end(remote)
        if self._down.pop(remote, None) is None:
            return False
        self._up_since[remote] = time.time()
        return True

    def note_unheard(self, remote: str) -> None:
        """Remember that the remote's events are not heard: it is probed now and then, whether or not it answers."""
        self._unheard.setdefault(remote, time.monotonic())

    def note_heard(self, remote: str) -> None:
        """Remember that its events are heard."""
        self._unheard.pop(remote, None)

    def probed(self, probed: Probed) -> bool:
        """Take note of a probe that found the remote away; return True if that is news."""
        down = self._down.get(probed.remote)
        if down is not None:
            down.probing = False
            down.probe_at = time.monotonic() + PROBE_EVERY_S
            if probed.code is not None:
                down.code, down.detail = probed.code, probed.detail
            return False
        is_away = probed.code is not None and ERRORS[probed.code].scope is Scope.REMOTE
        return (is_away and probed.remote in self._unheard
                and self.note_down(probed.remote, probed.code or "", probed.detail))

    def standings(self, now: float) -> list[RemoteStanding]:
        """How each remote stands that something was to go to; `now` is in seconds since the epoch."""
        with self._lock:
            used = sorted({*self._targets, *self._down})
        soon = now - time.monotonic()
        return [self._standing(remote, self._down.get(remote), soon) for remote in used]

    def _standing(self, remote: str, down: _Down | None, soon: float) -> RemoteStanding:
        if down is None:
            return RemoteStanding(remote=remote, up=True, since=self._up_since.setdefault(remote, time.time()))
        return RemoteStanding(remote=remote, up=False, since=down.since, code=down.code,
                              message=printable(down.detail, _DETAIL_LENGTH), next_try_at=soon + down.probe_at)

    def tend(self) -> None:
        """Start the probes that are due."""
        now = time.monotonic()
        for remote, down in self._down.items():
            if not down.probing and now >= down.probe_at:
                down.probing = True
                self._begin_probe(remote)
        for remote, probe_at in self._unheard.items():
            if remote not in self._down and now >= probe_at:
                self._unheard[remote] = now + UNHEARD_EVERY_S
                self._begin_probe(remote)

    def _begin_probe(self, remote: str) -> None:
        self._pool.submit(self._probe, remote).add_done_callback(partial(self._probe_ended, remote))

    def next_probe_in_s(self) -> float | None:
        """In how many seconds the next probe is due."""
        now = time.monotonic()
        times = [down.probe_at for down in self._down.values() if not down.probing]
        times += [probe_at for remote, probe_at in self._unheard.items() if remote not in self._down]
        return min((max(0.0, at - now) for at in times), default=None)

    def _probe(self, remote: str) -> None:
        try:
            self.target(remote).probe()
        except CourierError as error:
            self._report(Probed(remote, error.code, error.detail))
        else:
            self._report(Probed(remote, None))

    def _probe_ended(self, remote: str, probe: "Future[None]") -> None:
        if not probe.cancelled() and probe.exception() is not None:
            log("worker.error", remote=remote, detail=repr(probe.exception()))
            self._report(Probed(remote, "worker_error"))

    def close(self) -> None:
        """Let go of every connection; one that is just being made is not waited for."""
        for connected in (*self._feeds.values(), *self._targets.values()):
            self._pool.submit(connected.close)
        self._pool.shutdown(wait=False)
