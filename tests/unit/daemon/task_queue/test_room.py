"""A database that cannot grow, though SQLite does not say why."""

import resource

import pytest

from daemon.errors import QueueFault
from tests.support.depot import Depot, an_upload, sealed


def test_queue_is_full_and_nothing_was_committed_when_a_file_may_not_grow(depot: Depot) -> None:
    """SQLite calls EFBIG and EDQUOT an I/O error; the client is told that there is no room, and may send it again."""
    log = depot.layout.log(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        with pytest.raises(QueueFault) as raised:
            depot.queue.put_many(sealed(an_upload()), supersede=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.code == "queue_full"
    assert raised.value.certainly_failed
    assert "File too large" in raised.value.detail
    depot.accept()
    assert len(depot.queue.page(limit=10)) == 1
