"""The store of what was handed on, in one database that all API processes share."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from daemon.delegation.sqlite.database import Database
from daemon.delegation.values import MOST_BELOW, Budget, Child
from daemon.errors import Rejected
from daemon.model.grant import Grant
from daemon.state.layout import Layout

_COLUMNS: Final = ("key_id, sha256, root, parent, grant_json, made_at, expires_at, label, made_from,"
                   " used.uploads, used.size_bytes")
_FROM: Final = "FROM children LEFT JOIN used USING (name)"
#: The names below one: those that begin with it and a separator. The next character after that ends them.
_BELOW: Final = "name > :name || '/' AND name < :name || '0'"
#: Children that have expired, and are forgotten for each new one.
_CLEARED_EACH: Final = 100


class SqliteDelegations:
    """What was handed on, in SQLite."""

    def __init__(self, layout: Layout) -> None:
        self._database = Database(layout)

    def lineage(self, key_id: str) -> Sequence[Child]:
        """Children from that one up; empty when one is missing."""
        return self._database.read(lambda connection: _lineage(connection, key_id), [])

    def put(self, child: Child, *, now: float, most_below: int = MOST_BELOW) -> None:
        """Add a child."""
        row = (child.key_id, child.sha256, child.name, child.root, child.parent, json.dumps(child.grant.plain()),
               child.made_at, child.expires_at, child.label, child.made_from)

        def change(connection: sqlite3.Connection) -> None:
            _clear(connection, now, _CLEARED_EACH)
            _check_room(connection, child, now, most_below)
            connection.execute("INSERT INTO children VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            connection.execute("INSERT INTO used VALUES (?, 0, 0)", (child.name,))

        self._database.write(change)

    def below(self, name: str, *, after: str = "", limit: int, now: float) -> Sequence[Child]:
        """A page of living children below a name."""
        asked = (f"SELECT {_COLUMNS} {_FROM} WHERE {_BELOW} AND name > :after AND expires_at > :now"
                 " ORDER BY name LIMIT :limit")
        values = {"name": name, "after": after, "now": now, "limit": limit}
        rows: list[Any] = self._database.read(
            lambda connection: connection.execute(asked, values).fetchall(), [])
        return [child for row in rows if (child := _child(row)) is not None]

    def find_below(self, name: str, key_id: str, *, now: float) -> Child | None:
        """One of them."""
        asked = f"SELECT {_COLUMNS} {_FROM} WHERE {_BELOW} AND key_id = :key_id AND expires_at > :now"
        values = {"name": name, "key_id": key_id, "now": now}
        row: Any = self._database.read(
            lambda connection: connection.execute(asked, values).fetchone(), None)
        return None if row is None else _child(row)

    def revoke(self, name: str) -> int:
        """End a child and all below it."""
        values = {"name": name}

        def change(connection: sqlite3.Connection) -> int:
            ended = connection.execute(f"DELETE FROM children WHERE name = :name OR ({_BELOW})", values).rowcount
            connection.execute(f"DELETE FROM used WHERE name = :name OR ({_BELOW})", values)
            return ended

        return self._database.write(change)

    def clear_expired(self, now: float, limit: int) -> int:
        """Forget some that have expired."""
        return self._database.write(lambda connection: _clear(connection, now, limit))

    def reserve(self, budgets: Iterable[Budget], *, uploads: int, size_bytes: int) -> bool:
        """Use up so much of each, of all or of none."""
        wanted = list(budgets)

        def change(connection: sqlite3.Connection) -> None:
            for budget in wanted:
                if not _takes(connection, budget, uploads, size_bytes):
                    raise _UsedUp

        try:
            self._database.write(change)
        except _UsedUp:
            return False
        return True

    def give_back(self, budgets: Iterable[Budget], *, uploads: int, size_bytes: int) -> None:
        """Return what was reserved."""
        rows = [(uploads, size_bytes, budget.name) for budget in budgets]
        self._database.write(lambda connection: connection.executemany(
            "UPDATE used SET uploads = max(uploads - ?, 0), size_bytes = max(size_bytes - ?, 0) WHERE name = ?", rows))

    def close(self) -> None:
        """Close the database."""
        self._database.close()


class _UsedUp(Exception):  # undoes what was reserved of others
    """Raised when an amount has not enough left."""


def _lineage(connection: sqlite3.Connection, key_id: str) -> list[Child]:
    found: list[Child] = []
    next_id: str | None = key_id
    while next_id is not None:
        child = _find(connection, next_id)
        if child is None:
            return []
        found.append(child)
        next_id = child.parent_id
    return found


def _find(connection: sqlite3.Connection, key_id: str) -> Child | None:
    row = connection.execute(f"SELECT {_COLUMNS} {_FROM} WHERE key_id = ?", (key_id,)).fetchone()
    return None if row is None else _child(row)


def _check_room(connection: sqlite3.Connection, child: Child, now: float, most_below: int) -> None:
    if child.parent_id is not None and connection.execute(
            "SELECT 1 FROM children WHERE name = ? AND expires_at > ?", (child.parent, now)).fetchone() is None:
        raise Rejected("bad_credential")
    [living] = connection.execute(
        "SELECT count(*) FROM children WHERE root = ? AND expires_at > ?", (child.root, now)).fetchone()
    if living >= most_below:
        raise Rejected("too_many_tokens", f"{living} tokens live below {child.root}.")


def _clear(connection: sqlite3.Connection, now: float, limit: int) -> int:
    names = connection.execute(
        "DELETE FROM children WHERE key_id IN (SELECT key_id FROM children WHERE expires_at <= ? ORDER BY expires_at"
        " LIMIT ?) RETURNING name", (now, limit)).fetchall()
    connection.executemany("DELETE FROM used WHERE name = ?", names)
    return len(names)


def _takes(connection: sqlite3.Connection, budget: Budget, uploads: int, size_bytes: int) -> bool:
    # A child that ended has no row, and gets none.
    if not budget.is_child:
        connection.execute("INSERT OR IGNORE INTO used VALUES (?, 0, 0)", (budget.name,))
    done = connection.execute(
        "UPDATE used SET uploads = uploads + :uploads, size_bytes = size_bytes + :size_bytes WHERE name = :name"
        " AND (:most_uploads IS NULL OR uploads <= :most_uploads)"
        " AND (:most_bytes IS NULL OR size_bytes <= :most_bytes)",
        {"name": budget.name, "uploads": uploads, "size_bytes": size_bytes,
         "most_uploads": _left(budget.max_uploads, uploads),
         "most_bytes": _left(budget.max_total_bytes, size_bytes)})
    return done.rowcount == 1


def _left(most: int | None, wanted: int) -> int | None:
    """How much may have been used before, if so much is wanted."""
    return None if most is None else most - wanted


def _child(row: Sequence[Any]) -> Child | None:
    """The child of a row; None when it was given rights that this program does not know."""
    key_id, sha256, root, parent, text, made_at, expires_at, label, made_from, uploads, size_bytes = row
    grant = _grant(text)
    return None if grant is None else Child(
        key_id=key_id, sha256=sha256, root=root, parent=parent, grant=grant, made_at=made_at, expires_at=expires_at,
        label=label, made_from=made_from, used_uploads=uploads or 0, used_bytes=size_bytes or 0)


@lru_cache(maxsize=1024)
def _grant(text: str) -> Grant | None:
    try:
        return Grant.read(json.loads(text))
    except ValueError:
        return None
