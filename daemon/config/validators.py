"""What the values of the configuration may look like: pure checks that say what would be right."""

import base64
import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from daemon.errors import Rejected
from daemon.model.glob import check_name_glob, check_path_glob
from daemon.model.grant import KEYS
from daemon.model.names import check_project, check_remote
from daemon.model.task import State
from daemon.model.upload import is_mode

#: The name of the remote that [incus] describes.
LOCAL: Final = "local"
#: Highest TCP port.
_MAX_PORT: Final = 65535
#: Longest address of a webhook, in characters.
_MAX_URL: Final = 2048
#: Secrets of one webhook while they are changed, and how long each is, in bytes (Standard Webhooks).
_MOST_SECRETS: Final = 4
_LEAST_SECRET: Final = 24
_LONGEST_SECRET: Final = 64

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


def endpoint(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Return what was given if Incus can be reached by it, or by each of several; raise ValueError if not."""
    several = (given,) if isinstance(given, str) else given
    if given != "" and not (several and all(text.startswith(("/", "https://")) for text in several)):
        raise ValueError("must be empty (find it), an absolute socket path, an https:// URL, or a list of the last two")
    return given


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


def name_or_none(text: str) -> str:
    """Return `text` if a host of the state, or a cell, can be called so, or if it is empty; raise ValueError if not."""
    return holder_name(text) if text else text


def account(text: str) -> str:
    """Return `text` if a user or a group can have it as name or number, or if it is empty; raise ValueError if not."""
    if not text.isprintable():
        # The machine's databases cannot even be asked for it.
        raise ValueError("must be the name or the number of a user or a group")
    return text


def webhook_url(text: str) -> str:
    """Return `text` if a webhook can be reached by it; raise ValueError if not."""
    wrong = "must be an http:// or https:// URL with a host, without user, password and fragment"
    if not (text.isascii() and text.isprintable()) or " " in text or len(text) > _MAX_URL:
        raise ValueError(f"{wrong}, of visible ASCII characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(wrong) from error
    if parts.scheme not in {"http", "https"} or not host or port == 0 or "@" in parts.netloc or "#" in text:
        raise ValueError(wrong)
    if not (_HOST.fullmatch(host) or _is_address(host)):
        raise ValueError(wrong)
    return text


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def webhook_secret(text: str) -> str:
    """Return `text` if it is secrets with spaces between, or a path to a file of them; raise ValueError if not."""
    if text.startswith("whsec_"):
        read_secrets(text)
    elif not text.startswith(("/", "$CREDENTIALS_DIRECTORY/")):
        raise ValueError("must be a path to a file of secrets, absolute or below $CREDENTIALS_DIRECTORY,"
                         " or whsec_BASE64")
    return text


def read_secrets(text: str) -> list[bytes]:
    """The secrets in `text`, newest first: each whsec_BASE64 of 24 to 64 bytes. Raises ValueError; it tells none."""
    words = text.split()
    if not 1 <= len(words) <= _MOST_SECRETS:
        raise ValueError(f"must have 1 to {_MOST_SECRETS} secrets")
    return [_secret(word) for word in words]


def _secret(word: str) -> bytes:
    try:
        found = base64.b64decode(word.removeprefix("whsec_"), validate=True)
    except ValueError:
        found = b""
    if not (word.startswith("whsec_") and _LEAST_SECRET <= len(found) <= _LONGEST_SECRET):
        raise ValueError(f"a secret is whsec_BASE64 of {_LEAST_SECRET} to {_LONGEST_SECRET} bytes")
    return found


def state_label(text: str) -> str:
    """Return `text` if it is the name of a state of a task; raise ValueError if not."""
    labels = [state.label for state in State]
    if text not in labels:
        raise ValueError(f"must be one of: {', '.join(labels)}")
    return text


def network(text: str) -> str:
    """Return `text` if it is an address or a network; raise ValueError if not."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise ValueError("must be an address or a network such as 10.0.0.0/8") from error


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
