"""Exit codes of the service's processes, and how they say why they end."""

import os
import signal
from typing import Final

from daemon.errors import CannotStart, CourierError
from daemon.process.output import warn
from daemon.state.room import NO_ROOM

#: Told to stop, and done.
EXIT_OK: Final = 0
#: Something went wrong that a restart may mend.
EXIT_FAILED: Final = 1
#: What was typed cannot be understood.
EXIT_USAGE: Final = 2
#: Of several files, some were sent and others not.
EXIT_SOME_FAILED: Final = 3
#: What was waited for was not known in time; or another process has what is needed (sysexits.h, EX_TEMPFAIL).
EXIT_UNDECIDED: Final = os.EX_TEMPFAIL
#: The configuration is wrong: a restart does not help (sysexits.h, EX_CONFIG).
EXIT_CONFIG: Final = os.EX_CONFIG
#: Ended by Ctrl-C.
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
#: What each of them means, for the manual.
EXIT_STATUSES: Final[dict[int, str]] = {
    EXIT_OK: "All is well, or done.",
    EXIT_FAILED: "Something is not, or failed; the output says what.",
    EXIT_USAGE: "The command line cannot be understood.",
    EXIT_SOME_FAILED: "push: some files were sent, others not.",
    EXIT_UNDECIDED: "push and wait: it was not known in time what became of it. worker: another one serves the shard.",
    EXIT_CONFIG: "The configuration or the file of the tokens is wrong; the message names the key.",
    EXIT_INTERRUPTED: "It was interrupted, as by Ctrl-C; the same push goes on.",
}


class Misused(Exception):
    """Raised when what was typed cannot be understood; its text says what would be right."""


class Unable(Exception):
    """Raised when what was asked for cannot be done; its text says why."""


def complain(program: str, error: CourierError) -> None:
    """Say on stderr, for people, why a process ends and what to do."""
    first, *more = error.detail.split("\n")
    warn(f"{program}: {first}")
    for line in more:
        # Set in, so that it cannot be taken for a line of its own.
        warn(f"  {line.lstrip()}")
    if error.kind.hint and error.kind.hint not in error.detail:
        warn(f"{program}: {error.kind.hint}")


def end_with(program: str, error: CourierError | OSError) -> int:
    """Say on stderr why a process ends, and return its exit status."""
    failure = _in_words(error) if isinstance(error, OSError) else error
    complain(program, failure)
    return failure.kind.exit_status


def _in_words(error: OSError) -> CannotStart:
    """What the disk said to a process that cannot go on without it, as an error that a restart may find mended."""
    code = "queue_full" if error.errno in NO_ROOM else "io_error"
    return CannotStart(code, f"{error.filename or 'state.directory'}: {error.strerror or error}")
