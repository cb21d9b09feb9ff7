from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import webhooks
from daemon.config import Config
from daemon.process.exit_status import Misused
from daemon.task_queue import NoticeState
from daemon.webhooks.telling import a_test
from daemon.webhooks.view import overall
from tests.support.depot import Depot
from tests.support.receiver import SECRET

HOOK = {"name": "ci", "url": "https://a.example/x?token=xyz", "secret": SECRET}


@pytest.fixture
def depot(quick_path: Path) -> Any:
    """One shard that nobody serves."""
    with Depot(quick_path / "state") as opened:
        yield opened


@pytest.fixture
def config(depot: Depot) -> Config:
    """A configuration with one webhook."""
    return Config.model_validate({
        "state": {"directory": str(depot.layout.directory)}, "queue": {"shards": 1}, "webhooks": [HOOK]})


def test_what_there_is_none_of_is_said(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    """Names and ids of nothing change nothing, and a test needs a worker."""
    tries: list[tuple[Callable[[], int], str]] = [
        (lambda: webhooks.show(config, "other", state=None, limit=9, after=None, as_json=False), "no such webhook"),
        (lambda: webhooks.switch(config, "other", on=False, asked_by="me"), "no such webhook"),
        (lambda: webhooks.replay(config, ["msg_1"], failed=False, webhook=None, as_json=False), "no such message"),
        (lambda: webhooks.test(config, "other"), "no such webhook"),
        (lambda: webhooks.test(config, "ci"), "No worker runs"),
    ]
    for run, told in tries:
        assert run() == 1
        assert told in capfd.readouterr().err
    with pytest.raises(Misused):
        webhooks.replay(config, [], failed=False, webhook=None, as_json=False)
    with pytest.raises(Misused):
        webhooks.show(config, "ci", state="gone", limit=9, after=None, as_json=False)


def test_messages_are_shown_and_sent_again(depot: Depot, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Page by page, one with its body, and those that were given up at once; no secret is shown."""
    queue = depot.queue
    queue.post([a_test("ci", 1.0), a_test("ci", 2.0)])
    assert queue.give_up_notices("ci", 1, 9, "too many wait") == 1
    [failed] = queue.notices("ci", NoticeState.FAILED, None, 9)
    assert webhooks.show(config, "ci", state=None, limit=1, after=None, as_json=False) == 0
    out, err = capsys.readouterr()
    assert "webhook.test" in out
    assert f"--after {queue.notices('ci', None, None, 1)[0].message_id}" in err
    assert webhooks.show(config, failed.message_id, state=None, limit=9, after=None, as_json=False) == 0
    out = capsys.readouterr().out
    assert failed.body in out
    assert "too many wait" in out
    assert list(webhooks.notes_on(overall(config.webhooks, [queue.webhook_standings()]))) == [
        "1 messages wait for the webhook ci",
        "1 messages to the webhook ci were given up; see: incus-courier webhooks show ci --state failed"]
    assert webhooks.replay(config, [], failed=True, webhook=None, as_json=False) == 0
    assert webhooks.replay(config, [failed.message_id], failed=False, webhook="ci", as_json=True) == 0
    assert len(queue.due_notices("ci", 4e9, 9)) == 2
    assert webhooks.switch(config, "ci", on=False, asked_by="me") == 0
    assert webhooks.list_webhooks(config, as_json=False) == 0
    out = capsys.readouterr().out
    assert "disabled" in out
    assert "xyz" not in out
    assert SECRET not in out
    assert queue.webhook_standings()[0].disabled_why == "me disabled it"


def test_webhook_that_is_configured_no_more_is_listed_while_it_has_messages(depot: Depot, config: Config) -> None:
    """Nobody wonders where they went."""
    depot.queue.post([replace(a_test("old", 1.0), state=NoticeState.FAILED)])
    found = overall(config.webhooks, [depot.queue.webhook_standings()])
    assert [(each.name, each.webhook is None, each.failed) for each in found] == [("ci", False, 0), ("old", True, 1)]
