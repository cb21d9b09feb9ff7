"""Tables for people. What is in a cell is only ever shown: it cannot colour, move or forge anything."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daemon.model.names import printable
from daemon.model.text import escaped
from daemon.process.output import say

#: The longest cell. Where nobody looks at a screen, lines are as long as they need to be.
_UNLIMITED: Final = 20_000
_WRONG: Final = "bold red"


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout."""
    shown = [[printable(str(cell), limit=_UNLIMITED) for cell in row] for row in rows]
    (_fold if sys.stdout.isatty() else _align)(columns, shown)


def _fold(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """No line is longer than the screen is wide: long cells go on in the next one."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A line for each row. Thousands take no time, as they would where each cell may be folded."""
    for line in aligned(columns, rows):
        say(line)


def aligned(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table: one for the columns, and one for each row."""
    lines = [columns, *([printable(str(cell), limit=_UNLIMITED) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines]


@contextmanager
def whole_screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """Have the whole terminal; it gets back what it showed. What is given back shows lines in place of those before.

    A line that is longer than the terminal is wide is cut, and so are lines that it has no room for. Those that begin
    with `!` stand out, unless $NO_COLOR is set.
    """
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        def show(lines: Sequence[str]) -> None:
            shown = [Text(f"{escaped(line)}\n", style=_WRONG if line.startswith("! ") else "")
                     for line in lines[:max(1, console.height)]]
            text = Text(no_wrap=True, overflow="ellipsis").join(shown)
            text.rstrip()
            live.update(text, refresh=True)

        yield show
