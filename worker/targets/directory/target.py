"""The directory whose subdirectories are instances."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon.config import LOCAL
from daemon.errors import Undelivered
from daemon.model.upload import Destination
from worker.targets.base import Patience, Session
from worker.targets.directory.session import DirectorySession
from worker.targets.directory.walk import OPEN_DIRECTORY
from worker.targets.error_codes import classify_oserror

#: What every instance has: a path that is right for one of Incus is right here too, without mkdirs.
USUAL_DIRECTORIES: Final = ("etc", "home", "opt", "root", "srv", "tmp", "usr", "var")


class DirectoryTarget:
    """A Target that keeps its instances below one directory; see worker.targets.base for what it promises."""

    def __init__(self, root: Path) -> None:
        """Nothing is made before the first use."""
        self._root = root

    def open(self, destination: Destination, stopped: str, patience: Patience | None = None) -> Session:
        """Open the instance's directory, made with the usual ones in it.

        `stopped` does not matter, as none ever is, nor does `patience`: the kernel makes no one wait for an answer.
        """
        directory = self._root / instance_directory(destination)
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            with contextlib.ExitStack() as opened:
                root = os.open(directory, OPEN_DIRECTORY)
                opened.callback(os.close, root)
                _furnish(root)
                opened.pop_all()
            return DirectorySession(root)
        except OSError as error:
            raise Undelivered(classify_oserror(error.errno), f"{directory}: {error.strerror}") from error

    def probe(self) -> None:
        """Return: a directory always answers."""

    def find_project(self, project: str) -> None:
        """Return: an instance's directory is made when it is needed, whatever its project."""

    def instances(self) -> None:
        """Return: whatever the name, there is such an instance."""

    def follow(
        self, on_event: Callable[[str, str, str], None], on_up: Callable[[], None], on_down: Callable[[str], None],
    ) -> None:
        """Return: nothing happens to a directory."""

    def close(self) -> None:
        """Nothing to let go of."""


def _furnish(root: int) -> None:
    """Make the usual directories. Each time: several sessions may begin at once, and none waits for another."""
    for name in USUAL_DIRECTORIES:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=root)


def instance_directory(destination: Destination) -> str:
    """The name of an instance's directory.

    `NAME` in the default project of the local remote, else `REMOTE:PROJECT_NAME`: no two instances share one,
    for an instance's name has no underscore, and a remote's no colon.
    """
    if (destination.remote, destination.project) == (LOCAL, "default"):
        return destination.instance
    return f"{destination.remote}:{destination.project}_{destination.instance}"
