"""Incus's REST API where no answer comes."""

import math
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.config import Remote
from daemon.errors import Undelivered
from tests.support.waiting import PATIENCE_S
from worker.targets.base import Patience
from worker.targets.incus.endpoints import Endpoints
from worker.targets.incus.rest import Rest


@pytest.mark.parametrize(("own_s", "before_s", "after_s", "hurried"), [
    (PATIENCE_S, 0.1, math.inf, True), (0.1, math.inf, 0.05, False)])
def test_limit_that_an_answer_was_waited_for_by_tells_whether_it_was_hurried(
        tmp_path: Path, own_s: float, before_s: float, after_s: float, hurried: bool) -> None:
    """What holds by the time that it gives up is not what it was given."""
    patience = Patience(before_s)
    with socket.socket(socket.AF_UNIX) as silent, ThreadPoolExecutor(1) as server:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        rest = Rest(Endpoints("local", Remote(endpoint=str(tmp_path / "s"))), own_s, patience)

        def take() -> list[socket.socket]:
            # The first only knocks.
            taken = [silent.accept()[0] for _ in range(2)]
            patience.limit_s = after_s
            return taken

        taken = server.submit(take)
        with pytest.raises(Undelivered, match=r"no answer for 0\.1 s"):
            rest.metadata("")
        rest.close()
        for connection in taken.result():
            connection.close()
    assert patience.hurried is hurried
