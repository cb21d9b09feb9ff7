"""What the values of the configuration may look like: pure checks that say what would be right."""

import ipaddress
import re
from typing import Final

from daemon.errors import Rejected
from daemon.model.glob import check_name_glob, check_path_glob
from daemon.model.grant import KEYS
from daemon.model.names import check_project, check_remote
from daemon.model.upload import is_mode

#: The name of the remote that [incus] describes.
LOCAL: Final = "local"
#: Highest TCP port.
_MAX_PORT: Final = 65535

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_ORIGIN: Final = re.compile(rf"https?://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_FINGERPRINT: Final = re.compile(r"(?:sha256:)?((?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2})")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_USER: Final = re.compile(r"user:[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\$?")
#: The name of who holds rights: it is shown to people, and part of the name of who holds them under him.
_HOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_LISTEN: Final = re.compile(r"(?:tls:)?fd://[0-9]+|unix:/.+|(?:tls:)?(?:\[[0-9A-Fa-f:.%]+\]|[^:/\s\[\]]+):(?P<port>[0-9]{1,5})")


def octal(text: str) -> str:
    """Return `text` if it is permission bits; raise ValueError if not."""
    if not is_mode(text):
        raise ValueError("must be octal digits in quotes, for example \"0644\"")
    return text


def address(text: str) -> str:
    """Return `text` if it names a place to listen on; raise ValueError if not."""
    found = _LISTEN.fullmatch(text)
    if not found or int(found["port"] or 0) > _MAX_PORT:
        raise ValueError("must be HOST:PORT, tls:HOST:PORT, unix:/PATH, fd://NUMBER or tls:fd://NUMBER")
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


def origin(text: str) -> str:
    """Return `text` in small letters if it is where a browser can have a page from; raise ValueError if not."""
    found = _ORIGIN.fullmatch(text)
    if not found or int(found["port"] or 0) > _MAX_PORT:
        raise ValueError("must be scheme, host and port of a site, for example \"https://files.example.org\"")
    return text.lower()


def fingerprint(text: str) -> str:
    """Return the SHA-256 of a certificate as 64 small hexadecimal digits; raise ValueError if it is none."""
    if not text:
        return text
    found = _FINGERPRINT.fullmatch(text)
    if not found:
        raise ValueError("must be the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons")
    return found[1].replace(":", "").lower()


def trusted_proxy(text: str) -> str:
    """Return `text` if a proxy can be told by it; raise ValueError if not."""
    if _USER.fullmatch(text):
        return text
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError("must be an address, a network, or \"user:NAME\" for one at a Unix socket") from error
    if network.is_loopback or network.overlaps(ipaddress.ip_network("127.0.0.0/8" if network.version == 4 else "::1")):
        raise ValueError("every user of this machine comes from loopback: let the proxy use a Unix socket, "
                         "and name its user, \"user:NAME\"")
    return str(network)


def header_name(text: str) -> str:
    """Return the name of a header in small letters; raise ValueError if it is none."""
    if not _HEADER.fullmatch(text):
        raise ValueError("must be the name of a header")
    return text.lower()


def holder_name(text: str) -> str:
    """Return `text` if somebody who holds rights can be called so; raise ValueError if not."""
    if not _HOLDER.fullmatch(text):
        raise ValueError("a name has 1 to 63 of A-Z a-z 0-9 _ . -, and begins with a letter or digit")
    return text


def account(text: str) -> str:
    """Return `text` if a user or a group can have it as name or number, or if it is empty; raise ValueError if not."""
    if not text.isprintable():
        # The machine's databases cannot even be asked for it.
        raise ValueError("must be the name or the number of a user or a group")
    return text


def name_glob(text: str) -> str:
    """Return `text` if it is a glob of names; raise ValueError if not."""
    return check_name_glob(text)


def path_glob(text: str) -> str:
    """Return `text` if it is a glob of paths; raise ValueError if not."""
    return check_path_glob(text)


def ids(text: str) -> str:
    """Return `text` if it is a user or group id, or a range of them; raise ValueError if not."""
    KEYS["uids"]([text])
    return text
