"""Somebody who follows a service whatever happens to it, and comes again where he was, as a browser does."""

import contextlib
import threading
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final, Self

from tests.support.event_stream import Event, Following, following
from tests.support.waiting import eventually

#: Between two tries.
_PAUSE_S: Final = 0.05


class Follower:
    """Follows in a thread of its own while the block runs."""

    def __init__(self, address: str) -> None:
        """Nothing has happened yet."""
        self.last_id = ""
        #: The state that each task was told last.
        self.states: dict[str, str] = {}
        self.resets = 0
        self._address = address
        self._ids: Counter[str] = Counter()
        self._stream: Following | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        while self._thread.is_alive():
            if self._stream is not None:
                with contextlib.suppress(OSError):
                    self._stream.hang_up()
            self._thread.join(_PAUSE_S)

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE_S):
            # Nobody answers, or somebody who was cut off.
            with contextlib.suppress(OSError, HTTPException, AssertionError):
                self._follow()

    def _follow(self) -> None:
        with following(self._address, headers={"Last-Event-ID": self.last_id}) as stream:
            self._stream = stream
            while not self._ended.is_set():
                stream.more()
                for event in stream.heard():
                    self._take(event)
                self.last_id = stream.parser.last_id or self.last_id

    def _take(self, event: Event) -> None:
        self._ids[event.last_id] += 1
        if event.name == "reset":
            self.resets += 1
        else:
            task_id, self.states[task_id] = event.task

    def was_reset(self, times: int) -> bool:
        """True when it was told so many times that something may be missing."""
        return self.resets == times

    def check(self, states: Mapping[str, str]) -> None:
        """Wait until the tasks were told to be in these states at last; nothing was missed, and nothing told twice."""
        eventually(lambda: states.items() <= self.states.items(), what=f"{states} to be told: {self.states}")
        assert self.resets == 0
        assert [event_id for event_id, times in self._ids.items() if times > 1] == []
