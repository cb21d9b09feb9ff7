"""The description of the service, held against a process that answers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation import GenerationMode

from api.routes.openapi import SLASHES
from tests.integration.api.running import Api
from tests.support.described import description
from tests.support.tokens import make_token

#: What no schema can say: a request of the right form is refused with these words, or a code, all the same.
UNFORESEEN = (
    # It names a remote that is not configured, or contradicts its body, or what was sent before.
    b"unknown_remote", b"digest_mismatch", b"bad_digest", b"unchecked_digest", b"idempotency_mismatch",
    # It depends on what else is there.
    b"[bad_name]", b"has a control character in it", b"`project` goes with `instance`", b"is not the name of a token",
    b"more than 2048 characters",
    # It is about numbers in texts, the clock, lengths in bytes, and the characters that can be shown.
    b"is no range of ids", b"is neither an address", b"must be in the future", b"longer than", b"that can be shown",
    b"cannot be the name of a client", b"uid or gid",
)


@pytest.fixture
def known(start: Callable[..., Api]) -> Iterator[tuple[Api, str]]:
    """An API that knows one identity, which may everything; and what that shows."""
    api = start()
    token = make_token(api.file, "ci", may=["admin"])
    api.logged("tokens.reloaded")
    yield api, f"Bearer {token}"
    # Nobody made it stumble.
    assert [line for line in api.events if line["event"] == "api.error"] == []
    assert api.other_lines == []


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Send headers in UTF-8, and slashes as what they are where they may be; spare what can only be refused."""
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
        for name in ("Repr-Digest", "Content-Digest"):
            case.headers.pop(name, None)
        for values, name, colon in ((case.headers, "X-Container-Name", ":"), (case.path_parameters, "instance", "%3A"),
                                    (case.query, "instance", ":")):
            if name in values:
                values[name] = values[name].rpartition(colon)[2]
    for name, value in case.headers.items():
        case.headers[name] = value if value.isascii() else value.encode(errors="replace").decode("latin-1")
    for parameter in case.operation.definition.raw.get("parameters", []):
        if SLASHES in parameter:
            case.path_parameters[parameter["name"]] = case.path_parameters[parameter["name"]].replace("%2F", "/")


def failures(api: Api, shown: str, phases: dict[str, Any], generation: dict[str, Any]) -> tuple[list[str], set[tuple[str, int]]]:
    """What schemathesis finds wrong when it tries all that is described, and each operation with its statuses."""
    config = SchemathesisConfig.from_dict({
        "headers": {"Authorization": shown}, "continue-on-failure": True, "phases": phases,
        "generation": {"database": "none", "no-shrink": True, **generation},
        # That it is not ready, without a worker, is described.
        "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]}},
    })
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/v1/openapi.json", config=config)
    wrong: list[str] = []
    seen: set[tuple[str, int]] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError):
            wrong.append(repr(event.value))
        elif isinstance(event, events.FatalError):
            wrong.append(repr(event.exception))
        elif isinstance(event, events.ScenarioFinished):
            wrong += _failures(event.recorder)
            seen |= {(event.recorder.cases[key].value.operation.label, one.response.status_code)
                     for key, one in event.recorder.interactions.items() if one.response}
    return wrong, seen


def _failures(recorder: ScenarioRecorder) -> Iterator[str]:
    for key, checks in recorder.checks.items():
        interaction = recorder.interactions.get(key)
        body = interaction.response.content if interaction and interaction.response else b""
        for check in checks:
            if check.failure_info is None:
                continue
            failure = check.failure_info.failure
            if type(failure).__name__ == "RejectedPositiveData" and any(words in body for words in UNFORESEEN):
                continue
            yield f"{failure.operation}: {failure.title}: {failure.message} {check.failure_info.code_sample} {body!r}"


def test_whatever_is_asked_as_described_is_answered_as_described(known: tuple[Api, str]) -> None:
    """Also one step after the other: an upload and its task, a token that is made, seen, ended, and gone."""
    phases = {"examples": {"enabled": False}, "coverage": {"enabled": False}}
    wrong, seen = failures(*known, phases, {"max-examples": 4, "deterministic": True})
    assert not wrong, "\n".join(wrong)
    # The description itself it reads once, before all else.
    labels = {f"{method.upper()} {address}" for address, methods in description()["paths"].items() for method in methods}
    assert {label for label, _ in seen} | {"GET /v1/openapi.json"} == labels
    assert {label for label, status in seen if status >= 500} <= {"GET /readyz"}
    assert {("PUT /v1/instances/{instance}/files/{path}", 202), ("GET /v1/tasks/{task_id}", 200)} <= seen


@pytest.mark.full
def test_much_is_asked_as_described_and_answered_as_described(known: tuple[Api, str]) -> None:
    """The same for minutes, each time with other values, and with each value at its bounds."""
    wrong, seen = failures(*known, {}, {"max-examples": 100})
    assert not wrong, "\n".join(wrong)
    assert {label for label, status in seen if status >= 500} <= {"GET /readyz"}
    # One step led to the other.
    assert {("GET /v1/tasks/{task_id}", 200), ("GET /v1/tokens/{key_id}", 200), ("DELETE /v1/tokens/{key_id}", 204)} <= seen


def test_description_is_for_everybody_and_sent_once(known: tuple[Api, str]) -> None:
    """Whoever reaches the service reads it, without a credential or with a wrong one; whoever has it is told so."""
    api, _ = known
    first = api.ask("GET", "/v1/openapi.json", Authorization="Bearer wrong")
    assert (first.status, first.headers["content-type"]) == (200, "application/json")
    assert first.json() == description()
    again = api.ask("GET", "/v1/openapi.json", If_None_Match=f'W/{first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert api.ask("GET", "/v1/openapi.json", If_None_Match='"other"').status == 200
    assert api.ask("POST", "/v1/openapi.json", b"").headers["allow"] == "GET, HEAD"


def test_description_does_not_depend_on_the_configuration(start: Callable[..., Api], tmp_path: Path) -> None:
    """What one service answers all can be described by, so a client may keep it."""
    api = start(limits={"max_upload_bytes": 7}, queue={"shards": 3})
    assert json.loads(api.ask("GET", "/v1/openapi.json").body) == description()
