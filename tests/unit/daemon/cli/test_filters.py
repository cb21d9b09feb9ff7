from typing import Any

import pytest

from daemon.cli.filters import read_instance
from daemon.cli.typed import read_age, read_chosen
from daemon.config import Remote, load
from daemon.config.naming import instance_name
from daemon.model.task import State
from daemon.model.upload import Destination
from daemon.model.words import age
from daemon.process.exit_status import Misused
from tests.support.depot import new_id

CONFIG = load(None).model_copy(update={"remotes": {"eu": Remote(endpoint="https://eu.example", project="web")}})


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200)])
def test_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours and days."""
    assert read_age(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "1.5h", "2w", "2H", "2h30m", "1e3s", "٣h", "9999999999d"])
def test_age_of_another_form_is_refused(text: str) -> None:
    """What would be right is said."""
    with pytest.raises(Misused, match="90s, 15m, 2h or 3d"):
        read_age(text)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")])
def test_age_is_shown_as_it_is_typed(seconds: float, text: str) -> None:
    """What the list shows can be given to --older-than."""
    assert age(seconds) == text
    assert read_age(text) <= seconds


@pytest.mark.parametrize(("text", "parts"), [
    ("web1", ("local", "default", "web1")), ("shop/web1", ("local", "shop", "web1")), ("eu:web1", ("eu", "web", "web1")),
    ("eu:shop/web1", ("eu", "shop", "web1")), ("gone:web1", ("gone", "default", "web1")),
])
def test_instance_is_named_with_remote_and_project(text: str, parts: tuple[str, str, str]) -> None:
    """Without a project it is the remote's own; a remote that is not configured any more may still have tasks."""
    found = read_instance(text, CONFIG)
    assert (found.remote, found.project, found.instance) == parts


@pytest.mark.parametrize("text", ["", "-x", "a/b/c", "a:b:c", ":x", "x:", "/x", "x/", "x y", "7", "eu:"])
def test_instance_that_cannot_be_is_refused(text: str) -> None:
    """What would be right is said."""
    with pytest.raises(Misused, match=r"Give \[remote:\]\[project/\]instance"):
        read_instance(text, CONFIG)


@pytest.mark.parametrize("parts", [("local", "default", "c1"), ("local", "shop", "c1"), ("eu", "web", "c1"),
                                   ("eu", "default", "c1"), ("gone", "x", "c1")])
def test_instance_is_shown_as_it_is_typed(parts: tuple[str, str, str]) -> None:
    """What the list shows can be given to --instance."""
    destination = Destination(*parts, "/x")
    assert read_instance(instance_name(destination, CONFIG), CONFIG).instance_key == destination.instance_key


def test_states_are_given_with_commas_or_repeated() -> None:
    """Both ways are the same."""
    assert read_chosen(states=["failed,held", "queued"]).states == {State.FAILED, State.HELD, State.QUEUED}


@pytest.mark.parametrize("client", ["", "a\n", "x" * 513])
def test_client_that_cannot_be_is_refused(client: str) -> None:
    """No task was sent by it, and a name that was mistyped is not taken for one of nobody."""
    with pytest.raises(Misused, match="--client"):
        read_chosen(client=client)
    assert read_chosen(client="token:ci").client == "token:ci"


def test_ids_that_come_twice_count_once() -> None:
    """In the order of the first."""
    first, second = new_id(), new_id()
    assert read_chosen(ids=[first, second, first]).task_ids == (first, second)


@pytest.mark.parametrize("typed", [
    {"ids": ["x"]}, {"states": ["failed"]}, {"older_than": "0s"}, {"client": "token:ci"}, {"instance": "c1"},
])
def test_tasks_to_change_are_chosen_in_one_way(typed: dict[str, Any]) -> None:
    """Nothing is done to all tasks because somebody forgot to say which."""
    assert read_chosen(**typed)
    with pytest.raises(Misused, match="one or the other"):
        read_chosen(**({**typed, "ids": ["y"], "client": "token:cd"}))
    with pytest.raises(Misused, match="one or the other"):
        read_chosen()
