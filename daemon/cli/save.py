"""A task's bytes on standard output: `incus-courier tasks save ID >FILE`.

The shell opens the file, as the person who gives the command; this process has become the state's owner by then, and
opens none. The bytes are read twice: all of them are checked before the first is written, and again on their way.
"""

import hashlib
from collections.abc import Callable
from typing import Final

from daemon.errors import Undelivered
from daemon.model.upload import Upload
from daemon.process.output import make_durable, write_bytes
from daemon.spool import Open, Opened

_PIECE_BYTES: Final = 1024 * 1024


def save(spool: Open, upload: Upload, sink: int) -> None:
    """Write the bytes of an upload to the descriptor `sink`; in a regular file they are durable on return.

    Raises Undelivered: bytes_missing, bytes_damaged, invalid_row, io_error. Nothing is written then, unless the spooled
    file changes, or cannot be read any more, while it is written: the message says so. Raises BrokenPipeError when
    nobody reads.
    """
    with spool.open(upload) as source:
        _pass(source, upload, lambda _: None, "nothing was written")
        _pass(source, upload, lambda piece: write_bytes(sink, piece), "what was written is of no use")
    make_durable(sink)


def _pass(source: Opened, upload: Upload, take: Callable[[bytes], object], otherwise: str) -> None:
    """Give the bytes to `take`, piece by piece. Raises Undelivered at the end when they are others."""
    digest, left = hashlib.sha256(), upload.size
    try:
        source.seek(0)
        while left and (piece := source.read(min(left, _PIECE_BYTES))):
            digest.update(piece)
            take(piece)
            left -= len(piece)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Undelivered("io_error", f"{upload.task_id}: {error.strerror}; {otherwise}.") from error
    if digest.hexdigest() != upload.sha256:
        raise Undelivered("bytes_damaged", f"{upload.task_id}: not the bytes that were accepted; {otherwise}.")
