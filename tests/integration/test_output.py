"""Where the output of a command goes."""

from pathlib import Path

import pytest

from tests.support.command import incus_courier
from tests.support.depot import Depot


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--version"], ["status"], ["tasks", "list"]])
def test_command_says_in_a_sentence_that_its_output_found_no_room(words: list[str], tmp_path: Path) -> None:
    """A script that keeps what a command says learns that it is not all there."""
    with Depot(tmp_path / "state") as depot:
        depot.accept()
    with Path("/dev/full").open("wb") as full:
        done = incus_courier(*words, to=full, INCUS_COURIER__STATE__DIRECTORY=str(tmp_path / "state"))
    assert (done.code, done.err) == (1, "incus-courier: standard output: No space left on device\n")
