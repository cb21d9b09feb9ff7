"""The rules of ARCHITECTURE.md that a program can check."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Each room and the rooms that it may import besides itself.
ROOMS = {"daemon": set[str](), "api": {"daemon"}, "worker": {"daemon"}}
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


def top(module: str) -> str:
    """The package that a module is in."""
    return module.partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_room_imports_only_what_it_may(path: Path) -> None:
    """The process that faces the network has no way to Incus in its code, and the other way round."""
    room = path.relative_to(ROOT).parts[0]
    foreign = {top(module) for module in imports(path)} & set(ROOMS) - {room}
    assert foreign <= ROOMS[room]


def test_each_library_is_imported_in_one_module() -> None:
    """What a library does, and what its next version changes, is in one place."""
    importers = defaultdict(set)
    for path, name in zip(SOURCES, NAMES, strict=True):
        for module in imports(path):
            if top(module) not in ROOMS and top(module) not in sys.stdlib_module_names:
                importers[top(module)].add(name)
    assert {library: names for library, names in importers.items() if len(names) > 1} == {}


def test_databases_are_opened_by_the_task_queue_alone() -> None:
    """Closing a shard's database elsewhere in the process would drop SQLite's locks. The check opens one of its own."""
    users = {name for path, name in zip(SOURCES, NAMES, strict=True)
             if "sqlite3.connect" in path.read_text() or "sqlite3.Connection" in path.read_text()}
    assert {name for name in users if not name.startswith("daemon/task_queue/")} == {"daemon/cli/check.py"}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_module_says_what_it_is_for(path: Path) -> None:
    """A module has a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_module_hides_no_error_and_no_warning(path: Path) -> None:
    """No handler catches everything, and no comment switches a check off."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            caught = getattr(node.type, "id", "")
            reraised = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert node.type is not None
            assert caught != "Exception"
            assert caught != "BaseException" or reraised
    for mark in ("# noqa", "# type: ignore", "TODO", "FIXME"):
        assert mark not in text
