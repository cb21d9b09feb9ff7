"""The page about the addresses, made of the description that the service answers with (OpenAPI 3.1)."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any, Final

from api.routes.openapi import CODES, EXAMPLES, LIMITS, SLASHES
from docs.markdown import table

_HEAD: Final = """# The API

Made by `make docs` from what the addresses say of themselves. The service answers with the same, for programs, at
`GET /v1/openapi.json`.

{about}

A credential is a token (`Authorization: Bearer`), a client certificate, or what [access.md](access.md) has besides.
Times are RFC 3339, in UTC. Sizes are in bytes.

## Refusals

Everything but `POST /upload` refuses with `application/problem+json` (RFC 9457):

    {{"title": "There is no task with this id.", "status": 404, "code": "task_not_found", "detail": "…", "hint": "…"}}

`code` is stable. [errors.md](errors.md) has what each means and what to do about it. `503` and `429` may have
`Retry-After`. Every address may answer with these, whatever it is asked:

{common}
What the service takes is bounded by its configuration; these are the defaults:

{limits}"""


def api_page(document: Mapping[str, Any]) -> str:
    """The text of docs/api.md."""
    operations = [(address, method.upper(), operation) for address, methods in document["paths"].items()
                  for method, operation in methods.items()]
    common = reduce(set.__and__, (set(_codes(operation)) for _, _, operation in operations))
    first = operations[0][2]
    limits = table(("key", "default"), [(f"`{key}`", f"{value:,}") for key, value in document[LIMITS].items()])
    parts = [_HEAD.format(about=document["info"]["description"], common=_refusals(first, only=common), limits=limits)]
    for group in document["tags"]:
        parts.append(f"## {group['name']}\n")
        parts += [_operation(address, method, operation, common) for address, method, operation in operations
                  if group["name"] in operation["tags"]]
    parts.append("## Values\n")
    parts += [f"### {name}\n\n{_properties(schema)}" for name, schema in document["components"]["schemas"].items()]
    return "\n".join(parts)


def _operation(address: str, method: str, operation: Mapping[str, Any], common: set[str]) -> str:
    example = operation[EXAMPLES][0]["source"].replace("\n", "\n    ")
    parts = [f"### {method} {address}\n", f"{operation['summary']}. {operation.get('description', '')}".rstrip() + "\n",
             f"    {example}\n"]
    if operation.get("security") == []:
        parts.append("It answers everybody, with a credential or without.\n")
    if parameters := operation.get("parameters"):
        parts.append(table(("parameter", "in", "what it is", "legal"), map(_parameter, parameters)))
    if body := operation.get("requestBody"):
        [(media_type, content)] = body["content"].items()
        about = [body["description"], _kind(content["schema"]) if "schema" in content else ""]
        optional = "" if body["required"] else ", which may be left out"
        parts.append(f"The body{optional}: {', '.join(filter(None, about))} (`{media_type}`).\n")
    answers = [(status, response["description"], _content(response),
                "; ".join(map(_header, response.get("headers", {}).items())))
               for status, response in operation["responses"].items() if CODES not in response or _is_both(response)]
    parts.append(table(("answer", "what it means", "body", "headers"), answers))
    if refusals := _refusals(operation, leave_out=common):
        parts.append(refusals)
    return "\n".join(parts)


def _is_both(response: Mapping[str, Any]) -> bool:
    """True for a status of refusals that has another meaning, too."""
    return "application/json" in response["content"]


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    needed = "; required" if parameter["required"] and parameter["in"] != "path" else ""
    slashes = "; may hold slashes" if SLASHES in parameter else ""
    schema = parameter["schema"]
    default = f"; {schema['default']} without it" if "default" in schema else ""
    legal = schema.get("description") or _kind(schema)
    commas = ", with commas in between" if schema.get("type") == "array" else ""
    meaning = f"{parameter['description']}{needed}{slashes}{default}"
    return f"`{parameter['name']}`", parameter["in"], meaning, legal + commas


def _header(header: tuple[str, Mapping[str, Any]]) -> str:
    name, about = header
    return f"`{name}`: {about['description']}"


def _content(response: Mapping[str, Any]) -> str:
    bodies = {media_type: content.get("schema", {}) for media_type, content in response.get("content", {}).items()}
    return ", ".join(
        _kind(schema) if "$ref" in schema or "json" in media_type else schema.get("description", media_type)
        for media_type, schema in bodies.items() if "problem" not in media_type)


def _codes(operation: Mapping[str, Any]) -> Iterator[str]:
    for response in operation["responses"].values():
        yield from response.get(CODES, [])


def _refusals(operation: Mapping[str, Any], *, only: set[str] | None = None, leave_out: Iterable[str] = ()) -> str:
    shown_codes = set(_codes(operation) if only is None else only).difference(leave_out)
    rows = [(status, [code for code in response.get(CODES, []) if code in shown_codes])
            for status, response in operation["responses"].items()]
    shown = [(status, ", ".join(f"`{code}`" for code in codes)) for status, codes in rows if codes]
    return table(("refused with", "codes"), shown) if shown else ""


def _properties(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [(f"`{name}`", f"{_kind(of)}{'' if name in required else '; optional'}", of.get("description", ""))
            for name, of in schema["properties"].items()]
    return table(("name", "kind", "what it is"), rows)


def _kind(schema: Mapping[str, Any]) -> str:
    """The kind of a value, for people."""
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": list(some)}:
            return " or ".join(dict.fromkeys(map(_kind, some)))
        case {"type": "null"}:
            return "null"
        case {"contentSchema": of}:
            return f"{_kind(of)}, as JSON"
        case {"const": value}:
            return f"`{value}`"
        case {"enum": list(values)}:
            return ", ".join("null" if value is None else f"`{value}`" for value in values)
        case {"type": [kind, "null"]}:
            return f"{_kind({**schema, 'type': kind})} or null"
        case {"type": "array", "items": of}:
            return f"list of {_kind(of)}"
        case {"type": "string", "format": str(form)}:
            return "time" if form == "date-time" else form
        case {"type": "integer" | "number"}:
            return _number(schema)
        case {"type": "boolean"}:
            return "true or false"
        case {"pattern": str(pattern)} if len(pattern) < 60 and r"\x" not in pattern:
            return f"`{pattern.removeprefix('^(?:').removesuffix(')$')}`"
    return "object" if schema.get("type") == "object" else "text"


def _number(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return "number over 0"
    return f"number from {low}" if high is None or high >= 2**63 - 1 else f"{low} to {high}"
