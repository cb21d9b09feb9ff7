"""Socket activation: the listening sockets that systemd passed in, and the addresses that they stand for.

Source: sd_listen_fds(3). The kernel keeps connections waiting on such a socket while the service is started again.
"""

import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Final

from daemon.process.listeners import TLS, describe

#: SD_LISTEN_FDS_START
_FIRST: Final = 3


def take(environment: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """The sockets that were passed to this very process: address to descriptor. Later calls find none."""
    count, process = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdigit():
        return {}
    return {_address(descriptor): descriptor for descriptor in range(_FIRST, _FIRST + int(count))}


def stand_in(configured: Iterable[str], passed: Mapping[str, int]) -> list[str]:
    """The addresses to open: those of `configured` that were passed in are taken over, and so is any other one.

    A passed socket speaks TLS if the configuration names it so, by its address or its number.
    """
    wanted = list(configured)
    taken: list[str] = []
    named: set[str] = set()
    for address, descriptor in passed.items():
        number = f"fd://{descriptor}"
        tls = {TLS + address, TLS + number}
        taken.append(TLS + number if tls & set(wanted) else number)
        named |= {address, number, *tls}
    return [*taken, *(address for address in wanted if address not in named)]


def _address(descriptor: int) -> str:
    os.set_inheritable(descriptor, False)
    try:
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            return describe(listener)
    except OSError:
        # No socket at all: whoever opens the door says so.
        return f"fd://{descriptor}"
