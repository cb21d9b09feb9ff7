"""What workers and the sender say to each other: frames of JSON over a Unix socket.

A frame is its length in four bytes, big-endian, and so many bytes of JSON, an object. Who connects begins with
{"protocol": 1}, and the sender answers the same. Then each request has a number of its own, and an answer with that
number, in whatever order. Neither side trusts the other: what is not a frame ends the connection.
"""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from daemon.task_queue import Notice
from daemon.webhooks.schedule import DETAIL_LENGTH, TryAnswer

#: The version that both sides have to speak.
PROTOCOL: Final = 1
#: No frame is longer, in bytes.
MOST_BYTES: Final = 256 * 1024
HEAD: Final = struct.Struct(">I")
#: Requests of one connection that are not answered yet, at most.
MOST_OPEN: Final = 1024


class BadFrame(Exception):
    """Raised for what the other side should not have said."""


def pack(values: Mapping[str, Any]) -> bytes:
    """One frame."""
    data = json.dumps(values, separators=(",", ":")).encode()
    if len(data) > MOST_BYTES:
        raise BadFrame("a frame is too long")
    return HEAD.pack(len(data)) + data


def length_of(head: bytes) -> int:
    """How many bytes follow a head. Raises BadFrame."""
    length = int(HEAD.unpack(head)[0])
    if length > MOST_BYTES:
        raise BadFrame("a frame is too long")
    return length


def unpack(data: bytes) -> dict[str, Any]:
    """The values of a frame without its head. Raises BadFrame."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFrame("a frame is no JSON") from error
    if not isinstance(found, dict):
        raise BadFrame("a frame is no object")
    return found


def greeting() -> bytes:
    """The first frame of each side."""
    return pack({"protocol": PROTOCOL})


def check_greeting(values: Mapping[str, Any]) -> None:
    """Raise BadFrame unless the other side speaks the same version."""
    if values.get("protocol") != PROTOCOL:
        raise BadFrame(f"the other side speaks version {values.get('protocol')!r}, not {PROTOCOL}: update both")


def request(number: int, notice: Notice) -> bytes:
    """Ask for one try."""
    return pack({"number": number, "webhook": notice.webhook, "id": notice.message_id, "body": notice.body})


def read_request(values: Mapping[str, Any]) -> tuple[int, str, str, str]:
    """The number, the webhook's name, the message's id and its body. Raises BadFrame."""
    number, webhook, message_id, body = (values.get(key) for key in ("number", "webhook", "id", "body"))
    if not (isinstance(number, int) and isinstance(webhook, str) and isinstance(message_id, str)
            and isinstance(body, str) and message_id.isascii() and message_id.isprintable() and message_id):
        raise BadFrame("a request is not what it should be")
    return number, webhook, message_id, body


def reply(number: int, answer: TryAnswer) -> bytes:
    """Say how a try ended."""
    return pack({"number": number, "status": answer.status, "detail": answer.detail[:DETAIL_LENGTH],
                 "retry_after_s": answer.retry_after_s})


def read_reply(values: Mapping[str, Any]) -> tuple[int, TryAnswer]:
    """The number of the request, and how the try ended. Raises BadFrame."""
    number, status, detail = (values.get(key) for key in ("number", "status", "detail"))
    after = values.get("retry_after_s")
    if not (isinstance(number, int) and isinstance(detail, str) and len(detail) <= DETAIL_LENGTH
            and (status is None or (isinstance(status, int) and 100 <= status <= 999))
            and (after is None or (isinstance(after, int | float) and 0 <= after < 2**31))):
        raise BadFrame("an answer is not what it should be")
    return number, TryAnswer(status=status, detail=detail, retry_after_s=after)


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for a Unix socket's path that is short enough, whatever the path is. Raises OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Connect to the sender. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout_s)
        with reachable(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection
