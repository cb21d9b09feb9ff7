"""What was typed, without a configuration."""

from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.cli.typed import read_filter, read_time
from daemon.model.task import State
from daemon.process.exit_status import Misused

NOW = datetime(2030, 2, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("text", "at"), [
    ("2h", NOW - 7200), ("2030-01-31T12:00:00Z", NOW - 43_200), ("2030-01-31T14:00+02:00", NOW - 43_200),
])
def test_time_is_a_moment_or_an_age(text: str, at: float) -> None:
    """People say when, or how long ago."""
    assert read_time(text, "--since", NOW) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2030-13-01", "1969-01-01T00:00Z", "2h30m", "9999-99", "99999999999d"])
def test_time_of_another_form_is_refused(text: str) -> None:
    """What would be right is said."""
    with pytest.raises(Misused, match="give a time, for example"):
        read_time(text, "--since", NOW)


def test_the_earlier_end_counts() -> None:
    """--until and --older-than bound the same time; states are given with commas or repeated, ids count once."""
    task = "01a203af-ced4-760f-ae26-10636e7e5bca"
    wanted = read_filter(ids=[task, task], states=["failed,held"], until="1h", older_than="2h", since="3h", now=NOW)
    assert (wanted.task_ids, wanted.since, wanted.until) == ((task,), NOW - 10_800, NOW - 7200)
    assert wanted.states == {State.FAILED, State.HELD}


@pytest.mark.parametrize("typed", [
    {"ids": ["x"]}, {"instance": "a/b/c"}, {"client": "\x1b"}, {"states": ["gone"]}, {"path": ""}, {"path": "a\nb"},
    {"path": "\ud800"}, {"path": "/a" + "/**" * 400}, {"path": "/a/../*"}, {"error": "No Such"},
])
def test_what_cannot_be_is_refused(typed: dict[str, Any]) -> None:
    """Nothing of it is asked of a service."""
    with pytest.raises(Misused):
        read_filter(**typed)
