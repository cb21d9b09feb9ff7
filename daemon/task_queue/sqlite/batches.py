"""A statement for many rows, not one for each.

After every statement, and every row that one returns, a thread has to get the interpreter back from the others, and
that takes longer than the statement.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

#: Most rows in one statement.
_MOST_AT_ONCE: Final = 64

Item = TypeVar("Item")


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """All of them in pieces whose sizes are powers of two: so few statements are soon all prepared."""
    start = 0
    while left := len(items) - start:
        size = min(_MOST_AT_ONCE, 1 << (left.bit_length() - 1))
        yield items[start:start + size]
        start += size


def values(rows: int, columns: int) -> str:
    """Rows of placeholders, as a table whose columns are called column1, column2 and so on: `VALUES (?, ?), (?, ?)`."""
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"
