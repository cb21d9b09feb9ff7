"""What somebody else may put where the service expects a file of its own."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

Plant = Callable[[Path], None]


def link(path: Path) -> None:
    """A symbolic link to something that never ends."""
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    """A FIFO: who opens it to read waits for ever."""
    os.mkfifo(path, 0o600)


def a_socket(path: Path) -> None:
    """A socket."""
    # Its own name may be too long for one.
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{parent}/{path.name}")
    finally:
        os.close(parent)


def directory(path: Path) -> None:
    """A directory with something in it, which nobody but its owner may enter, or move to another directory."""
    path.mkdir()
    (path / "inside").touch()
    path.chmod(0o700)


def closed(path: Path) -> None:
    """A plain file that nobody but its owner may open."""
    path.touch()
    path.chmod(0o600)


#: All of them, by name.
PLANTS: Final[dict[str, Plant]] = {
    "link": link, "fifo": fifo, "socket": a_socket, "directory": directory, "closed": closed}
