"""Tables for people. What is in a cell is only ever shown: it cannot colour, move or forge anything."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.model.names import printable

#: Where nobody looks at a screen, lines are as long as they need to be.
_UNLIMITED: Final = 20_000


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*(Text(printable(str(cell), limit=_UNLIMITED)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED).print(table)
