"""Cells: hosts that share out the instances between them, by one list that is the same on each. Pure.

Guarantees: all who have the same list name the same cell for an instance, also where two of them claim it. Where no
cells are configured, every instance is this service's own.
"""

from collections.abc import Iterable
from typing import Final

from daemon.config import Cell, Config
from daemon.errors import Rejected
from daemon.model.glob import name_matches
from daemon.model.upload import Destination

#: Headers of the answer to a request that another cell answers: the name of that one, and its address.
CELL_NAME: Final = "Cell-Name"
CELL_ADDRESS: Final = "Cell-Address"


class OtherCell(Rejected):
    """Raised for a request that another cell answers."""

    def __init__(self, cell: Cell, *, redirects: bool) -> None:
        super().__init__(
            "other_cell", f"The cell {cell.name} has it, at {cell.address}.",
            headers=((CELL_NAME, cell.name), (CELL_ADDRESS, cell.address)),
            members={"cell": cell.name, "address": cell.address})
        #: Where that cell is: scheme, host and port.
        self.address: Final = cell.address
        #: True when clients are sent there, where they can follow.
        self.redirects: Final = redirects


def cell_of(to: Destination, cells: Iterable[Cell]) -> Cell | None:
    """The cell that has the instance (the path does not matter), or None.

    That is the first in the list that claims it, else the one that has the rest.
    """
    rest = None
    for cell in cells:
        if cell.has_rest:
            rest = cell
        elif claims(cell, to):
            return cell
    return rest


def claims(cell: Cell, to: Destination) -> bool:
    """True when the instance is one that the cell names."""
    return (_meant(cell.instances, to.instance) and _meant(cell.projects, to.project)
            and _meant(cell.remotes, to.remote))


def _meant(globs: Iterable[str], name: str) -> bool:
    return any(name_matches(glob, name) for glob in globs)


def refuse_elsewhere(to: Destination, config: Config) -> None:
    """Raise OtherCell for an instance of another cell. To be asked after the decision about rights."""
    _find(to, config)


def check_ours(to: Destination, config: Config) -> None:
    """Raise OtherCell for an instance of another cell, and Rejected('no_cell') for one that no cell has."""
    if config.cells and _find(to, config) is None:
        raise Rejected("no_cell")


def _find(to: Destination, config: Config) -> Cell | None:
    """This cell when it has the instance; None when nobody has it. Raises OtherCell."""
    cell = cell_of(to, config.cells)
    if cell is not None and cell.name != config.cell.name:
        raise OtherCell(cell, redirects=config.cell.redirect)
    return cell
