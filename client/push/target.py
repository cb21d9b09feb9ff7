"""Where files are pushed to: `[REMOTE:]INSTANCE/PATH`, as `incus file push` reads it."""

import posixpath
from dataclasses import dataclass

from daemon.errors import Rejected
from daemon.model.names import check_path, printable, split_instance
from daemon.process.exit_status import Misused


@dataclass(frozen=True)
class PushTarget:
    """The last word of the command."""

    #: `[REMOTE:]INSTANCE`, legal.
    instance: str
    #: Absolute, and normalised: no `//`, no `.`, no `..`.
    path: str
    #: True when files keep their names below the path.
    is_directory: bool

    def below(self, name: str) -> str:
        """The path of what is so called in this directory; `name` may have slashes in it, or be empty."""
        return posixpath.join(self.path, name) if name else self.path


def parse_target(text: str) -> PushTarget:
    """What the text names; raises Misused when it is not legal."""
    instance, slash, path = text.partition("/")
    if not slash:
        raise Misused(f"{printable(text)} is no destination: write INSTANCE/PATH, for example web1/srv/.")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    is_directory = clean == "/" or posixpath.basename(path) in {"", ".", ".."}
    try:
        split_instance(instance)
        if clean != "/":
            check_path(clean)
    except Rejected as error:
        raise Misused(f"{printable(text)}: {error.detail}") from None
    return PushTarget(instance, clean, is_directory)
