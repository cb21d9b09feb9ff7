"""The progress of a push on a terminal: what is under way, how fast it goes, and how much is left."""

import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from client.push.outcomes import PushedFile
from client.push.plan import PlannedFile
from client.push.progress import FileProgress, Stage
from client.push.report import TextReporter, shown_name
from daemon.model.text import escaped

_NAME_CELLS: Final = 30
_STAGES: Final = {Stage.WAITING: "waiting", Stage.READING: "reading", Stage.SENDING: "sending",
                  Stage.DELIVERING: "delivering"}


class TerminalReporter(TextReporter):
    """Lines for people, with bars below them as long as something goes on."""

    def __init__(self, instance: str, files: Sequence[PlannedFile], *, wait: bool) -> None:
        """`wait`: a file goes on after it was accepted."""
        super().__init__(instance, quiet=False)
        self._bars = _Bars(sum(file.size or 0 for file in files), len(files), wait=wait)
        self._bars.start()

    def begun(self, file: PlannedFile, progress: FileProgress) -> None:
        """Show a bar for it."""
        self._bars.add(file, progress)

    def ended(self, ended: PushedFile) -> None:
        """Take its bar away."""
        self._bars.drop(ended)
        super().ended(ended)

    def close(self, ended: Sequence[PushedFile], code: int) -> None:
        """Take all bars away, and say how it ended."""
        self._bars.stop()
        super().close(ended, code)


class _Bars(Progress):
    """A bar for each file that is under way, and one for all of them if there are several."""

    def __init__(self, total_bytes: int, files: int, *, wait: bool) -> None:
        # Set before the class that draws: it looks at once.
        self._of_files: dict[str, tuple[TaskID, FileProgress]] = {}
        self._all: TaskID | None = None
        self._done_bytes = self._ended = 0
        self._files, self._wait = files, wait
        self._guard = threading.Lock()
        super().__init__(
            _NameColumn(), BarColumn(bar_width=None), DownloadColumn(binary_units=True), TransferSpeedColumn(),
            TimeRemainingColumn(compact=True), console=Console(highlight=False), transient=True, expand=True,
            redirect_stderr=sys.stderr.isatty())
        if files > 1:
            self._all = self.add_task("", total=total_bytes or None)

    def add(self, file: PlannedFile, progress: FileProgress) -> None:
        """One more is under way."""
        bar = self.add_task(shown_name(file.source), total=progress.size)
        with self._guard:
            self._of_files[file.to] = bar, progress

    def drop(self, ended: PushedFile) -> None:
        """One is not under way any more."""
        with self._guard:
            found = self._of_files.pop(ended.to or "", None)
            if found is not None:
                self._ended += 1
                self._done_bytes += ended.size or 0
        if found is not None:
            self.remove_task(found[0])

    def get_renderables(self) -> Iterable[RenderableType]:
        """All bars, as it is now."""
        # Never held while the class that draws takes locks of its own: it asks for this while it holds them.
        with self._guard:
            bars, sent_bytes, ended = list(self._of_files.values()), self._done_bytes, self._ended
        with self._lock:
            self._look(bars, sent_bytes, ended)
        return super().get_renderables()

    def _look(self, bars: Sequence[tuple[TaskID, FileProgress]], sent_bytes: int, ended: int) -> None:
        for bar, progress in bars:
            done_bytes, stage = progress.done_bytes, progress.stage
            shown = self._tasks.get(bar)
            if shown is None:
                continue
            if done_bytes < shown.completed:
                # Another stage, or sent again: the rate begins anew.
                shown._reset()
            # Of many, those that wait to be delivered are only counted.
            self.update(bar, completed=done_bytes, total=progress.size, stage=_STAGES[stage],
                        visible=stage is not Stage.DELIVERING or self._all is None)
            sent_bytes += (progress.size or 0) if stage is Stage.DELIVERING else \
                done_bytes if stage is Stage.SENDING else 0
        if self._all is not None:
            what = "in place" if self._wait else "sent"
            self.update(self._all, completed=sent_bytes, description=f"{ended} of {self._files} {what}")


class _NameColumn(ProgressColumn):
    """A file's name, which may be anything, and what goes on with it."""

    def render(self, task: Task) -> Text:
        """One line of a bar."""
        name = escaped(task.description)
        stage = task.fields.get("stage")
        text = Text(name, no_wrap=True)
        text.truncate(_NAME_CELLS, overflow="ellipsis")
        return text.append(f"  {stage}") if stage else text
