"""JSON Schema (2020-12) of what clients send and get: makers for the tables that stand beside what makes the values.

A schema with a `title` is a thing of its own: the description of the service names it once, and refers to it elsewhere.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

#: As in RFC 3339.
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
YES_OR_NO: Final[Schema] = {"type": "boolean"}


def text(meaning: str = "", *, pattern: str | None = None, most: int | None = None, least: int | None = None) -> Schema:
    """A text, all of which has the pattern, of so many characters."""
    return _without_none({"type": "string", "pattern": None if pattern is None else f"^(?:{pattern})$",
                          "minLength": least, "maxLength": most, "description": meaning or None})


def one_of(names: Iterable[str], meaning: str = "") -> Schema:
    """One of these texts."""
    return _without_none({"type": "string", "enum": list(names), "description": meaning or None})


def whole_number(low: int, high: int | None = None, meaning: str = "") -> Schema:
    """A whole number within these bounds, which belong to it."""
    return _without_none({"type": "integer", "minimum": low, "maximum": high, "description": meaning or None})


def number(low: int, meaning: str = "") -> Schema:
    """A number from there on, whole or not."""
    return _without_none({"type": "number", "minimum": low, "description": meaning or None})


def many(of: Schema, *, least: int | None = None, most: int | None = None) -> Schema:
    """A list of so many such values."""
    return _without_none({"type": "array", "items": of, "minItems": least, "maxItems": most})


def or_null(schema: Schema) -> Schema:
    """Such a value, or null."""
    if "title" in schema or "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    allowed = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, **allowed, "type": [schema["type"], "null"]}


def saying(schema: Schema, meaning: str) -> Schema:
    """The same schema, with what its value means."""
    return {**schema, "description": meaning}


def answer(title: str | None, properties: Mapping[str, Schema], *, maybe: Iterable[str] = ()) -> Schema:
    """An object that clients get. Each property is there but for those in `maybe`; later versions may have more."""
    return _without_none({"title": title, "type": "object", "properties": dict(properties),
                          "required": sorted(properties.keys() - set(maybe))})


def request(title: str, properties: Mapping[str, Schema], *, required: Iterable[str] = (), **more: Any) -> Schema:
    """An object that clients send, which has no other properties."""
    return {"title": title, "type": "object", "properties": dict(properties), "required": list(required),
            "additionalProperties": False, **more}


def _without_none(schema: Mapping[str, Any]) -> Schema:
    return {key: value for key, value in schema.items() if value is not None}
