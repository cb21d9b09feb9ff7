"""What is told of a push: lines for people, or a line of JSON for each file."""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from client.push.outcomes import PushedFile, PushEnd, is_finished
from client.push.plan import STDIN, PlannedFile
from client.push.progress import FileProgress
from daemon.process.exit_status import EXIT_INTERRUPTED
from daemon.process.output import say, say_json, warn

#: Lines about single files; more are only counted.
_MAX_LINES: Final = 20
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_PER_UNIT: Final = 1024


class Reporter(Protocol):
    """Is told what happens. For several threads."""

    def begun(self, file: PlannedFile, progress: FileProgress) -> None:
        """A file is being sent."""

    def kept_back(self, why: str) -> None:
        """Something keeps what was accepted from being delivered, and has to be mended."""

    def ended(self, ended: PushedFile) -> None:
        """It is known what became of a file."""

    def close(self, ended: Sequence[PushedFile], code: int) -> None:
        """It is known of all of them."""


class JsonReporter:
    """A line of JSON for each file, when its outcome is known."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._lock = threading.Lock()

    def begun(self, file: PlannedFile, progress: FileProgress) -> None:
        """Nothing: programs are told outcomes."""

    def kept_back(self, why: str) -> None:
        """Say so to people, who would wait without knowing."""
        warn(f"incus-courier: {why}")

    def ended(self, ended: PushedFile) -> None:
        """Write the line."""
        with self._lock:
            say_json(ended.as_json(self._instance))

    def close(self, ended: Sequence[PushedFile], code: int) -> None:
        """Nothing."""


class TextReporter:
    """Lines for people: what went wrong with which file, and a sum at the end."""

    def __init__(self, instance: str, *, quiet: bool) -> None:
        """`quiet`: only what went wrong."""
        self._instance = instance
        self._quiet = quiet
        self._lock = threading.Lock()
        self._lines = 0
        self._hints: set[str] = set()

    def begun(self, file: PlannedFile, progress: FileProgress) -> None:
        """Nothing: see the progress."""

    def kept_back(self, why: str) -> None:
        """Say so."""
        warn(f"incus-courier: {why}")

    def ended(self, ended: PushedFile) -> None:
        """Say what there is to say of it by itself."""
        with self._lock:
            if ended.end is PushEnd.PLANNED:
                say(f"{shown_name(ended.source)} -> {self._instance}{ended.to}")
            elif ended.end in {PushEnd.FAILED, PushEnd.SKIPPED, PushEnd.UNDECIDED}:
                self._tell(ended)

    def _tell(self, ended: PushedFile) -> None:
        if self._quiet and ended.end is PushEnd.SKIPPED:
            return
        self._lines += 1
        if self._lines > _MAX_LINES:
            return
        skipped = "skipped: " if ended.end is PushEnd.SKIPPED else ""
        warn(f"incus-courier: {shown_name(ended.source)}: {skipped}{ended.message}")
        if ended.hint and ended.hint not in self._hints:
            self._hints.add(ended.hint)
            warn(f"  {ended.hint}")

    def close(self, ended: Sequence[PushedFile], code: int) -> None:
        """Say how it ended."""
        if self._lines > _MAX_LINES:
            warn(f"incus-courier: and {self._lines - _MAX_LINES} more")
        if code == EXIT_INTERRUPTED:
            stays = "the same command goes on where it was" if not is_finished(ended) else "everything was sent"
            warn(f"incus-courier: interrupted; {stays}")
        if not self._quiet and (line := summary(ended, self._instance)):
            say(line)


def summary(ended: Sequence[PushedFile], instance: str) -> str:
    """What became of all files, in a sentence; empty where it was said already."""
    good = [file for file in ended if file.end in {PushEnd.ACCEPTED, PushEnd.DELIVERED}]
    if len(ended) == len(good) == 1:
        [file] = good
        how = "is in place:" if file.end is PushEnd.DELIVERED else "is accepted for"
        return f"{shown_name(file.source)} {how} {instance}{file.to} (task {file.task_id})"
    if len(ended) == 1:
        return ""
    numbers = Counter(file.end.value for file in ended)
    told = ", ".join(f"{number} {end}" for end, number in sorted(numbers.items()))
    size = sum(file.size or 0 for file in ended if file.end in {PushEnd.ACCEPTED, PushEnd.DELIVERED, PushEnd.PLANNED})
    return f"{len(ended)} files: {told} ({shown_size(size)})" if ended else "There is nothing to send."


def shown_name(source: str) -> str:
    """A file's name for people."""
    return "standard input" if source == STDIN else source


def shown_size(size: int) -> str:
    """A number of bytes in a fitting unit."""
    value, unit = float(size), 0
    while value >= _PER_UNIT and unit < len(_UNITS) - 1:
        value, unit = value / _PER_UNIT, unit + 1
    return f"{size} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
