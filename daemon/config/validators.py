"""What the values of the configuration may look like: pure checks that say what would be right."""

import re
from typing import Final

from daemon.errors import Rejected
from daemon.model.names import check_project, check_remote
from daemon.model.upload import is_mode

#: The name of the remote that [incus] describes.
LOCAL: Final = "local"
#: Highest TCP port.
_MAX_PORT: Final = 65535

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_LISTEN: Final = re.compile(r"fd://[0-9]+|unix:/.+|(?:\[[0-9A-Fa-f:.%]+\]|[^:/\s\[\]]+):(?P<port>[0-9]{1,5})")


def octal(text: str) -> str:
    """Return `text` if it is permission bits; raise ValueError if not."""
    if not is_mode(text):
        raise ValueError("must be octal digits in quotes, for example \"0644\"")
    return text


def address(text: str) -> str:
    """Return `text` if it names a place to listen on; raise ValueError if not."""
    found = _LISTEN.fullmatch(text)
    if not found or int(found["port"] or 0) > _MAX_PORT:
        raise ValueError("must be HOST:PORT, unix:/PATH or fd://NUMBER")
    return text


def host(text: str) -> str:
    """Return `text` in small letters if it is the name of a host; raise ValueError if not."""
    if not _HOST.fullmatch(text):
        raise ValueError("must be the name of a host, without scheme and port, for example \"uploads.example.org\"")
    return text.lower()


def endpoint(text: str) -> str:
    """Return `text` if Incus can be reached by it; raise ValueError if not."""
    if text and not text.startswith(("/", "https://")):
        raise ValueError("must be empty (find it), an absolute socket path, or an https:// URL")
    return text


def project(text: str) -> str:
    """Return `text` if it can be a project's name; raise ValueError if not."""
    try:
        return check_project(text)
    except Rejected as error:
        raise ValueError("must be the name of a project, without slashes or spaces") from error


def remote_name(text: str) -> str:
    """Return `text` if a [remotes.NAME] section can have it; raise ValueError if not."""
    if text == LOCAL:
        raise ValueError("that name is taken by the [incus] section; choose another")
    try:
        return check_remote(text)
    except Rejected as error:
        raise ValueError("a remote's name has 1 to 63 of A-Z a-z 0-9 _ . -, and begins with none of . -") from error
