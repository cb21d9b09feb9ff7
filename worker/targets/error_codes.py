"""What a failure means: the one table from an error's text, status or errno to a code of the table of errors.

The rows were seen from real servers (Incus 6.0.4 unless it says otherwise), but for those about virtual machines'
agents, busy instances and a daemon that starts or stops: these are from Incus's and LXD's own source. Pure functions.
"""

import errno
import re
from typing import Final

#: errno, the text by which the server's Go names it, the code.
_SYSTEM: Final[tuple[tuple[int, str, str], ...]] = (
    (errno.ENOENT, "no such file or directory", "parent_not_found"),
    (errno.ENOENT, "file does not exist", "parent_not_found"),
    (errno.ENOTDIR, "not a directory", "parent_not_directory"),
    (errno.EISDIR, "is a directory", "target_is_directory"),
    (errno.ENOTEMPTY, "directory not empty", "target_is_directory"),
    (errno.EEXIST, "file exists", "target_is_directory"),
    (errno.ENXIO, "no such device or address", "target_not_regular"),
    (errno.ELOOP, "too many levels of symbolic links", "too_many_links"),
    (errno.EACCES, "permission denied", "permission_denied"),
    (errno.EPERM, "operation not permitted", "permission_denied"),
    (errno.EROFS, "read-only file system", "read_only"),
    (errno.ENAMETOOLONG, "file name too long", "name_too_long"),
    (errno.ENOSPC, "no space left on device", "target_full"),
    (errno.EDQUOT, "disk quota exceeded", "target_full"),
    (errno.EFBIG, "file too large", "target_full"),
    (errno.EBUSY, "device or resource busy", "target_is_mount_point"),
    (errno.EIO, "input/output error", "io_error"),
)
_BY_ERRNO: Final = {number: code for number, _, code in _SYSTEM}
_BY_TEXT: Final = {text: code for _, text, code in _SYSTEM}

#: SFTP status codes, for a text that is not in the table above.
_BY_STATUS: Final = {2: "parent_not_found", 3: "permission_denied"}

#: HTTP status (0: any), what the error's text matches, the code. The first match counts.
_HTTP: Final[tuple[tuple[int, re.Pattern[str], str], ...]] = tuple(
    (status, re.compile(pattern, re.IGNORECASE), code) for status, pattern, code in (
        (404, r"^project not found$", "project_not_found"),
        (404, r"\binstance not found$", "instance_not_found"),
        (404, r"^no such (object|instance)$", "instance_not_found"),
        (0, r"agent isn't currently running|agent is not currently running", "agent_down"),
        (0, r"^(incus|lxd)( daemon)? is (starting up|shutting down)", "incus_unreachable"),
        (0, r"^(daemon|server) (is )?(starting|shutting down)", "incus_unreachable"),
        # Of the instances of a cluster's member that is away, in the order in which the others find that out. The last
        # two are what 7.0 and 6.0 say once they know.
        (500, r"^(get|head|post|put|delete) \"https://", "member_unreachable"),
        (500, r"^unable to connect to: \S+ \(\[dial tcp ", "member_unreachable"),
        (500, r"^missing event connection with target cluster member$", "member_unreachable"),
        (500, r"^target cluster member is unavailable$", "member_unreachable"),
        (500, r"^server isn't ready yet$", "member_unreachable"),
        (0, r"instance is busy running an? .* operation", "instance_busy"),
        (500, r"dial unix \S+/forkfile\.sock: connect: no such file or directory$", "file_server_lost"),
        (0, r"instance is not running|the instance is already stopped", "instance_stopped"),
        (401, r"", "incus_refused"),
        (403, r"^not authorized$", "incus_refused"),
        (403, r"", "instance_refused"),
        (502, r"", "incus_unreachable"),
        (503, r"", "incus_unreachable"),
        (504, r"", "incus_unreachable"),
    ))


def classify_http(status: int, text: str) -> str:
    """Return the code for an answer of Incus's API other than success; `text` is the answer's `error`."""
    for wanted, pattern, code in _HTTP:
        if wanted in {0, status} and pattern.search(text):
            return code
    return "incus_error"


def classify_sftp(status: int, text: str) -> str:
    """Return the code for an SFTP status; `text` is its message, as in `open /x: no such file or directory`.

    Only the first word and what follows the last colon count: the rest holds names that a user chose.
    """
    if text.startswith("chown ") and system_text(text) == "invalid argument":
        return "owner_not_mapped"
    return _BY_TEXT.get(system_text(text), _BY_STATUS.get(status, "incus_error"))


def classify_files_api(status: int, text: str) -> str:
    """Return the code for an answer of the files API, which knows more about the path than about the instance."""
    inner = re.fullmatch(r'sftp: "(?P<text>.*)" \(SSH_FX_\w+\)', text)
    if inner:
        return classify_sftp(0, inner["text"])
    if status == 404 and text.lower() == "not found":
        return "parent_not_found"
    if status == 403:
        return "permission_denied"
    return classify_http(status, text)


def classify_oserror(number: int | None) -> str:
    """Return the code for an errno met while writing the target's files."""
    return _BY_ERRNO.get(number or 0, "io_error")


def system_text(text: str) -> str:
    """The part of a server's message that names the system's error."""
    return text.rpartition(": ")[2].strip().lower()
