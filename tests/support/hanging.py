"""A relay to a real Incus, behind which further instances seem to be: each takes a session and hangs at one of its steps.

An instance that is called `hung-STEP-anything` hangs at STEP; whoever asks for any other gets what Incus has. Real
Incus cannot be made to hang at a step, and what hangs needs no container, so there may be as many as one likes.
"""

import asyncio
import contextlib
import json
import re
import stat
import struct
import threading
from pathlib import Path
from typing import Final, Self

#: The steps of a session in their order: the answer to the upgrade, the greeting, the look at the instance, what a
#: delivery asks of SFTP, and the look that confirms it.
STEPS: Final = ("upgrade", "greeting", "look", "lstat", "open", "write", "close", "rename", "confirm")

_ASKED: Final = re.compile(rb"GET /1\.0/instances/hung-(?P<step>[a-z]+)-[^/? ]*(?P<sftp>/sftp)?")
_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n"
_RUNNING: Final = json.dumps({"metadata": {
    "type": "container", "status": "Running", "status_code": 103, "created_at": "now", "expanded_config": {}, "expanded_devices": {},
}}).encode()
_DESCRIBED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_RUNNING), _RUNNING)
_GREETING: Final = struct.pack(">BI", 2, 3) + b"".join(
    len(word).to_bytes(4) + word for word in (b"posix-rename@openssh.com", b"1"))
#: What each kind of request is called above, by its number in the protocol.
_KINDS: Final = {7: "lstat", 3: "open", 6: "write", 4: "close", 200: "rename"}
_OPEN, _READ, _WRITE, _LSTAT, _FSETSTAT, _READLINK = 3, 5, 6, 7, 10, 19
_STATUS, _HANDLE, _ATTRS = 101, 102, 105
_HAS_MODE = 4
#: Flags, size, owner and group, mode, and two times.
_ATTRIBUTES: Final = struct.Struct(">IQIIIII")
_OK, _END, _NO_SUCH_FILE = 0, 1, 2
#: More clients than wait at the same time.
_BACKLOG: Final = 4096


def hung(step: str, number: int) -> str:
    """The name of an instance that hangs at a step."""
    return f"hung-{step}-{number}"


class Hanging:
    """The relay, at `path` in front of the Incus at `upstream`, in a thread of its own."""

    def __init__(self, path: Path, upstream: str) -> None:
        self.path = path
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._stop = asyncio.Event()
        self._clients: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._take, self.path, backlog=_BACKLOG)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for client in self._clients:
            client.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                found = _ASKED.match(head)
                if found is None:
                    await self._forward(head, reader, writer)
                else:
                    await (_deliver if found["sftp"] else _look)(found["step"].decode(), reader, writer)
                    await _say_nothing(reader)
        finally:
            self._clients.remove(writer)
            writer.close()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(self._upstream)
        try:
            forth.write(head)
            await asyncio.gather(_pump(reader, forth), _pump(back, writer))
        finally:
            forth.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def _say_nothing(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _look(step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the looks at an instance that come before `step`."""
    if step != "look":
        writer.write(_DESCRIBED)
        await reader.readuntil(b"\r\n\r\n")


async def _deliver(step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what comes before `step` in a session."""
    if step == "upgrade":
        return
    writer.write(_SWITCHING)
    await _request(reader)
    if step == "greeting":
        return
    writer.write(_packed(_GREETING))
    part = _Part()
    # A request begins with its kind and its number.
    while _KINDS.get((request := await _request(reader))[0]) != step:
        writer.write(_packed(part.answer(request[0], request[1:5], request[5:])))


class _Part:
    """The part file of one delivery, as far as who delivers asks for it."""

    def __init__(self) -> None:
        self._made = False
        self._size = 0
        self._mode = 0o600

    def answer(self, kind: int, number: bytes, body: bytes) -> bytes:
        """The answer to a request."""
        if kind == _OPEN:
            self._made |= b".courier-" in body
            return bytes([_HANDLE]) + number + struct.pack(">I", 1) + b"h"
        if kind == _LSTAT and self._made:
            return bytes([_ATTRS]) + number + _ATTRIBUTES.pack(15, self._size, 0, 0, stat.S_IFREG | self._mode, 0, 0)
        if kind == _WRITE:
            # A handle of one byte, the offset, and the length of what is written.
            self._size += int.from_bytes(body[13:17])
        if kind == _FSETSTAT and int.from_bytes(body[5:9]) == _HAS_MODE:
            self._mode = int.from_bytes(body[9:13])
        code = {_LSTAT: _NO_SUCH_FILE, _READLINK: _NO_SUCH_FILE, _READ: _END}.get(kind, _OK)
        return bytes([_STATUS]) + number + struct.pack(">III", code, 0, 0)


async def _request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


def _packed(message: bytes) -> bytes:
    return len(message).to_bytes(4) + message
