"""What another may have written into the outbox."""

from pathlib import Path

import pytest

from daemon.webhooks import frames
from daemon.webhooks.telling import a_test
from tests.support.depot import Depot


@pytest.mark.parametrize("change", [
    "body = '\u00fc'", "body = char(0)", "body = x'00'", "body = replace(hex(zeroblob(40000)), '00', 'aa')", "attempts = 'x'",
    "created_at = 'never'", "task_id = 'a b'", "type = ''", "status = 'x'", "message_id = x'00'", "updated_at = 1e300"])
def test_message_that_makes_no_sense_is_given_up(quick_path: Path, change: str) -> None:
    """By one row nobody keeps the other messages, or the sender, from their work."""
    with Depot(quick_path / "state") as depot:
        queue = depot.queue
        queue.post([a_test("ci", 1.0), a_test("ci", 2.0)])
        queue.durable.execute(f"UPDATE outbox SET {change} WHERE due_at = 1.0")
        for _ in range(2):
            assert [notice.due_at for notice in queue.due_notices("ci", 9.0, 9)] == [2.0]
        [standing] = queue.webhook_standings()
        assert (standing.pending, standing.failed) == (1, 1)
        assert len(queue.notices("ci", None, None, 9)) == 1


def test_longest_message_that_makes_sense_fits_into_a_frame(quick_path: Path) -> None:
    """Else it would end the connection to the sender, again and again."""
    with Depot(quick_path / "state") as depot:
        depot.queue.post([a_test("ci", 1.0)])
        depot.queue.durable.execute("UPDATE outbox SET body = replace(hex(zeroblob(32768)), '00', '\"\"')")
        [notice] = depot.queue.due_notices("ci", 9.0, 9)
        assert len(frames.request(1, notice)) < frames.MOST_BYTES
