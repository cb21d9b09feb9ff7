"""The bytes of a task for who fetches them: named safely, and checked on their way."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from typing import Final
from urllib.parse import quote

from api.http.response import CutOff, Receive
from api.threads import joined
from daemon.errors import Rejected, Undelivered
from daemon.log import log
from daemon.model.names import MAX_COMPONENT_BYTES
from daemon.model.task import State, Task
from daemon.model.text import is_plain
from daemon.model.upload import Upload
from daemon.spool import Opened

#: The states in which bytes are kept until a person decides.
KEPT: Final = frozenset({State.FAILED, State.HELD})
#: Read at once.
PIECE_BYTES: Final = 256 * 1024
#: Characters of a file name that every client reads alike between quotation marks.
_SAFE: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._- ()+,=@")
#: What need not be escaped in an extended value (RFC 8187, 3.2.1), besides letters and digits.
_ATTRIBUTE: Final = "!#$&+-.^_`|~"
_NAMELESS: Final = "file"


def check_kept(task: Task) -> None:
    """Raise Rejected('wrong_state') unless the bytes of the task are kept until a person decides."""
    if task.state not in KEPT:
        states = " or ".join(state.label for state in sorted(KEPT))
        raise Rejected("wrong_state", f"The task is {task.state.label}; its bytes can be fetched while it is {states}.")


def headers_of(upload: Upload) -> tuple[tuple[str, str], ...]:
    """What a client is told of the bytes besides their type, so that it stores them, whole, and never shows them."""
    digest = b64encode(bytes.fromhex(upload.sha256)).decode("ascii")
    return (
        ("Content-Length", str(upload.size)), ("Content-Disposition", disposition(_name(upload))),
        ("Repr-Digest", f"sha-256=:{digest}:"), ("X-Content-Type-Options", "nosniff"), ("Accept-Ranges", "none"),
        ("Content-Security-Policy", "default-src 'none'; sandbox"), ("Cache-Control", "no-store"))


def disposition(name: str) -> str:
    """The header by which a client stores an answer under that name (RFC 6266): an attachment, safe whatever the name.

    No part of it is a path, shows as something else, or is longer than a file's name may be.
    """
    plain = "".join(c if is_plain(c) and c not in "/\\" else "_" for c in name)
    short = plain.encode()[:MAX_COMPONENT_BYTES].decode(errors="ignore")
    if short.strip(". ") == "":
        short = _NAMELESS
    simple = "".join(c if c in _SAFE else "_" for c in short)
    extended = "" if simple == short else f"; filename*=UTF-8''{quote(short, safe=_ATTRIBUTE)}"
    return f'attachment; filename="{simple}"{extended}'


def _name(upload: Upload) -> str:
    return upload.display_name or upload.destination.path.rpartition("/")[2]


def explained(error: Undelivered) -> Rejected:
    """What a client is told where the bytes of a task cannot be had."""
    return Rejected("bytes_gone" if error.code == "bytes_missing" else "bytes_unreadable")


async def pieces_of(
    source: Opened, upload: Upload, threads: Executor, receive: Receive,
) -> AsyncGenerator[bytes, None]:
    """The bytes, a piece at a time, read by a thread; `source` is closed at the end.

    The last piece comes once all of them have the digest: else it raises CutOff, and the client has less than it was
    told of. It ends when `receive` says that the client is gone.
    """
    digest, left = hashlib.sha256(), upload.size

    def read() -> bytes:
        piece = source.read(min(left, PIECE_BYTES))
        digest.update(piece)
        return piece

    gone = asyncio.create_task(_gone(receive))
    try:
        while left:
            piece = await joined(threads.submit(read))
            left -= len(piece)
            if gone.done():
                raise CutOff
            if not piece or (not left and digest.hexdigest() != upload.sha256):
                raise Undelivered("bytes_damaged", "not the bytes that were accepted")
            yield piece
    except (OSError, Undelivered) as error:
        log("content.cut_off", task_id=upload.task_id, detail=str(error), client=upload.client,
            traceparent=upload.traceparent)
        raise CutOff from error
    finally:
        gone.cancel()
        source.close()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
