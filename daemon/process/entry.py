"""How a command ends: whatever went wrong in it becomes a line on stderr and an exit code."""

import os
import sys
from collections.abc import Callable

from daemon.errors import CourierError
from daemon.process.exit_status import EXIT_FAILED, EXIT_USAGE, Misused, Unable, end_with
from daemon.process.output import escape_what_has_no_letter, warn
from daemon.process.output import flush as flush_output
from daemon.state.room import NO_ROOM


def run_to_exit(app: Callable[[], object]) -> None:
    """Run a command line; raises SystemExit when it did not go well, after having said why."""
    escape_what_has_no_letter()
    try:
        _run(app)
    except CourierError as error:
        raise SystemExit(end_with("incus-courier", error)) from None
    except Misused as error:
        warn(f"incus-courier: {error}")
        raise SystemExit(EXIT_USAGE) from None
    except Unable as error:
        warn(f"incus-courier: {error}")
        raise SystemExit(EXIT_FAILED) from None
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        _drop_output()
        raise SystemExit(EXIT_FAILED) from None
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        _drop_output()
        hint = "; run it as root or as the service's user" if isinstance(error, PermissionError) else ""
        warn(f"incus-courier: {error.filename or 'standard output'}: {error.strerror}{hint}")
        raise SystemExit(EXIT_FAILED) from None


def _run(app: Callable[[], object]) -> None:
    try:
        app()
    finally:
        # Here, where a disk that has no room for it is told of.
        flush_output()


def _drop_output() -> None:
    """Let go of what could not be written: nothing is to be said of it once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
