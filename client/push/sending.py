"""One file after the other, over one connection: small ones by PUT, large ones and streams by tus.

Guarantees: a file that is reported as accepted is safe with the service, whole, and as it was when it was opened. What
passes by itself is tried again, from where the service says that it stands. Nothing is accepted twice for that: a PUT
has a key, and a part has an offset. What another cell of the service has to take goes there, where that is as safe.
"""

import base64
import contextlib
import hashlib
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import random
from threading import Event
from typing import Final, Protocol
from urllib.parse import quote, urlencode

from client.http import HttpClient, NoAnswer, Response
from client.push.plan import STDIN, PlannedFile
from client.push.progress import FileProgress, Stage
from client.push.record import ResumeEntry, ResumeRecord, entry_key
from client.push.source import PIECE_BYTES, FileChanged, SourceFile
from client.push.unsent import Unsent
from client.retry import passes, pause_s
from client.server import ChosenServer
from daemon.model.task import PENDING, State
from daemon.process.exit_status import Misused, Unable

#: Files up to here are sent at once, and held in memory.
PUT_MAX_BYTES: Final = 8 * 2**20
#: The first part of a large file; the next ones grow until each takes about _PART_S.
_FIRST_PART_BYTES: Final = 16 * 2**20
_MAX_PART_BYTES: Final = 2**30
#: What was sent since the last offset that was told is sent again when the service dies.
_PART_S: Final = 4.0
#: How long a service is tried that never answered, in seconds.
_FIRST_REACH_S: Final = 5.0
#: How often one file is begun anew, because the service does not know it any more.
_MAX_BEGINNINGS: Final = 4
#: How often one file is sent on to another cell: in a list of cells that is the same on all of them, once is enough.
_MAX_HOPS: Final = 4
_OTHER_CELL: Final = "other_cell"
#: Whoever is interrupted by the terminal is so together with what writes to its standard input.
_LAST_WORDS_S: Final = 0.1
_TUS: Final = "/v1/tus/"
_UPLOAD: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_TASK: Final = re.compile(r"[0-9a-f-]{36}")
_SAID: Final = {"Tus-Resumable": "1.0.0"}
_PART: Final = {**_SAID, "Content-Type": "application/offset+octet-stream"}
#: A task that is still worth something to who sent it.
_ALIVE: Final = {state.label for state in PENDING | {State.DELIVERED}}


@dataclass(frozen=True, kw_only=True)
class PushOrder:
    """What holds for all files of a run."""

    #: The one that the command names.
    server: ChosenServer
    instance: str
    project: str | None
    mkdirs: bool
    uid: int | None
    gid: int | None
    record: ResumeRecord
    #: Names the server and the instance in the record.
    scope: str
    #: How long trouble may last without anything getting on, in seconds.
    retry_for_s: float
    #: Set when the run is to end.
    stop: Event
    #: Set once the service has answered.
    reached: Event

    def wish(self, file: PlannedFile) -> dict[str, str]:
        """What is asked for of the file, as parameters."""
        wishes = {"project": self.project, "mode": None if file.mode is None else f"{file.mode:04o}",
                  "uid": self.uid, "gid": self.gid, "mkdirs": "true" if self.mkdirs else None}
        return {key: str(value) for key, value in wishes.items() if value is not None}


class _Content(Protocol):
    """Bytes of a file, by their places in it."""

    def pieces(self, begin: int, end: int, passed: Callable[[int], None]) -> Iterator[bytes]:
        """The bytes from `begin` to `end`."""


class _Window:
    """The part of a stream that is in memory."""

    def __init__(self, begin: int, content: bytes) -> None:
        self._begin, self._content = begin, content

    def pieces(self, begin: int, end: int, passed: Callable[[int], None]) -> Iterator[bytes]:
        """The bytes from `begin` to `end`."""
        if begin < self._begin:
            raise Unsent("bad_answer")
        for at in range(begin, end, PIECE_BYTES):
            piece = self._content[at - self._begin:min(at + PIECE_BYTES, end) - self._begin]
            yield piece
            passed(len(piece))


class Persistence:
    """How often, and for how long, something is tried again."""

    def __init__(self, order: PushOrder, client: HttpClient) -> None:
        """`client` is what is asked."""
        self._order = order
        self._client = client
        self._tries = 0
        self._since: float | None = None

    def got_on(self) -> None:
        """Something was done: what fails next is trouble of its own."""
        self._order.reached.set()
        self._tries, self._since = 0, None

    def failed(self, failure: NoAnswer | Response) -> None:
        """Wait until it may be tried again; raise Unsent when that has no use, or the run is to end."""
        self.check()
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        self._tries += 1
        response = failure if isinstance(failure, Response) else None
        if response is not None:
            self._order.reached.set()
        pause = pause_s(self._tries, response, random())
        patience_s = self._order.retry_for_s if self._order.reached.is_set() else _FIRST_REACH_S
        if now + pause - self._since > min(patience_s, self._order.retry_for_s) or not _may_pass(failure):
            raise self._reason(failure)
        self._order.stop.wait(pause)
        self.check()

    def check(self) -> None:
        """Raise Unsent if the run is to end."""
        if self._order.stop.is_set():
            raise Unsent("interrupted", resumable=True)

    def _reason(self, failure: NoAnswer | Response) -> Unsent:
        if isinstance(failure, Response):
            return Unsent.refused(failure)
        return Unsent("no_server", f"{self._client.address.name}: {failure}.", resumable=True)


def _may_pass(failure: NoAnswer | Response) -> bool:
    return failure.passes if isinstance(failure, NoAnswer) else True


class FileSender:
    """Sends files, one at a time. For one thread."""

    def __init__(self, order: PushOrder, client: HttpClient) -> None:
        self._order = order
        self._client = client
        self._hops = 0

    def send(self, file: PlannedFile, progress: FileProgress) -> str:
        """Have the file accepted, and return the id of its task; raise Unsent if that cannot be done."""
        self._hops = 0
        persistence = Persistence(self._order, self._client)
        persistence.check()
        if file.source == STDIN:
            return self._send_stream(file, progress, persistence)
        with SourceFile(file) as source:
            progress.begin(Stage.SENDING, source.identity.size)
            key = entry_key(self._order.scope, file, source.identity, self._order.wish(file))
            entry = self._order.record.find(key)
            if entry is not None and not self._go_to(entry.address):
                entry = None
            if entry is not None and entry.task_id is not None:
                if self._is_alive(entry.task_id, persistence):
                    progress.at(source.identity.size)
                    return entry.task_id
                entry = None
            if source.identity.size <= PUT_MAX_BYTES:
                task_id = self._put(file, source.read_whole(), progress, persistence)
            else:
                task_id = self._send_large(file, source, key, entry, progress, persistence)
            self._order.record.note(ResumeEntry(key=key, at=time.time(), task_id=task_id, address=self._cell))
            return task_id

    @property
    def _cell(self) -> str:
        """The address of the cell that is spoken to; empty: the server that the command names."""
        here = self._client.address
        return "" if here == self._order.server.address else here.name

    def _go_to(self, cell: str) -> bool:
        """Speak to the cell of that address from now on; False when that would not be safe, or cannot be."""
        if cell != self._cell:
            try:
                self._client.move(self._order.server.at(cell) if cell else self._order.server.address)
            except (Misused, Unable):
                return False
        return True

    def _is_elsewhere(self, response: Response) -> bool:
        """True when another cell has the instance, and is spoken to from now on. Raises Unsent where it cannot be."""
        if response.problem("code") != _OTHER_CELL:
            return False
        self._hops += 1
        if self._hops > _MAX_HOPS:
            raise Unsent(_OTHER_CELL, "The cells name one another: their lists differ.")
        try:
            self._client.move(self._order.server.at(response.problem("address")))
        except (Misused, Unable) as error:
            raise Unsent(_OTHER_CELL, str(error)) from None
        return True

    def _is_alive(self, task_id: str, persistence: Persistence) -> bool:
        """True when the file of an interrupted run is with the service, or in the instance."""
        response = self._ask(persistence, lambda: self._client.request("GET", f"/v1/tasks/{task_id}"))
        task = response.json() if response.status == 200 else None
        return isinstance(task, dict) and task.get("state") in _ALIVE

    def _ask(self, persistence: Persistence, request: Callable[[], Response], *, gets_on: bool = True) -> Response:
        """The answer to a request that may be repeated, once there is one that will not be another in a while."""
        while True:
            try:
                response = request()
            except NoAnswer as error:
                persistence.failed(error)
                continue
            if self._is_elsewhere(response):
                continue
            if not passes(response):
                if gets_on:
                    persistence.got_on()
                return response
            persistence.failed(response)

    # --- at once ------------------------------------------------------------------------------------------

    def _put(self, file: PlannedFile, content: bytes, progress: FileProgress, persistence: Persistence) -> str:
        def passed(size: int) -> None:
            persistence.check()
            progress.add(size)

        def request() -> Response:
            progress.at(0)
            body = content if len(content) <= PIECE_BYTES else _Window(0, content).pieces(0, len(content), passed)
            return self._client.request("PUT", path, headers=headers, body=body, length=len(content))

        query = urlencode(self._order.wish(file))
        path = f"/v1/instances/{quote(self._order.instance, safe=':')}/files{quote(file.to)}"
        path = f"{path}?{query}" if query else path
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": uuid.uuid4().hex,
                   "Repr-Digest": _digest_header(hashlib.sha256(content).digest())}
        response = self._ask(persistence, request)
        if response.status != 202:
            raise Unsent.refused(response)
        task = response.json()
        task_id = task.get("id") if isinstance(task, dict) else None
        if not (isinstance(task_id, str) and _TASK.fullmatch(task_id)):
            raise Unsent("bad_answer")
        progress.at(len(content))
        return task_id

    # --- in parts -----------------------------------------------------------------------------------------

    def _send_large(
        self, file: PlannedFile, source: SourceFile, key: str, entry: ResumeEntry | None, progress: FileProgress,
        persistence: Persistence,
    ) -> str:
        size = source.identity.size
        upload = None if entry is None else entry.upload
        idempotency_key = (entry.idempotency_key if entry else "") or uuid.uuid4().hex
        digest = b""
        for _ in range(_MAX_BEGINNINGS):
            if upload is None:
                digest = digest or self._digest(source, progress, persistence)
                upload = self._create(file, persistence, {
                    "Upload-Length": str(size), "Repr-Digest": _digest_header(digest),
                    "Idempotency-Key": idempotency_key})
                self._order.record.note(
                    ResumeEntry(key=key, at=time.time(), upload=upload, idempotency_key=idempotency_key,
                                address=self._cell))
            try:
                return self._fill_whole(upload, source, size, progress, persistence)
            except _Gone:
                upload = None
            except Unsent as reason:
                if not reason.resumable:
                    self._order.record.forget(key)
                    self._end(upload)
                # What was sent is not what had been read.
                raise FileChanged if reason.code == "digest_mismatch" else reason from None
        raise Unsent("upload_not_found", resumable=True)

    def _digest(self, source: SourceFile, progress: FileProgress, persistence: Persistence) -> bytes:
        """Read all of it once: the service compares, so that nothing else than this is accepted."""
        def passed(size: int) -> None:
            persistence.check()
            progress.add(size)

        progress.begin(Stage.READING, source.identity.size)
        return source.sha256(passed)

    def _create(self, file: PlannedFile, persistence: Persistence, headers: Mapping[str, str]) -> str:
        values = {"instance": self._order.instance, "path": file.to, **self._order.wish(file)}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())
        response = self._ask(persistence, lambda: self._client.request(
            "POST", _TUS, headers={**_SAID, **headers, "Upload-Metadata": metadata}, body=b""))
        if response.status != 201:
            raise Unsent.refused(response)
        # Whatever a proxy has made of what stands before it.
        upload = response.headers.get("location", "").rpartition("/")[2]
        if not _UPLOAD.fullmatch(upload):
            raise Unsent("bad_answer")
        return upload

    def _fill_whole(
        self, upload: str, content: _Content, size: int, progress: FileProgress, persistence: Persistence,
        *, headers: Mapping[str, str] | None = None,
    ) -> str:
        task_id = self._fill(upload, content, size, progress, persistence, headers or {}, is_last=True)
        if task_id is None:
            raise Unsent("bad_answer")
        return task_id

    def _fill(
        self, upload: str, content: _Content, end: int, progress: FileProgress, persistence: Persistence,
        headers: Mapping[str, str], *, is_last: bool,
    ) -> str | None:
        """Send what is missing up to `end`, and return the task once there is one; None when more is to come.

        Raises _Gone when the service does not know the upload, or not any more.
        """
        part_bytes = _FIRST_PART_BYTES
        highest = -1
        while True:
            offset, task_id = self._stands(upload, persistence)
            if task_id is not None:
                progress.at(end)
                return task_id
            while True:
                if offset > end or (offset == end and not is_last):
                    return None
                if offset > highest:
                    persistence.got_on()
                    highest = offset
                progress.begin(Stage.SENDING)
                progress.at(offset)
                until, began = min(end, offset + part_bytes), time.monotonic()
                response = self._add(upload, content, offset, until, progress, persistence,
                                     headers if until == end else {})
                if response is None:
                    break
                task_id, stands = _task_of(response), response.number("upload-offset")
                if task_id is not None:
                    progress.at(end)
                    return task_id
                if stands is None or stands <= offset:
                    break
                part_bytes = next_part_bytes(stands - offset, time.monotonic() - began)
                offset = stands

    def _stands(self, upload: str, persistence: Persistence) -> tuple[int, str | None]:
        """How much of the upload is on the service's disk, in bytes; and its task, once it is complete."""
        response = self._ask(
            persistence, lambda: self._client.request("HEAD", _TUS + upload, headers=_SAID), gets_on=False)
        if response.status in {404, 410}:
            raise _Gone
        offset = response.number("upload-offset")
        if response.status != 200 or offset is None:
            raise Unsent.refused(response)
        return offset, _task_of(response)

    def _add(
        self, upload: str, content: _Content, begin: int, end: int, progress: FileProgress, persistence: Persistence,
        headers: Mapping[str, str],
    ) -> Response | None:
        """Send one part; None when it has to be asked how the upload stands."""
        def passed(size: int) -> None:
            persistence.check()
            progress.add(size)

        try:
            response = self._client.request(
                "PATCH", _TUS + upload, headers={**_PART, "Upload-Offset": str(begin), **headers},
                body=content.pieces(begin, end, passed), length=end - begin)
        except NoAnswer as error:
            persistence.failed(error)
            return None
        if response.status == 204:
            return response
        if response.status in {404, 410} or self._is_elsewhere(response):
            raise _Gone
        if passes(response) or response.status == 409:
            persistence.failed(response)
            return None
        raise Unsent.refused(response)

    def _end(self, upload: str) -> None:
        """Have the service forget an upload that nobody goes on with; it would do so by itself, later."""
        with contextlib.suppress(NoAnswer):
            self._client.request("DELETE", _TUS + upload, headers=_SAID)

    # --- a stream -----------------------------------------------------------------------------------------

    def _send_stream(self, file: PlannedFile, progress: FileProgress, persistence: Persistence) -> str:
        progress.begin(Stage.SENDING)
        window = self._read_stream(persistence)
        if len(window) < PUT_MAX_BYTES:
            return self._put(file, window, progress, persistence)
        upload = self._create(file, persistence, {"Upload-Defer-Length": "1", "Idempotency-Key": uuid.uuid4().hex})
        begin = 0
        try:
            while window:
                end = begin + len(window)
                self._fill(upload, _Window(begin, window), end, progress, persistence, {}, is_last=False)
                begin, window = end, self._read_stream(persistence)
            return self._fill_whole(upload, _Window(begin, b""), begin, progress, persistence,
                                    headers={"Upload-Length": str(begin)})
        except _Gone:
            raise Unsent("upload_not_found") from None
        except Unsent:
            # What came through the pipe is gone: nobody can go on.
            self._end(upload)
            raise

    def _read_stream(self, persistence: Persistence) -> bytes:
        """The next bytes of standard input: less than PUT_MAX_BYTES only at its end."""
        window = bytearray()
        while len(window) < PUT_MAX_BYTES:
            try:
                piece = os.read(sys.stdin.fileno(), min(PIECE_BYTES, PUT_MAX_BYTES - len(window)))
            except OSError as error:
                raise Unsent("unreadable_file", f"{error.strerror}.") from None
            if not piece:
                self._order.stop.wait(_LAST_WORDS_S)
                break
            window += piece
            persistence.check()
        persistence.check()
        return bytes(window)


class _Gone(Exception):
    """Raised when the service does not know an upload any more."""


def next_part_bytes(last_bytes: int, took_s: float) -> int:
    """How large the part after one is to be that was so large and took so long."""
    wanted = last_bytes * _PART_S / max(took_s, 0.001)
    return int(min(max(wanted, last_bytes / 2, PIECE_BYTES), last_bytes * 2, _MAX_PART_BYTES)) or PIECE_BYTES


def _task_of(response: Response) -> str | None:
    said = response.headers.get("task-id", "")
    return said if _TASK.fullmatch(said) else None


def _digest_header(digest: bytes) -> str:
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
