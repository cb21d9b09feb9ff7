"""The fault matrix: every step of an upload and its delivery meets every fault, in real processes.

A step announces itself to `daemon.failpoints` just before its effect; the fault comes in its place. Each cell says what
the client is told, and what has become of its bytes when all is over:

    507, 503    refused with that status ...         nothing   ... and nothing is left
    202         accepted ...                         whole     ... and delivered exactly as sent
                                                     kept      ... and a dead letter with its reason, bytes included
    unknown     503 outcome_unknown ...              whole, nothing
    silence     no answer, because the API died ...  whole, nothing

There is no other outcome: never torn, never stuck, never bytes that nobody owns.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest

from daemon import failpoints
from tests.integration.faults.matrix import BARRIER_STEPS, ERRORS, FAULTS, Seen, Variant, carry_out

TABLE = """
    step             ENOSPC         EIO            EROFS          EDQUOT         kill
    spool.open       507 nothing    503 nothing    503 nothing    507 nothing    silence nothing
    spool.write      507 nothing    503 nothing    503 nothing    507 nothing    silence nothing
    spool.sync       507 nothing    503 nothing    503 nothing    507 nothing    silence nothing
    spool.link       507 nothing    503 nothing    503 nothing    507 nothing    silence nothing
    spool.linksync   unknown whole  unknown whole  unknown whole  unknown whole  silence whole
    spool.dirsync    unknown whole  unknown whole  unknown whole  unknown whole  silence whole
    queue.insert     507 nothing    503 nothing    503 nothing    507 nothing    silence whole
    queue.commit     507 nothing    503 nothing    503 nothing    507 nothing    silence whole
    queue.committed  unknown whole  unknown whole  unknown whole  unknown whole  silence whole
    queue.claim      202 whole      202 whole      202 whole      202 whole      202 whole
    queue.claimed    202 whole      202 whole      202 whole      202 whole      202 whole
    push.open        202 whole      202 whole      202 whole      202 whole      202 whole
    push.write       202 whole      202 whole      202 whole      202 whole      202 whole
    push.rename      202 whole      202 whole      202 whole      202 whole      202 whole
    push.renamed     202 whole      202 whole      202 whole      202 whole      202 whole
    queue.settle     202 whole      202 whole      202 whole      202 whole      202 whole
    queue.settled    202 whole      202 whole      202 whole      202 whole      202 whole
    spool.mark       202 kept       202 kept       202 kept       202 kept       202 kept
    barrier.sync     202 whole      202 whole      202 whole      202 whole      202 whole
    spool.unlink     202 whole      202 whole      202 whole      202 whole      202 whole
    spool.gonesync   202 whole      202 whole      202 whole      202 whole      202 whole
    spool.unlinked   202 whole      202 whole      202 whole      202 whole      202 whole
    queue.unspool    202 whole      202 whole      202 whole      202 whole      202 whole
"""
ROWS = {words[0]: [" ".join(words[i:i + 2]) for i in range(1, 11, 2)]
        for words in (line.split() for line in TABLE.strip().splitlines()[1:])}
CELLS = {(step, fault): ROWS[step][FAULTS.index(fault)] for step in ROWS for fault in FAULTS}

#: What faults that differ in their number only are marked with.
_MARKS = {"EIO": [pytest.mark.slow], "EROFS": [pytest.mark.full], "EDQUOT": [pytest.mark.full]}


def _params(cells: Iterable[tuple[str, str]]) -> list[Any]:
    """The cells, in the order of the table."""
    return [pytest.param(*cell, marks=_MARKS.get(cell[1], [])) for cell in cells]


#: One hop to the disk, claimed among the small ones.
SMALL = Variant(size=1000)
#: Streamed to the disk, claimed among the bulky ones.
BULKY = Variant(size=5_000_000)
#: The step is taken twice: for the ending of one upload after its many bytes; by one task after another.
SECOND = Variant(size=400_000, nth=2)
TAKEN_TWICE = ("spool.write", "queue.claim")
#: Services that run at the same time: most of the time each waits.
_AT_ONCE = 10
#: Steps that share a service, as its start costs more than a cell.
_STEPS_EACH = 4


class Matrix:
    """The cells that the selected tests need, carried out side by side."""

    def __init__(
        self, cells: Iterable[tuple[str, Variant, str]], base: pytest.TempPathFactory, pool: ThreadPoolExecutor,
    ) -> None:
        """Begin with all of them: a service for a few steps, or for each fault where that is quicker."""
        self._seen: dict[tuple[str, Variant, str], Future[dict[tuple[str, str], Seen]]] = {}
        together: dict[tuple[Variant, object], list[tuple[str, str]]] = defaultdict(list)
        for step, variant, fault in cells:
            alone = step in BARRIER_STEPS
            together[variant, (step, fault) if alone else failpoints.STEPS.index(step) // _STEPS_EACH].append((step, fault))
        for (variant, _), some in together.items():
            seen = pool.submit(carry_out, some, variant, base.mktemp("matrix"))
            self._seen |= {(step, variant, fault): seen for step, fault in some}

    def cell(self, step: str, fault: str, variant: Variant) -> Seen:
        """What was seen of one cell."""
        return self._seen[step, variant, fault].result()[step, fault]


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """The matrix as far as it was asked for."""
    chosen = [item.callspec.params for item in request.session.items
              if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")]
    cells = [(cast(str, params["step"]), cast(Variant, params["variant"]), cast(str, params["fault"])) for params in chosen]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield Matrix(cells, tmp_path_factory, pool)


def test_matrix_has_a_row_for_every_step_in_order() -> None:
    """The table lists every step of the seam, in the order in which they are taken."""
    assert tuple(ROWS) == failpoints.STEPS


@pytest.mark.parametrize("variant", [SMALL], ids=["small"])
@pytest.mark.parametrize(("step", "fault"), _params(CELLS))
def test_upload_ends_as_the_table_says_when_a_step_fails(
    matrix: Matrix, step: str, fault: str, variant: Variant,
) -> None:
    """The fault came, and the client's answer and the bytes are what the cell says."""
    check(matrix.cell(step, fault, variant), step, fault)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [BULKY], ids=["bulky"])
@pytest.mark.parametrize(("step", "fault"), _params(cell for cell in CELLS if cell[0] not in BARRIER_STEPS))
def test_large_upload_ends_as_the_table_says_when_a_step_fails(
    matrix: Matrix, step: str, fault: str, variant: Variant,
) -> None:
    """A file that is streamed to the disk and pushed apart fares no worse than a small one."""
    check(matrix.cell(step, fault, variant), step, fault)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [SECOND], ids=["second"])
@pytest.mark.parametrize(("step", "fault"), _params(cell for cell in CELLS if cell[0] in TAKEN_TWICE))
def test_upload_ends_as_the_table_says_when_a_step_fails_the_second_time(
    matrix: Matrix, step: str, fault: str, variant: Variant,
) -> None:
    """The fault came when the step was taken again, and the outcome is the same."""
    check(matrix.cell(step, fault, variant), step, fault)


def check(seen: Seen, step: str, fault: str) -> None:
    """Compare what was seen with the table; after an error, nothing may have waited for a restart."""
    assert seen.fired
    assert seen.outcome == CELLS[step, fault]
    if fault in ERRORS and seen.outcome.startswith("202"):
        assert seen.settled_alone
