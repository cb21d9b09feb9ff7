"""Looking up names, each once at a time: a name that is not answered holds up those who want it, and no others."""

import asyncio
import socket
from typing import Any, Final

#: Names that are looked up at once. Each takes a thread, for as long as the system's resolver is patient.
MOST_AT_ONCE: Final = 64

Found = list[tuple[Any, ...]]


class Names:
    """Looks up names. To be used on the event loop."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], asyncio.Task[Found]] = {}

    async def look_up(self, host: str, port: int) -> Found:
        """The addresses of a name, as `getaddrinfo` has them. Raises OSError and UnicodeError.

        Who does not wait any longer leaves the question to those who come after him.
        """
        asked = self._asked.get((host, port))
        if asked is None:
            asked = self._asked[host, port] = asyncio.create_task(_ask(host, port))
            asked.add_done_callback(lambda task: self._answered(host, port, task))
        return await asyncio.shield(asked)

    def _answered(self, host: str, port: int, task: asyncio.Task[Found]) -> None:
        del self._asked[host, port]
        if not task.cancelled():
            # Nobody may be left who wants to know.
            task.exception()


async def _ask(host: str, port: int) -> Found:
    loop = asyncio.get_running_loop()
    return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
