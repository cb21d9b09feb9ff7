"""What `incus-courier check` gathers about the machine; `daemon.cli.check_machine` concludes. Nothing here raises."""

import errno
import grp
import http.client
import os
import pwd
import re
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from daemon.cli.check_machine import (
    API,
    API_SOCKET,
    SANDBOX,
    SENDER,
    SENDER_SOCKET,
    TARGET,
    WORKER,
    Owned,
    ProxyAnswer,
    StatePlace,
    Unit,
)
from daemon.state.rename import rename_new

#: How long a command of the system may take, in seconds.
_PATIENCE_S: Final = 10.0
#: How long a proxy may take to hand the head of a request on, in seconds.
_PROXY_S: Final = 3.0
_TMPFILES: Final = Path("/usr/lib/tmpfiles.d/incus-courier.conf")
_PROPERTIES: Final = ("Id", "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "DropInPaths",
                      "ReadWritePaths", "PrivateNetwork", "Listen", "SupplementaryGroups", *SANDBOX)
#: How much of a body it gets in that time, piece by piece; each is more than it has to gather before it hands any on.
_PIECES: Final = 10
_PIECE_BYTES: Final = 2**13
_LEAST_BYTES: Final = 2 * _PIECES * _PIECE_BYTES
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
#: The type of the service's own refusals.
_PROBLEM: Final = b"application/problem+json"
#: An address that the service refuses by its head alone, whoever asks: there is no such mode.
_REFUSED: Final = "/v1/instances/check/files/check?mode=check"


def service_units(shards: int) -> list[Unit]:
    """The units of the installed service, with a worker for each shard; none without systemd."""
    names = [TARGET, API_SOCKET, API, *(f"{WORKER}{shard}.service" for shard in range(shards)), SENDER_SOCKET, SENDER]
    options = [word for name in _PROPERTIES for word in ("-p", name)]
    text = _said("systemctl", "show", *options, *names)
    return [_unit(block.splitlines()) for block in text.split("\n\n") if block.strip()]


def _unit(lines: Iterable[str]) -> Unit:
    shown: dict[str, str] = {}
    for name, _, value in (line.partition("=") for line in lines):
        # Each address of a socket has a line of its own.
        shown[name] = f"{shown[name]}\n{value}" if name in shown else value
    return Unit(shown.get("Id", ""), shown.get("LoadState", ""), shown.get("ActiveState", ""),
                shown.get("UnitFileState", ""), shown.get("NeedDaemonReload") == "yes",
                tuple(shown.get("DropInPaths", "").split()), shown)


def _said(*command: str) -> str:
    """What a command of the system says; nothing where there is none, or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def clock_is_synchronised() -> bool | None:
    """Whether the kernel's clock follows another one; None where systemd does not say."""
    return {"yes": True, "no": False}.get(_said("timedatectl", "show", "-p", "NTPSynchronized", "--value").strip())


def groups_of(user: str) -> list[str]:
    """The names of all groups of a user; none where there is no such user."""
    try:
        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return []
    return [_group(number) for number in numbers]


def administrator() -> str | None:
    """Who gave the command, behind sudo, too; None for root himself."""
    uid = os.environ.get("SUDO_UID", "") or str(os.getuid())
    user = _user(int(uid)) if uid.isdecimal() else "root"
    return None if user == "root" else user


def socket_group(paths: Iterable[str]) -> str | None:
    """The group that the first of these sockets is open to; None where there is none, or its group gets nothing."""
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode):
            return _group(found.st_gid) if found.st_mode & stat.S_IWGRP else None
    return None


def owned(paths: Iterable[str]) -> list[Owned]:
    """Whose these files are, but for those that are not there."""
    return list(_owned(paths))


def _owned(paths: Iterable[str]) -> Iterator[Owned]:
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            continue
        yield Owned(path, stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid))


def installed_owners(file: Path = _TMPFILES) -> list[Owned]:
    """Whose the directories and files of the state are to be: what tmpfiles.d says."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if line[:2] in {"d ", "f "}]
    return [Owned(path, int(mode, 8), user, group) for _, path, mode, user, group, *_ in fields]


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def room_of(path: Path) -> StatePlace | None:
    """The filesystem of a path, or of the nearest directory above that is there."""
    place = next((str(at) for at in (path, *path.parents) if os.path.exists(at)), "/")
    try:
        counted, text = os.statvfs(place), Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        number = os.stat(place).st_dev
    except OSError:
        return None
    kind = filesystem_kind(text, f"{os.major(number)}:{os.minor(number)}", os.path.realpath(place))
    return StatePlace(place, kind, counted.f_files, counted.f_favail)


def filesystem_kind(mounts: str, device: str, path: str) -> str:
    """The kind of the filesystem with that device number, as in /proc/self/mountinfo, or of what holds `path`. Pure."""
    by_path: list[tuple[int, str]] = [(-1, "")]
    for fields in (line.split(" ") for line in mounts.splitlines()):
        kind = fields[fields.index("-") + 1] if "-" in fields[:-1] else ""
        if fields[2] == device:
            return kind
        if Path(path).is_relative_to(fields[4]):
            by_path.append((len(fields[4]), kind))
    # Some filesystems (btrfs) show another number to stat(2).
    return max(by_path)[1]


def renames_without_replacing() -> bool:
    """Whether the kernel has renameat2 here: asked for what cannot be, it says so only if it has."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rename_new("", "", src_dir_fd=root, dst_dir_fd=root)
    except OSError as error:
        return error.errno not in {errno.ENOSYS, errno.EPERM}
    finally:
        os.close(root)
    return True


def ask_proxy(origin: str, size_bytes: int) -> ProxyAnswer:
    """Send the beginning of an upload of that size through a proxy, and see who answers."""
    at = urlsplit(origin)
    made = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = made(at.hostname or "", at.port, timeout=_PROXY_S)
    try:
        connection.connect()
        connection.putrequest("PUT", _REFUSED)
        connection.putheader("Content-Length", str(max(size_bytes, _LEAST_BYTES)))
        connection.putheader("Connection", "close")
        connection.endheaders()
        said = _heard(connection.sock)
    except ssl.SSLCertVerificationError as error:
        return ProxyAnswer(unreachable=f"its certificate: {error.verify_message}")
    except (OSError, http.client.HTTPException) as error:
        return ProxyAnswer(unreachable=str(error))
    finally:
        connection.close()
    if said is None:
        return ProxyAnswer()
    status = _STATUS.match(said)
    if status is None:
        return ProxyAnswer(unreachable="no HTTP is spoken there" if said else "it ended the connection")
    return ProxyAnswer(int(status[1]), _PROBLEM in said.lower())


def _heard(line: socket.socket) -> bytes | None:
    """What is answered while more and more of a body comes; None when nothing is, in time.

    Caddy hands a head on with the first bytes behind it, and answers when more of them come.
    """
    line.settimeout(_PROXY_S / _PIECES)
    said = b""
    for _ in range(_PIECES):
        try:
            if not said:
                line.sendall(bytes(_PIECE_BYTES))
            while len(said) < _PIECE_BYTES and (more := line.recv(_PIECE_BYTES)):
                said += more
            return said
        except TimeoutError:
            continue
        except ConnectionError:
            # It need not read what it has refused.
            return said
    return said or None
