"""`python -m daemon.cli.task_bytes ID [--config FILE]`: write a task's bytes to standard output, as the state's owner.

A process of its own, so that root can keep a file where only root may write without opening the state as root.
The first line is JSON: the size and the sha256 of what follows.
"""

import argparse
import json
import sys
from typing import BinaryIO, Final

from daemon import config as configuration
from daemon.cli.all_shards import DamagedRow, existing, open_all
from daemon.cli.filters import check_id
from daemon.config import Config
from daemon.errors import CourierError, Rejected, Undelivered
from daemon.model.task import Task
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, complain
from daemon.process.privileges import drop_to_owner
from daemon.spool.store import Spool

_PIECE_BYTES: Final = 1024 * 1024


def main() -> int:
    """Write the bytes; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m daemon.cli.task_bytes", description=__doc__)
    parser.add_argument("task_id", metavar="ID")
    parser.add_argument("--config", metavar="FILE")
    arguments = parser.parse_args()
    try:
        config = configuration.load(configuration.find_file(arguments.config))
        layout = existing(config)
        drop_to_owner(layout)
        task = _find(arguments.task_id, config)
        with Spool(layout).open(task.upload) as source:
            head = json.dumps({"size": task.upload.size, "sha256": task.upload.sha256})
            sys.stdout.buffer.write(head.encode() + b"\n")
            _copy(source, task.upload.size)
        sys.stdout.buffer.flush()
    except CourierError as error:
        complain("incus-courier", error)
        return EXIT_FAILED
    except PermissionError as error:
        sys.stderr.write(f"incus-courier: {error.filename}: {error.strerror}\n")
        return EXIT_FAILED
    return EXIT_OK


def _copy(source: BinaryIO, size: int) -> None:
    left = size
    while left:
        piece = source.read(min(left, _PIECE_BYTES))
        if not piece:
            raise Undelivered("bytes_damaged", "The spooled file ends too early.")
        sys.stdout.buffer.write(piece)
        left -= len(piece)


def _find(task_id: str, config: Config) -> Task:
    wrong = check_id(task_id)
    if wrong:
        raise Rejected("task_not_found", f"{task_id}: {wrong}")
    with open_all(config) as shards:
        try:
            found = shards.find(task_id)
        except DamagedRow as error:
            raise Rejected("task_not_found", f"{task_id}: {error}") from error
    if found is None:
        raise Rejected("task_not_found", f"{task_id}: there is no such task")
    return found[1]


if __name__ == "__main__":
    raise SystemExit(main())
