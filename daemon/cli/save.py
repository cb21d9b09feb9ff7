"""Saving a task's bytes to a file: whole, checked, and never over another file unless that is wanted."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from daemon.state.layout import sync_directory

_PIECE_BYTES: Final = 1024 * 1024


class NotSaved(Exception):
    """Raised when the bytes are not in the file; nothing of them is left. Its text says why."""


def save(task_id: str, target: Path, *, force: bool, config_file: str | None) -> int:
    """Write the bytes of a task to `target`, durably; return how many. Raises NotSaved."""
    if not force and os.path.lexists(target):
        raise NotSaved(f"{target}: there is a file of that name; --force replaces it")
    try:
        with _draft(target) as draft:
            size = _receive(task_id, draft, config_file)
            if force:
                os.replace(draft, target)
            else:
                os.link(draft, target)
            sync_directory(target.parent)
    except OSError as error:
        raise NotSaved(f"{target}: {error.strerror}") from error
    return size


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A name beside the target for the bytes while they come; it is gone afterwards."""
    path = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _receive(task_id: str, draft: Path, config_file: str | None) -> int:
    command = [sys.executable, "-P", "-m", "daemon.cli.task_bytes", task_id]
    command += ["--config", config_file] if config_file else []
    with (subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process,
          draft.open("wb") as file):
        found = _copy(process.stdout, file) if process.stdout else None
        file.flush()
        os.fsync(file.fileno())
    if process.returncode or found is None:
        raise NotSaved(f"{task_id}: its bytes cannot be read")
    announced, size, sha256 = found
    if (announced["size"], announced["sha256"]) != (size, sha256):
        raise NotSaved(f"{task_id}: the bytes are not those that were accepted")
    return size


def _copy(source: IO[bytes], file: IO[bytes]) -> tuple[dict[str, Any], int, str] | None:
    """Copy what follows the first line; return that line, the size and the sha256, or None without a first line."""
    head = source.readline()
    if not head:
        return None
    size, digest = 0, hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        file.write(piece)
        digest.update(piece)
        size += len(piece)
    return json.loads(head), size, digest.hexdigest()
