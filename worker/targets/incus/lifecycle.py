"""Follows one remote's lifecycle events: which instances start, appear or go, and whether Incus itself is there."""

import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Final

from daemon.errors import Cause, Undelivered
from worker.targets.incus.endpoints import Endpoints
from worker.targets.incus.rest import Rest, Upgraded
from worker.targets.incus.websocket import EventStream, Handshake, StreamEnded

#: What makes a waiting task worth another try, or tells that its instance is gone.
ACTIONS: Final = frozenset({
    "instance-started", "instance-ready", "instance-created", "instance-agent-started", "instance-resumed",
    "instance-restarted", "instance-renamed", "instance-deleted",
})
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0
_CONNECT_S: Final = 5.0
#: Silence after which Incus is asked whether it is still there.
_IDLE_S: Final = 15.0


class Lifecycle:
    """A thread that follows the events of one remote until it is closed.

    In that thread it calls `on_event(project, instance, action)` for each action of ACTIONS, `on_up()` when the
    connection to Incus comes and `on_down(reason)` when it goes, each once a change. Events that happened while
    it was away are lost: after `on_up` anything may have changed.
    """

    def __init__(self, endpoints: Endpoints, on_event: Callable[[str, str, str], None],
                 on_up: Callable[[], None], on_down: Callable[[str], None]) -> None:
        """Start the thread. The callbacks must be quick and not raise."""
        self._endpoints = endpoints
        self._on_event = on_event
        self._on_up = on_up
        self._on_down = on_down
        self._up: bool | None = None
        self._closing = threading.Event()
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"lifecycle-{endpoints.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it: at once, or a few seconds when it is connecting. Never raises."""
        if not self._closing.is_set():
            self._closing.set()
            self._wake.close()
            self._thread.join()
            self._waker.close()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._closing.is_set():
            began = time.monotonic()
            reason = self._follow()
            if not self._closing.is_set():
                self._say(False, reason)
                pause_s = next_pause_s(pause_s, time.monotonic() - began)
                self._closing.wait(pause_s)

    def _follow(self) -> str:
        """Follow one connection to its end; return why it ended."""
        handshake = Handshake()
        try:
            connection = self._connect(handshake)
        except Undelivered as error:
            return error.detail
        try:
            handshake.check(connection.headers.get("Sec-WebSocket-Accept"))
            self._say(True)
            stream = EventStream(connection.socket, self._waker, _IDLE_S)
            while True:
                event = parse(stream.next())
                if event is not None:
                    self._on_event(*event)
        except StreamEnded as error:
            return str(error)
        finally:
            connection.close()

    def _connect(self, handshake: Handshake) -> Upgraded:
        try:
            return self._upgrade(handshake, {"all-projects": "true"})
        except Undelivered as error:
            if error.kind.cause is not Cause.REFUSED:
                raise
            # A certificate that is restricted to some projects may follow only one of them.
            return self._upgrade(handshake, {"project": self._endpoints.remote.project})

    def _upgrade(self, handshake: Handshake, which: dict[str, str]) -> Upgraded:
        rest = Rest(self._endpoints, min(_CONNECT_S, self._endpoints.remote.timeout_s))
        try:
            return rest.upgrade("/events", {"type": "lifecycle", **which}, handshake.headers)
        except BaseException as error:
            if isinstance(error, Undelivered) and error.kind.cause is not Cause.REFUSED:
                self._endpoints.leave(rest.endpoint)
            rest.close()
            raise

    def _say(self, up: bool, reason: str = "") -> None:
        if up == self._up:
            return
        self._up = up
        if up:
            self._on_up()
        else:
            self._on_down(reason)


def next_pause_s(pause_s: float, lasted_s: float) -> float:
    """How long to wait after a connection that lasted so long, when `pause_s` were waited before it. Pure.

    One that ends at once, each time, is no reason to look at the remote's instances more than once a second.
    """
    if lasted_s > _LONGEST_PAUSE_S:
        return _FIRST_PAUSE_S
    return min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)


def parse(message: bytes) -> tuple[str, str, str] | None:
    """Return (project, instance, action) of a lifecycle event that is one of ACTIONS, else None. Pure."""
    try:
        event = json.loads(message)
        action = event["metadata"]["action"]
        source = urllib.parse.urlsplit(event["metadata"]["source"])
        project = event.get("project") or urllib.parse.parse_qs(source.query).get("project", ["default"])[0]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    kind, _, name = source.path.removeprefix("/1.0/").partition("/")
    if action not in ACTIONS or kind != "instances" or not name or "/" in name:
        return None
    return str(project), urllib.parse.unquote(name), str(action)
