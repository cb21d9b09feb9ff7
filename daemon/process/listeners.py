"""The sockets on which uploads come in: opened here, looked at once they are bound, then handed to the server.

What is bound decides whether it is safe, not what the configuration says, so a socket that was passed in
counts too. Fatal: an address that is open to other machines without TLS or without anybody who has rights (unless
that is wanted), one that is taken, and a descriptor that is no listening socket.
"""

import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from daemon.errors import CannotStart

#: Connections that may wait in the kernel to be accepted; the kernel's own limit (somaxconn) applies too.
BACKLOG: Final = 4096
#: How an address begins where TLS is spoken.
TLS: Final = "tls:"
#: The Unix socket is for its owner and group.
_SOCKET_UMASK: Final = 0o117


@dataclass(frozen=True)
class Door:
    """One listening socket."""

    socket: socket.socket
    #: What a person would call it.
    address: str
    #: False when it was passed in, and may serve other processes as well.
    own: bool
    #: The name of our own Unix socket, and its inode.
    path: Path | None = None
    inode: int = 0
    #: True when TLS is spoken there.
    tls: bool = False

    @property
    def private(self) -> bool:
        """True when file permissions say who may come in, and not everyone may."""
        return self.socket.family == socket.AF_UNIX and not _is_open_to_all(self.socket.getsockname())

    @cached_property
    def port(self) -> int | None:
        """The port of an IP address; None for a Unix socket."""
        return None if self.socket.family == socket.AF_UNIX else int(self.socket.getsockname()[1])

    @cached_property
    def is_local(self) -> bool:
        """True when nobody but this machine's users can come in."""
        return _is_safe(self.socket)

    @property
    def inherited(self) -> str:
        """The address of this door for a child that inherits its descriptor."""
        return f"{TLS if self.tls else ''}fd://{self.socket.fileno()}"

    def stop_listening(self) -> None:
        """Refuse new connections from now on. A socket that was passed in keeps them for whoever comes next."""
        if self.own:
            self.socket.shutdown(socket.SHUT_RDWR)

    def remove(self) -> None:
        """Remove the name of our own Unix socket, unless it has become another's."""
        if self.path is None:
            return
        try:
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        except FileNotFoundError:
            return


def open_doors(addresses: Iterable[str], *, allow_anonymous: bool, identified: bool = False) -> list[Door]:
    """Open every address of `api.listen`. `identified`: there is somebody whom rights were given to.

    Raises CannotStart('unsafe_listen') for one that other machines reach, and CannotStart('cannot_listen').
    """
    doors = [_open(address) for address in addresses]
    for door in doors:
        _check_safe(door, door.address, identified=identified, allow_anonymous=allow_anonymous)
    return doors


def look_at(addresses: Iterable[str], *, allow_anonymous: bool, identified: bool = False) -> None:
    """Raise CannotStart as `open_doors` would, as far as can be told while another process may serve there.

    The port is left free, and Unix sockets and descriptors are not looked at.
    """
    for address in addresses:
        if not address.removeprefix(TLS).startswith(("unix:", "fd://")):
            door = _open(address, at_any_port=True)
            with door.socket:
                _check_safe(door, address, identified=identified, allow_anonymous=allow_anonymous)


def _open(address: str, *, at_any_port: bool = False) -> Door:
    plain = address.removeprefix(TLS)
    tls = plain != address
    try:
        if plain.startswith("unix:"):
            return _open_unix(Path(plain.removeprefix("unix:")))
        if plain.startswith("fd://"):
            return _adopt(int(plain.removeprefix("fd://")), tls=tls)
        host, _, port = plain.rpartition(":")
        return _open_tcp(host, 0 if at_any_port else int(port), tls=tls)
    except OSError as error:
        raise CannotStart("cannot_listen", f"api.listen: {address}: {error.strerror or error}") from error


def _open_tcp(host: str, port: int, *, tls: bool) -> Door:
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(where)
    listener.listen(BACKLOG)
    return Door(listener, describe(listener, tls=tls), own=True, tls=tls)


def _open_unix(path: Path) -> Door:
    _hold(path)
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(_SOCKET_UMASK)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    listener.listen(BACKLOG)
    return Door(listener, describe(listener), own=True, path=path, inode=path.lstat().st_ino)


def _hold(path: Path) -> None:
    """Hold the name for as long as this process lives, so that two starting at once do not take it from each other."""
    descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise CannotStart("cannot_listen", f"api.listen: unix:{path}: another process listens there") from error


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more; raise CannotStart for anything else of that name."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotStart("cannot_listen", f"api.listen: unix:{path}: there is a file of that name already")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            # Its backlog is full: somebody is there.
            pass
    raise CannotStart("cannot_listen", f"api.listen: unix:{path}: another process listens there")


def _adopt(descriptor: int, *, tls: bool) -> Door:
    listener = socket.socket(fileno=descriptor)
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise CannotStart("cannot_listen", f"api.listen: fd://{descriptor} is not a listening stream socket")
    if tls and listener.family == socket.AF_UNIX:
        listener.close()
        raise CannotStart("cannot_listen", f"api.listen: tls:fd://{descriptor} is a Unix socket: leave tls: out")
    os.set_inheritable(descriptor, False)
    return Door(listener, describe(listener, tls=tls), own=False, tls=tls)


def _check_safe(door: Door, address: str, *, identified: bool, allow_anonymous: bool) -> None:
    if allow_anonymous or _is_safe(door.socket) or (door.tls and identified):
        return
    door.socket.close()
    missing = []
    if not identified:
        missing.append("whoever reaches it could write as root into every instance: give rights to somebody")
    if not door.tls:
        missing.append(f"what is sent there could be read and changed on its way: listen on {TLS}{address}")
    raise CannotStart(
        "unsafe_listen", f"api.listen: {address} can be reached from other machines, and {'; and '.join(missing)}."
        " Or listen on loopback or a Unix socket, or set api.allow_anonymous = true.")


def _is_safe(listener: socket.socket) -> bool:
    return listener.family == socket.AF_UNIX or _is_loopback(listener)


def _is_loopback(listener: socket.socket) -> bool:
    if listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_open_to_all(name: str | bytes) -> bool:
    """True for a Unix socket that every user of the machine may connect to."""
    if isinstance(name, bytes):
        # An abstract name has no permissions.
        return True
    try:
        return bool(os.stat(name).st_mode & stat.S_IWOTH)
    except (FileNotFoundError, PermissionError):
        # Its name is gone, or hidden from us.
        return False


def describe(listener: socket.socket, *, tls: bool = False) -> str:
    """The address of a socket as `api.listen` would name it."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name if isinstance(name, str) else '@' + name[1:].decode(errors='replace')}"
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"{TLS if tls else ''}{host}:{name[1]}"
