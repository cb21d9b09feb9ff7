"""The description of the service, and the tables that it is made from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.acting.selections import FrozenSelection, KeptSelection, Step
from api.following.view import EVENT, describe_event
from api.http.description import Content, Description, Outcome, Parameter, Where
from api.http.parameters import read_flag, read_mode, read_owner
from api.http.problem import PROBLEM_SCHEMA, plain_problem
from api.http.response import Answer, App, Receive, Scope, Send, text_answer
from api.routes.endpoint import Endpoint, Route
from api.routes.openapi import CODES, EXAMPLES, SLASHES, codes, document
from api.routes.selections import SELECTION, describe_selection
from api.uploads.fields import GID, MKDIRS, MODE_PARAMETER, UID
from daemon.errors import ERRORS, Rejected
from daemon.model.grant import KEYS, SCHEMAS, Grant
from daemon.model.names import (
    INSTANCE,
    MAX_COMPONENT_BYTES,
    PROJECT,
    RELATIVE_PATH,
    check_instance,
    check_path,
    check_project,
)
from daemon.model.schema import answer, text
from daemon.model.task import Attempt, State, Task
from daemon.model.view import TASK, WHOLE_TASK, describe, describe_whole
from daemon.task_queue import Event
from tests.support.depot import an_upload
from tests.support.described import description

OPERATIONS = [(address, method, operation) for address, methods in description()["paths"].items()
              for method, operation in methods.items()]
NAMES = [f"{method.upper()} {address}" for address, method, _ in OPERATIONS]
DOING = Description(operation_id="do", summary="Do it", group="Doing", outcomes={200: Outcome(meaning="It is done.")})


async def do(scope: Scope, receive: Receive) -> Answer:
    """Do it."""
    return text_answer(200, "done")


@pytest.mark.parametrize(("address", "method", "operation"), OPERATIONS, ids=NAMES)
def test_operation_is_described_whole(address: str, method: str, operation: dict[str, Any]) -> None:
    """Each part of its address, what a success looks like, where that leads, and how to try it."""
    parts = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
    assert parts == set(re.findall(r"\{(\w+)\}", address))
    assert any(status < "300" for status in operation["responses"])
    assert operation["summary"]
    assert operation[EXAMPLES][0]["source"].startswith("curl ")
    for response in operation["responses"].values():
        assert response["description"]
        for link in response.get("links", {}).values():
            [there] = [other for _, _, other in OPERATIONS if other["operationId"] == link["operationId"]]
            assert link.get("parameters", {}).keys() <= {parameter["name"] for parameter in there.get("parameters", [])}
            assert link.get("requestBody", {}).keys() <= _keys_of_body(there)


def _keys_of_body(operation: dict[str, Any]) -> set[str]:
    schemas = [content["schema"] for content in operation.get("requestBody", {}).get("content", {}).values() if "schema" in content]
    return {key for schema in schemas for key in description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]}


@pytest.mark.parametrize("operation", [operation for _, _, operation in OPERATIONS], ids=NAMES)
def test_refusals_are_those_of_the_table_of_errors(operation: dict[str, Any]) -> None:
    """Each code stands with its status; whoever may try again later is told when.

    Trouble that passes has others where clients of resumable uploads would begin anew, or give up.
    """
    others = {"getTusUpload": ({"storage_failed", "no_room"}, "423"), "getResumableUpload": ({"storage_failed", "no_room"}, "423"),
              "appendToTusUpload": ({"too_slow"}, "503"), "appendToResumableUpload": ({"too_slow"}, "503")}
    passing, other = others.get(operation["operationId"], (set[str](), ""))
    for status, response in operation["responses"].items():
        for code in response.get(CODES, []):
            assert status == (other if code in passing else str(ERRORS[code].status))
        again = any(ERRORS[code].retry_after_s for code in response.get(CODES, []))
        assert again == ("Retry-After" in response.get("headers", {}))


def test_every_schema_is_one_and_names_are_told_apart() -> None:
    """Programs are made from the description."""
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    for name, schema in description()["components"]["schemas"].items():
        assert schema["title"] == name
        assert jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def closed(schema: Any) -> Any:
    """The same, with nothing besides what is described."""
    if isinstance(schema, list):
        return list(map(closed, schema))
    if not isinstance(schema, Mapping):
        return schema
    more = {"additionalProperties": False} if isinstance(schema.get("properties"), Mapping) else {}
    return {**{key: closed(value) for key, value in schema.items()}, **more}


def test_what_is_made_is_described_and_nothing_else() -> None:
    """A key that is added to an answer is added to its description."""
    done = Attempt(at=1e9, duration_s=0.5, way="sftp", mode=0o640, uid=0, gid=7)
    task = Task(order=1, upload=an_upload("/x"), state=State.FAILED, updated_at=1.0, error_code="stalled", error_message="No.",
                attempts=2, history=(replace(done, code="stalled", message="No."), done))
    event = Event(seq=1, task_id=task.task_id, state=State.FAILED, at=1.0, code="stalled")
    frozen = FrozenSelection(id="0" * 32, owner="", root="", action="retry", force=False, states=[], made_at=1.0,
                             filter={"state": ["failed", "deferred"], "instance": "far:c1"}, members={0: 2}, size_bytes=3, cut=False)
    kept = KeptSelection(frozen, {0: Step(done=1, changed=1)}, running=False, expires_at=2.0)
    for made, schema in (
        (describe(task), TASK), (describe_whole(task), WHOLE_TASK), (describe_whole(replace(task, state=State.DELIVERED)), WHOLE_TASK),
        (describe_whole(replace(task, state=State.QUEUED, history=())), WHOLE_TASK), (describe_event(event, task), EVENT),
        (describe_selection(kept), SELECTION),
    ):
        jsonschema_rs.validate(closed(schema), made)


def test_every_error_that_a_client_meets_is_described_somewhere() -> None:
    """But for what is said of no operation: that there is none."""
    described = {code for _, _, operation in OPERATIONS for response in operation["responses"].values()
                 for code in response.get(CODES, [])}
    #: And for reasons of GET /readyz.
    elsewhere = {"not_found", "no_worker", "tokens_unreadable"}
    assert {code for code, kind in ERRORS.items() if kind.status} - described == elsewhere


def test_address_that_does_not_describe_itself_is_no_address() -> None:
    """Nobody adds one and forgets to say what it does."""
    with pytest.raises(ValueError, match="GET /x does not describe itself"):
        document([Route("/x", Endpoint({"GET": do}))])
    with pytest.raises(ValueError, match="/x is no Endpoint"):
        document([Route("/x", do)])


def test_what_hands_requests_on_is_seen_through() -> None:
    """An address may have several endpoints, and each of its methods one description."""
    class Both:
        def __init__(self, *inside: App) -> None:
            self.inside: Sequence[App] = inside

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.inside[0](scope, receive, send)

    doing = Endpoint({"GET": DOING.by(do)})
    found = document([Route("/x", Both(doing, Endpoint({"PUT": DOING.by(do), "GET": DOING.by(do)})))])
    assert set(found["paths"]["/x"]) == {"get", "put"}
    with pytest.raises(ValueError, match="GET /x is described in two ways"):
        document([Route("/x", Both(doing, Endpoint({"GET": replace(DOING, summary="Undo it").by(do)})))])


def test_description_is_made_of_what_the_address_says() -> None:
    """Its method, its parameters with what is legal, its answers, and the errors of all of them."""
    path = Parameter(name="path", meaning="where", schema=text(pattern="[a-z]+"), place=Where.PATH, required=True,
                     refuses=("bad_path",))
    doing = replace(DOING, parameters=(path,), refuses=("no_room",), for_everybody=True)
    found = document([Route("/x/{path:path}", Endpoint({"PUT": doing.by(do)}, plain_problem))])
    operation = found["paths"]["/x/{path}"]["put"]
    assert operation["parameters"] == [{
        "name": "path", "in": "path", "required": True, "description": "where", SLASHES: True,
        "schema": {"type": "string", "pattern": "^(?:[a-z]+)$"}}]
    assert operation["security"] == []
    assert operation["responses"]["507"][CODES] == ["no_room"]
    assert set(operation["responses"]["507"]["content"]) == {"text/plain; charset=utf-8", "application/problem+json"}
    assert "bad_path" in operation["responses"]["400"][CODES]
    assert "401" not in operation["responses"]
    assert found["components"]["schemas"]["Problem"] == PROBLEM_SCHEMA


def test_everybody_else_is_asked_who_he_is() -> None:
    """So what comes of a credential is among the errors."""
    assert {"no_credential", "bad_credential"} <= codes(DOING)
    assert "no_credential" not in codes(replace(DOING, for_everybody=True))


def test_two_things_have_two_names() -> None:
    """A name in the description means one thing."""
    def one(title: str, **properties: Any) -> Description:
        return replace(DOING, outcomes={200: Outcome(meaning="Done.", content=Content(schema=answer(title, properties)))})

    with pytest.raises(ValueError, match="called Thing"):
        document([Route("/x", Endpoint({"GET": one("Thing", a=text()).by(do), "PUT": one("Thing", b=text()).by(do)}))])


@given(st.from_regex(RELATIVE_PATH, fullmatch=True), st.from_regex(INSTANCE, fullmatch=True), st.from_regex(PROJECT, fullmatch=True))
def test_names_of_the_described_form_are_legal(path: str, instance: str, project: str) -> None:
    """But for lengths in bytes, and for two names of projects that stand for directories."""
    if all(len(part.encode(errors="replace")) <= MAX_COMPONENT_BYTES for part in path.split("/")) and _is_utf8(path):
        check_path(f"/{path}")
    check_instance(instance)
    if project not in {".", ".."}:
        check_project(project)


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.text("0789e.", max_size=11) | st.sampled_from(["true", "TRUE", "False", "yes", "1 ", "0\n"]))
def test_what_is_not_of_the_described_form_is_refused(value: str) -> None:
    """And the other way round, as far as an expression can say it."""
    for parameter, read in ((MODE_PARAMETER, read_mode), (UID, read_owner), (GID, read_owner), (MKDIRS, read_flag)):
        try:
            taken, code = read(value) is not None, None
        except Rejected as error:
            taken, code = False, error.code
        assert code is None or code in parameter.refuses
        described = jsonschema_rs.is_valid(dict(parameter.schema), value)
        assert described or not taken
        assert taken or not described or read is read_owner


def test_every_key_of_a_grant_has_its_form() -> None:
    """What stands in the configuration, in a file and in a request is described once."""
    assert list(SCHEMAS) == list(KEYS)
    plain = {"may": ["upload"], "own": True, "instances": ["web-*"], "projects": ["p"], "remotes": ["local"],
             "paths": ["/srv/**"], "max_file_bytes": 0, "max_uploads_s": 0.5, "max_bytes_s": 1, "max_pending_tasks": 1,
             "max_pending_bytes": 1, "max_uploads": 1, "max_total_bytes": 1, "modes": "0777", "uids": ["0", "1-2"],
             "gids": ["7"], "mkdirs": False, "addresses": ["unix", "10.0.0.0/8", "::1"]}
    Grant.read(plain)
    for key, value in plain.items():
        assert jsonschema_rs.is_valid(dict(SCHEMAS[key]), value), key
        with pytest.raises(ValueError, match=key):
            Grant.read({**plain, key: {}})
        assert not jsonschema_rs.is_valid(dict(SCHEMAS[key]), {}), key
