"""The doors give away nothing of what stands behind them: what goes in and out is plain."""

import inspect
import typing
from collections import abc
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, BinaryIO

import pytest

from daemon.delegation import capabilities as delegation_door
from daemon.delegation import values as delegation_values
from daemon.errors import Rejected
from daemon.lease import capabilities as lease_door
from daemon.model import grant, task, upload
from daemon.partials import capabilities as partials_door
from daemon.partials import values as partials_values
from daemon.spool import capabilities as spool_door
from daemon.spool import values as spool_values
from daemon.task_queue import capabilities as queue_door
from daemon.task_queue import doctor as queue_doctor
from daemon.task_queue import values as queue_values

#: What a value may be made of, besides what the modules below define. A Rejected is what one of many is answered with,
#: where it would be raised if it were alone. A memoryview is a caller's own memory, to be filled. What is read is no
#: file of Python's, which could be asked for its descriptor; a place is named for people alone, as a str.
PLAIN = {..., Rejected, bool, int, float, str, bytes, memoryview, NoneType, list, dict, tuple, set, frozenset,
         abc.Iterable, abc.Iterator, abc.Sequence, typing.Union, UnionType}
#: Where tasks, uploads and the values of the doors are defined.
VALUES = (grant, task, upload, queue_values, queue_doctor, spool_values, delegation_values, partials_values)
DOORS = (queue_door, queue_doctor, spool_door, lease_door, delegation_door, partials_door)


def capabilities(door: ModuleType) -> list[type]:
    """The protocols of a door."""
    return [found for found in vars(door).values()
            if inspect.isclass(found) and found.__module__ == door.__name__ and getattr(found, "_is_protocol", False)]


def signatures(capability: type) -> Iterator[tuple[str, Any]]:
    """Every method and property of a protocol, as a function."""
    for name, member in vars(capability).items():
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function


def parts_of(hint: Any) -> Iterator[Any]:
    """A type and everything that it is made of."""
    yield typing.get_origin(hint) or hint
    for argument in typing.get_args(hint):
        yield from parts_of(argument)


def strangers(hint: Any, seen: set[Any]) -> set[Any]:
    """What is not plain in a type, nor in the fields of the values in it."""
    found = set()
    for part in parts_of(hint):
        if part in PLAIN or part in seen:
            continue
        seen.add(part)
        module = getattr(part, "__module__", "")
        if getattr(part, "_is_protocol", False) or (isinstance(part, type) and issubclass(part, Enum)):
            continue
        if module not in {values.__name__ for values in VALUES}:
            found.add(part)
            continue
        for field in typing.get_type_hints(part).values():
            found |= strangers(field, seen)
    return found


@pytest.mark.parametrize("capability", [each for door in DOORS for each in capabilities(door)], ids=lambda each: each.__name__)
def test_capability_takes_and_gives_plain_values_only(capability: type) -> None:
    """No error of SQLite, no path, no file, no connection: something else can stand behind the door."""
    for name, function in signatures(capability):
        hints = typing.get_type_hints(function)
        assert "return" in hints, name
        assert {hint for given in hints.values() for hint in strangers(given, set())} == set(), name


def test_nothing_is_asked_for_its_descriptor_or_told_one() -> None:
    """A number would look plain."""
    said = {name for door in DOORS for capability in capabilities(door) for method, function in signatures(capability)
            for name in (method, *inspect.signature(function).parameters)}
    assert {name for name in said if name in {"fd", "fileno", "dir_fd", "path"} or "descriptor" in name} == set()


def test_what_is_not_plain_is_found() -> None:
    """The test above sees what is deep inside a type."""
    assert strangers(dict[str, list[tuple[int, OSError | None]]], set()) == {OSError}
    assert strangers(abc.Mapping[upload.Upload, BinaryIO], set()) == {abc.Mapping, BinaryIO}
    assert strangers(tuple[Path, ...] | None, set()) == {Path}
    assert strangers(list[task.Task], set()) == set()
