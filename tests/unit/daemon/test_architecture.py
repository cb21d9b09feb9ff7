"""The rules of ARCHITECTURE.md that a program can check."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Each house and the houses that it may import besides itself.
HOUSES = {"daemon": set[str](), "api": {"daemon"}, "worker": {"daemon"}, "sender": {"daemon"}, "client": {"daemon"}}
#: The rooms of each house, from the ground up: a room imports only rooms of lower floors, and itself. A name stands for
#: all that is below it.
FLOORS: dict[str, list[set[str]]] = {
    "daemon": [{"daemon.errors", "daemon.failpoints"}, {"daemon.model"}, {"daemon.config"}, {"daemon.log"}, {"daemon.state"}, {"daemon.delegation"},
               {"daemon.lease", "daemon.spool", "daemon.task_queue", "daemon.process", "daemon.access"}, {"daemon.webhooks", "daemon.partials", "daemon.explain"}, {"daemon.recovery"}, {"daemon.cli"}],
    "api": [{"api.threads", "api.counting"}, {"api.http"}, {"api.live_config", "api.live_tls"}, {"api.access"}, {"api.queries"}, {"api.following"}, {"api.uploads"}, {"api.resumable", "api.acting", "api.overview"}, {"api.metrics"}, {"api.routes"}, {"api.ui"}, {"api.assembly"}, {"api.service", "api.opening"},
            {"api.__main__", "api.storing"}],
    "worker": [{"worker.targets"}, {"worker.mailbox", "worker.dispatch"}, {"worker.upkeep", "worker.recovery", "worker.webhooks"},
               {"worker.loop"}, {"worker.assembly"}, {"worker.check", "worker.__main__"}],
    "sender": [{"sender.addresses", "sender.names", "sender.signing"}, {"sender.http_post"}, {"sender.service"}, {"sender.__main__"}],
    "client": [{"client.http", "client.completion"}, {"client.server", "client.retry"}, {"client.push", "client.seat"}, {"client.main"}],
}
#: All that the commands by HTTP need of the daemon: it is on machines that have no service, no configuration and no state.
LENT_TO_CLIENT = ("daemon.errors", "daemon.model", "daemon.process.entry", "daemon.process.exit_status", "daemon.process.output")
#: The rooms with a door: what is said at the door is all that others see.
DOORS = {"daemon.task_queue": ("capabilities", "values", "doctor"), "daemon.spool": ("capabilities", "values"),
         "daemon.delegation": ("capabilities", "values"), "daemon.partials": ("capabilities", "values"), "daemon.lease": ("capabilities",)}
#: Who looks behind a door: recovery, and the commands that check and repair; and what becomes a file of the spool.
DOCTORS = {"daemon.task_queue": ("daemon/recovery/", "daemon/cli/check.py", "daemon/cli/fsck.py"), "daemon.spool": ("daemon/partials/",), "daemon.delegation": (),
           "daemon.partials": (), "daemon.lease": ()}
SOURCES = sorted(path for house in HOUSES for path in (ROOT / house).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The code of a file, from its module down."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            below = (f"{node.module}.{name.name}" for name in node.names)
            yield from (module for module in below if (ROOT / module.replace(".", "/")).with_suffix(".py").exists())


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> tuple[str, int] | None:
    """The room that a module is in, and its floor; None for a house as a whole."""
    for floor, rooms in enumerate(FLOORS[top(module)]):
        for room in rooms:
            if module == room or module.startswith(f"{room}."):
                return room, floor
    return None


def top(module: str) -> str:
    """The package that a module is in."""
    return module.partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_house_imports_only_what_it_may(path: Path) -> None:
    """The process that faces the network has no way to Incus in its code, and the other way round."""
    house = path.relative_to(ROOT).parts[0]
    foreign = {top(module) for module in imports(path)} & set(HOUSES) - {house}
    assert foreign <= HOUSES[house]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_room_imports_only_lower_rooms_of_its_house(path: Path) -> None:
    """Whoever reads a room needs to know only what is below it, and nothing goes round in a circle."""
    own = module_of(path)
    found = floor_of(own)
    if found is None:
        assert own in HOUSES, f"{own} has no floor"
        assert not [module for module in imports(path) if top(module) in HOUSES]
        return
    room, floor = found
    for module in imports(path):
        if top(module) != top(own) or module == top(own):
            continue
        below = floor_of(module)
        assert below is not None, f"{module} has no floor"
        assert below[0] == room or below[1] < floor, f"{own} imports {module}"


def test_client_needs_nothing_of_a_service() -> None:
    """Commands by HTTP know no configuration and no state; only the entry point knows the other commands."""
    used = {module for path, name in zip(SOURCES, NAMES, strict=True) if name.startswith("client/") and name != "client/main.py"
            for module in imports(path) if module.startswith("daemon.")}
    assert {module for module in used if not module.startswith(LENT_TO_CLIENT)} == set()


@pytest.mark.parametrize("houses", [{"daemon", "api", "worker", "sender"}, {"client"}], ids=["service", "client"])
def test_each_library_is_imported_in_one_module(houses: set[str]) -> None:
    """What a library does, and what its next version changes, is in one place."""
    importers = defaultdict(set)
    for path, name in zip(SOURCES, NAMES, strict=True):
        for module in imports(path):
            if top(name.replace("/", ".")) in houses and top(module) not in HOUSES and top(module) not in sys.stdlib_module_names:
                importers[top(module)].add(name)
    assert {library: names for library, names in importers.items() if len(names) > 1} == {}


@pytest.mark.parametrize("door", DOORS)
def test_room_is_entered_by_its_door(door: str) -> None:
    """Whoever uses the queue or the spool knows what they promise, not what keeps them; recovery is their doctor."""
    open_to_all = {door, *(f"{door}.{name}" for name in DOORS[door])}
    others = {name: imports(path) for path, name in zip(SOURCES, NAMES, strict=True)
              if not name.startswith((door.replace(".", "/"), *DOCTORS[door]))}
    behind = {name: {module for module in modules if f"{module}.".startswith(f"{door}.")} - open_to_all
              for name, modules in others.items()}
    assert {name: modules for name, modules in behind.items() if modules} == {}


def test_databases_are_opened_behind_their_doors_alone() -> None:
    """Closing a database's file elsewhere in the process would drop SQLite's locks; each room opens its own alone."""
    users = {name for path, name in zip(SOURCES, NAMES, strict=True) if "sqlite3" in imports(path)}
    assert {name for name in users if not name.startswith(("daemon/task_queue/sqlite/", "daemon/delegation/sqlite/"))} == set()


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_module_says_what_it_is_for(path: Path) -> None:
    """A module has a docstring."""
    [module] = (node for node in nodes(path) if isinstance(node, ast.Module))
    assert ast.get_docstring(module)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_module_hides_no_error_and_no_warning(path: Path) -> None:
    """No handler catches everything, and no comment switches a check off."""
    text = path.read_text()
    for node in nodes(path):
        if isinstance(node, ast.ExceptHandler):
            caught = getattr(node.type, "id", "")
            reraised = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert node.type is not None
            assert caught != "Exception"
            assert caught != "BaseException" or reraised
    for mark in ("# noqa", "# type: ignore", "TODO", "FIXME"):
        assert mark not in text


#: Where text goes to standard output and standard error, and where tables are drawn.
_OUTPUT, _TABLES, _PROGRESS = "daemon/process/output.py", "daemon/cli/tables.py", "client/push/terminal.py"


def spoken(path: Path) -> Iterator[str]:
    """Every call in a file that may write text to standard output or standard error."""
    for node in nodes(path):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in {"print", "Console"} or re.fullmatch(r"(sys\.)?std(out|err)(\.buffer)?\.write(lines)?|traceback\.print.*", called):
            yield called


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_text_for_terminals_goes_through_one_module(path: Path) -> None:
    """What comes from anyone could colour, move or forge what a terminal shows: there it is made safe."""
    expected = {_OUTPUT: {"sys.stdout.write", "sys.stderr.write"}, _TABLES: {"Console"}, _PROGRESS: {"Console"}}
    assert set(spoken(path)) == expected.get(str(path.relative_to(ROOT)), set())


def test_each_class_has_a_name_of_its_own() -> None:
    """One name is one meaning, wherever it is read."""
    found = defaultdict(set)
    for path, name in zip(SOURCES, NAMES, strict=True):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].add(name)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}
