"""What a cell has of an instance that it is to let go of."""

from daemon.cli.cell import Held, held
from daemon.config import Config, StateSection
from daemon.model.task import State
from tests.support.depot import Depot


def test_cell_has_an_instance_until_what_its_pushes_left_there_is_gone(depot: Depot) -> None:
    """A rename that was given up may be on its way until then: it would come after what the next cell delivers."""
    upload = depot.accept()
    depot.settle(upload, State.CANCELLED, part=True)
    depot.spool.remove([upload])
    config, to = Config(state=StateSection(directory=str(depot.layout.directory))), upload.destination
    assert held(config, depot.layout, to) == Held((upload.task_id,), ())
    assert held(config, depot.layout, to, parts=False).nothing
    depot.queue.forget_part(depot.task(upload).order)
    assert held(config, depot.layout, to).nothing
