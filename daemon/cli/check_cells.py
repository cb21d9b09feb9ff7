"""What `incus-courier check` says of cells: whether their list says one thing, and whether each is where it says."""

import http.client
import json
import ssl
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from daemon.access.token_file import read_tokens, token_file_of
from daemon.cli.all_shards import open_all
from daemon.cli.check_result import CheckResult
from daemon.config import Cell, Config
from daemon.config.cells import cell_of
from daemon.config.naming import name_of_key
from daemon.errors import CannotStart
from daemon.model.glob import globs_meet
from daemon.model.names import printable
from daemon.model.upload import Destination
from daemon.state import released
from daemon.state.layout import Layout

#: How long a cell may take to answer, in seconds.
_PATIENCE_S: Final = 5.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
#: Instances that are looked through, and that are named.
_INSTANCES: Final = 100_000
_NAMED: Final = 10
#: Cells that are asked at once.
_AT_ONCE: Final = 16


class _NoAnswer(Exception):
    """Raised when a cell does not answer as one does; its text says why."""


def cell_findings(config: Config, config_file: Path | None) -> Iterator[CheckResult]:
    """A line for the list, and one for each cell. For who may read the tokens."""
    if not config.cells:
        return
    yield _list_finding(config)
    tokens = _own_tokens(config_file)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(partial(_cell_finding, config, tokens), config.cells)


def moving_finding(layout: Layout, config: Config) -> CheckResult:
    """What is on its way from one cell to another. To be asked as the state's owner.

    Raises CannotStart, QueueFault and OSError.
    """
    gone = sorted(key for key in released.read(layout) if _owner(key, config) == config.cell.name)
    if gone:
        return CheckResult("moving", False, f"let go of, and this one's by the list: {_some(gone, config)}",
                           "Once their other cell has let go of them: incus-courier cell adopt (docs/scaling.md).")
    with open_all(config) as shards:
        waiting = sorted({key for queue in shards.queues.values() for key, _ in queue.ranked(_INSTANCES)[1]})
    leaving = [key for key in waiting if _owner(key, config) not in {config.cell.name, None}]
    if leaving:
        return CheckResult("moving", False, f"another cell's by the list, with tasks here: {_some(leaving, config)}",
                           "Have each let go of, before its other cell takes it: incus-courier cell release"
                           " (docs/scaling.md).")
    return CheckResult("moving", True, "no instance is between two cells")


def _owner(instance_key: str, config: Config) -> str | None:
    remote, project, instance = instance_key.split("/", 2)
    cell = cell_of(Destination(remote, project, instance, "/"), config.cells)
    return None if cell is None else cell.name


def _some(keys: Sequence[str], config: Config) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(name_of_key(key, config) for key in keys[:_NAMED]) + more


def overlaps(cells: Iterable[Cell]) -> list[tuple[Cell, Cell]]:
    """Cells that could claim the same instance; the one that has the rest claims none. Pure."""
    return [(one, other) for one, other in combinations([cell for cell in cells if not cell.has_rest], 2)
            if _meet(one.instances, other.instances) and _meet(one.projects, other.projects)
            and _meet(one.remotes, other.remotes)]


def _meet(some: list[str], others: list[str]) -> bool:
    return any(globs_meet(one, other) for one in some for other in others)


def _list_finding(config: Config) -> CheckResult:
    names = ", ".join(f"{cell.name}{' (this one)' if cell.name == config.cell.name else ''}" for cell in config.cells)
    found = overlaps(config.cells)
    if found:
        pairs = "; ".join(f"{one.name} and {other.name}" for one, other in found)
        return CheckResult("cells", False, f"two can claim the same instance: {pairs}",
                           "Make their globs differ. Until then the first in the list has it.")
    return CheckResult("cells", True, names)


def _own_tokens(config_file: Path | None) -> str | None:
    """The digest of this host's tokens; None where they cannot be read, which is said elsewhere."""
    path = token_file_of(config_file)
    try:
        return None if path is None else read_tokens(path).digest
    except CannotStart:
        return None


def _cell_finding(config: Config, tokens: str | None, cell: Cell) -> CheckResult:
    what, own = f"cell {cell.name}", cell.name == config.cell.name
    try:
        told = _ask(cell.address)
    except _NoAnswer as error:
        if own:
            return CheckResult(what, True, f"{cell.address}: {error}; this service may not run")
        return CheckResult(what, False, f"{cell.address}: {error}",
                           "See whether it runs, and whether its certificate is good there ($SSL_CERT_FILE names who"
                           " signed it, for this check).")
    name = told.get("cell", "")
    if name != cell.name:
        there = f"the cell {printable(str(name))}" if name else "a service that is no cell"
        return CheckResult(what, False, f"{cell.address} is {there}",
                           "Make cell.name there and [[cells]] here name the same.")
    if tokens is not None and not own and told.get("tokens") != tokens:
        return CheckResult(what, False, f"{cell.address}: its file of tokens is another one",
                           "Put the same tokens.json into each cell: who is sent on is refused there otherwise.")
    return CheckResult(what, True, cell.address)


def _ask(address: str) -> dict[str, Any]:
    """What the service there says of itself. Raises _NoAnswer."""
    parts = urlsplit(address)
    try:
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.netloc, timeout=_PATIENCE_S, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=_PATIENCE_S)
        try:
            connection.request("GET", "/healthz")
            told = json.loads(connection.getresponse().read(_MAX_ANSWER_BYTES))
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        raise _NoAnswer(f"its certificate is not trusted: {error.verify_message}") from error
    except OSError as error:
        raise _NoAnswer(error.strerror or str(error)) from error
    except (http.client.HTTPException, ValueError, RecursionError) as error:
        raise _NoAnswer("what answers is not this service") from error
    if not isinstance(told, dict) or told.get("status") != "up":
        raise _NoAnswer("what answers is not this service")
    return told
