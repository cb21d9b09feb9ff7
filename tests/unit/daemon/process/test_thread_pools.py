"""Pools of threads on a machine that cannot start one more."""

import threading

import pytest

from daemon.errors import CannotStart
from daemon.process.exit_status import EXIT_FAILED
from daemon.process.thread_pools import begin_pool


def test_pool_takes_work_when_the_machine_can_start_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over is never both refused and done: every thread runs already."""
    with begin_pool(3, "begun") as pool:
        monkeypatch.setattr(threading.Thread, "start", _refuse)
        together = threading.Barrier(3)
        assert sorted(work.result() for work in [pool.submit(together.wait) for _ in range(3)]) == [0, 1, 2]


def test_pool_is_refused_and_leaves_no_thread_when_one_of_them_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot begin says so and ends, and a restart may find room."""
    start, left = threading.Thread.start, [2]

    def start_two(thread: threading.Thread) -> None:
        if not left[0]:
            _refuse(thread)
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(CannotStart, match="cannot start 3 more threads") as refused:
        begin_pool(3, "refused")
    assert refused.value.kind.exit_status == EXIT_FAILED
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("refused")]


def _refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
