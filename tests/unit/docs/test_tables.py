"""The pages in docs/ against the tables in the code."""

import re

import pytest

from client.completion import SCRIPTS
from daemon.access.token_text import PATTERN
from daemon.log.events import EVENTS
from daemon.model.grant import KEYS, Permission
from daemon.process.exit_status import EXIT_STATUSES
from daemon.recovery.findings import FINDINGS
from docs.api_page import api_page
from docs.command_pages import commands_page, manual_page
from docs.tables import (
    COMPLETIONS,
    HERE,
    MANUAL,
    access_page,
    errors_page,
    events_page,
    logged_fields,
    metrics_page,
    recovery_page,
)
from tests.support.described import description

STALE = "run `make docs`"


@pytest.fixture(scope="module")
def fields() -> dict[str, set[str]]:
    """The fields of each event, as found in the code."""
    return logged_fields()


def test_api_page_is_what_the_addresses_say() -> None:
    """Every address is documented with its parameters, its answers and its errors."""
    page = (HERE / "api.md").read_text()
    assert page == api_page(description()), STALE
    assert [f"### {method.upper()} {address}" for address, methods in description()["paths"].items() for method in methods
            if f"### {method.upper()} {address}\n" not in page] == []
    for name in re.findall(r"\]\(#(\w+)\)", page):
        assert f"\n### {name}\n" in page.lower()


def test_errors_page_is_what_the_table_says() -> None:
    """Every code is documented with its status, its action and its advice."""
    assert (HERE / "errors.md").read_text() == errors_page(), STALE


def test_events_page_is_what_the_table_and_the_code_say() -> None:
    """Every event is documented with its level, its MESSAGE_ID and the fields that come with it."""
    assert (HERE / "events.md").read_text() == events_page(), STALE


def test_metrics_page_is_what_the_table_says() -> None:
    """Every metric is documented with its type, its labels and its meaning."""
    assert (HERE / "metrics.md").read_text() == metrics_page(), STALE


def test_recovery_page_is_what_the_table_says() -> None:
    """Every finding is documented with what the service does about it and what is left to a person."""
    page = recovery_page()
    assert (HERE / "recovery.md").read_text() == page, STALE
    assert [name for name in FINDINGS if f"| `{name}` |" not in page] == []


def test_access_page_has_every_key_and_every_permission() -> None:
    """Whoever grants rights finds what each of them means, and what holds without it."""
    page = (HERE / "access.md").read_text()
    assert page == access_page(), STALE
    assert [name for name in [*KEYS, *Permission] if f"| `{name}` |" not in page] == []
    assert PATTERN in page


def test_pages_of_the_commands_are_what_help_says() -> None:
    """Every command is in the manual with its options, and every exit code with its meaning; all of it is plain text."""
    page, manual = commands_page(), manual_page()
    assert (HERE / "commands.md").read_text() == page, STALE
    assert MANUAL.read_text() == manual, STALE
    assert manual.isascii()
    assert {shell: (COMPLETIONS / shell).read_text() for shell in SCRIPTS} == SCRIPTS, STALE
    for command in ("push", "tasks list", "token new", "completion", "worker"):
        assert f"\n## {command}\n" in page
        assert re.search(rf"^\.Ss {command}\b", manual, re.MULTILINE)
    assert [code for code in EXIT_STATUSES if f"\n.It {code}\n" not in manual or f"\n| {code} | " not in page] == []


def test_message_ids_are_all_different() -> None:
    """One MESSAGE_ID is one event, 32 hexadecimal digits."""
    identifiers = {event.message_id for event in EVENTS.values()}
    assert len(identifiers) == len(EVENTS)
    assert all(len(identifier) == 32 for identifier in identifiers)


def test_message_id_never_changes() -> None:
    """Whoever filters by a MESSAGE_ID may go on doing so."""
    assert EVENTS["push.delivered"].message_id == "d12610eb98f0557ca5e07edf20dc40c5"


@pytest.mark.parametrize(("event", "field"), [
    ("upload.accepted", "task_id"), ("push.delivered", "instance"), ("push.failed", "code"), ("log.lost", "lines"),
])
def test_fields_are_found_in_the_code(fields: dict[str, set[str]], event: str, field: str) -> None:
    """The page's fields are read from the calls that log an event, also where the event is chosen from a table."""
    assert field in fields[event]
