"""`incus-courier webhooks`: what webhooks were told and are to be told, and what a person decides about that.

Exit codes: EXIT_OK when all was done, EXIT_FAILED when something was not there, or a test did not arrive.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from daemon.cli.all_shards import AllShards, open_all
from daemon.cli.tables import show_table
from daemon.cli.task_commands import lease
from daemon.config import Config
from daemon.log import log, setup
from daemon.model.names import printable
from daemon.model.words import age
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, Misused
from daemon.process.output import say, say_json, warn
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder
from daemon.task_queue import Notice, NoticeState, Operate
from daemon.webhooks.telling import a_test
from daemon.webhooks.view import Overall, describe_notice, describe_webhook, overall

#: Beyond the time of one try, for the answer to a test.
_MARGIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.05
_STATES: Final = {state.label: state for state in NoticeState}


def list_webhooks(config: Config, *, as_json: bool) -> int:
    """Print each webhook and how it stands."""
    with open_all(config) as shards:
        found = _overall(config, shards)
        if as_json:
            for each in found:
                say_json(describe_webhook(each))
        elif found:
            show_table(("name", "url", "stands", "pending", "failed", "delivered", "last"), map(_row, found))
        return _code(shards)


def show(config: Config, what: str, *, state: str | None, limit: int, after: str | None, as_json: bool) -> int:
    """Print the messages to a webhook, newest first; or all that is known of one message."""
    if state is not None and state not in _STATES:
        raise Misused(f"--state {printable(state)}: must be one of: {', '.join(_STATES)}")
    with open_all(config) as shards:
        one = _find(shards, what)
        if one is not None:
            _print_one(one[1], as_json=as_json)
        elif what in {each.name for each in _overall(config, shards)}:
            wanted = None if state is None else _STATES[state]
            _print_page(_page(shards, what, wanted, after, limit + 1), limit, as_json=as_json)
        else:
            return _unknown(what)
        return _code(shards)


def replay(config: Config, ids: Sequence[str], *, failed: bool, webhook: str | None, as_json: bool) -> int:
    """Have messages sent again: those of these ids, or all that were given up."""
    if failed == bool(ids):
        raise Misused("Name the messages to send again, or give --failed")
    missing = False
    with open_all(config) as shards, lease(config):
        if failed:
            names = [webhook] if webhook else [each.name for each in _overall(config, shards)]
            again = sum(queue.replay(name, None) for queue in shards.queues.values() for name in names)
            _tell_replayed(again, as_json=as_json)
        for message_id in ids:
            found = _find(shards, message_id)
            if found is None or (webhook is not None and found[1].webhook != webhook):
                missing = True
                warn(f"{printable(message_id)}: there is no such message")
            else:
                _tell_replayed(found[0].replay(found[1].webhook, message_id), message_id, as_json=as_json)
        _ring(config, shards)
        return EXIT_FAILED if missing else _code(shards)


def switch(config: Config, name: str, *, on: bool, asked_by: str) -> int:
    """Enable or disable a webhook, in every shard."""
    setup(config.log, "webhooks")
    with open_all(config) as shards, lease(config):
        if name not in {each.name for each in _overall(config, shards)}:
            return _unknown(name)
        for queue in shards.queues.values():
            queue.disable(name, None if on else f"{asked_by} disabled it")
        log("webhook.enabled" if on else "webhook.disabled", webhook=name, reason=None if on else f"by {asked_by}")
        _ring(config, shards)
        say(f"{name}: {'enabled' if on else 'disabled: what happens is kept until it is enabled'}")
        return _code(shards)


def test(config: Config, name: str) -> int:
    """Send a message to see whether it arrives, and print what became of it."""
    with open_all(config) as shards, lease(config):
        if name not in {hook.name for hook in config.webhooks} or not shards.queues:
            return _unknown(name)
        if any(each.name == name and each.disabled_at is not None for each in _overall(config, shards)):
            warn(f"{name}: it is disabled; see: incus-courier webhooks enable {name}")
            return EXIT_FAILED
        layout = Layout(config.state.path)
        shard = next((shard for shard in shards.queues if holder(layout, shard) is not None), None)
        if shard is None:
            warn("No worker runs: start the service first.")
            return EXIT_FAILED
        queue, message = shards.queues[shard], a_test(name, time.time())
        queue.post([message])
        ring(layout, shard)
        tried = _wait(lambda: queue.find_notice(message.message_id), config.sender.try_timeout_s + _MARGIN_S)
        if tried is None:
            warn(f"{name}: nobody has tried to send it yet; see: incus-courier webhooks show {message.message_id}")
            return EXIT_FAILED
        say(f"{name}: {tried.detail}")
        return EXIT_OK if tried.state is NoticeState.DELIVERED else EXIT_FAILED


def _wait(look: Callable[[], Notice | None], patience_s: float) -> Notice | None:
    """The notice as soon as it was tried once; None when that takes too long."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = look()
        if found is not None and (found.attempts or found.state is not NoticeState.PENDING):
            return found
        time.sleep(_LOOK_EVERY_S)
    return None


def _overall(config: Config, shards: AllShards) -> list[Overall]:
    return overall(config.webhooks, [queue.webhook_standings() for queue in shards.queues.values()])


def _find(shards: AllShards, message_id: str) -> tuple[Operate, Notice] | None:
    for queue in shards.queues.values():
        notice = queue.find_notice(message_id)
        if notice is not None:
            return queue, notice
    return None


def _page(shards: AllShards, name: str, state: NoticeState | None, before: str | None, limit: int) -> list[Notice]:
    found = [notice for queue in shards.queues.values() for notice in queue.notices(name, state, before, limit)]
    return sorted(found, key=lambda notice: notice.message_id, reverse=True)[:limit]


def _print_page(notices: list[Notice], limit: int, *, as_json: bool) -> None:
    page = notices[:limit]
    if as_json:
        for notice in page:
            say_json(describe_notice(notice))
    elif page:
        show_table(("id", "type", "task", "state", "age", "tries", "last"), map(_notice_row, page))
    if len(notices) > limit:
        warn(f"There are more: add --after {page[-1].message_id}")


def _print_one(notice: Notice, *, as_json: bool) -> None:
    values: dict[str, Any] = {**describe_notice(notice), "body": notice.body}
    if as_json:
        say_json(values)
        return
    for key, value in values.items():
        if value is not None:
            say(f"{key:16} {value}")


def _notice_row(notice: Notice) -> list[object]:
    return [notice.message_id, notice.type, notice.task_id or "", notice.state.label,
            age(time.time() - notice.created_at), notice.attempts, notice.detail or ""]


def _row(found: Overall) -> list[object]:
    stands = "not configured" if found.webhook is None else "disabled" if found.disabled_at is not None else "enabled"
    last = "" if found.last_at is None else f"{age(time.time() - found.last_at)} ago: {found.last_detail}"
    url = "" if found.webhook is None else found.webhook.shown_url
    return [found.name, url, stands, found.pending, found.failed, found.delivered, last]


def _tell_replayed(messages: int, message_id: str | None = None, *, as_json: bool) -> None:
    if as_json:
        say_json({"messages": messages} if message_id is None else {"id": message_id, "messages": messages})
    else:
        say(f"{messages} messages are sent again" if message_id is None else f"{message_id}: it is sent again")


def _ring(config: Config, shards: AllShards) -> None:
    layout = Layout(config.state.path)
    for shard in shards.queues:
        ring(layout, shard)


def _unknown(name: str) -> int:
    warn(f"{printable(name)}: there is no such webhook")
    return EXIT_FAILED


def notes_on(standings: Sequence[Overall]) -> Iterator[str]:
    """What a person may want to know of the webhooks, in sentences."""
    for found in standings:
        if found.pending:
            yield f"{found.pending} messages wait for the webhook {found.name}"
        if found.failed:
            yield (f"{found.failed} messages to the webhook {found.name} were given up;"
                   f" see: incus-courier webhooks show {found.name} --state failed")
        if found.disabled_at is not None and found.webhook is not None:
            yield (f"the webhook {found.name} is disabled: {found.disabled_why};"
                   f" see: incus-courier webhooks enable {found.name}")


def _code(shards: AllShards) -> int:
    for sentence in shards.unread():
        warn(sentence)
    return EXIT_FAILED if shards.faults else EXIT_OK
