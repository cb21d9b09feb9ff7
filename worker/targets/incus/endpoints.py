"""Where one Incus is reached: by its socket, by an address, or by any of several of the same cluster."""

import os
import socket
from typing import Final

from daemon.config import Remote
from daemon.errors import Undelivered

#: Where Incus and LXD listen, in order of preference.
SOCKETS: Final = ("/var/lib/incus/unix.socket", "/run/incus/unix.socket", "/var/lib/lxd/unix.socket")


def find_endpoint() -> str | None:
    """The socket of this machine's Incus, else LXD; None if there is neither."""
    return next(filter(os.path.exists, SOCKETS), None)


class Endpoints:
    """The endpoints of one remote, of which one is in use until it fails. Any thread may ask."""

    def __init__(self, name: str, remote: Remote) -> None:
        """`name` is for messages. Nothing is connected."""
        self.name: Final = name
        self.remote: Final = remote
        self._in_use = 0

    def choose(self, limit_s: float) -> str:
        """The endpoint to use now: a socket that took a connection within `limit_s`, or an address, which is not tried.

        Sockets that do not are left. Raises Undelivered when there is nothing else.
        """
        endpoints = self.remote.endpoints or tuple(filter(None, (find_endpoint(),)))
        if not endpoints:
            raise Undelivered("incus_unreachable", f"{self.name}: incus.endpoint is empty, and there is no socket at"
                                                   f" {', '.join(SOCKETS)}")
        failures = []
        for _ in endpoints:
            endpoint = endpoints[self._in_use % len(endpoints)]
            try:
                if endpoint.startswith("/"):
                    self._knock(endpoint, limit_s)
            except Undelivered as error:
                failures.append(error)
                self.leave(endpoint)
            else:
                return endpoint
        raise failures[0]

    def leave(self, endpoint: str) -> None:
        """Use another from now on where there are several, unless that is not the one in use any more."""
        endpoints = self.remote.endpoints
        in_use = self._in_use
        if len(endpoints) > 1 and endpoints[in_use % len(endpoints)] == endpoint:
            self._in_use = in_use + 1

    def _knock(self, path: str, limit_s: float) -> None:
        """See whether a socket takes connections: what pylxd says of one that does not, does not tell why."""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(limit_s)
            try:
                caller.connect(path)
            except PermissionError as error:
                raise Undelivered("incus_refused", f"{self.name}: {path}: {error.strerror}") from error
            except OSError as error:
                raise Undelivered("incus_unreachable", f"{self.name}: {path}: {error}") from error
