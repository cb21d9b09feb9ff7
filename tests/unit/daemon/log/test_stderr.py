"""Lines to a stderr that somebody reads, or nobody."""

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from daemon.log.stderr import Lines


class Stderr:
    """A descriptor to write lines to, and what came out at its other end."""

    def __init__(self, kind: str) -> None:
        self._sockets = socket.socketpair() if kind == "socket" else ()
        self.reading, self.writing = (
            (end.fileno() for end in self._sockets) if self._sockets else os.pipe())
        os.set_blocking(self.reading, False)

    def read(self) -> str:
        """Everything that has come so far."""
        parts = []
        with suppress(BlockingIOError):
            while part := os.read(self.reading, 65536):
                parts.append(part)
        return b"".join(parts).decode()

    def close(self) -> None:
        """Close both ends."""
        if self._sockets:
            for end in self._sockets:
                end.close()
        else:
            os.close(self.reading)
            os.close(self.writing)


@pytest.fixture(params=["pipe", "socket"])
def stderr(request: pytest.FixtureRequest) -> Iterator[Stderr]:
    """What systemd or a shell connects a service's stderr to."""
    made = Stderr(request.param)
    yield made
    made.close()


@pytest.fixture
def lines(stderr: Stderr) -> Iterator[Lines]:
    """The lines under test."""
    made = Lines(stderr.writing)
    yield made
    made.close()


def test_line_arrives_when_somebody_reads(stderr: Stderr, lines: Lines) -> None:
    """A line is written whole, with its end."""
    assert lines.write("한글 and more")
    assert stderr.read() == "한글 and more\n"
    assert lines.take_lost() == 0


@pytest.mark.parametrize("length", [100, 10_000])
def test_lines_are_dropped_and_counted_when_nobody_reads(stderr: Stderr, lines: Lines, length: int) -> None:
    """Writing never waits for a reader; every line is written whole or not at all."""
    written = [number for number in range(1_000_000 // length) if lines.write(f"{number:09}" + "x" * length)]
    assert lines.take_lost() == 0
    found = stderr.read()
    lost = 0
    while not lost:
        lost = lines.take_lost()
        found += stderr.read()
    assert [int(line[:9]) for line in found.splitlines()] == written
    assert {len(line) for line in found.splitlines()} == {length + 9}
    assert len(written) + lost == 1_000_000 // length


def test_descriptor_stays_blocking_for_others(stderr: Stderr, lines: Lines) -> None:
    """Other processes that write to the same place see no difference."""
    lines.write("a line")
    assert os.get_blocking(stderr.writing)


def test_write_gives_up_when_the_reader_is_gone() -> None:
    """A reader that closed its end is no reason to fail."""
    reading, writing = os.pipe()
    lines = Lines(writing)
    os.close(reading)
    assert not lines.write("a line")
    lines.close()
    os.close(writing)


def test_lines_are_appended_to_a_file(tmp_path: Path) -> None:
    """A file is written through the descriptor itself, whose place in the file others share."""
    with (tmp_path / "log").open("wb", buffering=0) as file:
        lines = Lines(file.fileno())
        lines.write("one")
        file.write(b"another's\n")
        lines.write("two")
        lines.close()
    assert (tmp_path / "log").read_text() == "one\nanother's\ntwo\n"


def test_gathered_lines_leave_together_when_the_time_has_come(stderr: Stderr, lines: Lines) -> None:
    """One write serves all that a turn of an event loop had to say."""
    due: list[Callable[[], None]] = []
    lines.gather(due.append)
    assert lines.write("one")
    assert lines.write("two")
    assert stderr.read() == ""
    [write] = due
    write()
    assert stderr.read() == "one\ntwo\n"


def test_other_threads_write_at_once(stderr: Stderr, lines: Lines) -> None:
    """Nobody else's line waits for an event loop."""
    lines.gather(lambda _: None)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lines.write, "other").result()
    assert stderr.read() == "other\n"


def test_gathered_lines_are_written_at_the_end(stderr: Stderr, lines: Lines) -> None:
    """Whoever stops gathering loses nothing."""
    lines.gather(lambda _: None)
    lines.write("last")
    lines.gather(None)
    lines.write("after")
    assert stderr.read() == "last\nafter\n"


def test_each_of_the_gathered_lines_counts_as_lost(stderr: Stderr, lines: Lines) -> None:
    """What is reported as lost is the number of lines, not of writes."""
    while lines.write("x" * 1000):
        pass
    stderr_full = lines.take_lost()
    lines.gather(lambda _: None)
    for _ in range(3):
        lines.write("y" * 1000)
    lines.gather(None)
    stderr.read()
    assert stderr_full == 0
    lines.write("room")
    assert lines.take_lost() == 4
