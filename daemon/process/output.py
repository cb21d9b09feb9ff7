"""What the program says on standard output and standard error, but for its log: all of it goes through here.

Names, reasons and codes may come from anyone, so each line is made safe to show in a terminal first.
"""

import io
import os
import stat
import sys
from typing import Any

from daemon.model.text import escaped, json_text


def escape_what_has_no_letter() -> None:
    """Have what the encoding of standard output has no letter for escaped, where it would end the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str = "") -> None:
    """Write a line for people to standard output."""
    sys.stdout.write(f"{escaped(line)}\n")


def say_json(value: Any) -> None:
    """Write a value for programs to standard output, as a line of JSON."""
    sys.stdout.write(f"{json_text(value)}\n")


def warn(line: str) -> None:
    """Write a line for people to standard error."""
    sys.stderr.write(f"{escaped(line)}\n")


def flush() -> None:
    """Have all of it written now."""
    sys.stdout.flush()
    sys.stderr.flush()


def write_bytes(sink: int, piece: bytes) -> None:
    """Write all of these bytes to the descriptor `sink`, as they are."""
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(sink, rest):]


def make_durable(sink: int) -> None:
    """Have what was written to `sink` on the disk, if that is a file on one."""
    if stat.S_ISREG(os.fstat(sink).st_mode):
        os.fsync(sink)
