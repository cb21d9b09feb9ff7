"""Whose an instance is, by the list of cells."""

from typing import Any

import pytest

from daemon.config import Cell, CellSection, Config
from daemon.config.cells import OtherCell, cell_of, check_ours, refuse_elsewhere
from daemon.errors import Rejected
from daemon.model.upload import Destination


def cell(name: str, **globs: list[str]) -> Cell:
    """A cell with these globs."""
    return Cell(name=name, address=f"https://{name}.example:8443", **globs)


def at(instance: str, project: str = "default", remote: str = "local") -> Destination:
    """A place in an instance."""
    return Destination(remote, project, instance, "/srv/x")


NORTH, SOUTH = cell("north", instances=["web-*", "db"]), cell("south", instances=["web-1*", "mail"])
EAST, REST = cell("east", projects=["shop"], remotes=["eu", "local"]), cell("rest")


def config(*cells: Cell, name: str = "north", redirect: bool = False) -> Config:
    """A host of that name, with these cells."""
    return Config(cell=CellSection(name=name, redirect=redirect), cells=list(cells))


@pytest.mark.parametrize(("to", "name"), [
    (at("db"), "north"), (at("mail"), "south"), (at("web-1"), "north"), (at("mail", "shop"), "south"),
    (at("x", "shop", "eu"), "east"), (at("x", "shop", "us"), "rest"), (at("x"), "rest"), (at("DB"), "rest"),
])
def test_first_cell_that_claims_an_instance_has_it(to: Destination, name: str) -> None:
    """Each of its kinds of globs has to fit; what none claims is of the one that names nothing, wherever that stands."""
    for cells in ((NORTH, SOUTH, EAST, REST), (REST, NORTH, SOUTH, EAST)):
        found = cell_of(to, cells)
        assert found is not None
        assert found.name == name


def test_own_and_other_instances() -> None:
    """Of another cell's instance its name and address are told; of nobody's only an upload is refused."""
    here = config(NORTH, SOUTH, redirect=True)
    check_ours(at("db"), here)
    with pytest.raises(OtherCell) as caught:
        check_ours(at("mail"), here)
    assert (caught.value.code, caught.value.address, caught.value.redirects) == ("other_cell", SOUTH.address, True)
    assert dict(caught.value.headers) == {"Cell-Name": "south", "Cell-Address": SOUTH.address}
    assert caught.value.members == {"cell": "south", "address": SOUTH.address}
    refuse_elsewhere(at("nobodys"), here)
    with pytest.raises(Rejected, match="No cell"):
        check_ours(at("nobodys"), here)


def test_without_cells_everything_is_here() -> None:
    """A name alone changes nothing."""
    for here in (Config(), config()):
        check_ours(at("any"), here)
        refuse_elsewhere(at("any"), here)


@pytest.mark.parametrize(("cells", "name", "wrong"), [
    ([NORTH, SOUTH], "west", "cell.name: must be one of"), ([NORTH, SOUTH], "", "cell.name: must be one of"),
    ([REST, cell("all")], "rest", "only one can have the rest"), ([NORTH, NORTH], "north", "two have the same name"),
])
def test_lists_that_cannot_be_meant(cells: list[Any], name: str, wrong: str) -> None:
    """A host knows which cell it is; no two have the same name, or the rest."""
    with pytest.raises(ValueError, match=wrong):
        config(*cells, name=name)
