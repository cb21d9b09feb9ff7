"""Answers held against the description of the service."""

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jsonschema_rs

from api.routes.openapi import CODES, SLASHES, document
from api.service import addresses

_PROBLEM = "application/problem+json"


@cache
def description() -> dict[str, Any]:
    """The description of the service."""
    with ThreadPoolExecutor(1) as thread:
        made: dict[str, Any] = json.loads(json.dumps(document(thread.submit(addresses).result())))
    return made


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    found = []
    for address, methods in description()["paths"].items():
        slashes = {parameter["name"] for operation in methods.values() for parameter in operation.get("parameters", [])
                   if SLASHES in parameter}
        parts = re.split(r"\{(\w+)\}", address)
        expression = "".join(
            (".*" if part in slashes else "[^/]+") if number % 2 else re.escape(part) for number, part in enumerate(parts))
        found.append((re.compile(expression), address))
    return found


@cache
def _validator(address: str, method: str, status: str, media_type: str) -> Any:
    schema = description()["paths"][address][method]["responses"][status]["content"][media_type]["schema"]
    return jsonschema_rs.validator_for({**schema, "components": description()["components"]})


def undescribed(method: str, target: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """What an answer has that is not described, for people; None when all of it is, or when its address has no description.

    Names of headers are in lower case.
    """
    path = target.partition("?")[0]
    address = next((address for pattern, address in _patterns() if pattern.fullmatch(path)), None)
    name = "get" if method == "HEAD" else method.lower()
    operation = description()["paths"][address].get(name) if address else None
    if address is None or operation is None:
        return None
    here = f"{method} {target}: {status}"
    response = operation["responses"].get(str(status))
    if response is None:
        return f"{here} is not described"
    missing = [header for header, about in response.get("headers", {}).items()
               if about["required"] and header.lower() not in headers]
    if missing:
        return f"{here}: {missing} is not there"
    content = response.get("content", {})
    if not content or method == "HEAD":
        return f"{here}: a body is not described" if body else None
    media_type = headers.get("content-type", "")
    if media_type not in content:
        return f"{here}: {media_type} is not described"
    if media_type.startswith("text/plain") and CODES in response:
        code = body.decode().rstrip("]\n").rpartition("[")[2]
        return None if code in response[CODES] else f"{here}: {code} is not described"
    if "json" not in media_type:
        return None
    error = next(_validator(address, name, str(status), media_type).iter_errors(json.loads(body)), None)
    return f"{here}: {error.message}" if error else None
