"""What an Incus has of its own when it runs beside this machine's: its loopback, its root directory, its processes."""

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.live.proxy import Relay, connect

LOOPBACK = "127.0.0.1"
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def reach(socket_path: str, port: int) -> Iterator[int]:
    """Yield the port of this machine's loopback that leads to `port` on the loopback of who listens on the socket."""
    network = _other_network(socket_path)
    if network is None:
        yield port
        return
    listener = socket.socket()
    listener.bind((LOOPBACK, 0))
    with Relay(listener, lambda: _connect_in(network, port)):
        yield int(listener.getsockname()[1])


def _other_network(socket_path: str) -> Path | None:
    """The network of who listens on the socket, or None if it is this process's own. Only root is told, or gets there."""
    if os.geteuid() != 0:
        return None
    network = Path(f"/proc/{_listener(socket_path)}/ns/net")
    return None if network.samefile("/proc/self/ns/net") else network


def root_of(socket_path: str) -> Path:
    """The root directory of who listens on the socket, with its /proc. Only root gets there; for others it is their own."""
    return Path(f"/proc/{_listener(socket_path)}/root" if os.geteuid() == 0 else "/")


def _listener(socket_path: str) -> int:
    with contextlib.closing(connect(socket_path)) as asking:
        pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def _connect_in(network: Path, port: int) -> socket.socket:
    """Connect to a port of the loopback there. A thread changes its network for itself, and a socket keeps its maker's."""

    def enter_and_connect() -> socket.socket:
        with network.open("rb") as entrance:
            if ctypes.CDLL(None, use_errno=True).setns(entrance.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {network}")
        return socket.create_connection((LOOPBACK, port))

    with ThreadPoolExecutor(1) as passing:
        return passing.submit(enter_and_connect).result()
