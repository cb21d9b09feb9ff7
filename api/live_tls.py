"""The certificate in force, and how it changes while the process runs."""

import asyncio
from concurrent.futures import Executor
from typing import Final

from api.threads import joined
from daemon.config import Config
from daemon.errors import CannotStart
from daemon.log import log
from daemon.process.tls import read_tls, stamps

#: Between two looks at whether the files have changed.
LOOK_S: Final = 0.5


class LiveTls:
    """Holds what TLS is spoken with; who needs it asks for each connection.

    Guarantees: it always holds a pair that matches. What cannot be used is told once, and tried again.
    """

    def __init__(self, config: Config, threads: Executor) -> None:
        """Read the files. Raises CannotStart('bad_certificate')."""
        self._config = config
        self._threads = threads
        self._seen = stamps(config)
        self.current = read_tls(config)
        #: Why the newest files cannot be used, or nothing.
        self._trouble = ""

    async def adopt(self, config: Config) -> None:
        """Read the files anew, by this configuration."""
        self._config = config
        self._trouble = ""
        await self._read()

    async def watch(self) -> None:
        """Read the files anew whenever they have changed, for ever."""
        before = self._seen
        while True:
            await asyncio.sleep(LOOK_S)
            now = await joined(self._threads.submit(stamps, self._config))
            # Who renews a certificate replaces one file after the other: they are read once they stand still.
            if now == before and (self._trouble or now != self._seen):
                await self._read()
            before = now

    async def _read(self) -> None:
        # Before they are read, so that what changes meanwhile is seen.
        self._seen = await joined(self._threads.submit(stamps, self._config))
        try:
            self.current = await joined(self._threads.submit(read_tls, self._config))
        except CannotStart as error:
            if error.detail != self._trouble:
                log("tls.rejected", code=error.code, detail=error.detail)
            self._trouble = error.detail
        else:
            self._trouble = ""
            log("tls.renewed", certificate=self.current.fingerprint)
