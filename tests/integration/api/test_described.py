"""The description of the service, held against a process that answers."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
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
    # It names a remote that is not configured, announces more than that allows, or contradicts its body, or what was sent before.
    b"unknown_remote", b"too_large", b"digest_mismatch", b"bad_digest", b"unchecked_digest", b"idempotency_mismatch",
    # It is about headers that have to agree, or about how an upload stands.
    b"unknown_interop", b"inconsistent_length", b"beyond_length", b"bad_checksum", b"checksum_mismatch", b"upload_completed",
    # It depends on what else is there, or on what is asked for.
    b"`force` is given twice", b"`force` does not go with", *(f"`{name}` is a time".encode() for name in ("since", "until", "filter.before")),
    b"[bad_name]", b"has a control character in it", b"`project` goes with `instance`", b"is not the name of a token",
    b"more than 2048 characters",
    # It is about numbers in texts, the clock, lengths in bytes, and the characters that can be shown.
    b"is no range of ids", b"is neither an address", b"must be in the future", b"longer than", b"that can be shown",
    b"cannot be the name of a client", b"uid or gid",
)
#: What is answered so when one step leads to another.
LED_TO = {
    ("GET /v1/tasks/{task_id}", 200), ("GET /v1/tokens/{key_id}", 200), ("DELETE /v1/tokens/{key_id}", 204),
    ("POST /v1/tasks/{task_id}/cancel", 202), ("DELETE /v1/tasks/{task_id}", 202), ("POST /v1/tasks:apply", 200),
    ("GET /v1/selections/{selection}", 200),
}
#: Where the file of a resumable upload goes: what stands in base64 no schema can say.
METADATA = "instance YzE=,path L3Nydi9h"

for media_type in ("application/offset+octet-stream", "application/partial-upload"):
    schemathesis.openapi.media_type(media_type, st.binary(max_size=3))


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
    # Nobody waits: not for an outcome, and not for the next event, as an id that is none of ours is answered at once.
    if "Prefer" in case.headers:
        case.headers["Prefer"] = "wait=0"
    if case.operation.label == "GET /v1/events":
        case.headers["Last-Event-ID"] = "none"
    if isinstance(case.body, dict) and "file" in case.body:
        # The files of a form come last.
        case.body["file"] = case.body.pop("file")
    if "Upload-Complete" in case.headers:
        # Its client takes any head for the answer, so that none may come before, as behind such a proxy.
        case.headers["X-Interim"] = "no"
    for parameter in case.operation.definition.raw.get("parameters", []):
        name = parameter["name"]
        if SLASHES in parameter:
            case.path_parameters[name] = case.path_parameters[name].replace("%2F", "/")
    for name, value in case.path_parameters.items():
        # A client takes dots for directories: it would ask another address.
        case.path_parameters[name] = re.sub(r"(?:^|(?<=/))\.{1,2}(?=/|$)", "_", value)
    # What was wrong may be so no longer: then it is judged as what is right.
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
        _spare_what_can_only_be_refused(case)
    for name, value in case.headers.items():
        case.headers[name] = value if value.isascii() else value.encode(errors="replace").decode("latin-1")


def _spare_what_can_only_be_refused(case: schemathesis.Case[Any]) -> None:
    for name in ("Repr-Digest", "Content-Digest"):
        case.headers.pop(name, None)
    if "Upload-Metadata" in case.headers:
        case.headers["Upload-Metadata"] = METADATA
        # One of both, and nothing too large.
        case.headers.pop("Upload-Defer-Length", None)
        case.headers["Upload-Length"] = "3"
    for values, name, colon in ((case.headers, "X-Container-Name", ":"), (case.path_parameters, "instance", "%3A"),
                                (case.query, "instance", ":")):
        if name in values:
            values[name] = values[name].rpartition(colon)[2]


def failures(api: Api, shown: str, phases: dict[str, Any], generation: dict[str, Any]) -> tuple[list[str], set[tuple[str, int]]]:
    """What schemathesis finds wrong when it tries all that is described, and each operation with its statuses."""
    config = SchemathesisConfig.from_dict({
        "headers": {"Authorization": shown}, "continue-on-failure": True, "phases": phases,
        "generation": {"database": "none", "no-shrink": True, **generation}, "max-stream-events": 1,
        # A task that is to be deleted is there until a worker has done that, and nobody works here.
        # A form has texts alone: what is of another type is written as one, or left out.
        "operations": [*({"include-path": path, "checks": {"use_after_free": {"enabled": False}}}
                         for path in ("/v1/tasks/{task_id}", "/v1/tasks/{task_id}/explanation")),
                       {"include-path": "/v1/uploads", "checks": {"negative_data_rejection": {"enabled": False}}}],
        # That it is not ready, without a worker, is described. What is wrong may be too long, too; without its header it
        # may be of another version, or what this address does not take.
        "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
                   "negative_data_rejection": {"expected-statuses": ["4xx"]},
                   "missing_required_header": {"expected-statuses": ["4xx"]}},
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


@pytest.mark.full
def test_whatever_is_asked_as_described_is_answered_as_described(known: tuple[Api, str]) -> None:
    """Also one step after the other, as an upload and its task."""
    phases = {"examples": {"enabled": False}, "coverage": {"enabled": False}}
    wrong, seen = failures(*known, phases, {"max-examples": 4, "deterministic": True})
    assert not wrong, "\n".join(wrong)
    # The description itself it reads once, before all else.
    labels = {f"{method.upper()} {address}" for address, methods in description()["paths"].items() for method in methods}
    assert {label for label, _ in seen} | {"GET /v1/openapi.json"} == labels
    assert {label for label, status in seen if status >= 500} <= {"GET /readyz"}
    assert {("PUT /v1/instances/{instance}/files/{path}", 202), ("GET /v1/tasks/{task_id}", 200), ("POST /v1/uploads", 202),
            ("POST /v1/tasks:preview", 200), ("GET /v1/events", 200), ("POST /v1/tus/", 201)} <= seen


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_much_is_asked_as_described_and_answered_as_described(known: tuple[Api, str]) -> None:
    """The same for minutes, each time with other values, and with each value at its bounds; until steps led to all others."""
    phases: dict[str, Any] = {}
    seen: set[tuple[str, int]] = set()
    while not seen >= LED_TO:
        wrong, more = failures(*known, phases, {"max-examples": 100})
        assert not wrong, "\n".join(wrong)
        assert {label for label, status in more if status >= 500} <= {"GET /readyz"}
        seen |= more
        phases = {name: {"enabled": False} for name in ("examples", "coverage", "fuzzing")}


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
