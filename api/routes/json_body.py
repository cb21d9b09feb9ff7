"""Short bodies of JSON: read to a bound, and strictly."""

import json
from collections.abc import Sequence
from typing import Any, Final

from api.http.pace import Pace
from api.http.response import Receive, Scope
from api.uploads.body import Body
from daemon.errors import Rejected
from daemon.model.names import printable

MAX_BODY_BYTES: Final = 16 * 1024
#: Codes with which a body is refused that is too long, too slow, or no JSON.
BODY_REFUSALS: Final = ("bad_json", "long_body", "bad_length", "too_slow")
#: So much of what is wrong is told.
DETAIL_LENGTH: Final = 300


async def read_body(scope: Scope, receive: Receive, pace: Pace) -> bytes:
    """The whole body of a request. Raises Rejected, 'long_body' for one of more than MAX_BODY_BYTES, and ClientGone."""
    # The way in lets one length through, or none, and a number.
    length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)
    body = Body(receive, length=length, max_bytes=MAX_BODY_BYTES, pace=pace, too_large="long_body")
    if length is not None and length > MAX_BODY_BYTES:
        raise Rejected("long_body")
    return b"".join(await body.pieces(MAX_BODY_BYTES + 1))


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises Rejected('bad_json')."""
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_float=_number,
                           parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Rejected("bad_json", f"The body is not legal JSON: {printable(str(error), DETAIL_LENGTH)}.") from error
    if not isinstance(found, dict):
        raise Rejected("bad_json", "The body is not a JSON object.")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _number(text: str) -> float:
    """In JSON 2.0 is the number 2, a whole one."""
    found = float(text)
    return int(found) if found.is_integer() else found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")
