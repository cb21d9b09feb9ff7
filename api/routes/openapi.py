"""The description of the service (OpenAPI 3.1), made of what the addresses say of themselves.

Guarantees: it is the same for everybody and holds no secret; it is made once per process, from the very list of routes
that requests find their way by, so an address that is served is described, and nothing else is.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from api.http.description import LOCATION, Content, Description, Leads, Operation, Outcome, Parameter, Where
from api.http.problem import PROBLEM_SCHEMA, REDIRECT, UNAUTHORIZED, plain_problem
from api.http.response import JSON, PROBLEM, TEXT, UNCHANGED, Answer, Receive, Scope, json_bytes, unless_known
from api.routes.endpoint import Around, Endpoint, Route
from api.routes.entrance import CREDENTIAL_REFUSALS, DESCRIPTION, ENTRANCE_REFUSALS
from daemon import __version__
from daemon.config import Limits
from daemon.config.cells import CELL_ADDRESS, CELL_NAME
from daemon.errors import ERRORS
from daemon.model.schema import Schema, text, whole_number

_ETAG: Final = Parameter(name="ETag", meaning="changes with the description", schema=text(), place=Where.HEADER,
                         required=True)
_IF_NONE_MATCH: Final = Parameter(name="If-None-Match", meaning="the `ETag` of the description that is there already",
                                  schema=text(), place=Where.HEADER, refuses=())
DESCRIBING: Final = Description(
    operation_id="getDescription", group="The service", summary="This description (OpenAPI 3.1)", for_everybody=True,
    parameters=(_IF_NONE_MATCH,), example="curl http://127.0.0.1:8420/v1/openapi.json", outcomes={
        200: Outcome(meaning="The description.", content=Content(schema={"type": "object"}), headers=(_ETAG,)),
        UNCHANGED: Outcome(meaning="It is the one that is there already.", headers=(_ETAG,))})

#: Of a part of an address that may hold slashes, which OpenAPI cannot say.
SLASHES: Final = "x-slashes"
#: Of an answer that is a refusal: the codes that it may have.
CODES: Final = "x-codes"
#: Of an operation: a command that does it.
EXAMPLES: Final = "x-codeSamples"
#: Of the service: keys of the configuration that bound what is taken, with their defaults.
LIMITS: Final = "x-limits"

_ABOUT: Final = (
    "Takes files and puts each into an Incus instance. Where a `GET` is described, a `HEAD` is answered, too; other"
    " methods get `405` with `Allow`, other addresses `404`. Parameters of a query that are not described here are"
    " refused, but by `POST /upload`. Refusals have a stable `code`. Until somebody has been given rights, nobody is"
    " asked for a credential.")
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "a token"},
    "clientCertificate": {"type": "mutualTLS", "description": "a client certificate, where the address has TLS"},
}
#: A part of an address as the router has it.
_PART: Final = re.compile(r"\{(\w+)(:path)?\}")
_RETRY_AFTER: Final = Parameter(name="Retry-After", meaning="seconds after which to try again, where that is known",
                                schema=whole_number(0), place=Where.HEADER)
_AUTHENTICATE: Final = Parameter(name="WWW-Authenticate", meaning="as in RFC 6750", schema=text(), place=Where.HEADER,
                                 required=True)
_OTHER_CELL: Final = "other_cell"
_CELL: Final = (
    Parameter(name=CELL_NAME, meaning="the cell that answers instead, if there is one", schema=text(),
              place=Where.HEADER),
    Parameter(name=CELL_ADDRESS, meaning="where it is", schema=text(), place=Where.HEADER))
#: Where `cell.redirect` is on: instead of a refusal with that code.
_REDIRECTED: Final = Outcome(
    meaning="Another cell has the instance: with `cell.redirect` its client is sent there.",
    content=Content(media_type=PROBLEM, schema=PROBLEM_SCHEMA),
    headers=(replace(LOCATION, meaning="the same address at that cell"), *_CELL))


class DescriptionRoutes:
    """The address of the description."""

    def routes(self, others: Sequence[Route]) -> list[Route]:
        """The others, and the address that describes them all."""
        self._routes = [*others, Route(DESCRIPTION, Endpoint({"GET": DESCRIBING.by(self.get)}))]
        return self._routes

    @cached_property
    def _body(self) -> bytes:
        return json_bytes(document(self._routes)) + b"\n"

    @cached_property
    def _etag(self) -> str:
        return f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'

    async def get(self, scope: Scope, receive: Receive) -> Answer:
        """GET the description."""
        return unless_known(scope, self._etag, Answer(200, JSON, self._body, (("Cache-Control", "no-cache"),)))


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The description of these addresses. Raises ValueError when one of them does not describe itself."""
    paths: dict[str, dict[str, Any]] = {}
    groups: dict[str, None] = {}
    schemas: dict[str, Schema] = {}
    for route in routes:
        address = _PART.sub(r"{\1}", route.path)
        for method, operation, endpoint in operations(route):
            groups[operation.group] = None
            described = _operation(route.path, operation, endpoint)
            referring = _referring(described, schemas)
            if paths.setdefault(address, {}).setdefault(method.lower(), referring) != referring:
                raise ValueError(f"{method} {route.path} is described in two ways")
    return {
        "openapi": "3.1.0",
        "info": {"title": "incus-courier", "version": __version__, "description": _ABOUT,
                 "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in groups],
        "security": [{name: []} for name in _SECURITY],
        "paths": paths,
        "components": {"securitySchemes": _SECURITY, "schemas": dict(sorted(schemas.items()))},
        LIMITS: {f"limits.{key}": field.default for key, field in Limits.model_fields.items()},
    }


def operations(route: Route) -> Iterator[tuple[str, Description, Endpoint]]:
    """What an address does: the methods and their descriptions. Raises ValueError when one has none."""
    for endpoint in _endpoints(route.endpoint):
        if not isinstance(endpoint, Endpoint):
            raise ValueError(f"{route.path} is no Endpoint")
        for method, handler in endpoint.methods.items():
            if not isinstance(handler, Operation):
                raise ValueError(f"{method} {route.path} does not describe itself")
            if route.methods is None or method in route.methods:
                yield method, handler.description, endpoint


def _endpoints(app: Any) -> Iterator[Any]:
    if not isinstance(app, Around):
        yield app
        return
    for one in app.inside:
        yield from _endpoints(one)


def codes(described: Description) -> frozenset[str]:
    """All codes with which the operation may be refused."""
    return _own_codes(described) | _codes_of_the_way_in(described)


def _own_codes(described: Description) -> frozenset[str]:
    own = {code for parameter in described.parameters for code in parameter.refuses}
    return frozenset(own.union(described.body.refuses if described.body else (), described.refuses))


def _codes_of_the_way_in(described: Description) -> frozenset[str]:
    return frozenset(ENTRANCE_REFUSALS).union(() if described.for_everybody else CREDENTIAL_REFUSALS)


def _operation(path: str, described: Description, endpoint: Endpoint) -> dict[str, Any]:
    with_slashes = {name for name, slashes in _PART.findall(path) if slashes}
    found: dict[str, Any] = {
        "operationId": described.operation_id, "tags": [described.group], "summary": described.summary,
        "description": described.text, "responses": _responses(described, endpoint),
        "parameters": [_parameter(parameter, with_slashes) for parameter in described.parameters],
        EXAMPLES: [{"lang": "shell", "source": described.example}] if described.example else [],
    }
    if described.body:
        found["requestBody"] = {"required": described.body.required, "description": described.body.meaning,
                                "content": _content(described.body)}
    if described.for_everybody:
        found["security"] = []
    return {key: value for key, value in found.items() if value or key == "security"}


def _parameter(parameter: Parameter, with_slashes: set[str]) -> dict[str, Any]:
    without = f". Without it: {parameter.without}" if parameter.without else ""
    return {
        "name": parameter.name, "in": parameter.place.value, "required": parameter.required,
        "description": f"{parameter.meaning}{without}", "schema": parameter.schema,
        **({"style": "form", "explode": False} if parameter.commas else {}),
        **({SLASHES: True} if parameter.name in with_slashes else {}),
    }


def _responses(described: Description, endpoint: Endpoint) -> dict[str, Any]:
    elsewhere = {REDIRECT: _REDIRECTED} if endpoint.redirects else {}
    found = {status: _outcome(outcome) for status, outcome in {**described.outcomes, **elsewhere}.items()}
    of_status: dict[int, list[str]] = {}
    own, others = _own_codes(described), _codes_of_the_way_in(described)
    for code, kind in ERRORS.items():
        statuses = {described.statuses.get(code, kind.status)} if code in own else set()
        for status in statuses.union([kind.status] if code in others else []):
            of_status.setdefault(status, []).append(code)
    for status, some in of_status.items():
        refusal = _refusal(status, some, plain=endpoint.refuse is plain_problem)
        other = found.get(status, {})
        found[status] = {**refusal, **other, "content": {**other.get("content", {}), **refusal["content"]}}
    return {str(status): found[status] for status in sorted(found)}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    found = {
        "description": outcome.meaning, "headers": _headers(outcome.headers),
        "content": _content(outcome.content) if outcome.content else {},
        "links": {leads.operation_id: _link(leads) for leads in outcome.leads},
    }
    return {key: value for key, value in found.items() if value}


def _link(leads: Leads) -> dict[str, Any]:
    found = {"operationId": leads.operation_id, "parameters": dict(leads.given), "requestBody": dict(leads.body)}
    return {key: value for key, value in found.items() if value}


def _refusal(status: int, some: list[str], *, plain: bool) -> dict[str, Any]:
    headers = [*([_RETRY_AFTER] if any(ERRORS[code].retry_after_s for code in some) else []),
               *([_AUTHENTICATE] if status == UNAUTHORIZED else []), *(_CELL if _OTHER_CELL in some else [])]
    # What is no legal request is refused before it has an address: as a problem in any case.
    as_problem = {PROBLEM: {"schema": {"allOf": [PROBLEM_SCHEMA, {"properties": {"code": {"enum": some}}}]}}}
    as_text = {TEXT: {"schema": text("what is wrong and what to do, and the code in brackets")}} if plain else {}
    found = {"description": " ".join(ERRORS[code].title for code in some), CODES: some, "headers": _headers(headers),
             "content": {**as_text, **as_problem}}
    return {key: value for key, value in found.items() if value}


def _headers(headers: Iterable[Parameter]) -> dict[str, Any]:
    return {header.name: {"description": header.meaning, "required": header.required, "schema": header.schema}
            for header in headers}


def _content(content: Content) -> dict[str, Any]:
    return {content.media_type: {"schema": content.schema} if content.schema else {}}


def _referring(value: Any, schemas: dict[str, Schema]) -> Any:
    """The same, with references in place of the schemas that have a title; these are put into `schemas`."""
    if isinstance(value, list | tuple):
        return [_referring(one, schemas) for one in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _referring(one, schemas) for key, one in value.items()}
    title = found.get("title")
    if not isinstance(title, str):
        return found
    if schemas.setdefault(title, found) != found:
        raise ValueError(f"there are two things that are called {title}")
    return {"$ref": f"#/components/schemas/{title}"}
