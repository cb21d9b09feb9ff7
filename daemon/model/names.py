"""What may name an instance, a project and a path: pure checks, used by the API and again by the worker.

Sources: instance names follow Incus's own host name rule; 255 and 4095 bytes are Linux's NAME_MAX and
PATH_MAX less the closing NUL.
"""

import re
from typing import Final

from daemon.errors import Rejected
from daemon.model.text import escaped, is_plain

#: Longest component of a path, in bytes (Linux, NAME_MAX).
MAX_COMPONENT_BYTES: Final = 255
#: Longest path, in bytes (Linux, PATH_MAX less the closing NUL).
MAX_PATH_BYTES: Final = 4095
#: Longest name of a client, in characters: more than whoever has the longest name can hand rights on under.
MAX_CLIENT: Final = 512

#: A control character: Unicode's category Cc.
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: What the names are made of, as expressions that Python and ECMAScript read alike.
INSTANCE: Final = r"(?![0-9]+$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: The same for people.
INSTANCE_RULE: Final = "1 to 63 of A-Z a-z 0-9 and -, no hyphen first or last, not digits alone"
PROJECT_RULE: Final = "1 to 63 of A-Z a-z 0-9 and _ . -, none of the last two first"
PROJECT: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"
REMOTE: Final = PROJECT
#: A path below the root, but for the lengths in bytes, which no expression counts.
RELATIVE_PATH: Final = (r"(?:(?!\.{1,2}(?:/|$))[^/\x00-\x1f\x7f-\x9f]{1,255}/)*"
                        r"(?!\.{1,2}$)[^/\x00-\x1f\x7f-\x9f]{1,255}")
_INSTANCE: Final = re.compile(INSTANCE)
_PROJECT: Final = re.compile(PROJECT)
_REMOTE: Final = re.compile(REMOTE)


def check_instance(name: str) -> str:
    """Return `name` if Incus would take it as an instance's name; raise Rejected('bad_instance') if not."""
    if not _INSTANCE.fullmatch(name):
        raise Rejected("bad_instance", f"{printable(name)!r} is not a legal instance name.")
    return name


def check_project(name: str) -> str:
    """Return `name` if it can be a project's name; raise Rejected('bad_project') if not."""
    if not _PROJECT.fullmatch(name) or name in {".", ".."}:
        raise Rejected("bad_project", f"{printable(name)!r} is not a legal project name.")
    return name


def check_remote(name: str) -> str:
    """Return `name` if it can be a remote's name; raise Rejected('unknown_remote') if not."""
    if not _REMOTE.fullmatch(name):
        raise Rejected("unknown_remote", f"{printable(name)!r} is not a legal remote name.")
    return name


def is_client(name: str) -> bool:
    """True if `name` may name a client: 1 to MAX_CLIENT printable characters."""
    return 0 < len(name) <= MAX_CLIENT and is_plain(name)


def split_instance(text: str) -> tuple[str | None, str | None, str]:
    """The remote, the project and the instance of `[remote:][project/]instance`; None for what is not named.

    Raises Rejected('unknown_remote', 'bad_project' or 'bad_instance') when one of them is not legal.
    """
    remote, colon, rest = text.rpartition(":")
    project, slash, instance = rest.rpartition("/")
    return (check_remote(remote) if colon else None,
            check_project(project) if slash else None,
            check_instance(instance))


def check_path(path: str) -> str:
    """Return `path` if a file may be delivered there; raise Rejected('bad_path') with the reason if not.

    A legal path is absolute and already normalised, so that one file has one name: the order of uploads to
    a path, and superseding, depend on it.
    """
    reason = _what_is_wrong_with(path)
    if reason:
        raise Rejected("bad_path", f"The path {reason}.")
    return path


def _what_is_wrong_with(path: str) -> str:
    if not path.startswith("/"):
        return "is not absolute"
    if path.endswith("/"):
        return "names a directory, not a file"
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(encoded) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if CONTROL.search(path):
        return "has a control character in it"
    return next(filter(None, map(_what_is_wrong_with_component, path[1:].split("/"))), "")


def _what_is_wrong_with_component(component: str) -> str:
    if component == "":
        return "has an empty component ('//')"
    if component in {".", ".."}:
        return f"has a {component!r} component"
    if len(component.encode("utf-8")) > MAX_COMPONENT_BYTES:
        return f"has a component longer than {MAX_COMPONENT_BYTES} bytes"
    return ""


def printable(text: str, limit: int = 80) -> str:
    """Return `text` cut to `limit` characters, with what is not printable escaped: safe in a log or answer."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return escaped(cut)
