"""What an address takes and answers, as values: handlers, checks and the description of the service are made from them.

A parameter is described where it is read, an answer where it is made, an error in `daemon.errors`; here they are put
together for one method of one address, beside its handler.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from api.http.response import JSON, Answer, Receive, Scope, StreamedAnswer
from daemon.errors import Rejected
from daemon.model.names import printable
from daemon.model.schema import Schema, whole_number

Handler = Callable[[Scope, Receive], Awaitable[Answer | StreamedAnswer]]


class Where(StrEnum):
    """Where a parameter stands."""

    QUERY = "query"
    PATH = "path"
    HEADER = "header"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A value with a name, in the address or in a header, of a request or an answer."""

    name: str
    #: For people.
    meaning: str
    schema: Schema
    place: Where = Where.QUERY
    required: bool = False
    #: What holds without it, for people.
    without: str = ""
    #: Codes of errors that are about it.
    refuses: tuple[str, ...] = ("bad_query",)
    #: Whether a list is written as one text, with commas in between.
    commas: bool = False

    @cached_property
    def field(self) -> bytes:
        """The name of a header as `api.http.parameters` has it."""
        return self.name.lower().encode("ascii")


class NumberParameter(Parameter):
    """A whole number in a query, from 1 on, with at most as many digits as the highest."""

    def __init__(self, name: str, highest: int, default: int, meaning: str) -> None:
        super().__init__(name=name, meaning=meaning, schema={**whole_number(1, highest), "default": default})

    def read(self, given: Mapping[str, str]) -> int:
        """The number that is given, else the default. Raises Rejected('bad_query')."""
        text = given.get(self.name)
        if text is None:
            return int(self.schema["default"])
        highest = self.schema["maximum"]
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(highest)) and 1 <= int(text) <= highest):
            raise Rejected("bad_query", f"`{self.name}` is a number from 1 to {highest}, not {printable(text)!r}.")
        return int(text)


def names(parameters: tuple[Parameter, ...]) -> frozenset[str]:
    """The names of the parameters, as `read_query` takes them."""
    return frozenset(parameter.name for parameter in parameters)


@dataclass(frozen=True, kw_only=True)
class Content:
    """A body: of a request or an answer."""

    schema: Schema = field(default_factory=dict)
    media_type: str = JSON
    #: For people.
    meaning: str = ""
    #: Codes of errors that are about it.
    refuses: tuple[str, ...] = ()
    #: Whether a request has to have it.
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Leads:
    """What an answer leads to: an expression (OpenAPI, Runtime Expressions) for each parameter and each key there."""

    operation_id: str
    given: Mapping[str, str] = field(default_factory=dict)
    #: For the body of JSON.
    body: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An answer that is no refusal."""

    meaning: str
    content: Content | None = None
    headers: tuple[Parameter, ...] = ()
    leads: tuple[Leads, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """One method of one address, for people and programs."""

    #: Stable: names the operation for programs.
    operation_id: str
    #: A few words: what it does.
    summary: str
    #: The heading under which it is found.
    group: str
    #: What is to be known beyond the tables, for people.
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    #: The answers that are no refusals, by their status.
    outcomes: Mapping[int, Outcome]
    #: Codes of errors besides those of the parameters, the body, and the way in.
    refuses: tuple[str, ...] = ()
    #: Where codes in `refuses` have another status than their own: that one.
    statuses: Mapping[str, int] = field(default_factory=dict)
    #: True when it answers everybody, with a credential or without.
    for_everybody: bool = False
    #: A command that does it, for a shell.
    example: str = ""

    def by(self, handle: Handler) -> "Operation":
        """The operation that `handle` does."""
        return Operation(handle, self)


@dataclass(frozen=True)
class Operation:
    """A handler, and what it does."""

    handle: Handler
    description: Description

    def __call__(self, scope: Scope, receive: Receive) -> Awaitable[Answer | StreamedAnswer]:
        """Do it."""
        return self.handle(scope, receive)


#: Where what was made is found.
LOCATION: Final = Parameter(name="Location", meaning="the address of what was made", schema={"type": "string"},
                            place=Where.HEADER, required=True)


def json_of(schema: Schema, **more: Any) -> Content:
    """A body in JSON."""
    return Content(schema=schema, **more)
