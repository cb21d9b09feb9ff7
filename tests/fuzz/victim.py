"""A live API that is fuzzed, and what it must never do."""

import re
import socket
import threading
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from daemon.errors import ERRORS
from tests.integration.api.running import Api, wait_until
from tests.support.waiting import PATIENCE_S

#: What may be told with a status from 500 on: of codings and versions that are not known here, and that nobody delivers.
_FROM_500_ON: Final = frozenset({"unknown_coding", "http_version", "no_worker"})
_SERVER_ERROR: Final = 500
#: Descriptors that come and go with what is done once in a while.
_SPARE_DESCRIPTORS: Final = 8
#: No text of a client is in an answer with its ends of lines.
_ANSWER: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ?\r\n(.*?)(?=HTTP/1\.1 [0-9]{3} ?\r\n|\Z)", re.DOTALL)
_CODE: Final = re.compile(rb'"code": "([a-z_]+)"|\[([a-z_]+)\]\n\Z')
#: Where a resumable upload goes on: its id is the last part.
_MADE: Final = re.compile(rb"\r\nlocation: (?:[./a-z]*/)?([0-9a-f-]+)\r\nupload-", re.IGNORECASE)


class Victim:
    """Is sent anything, and looked at."""

    def __init__(self, api: Api) -> None:
        self.api = api
        #: The id of the resumable upload that was made last.
        self.made = b"none"
        self._accepted: set[str] = set()
        # What each shard has open once all that is sent here was done is no leak.
        for number in range(4):
            self._use(f"c{number}")
            self.check()
        self._descriptors = api.descriptors()

    def _use(self, instance: str) -> None:
        metadata = ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in [("instance", instance), ("path", "/a")])
        made = self.api.ask("POST", "/v1/tus/", b"a", Tus_Resumable="1.0.0", Upload_Length="1", Upload_Metadata=metadata,
                            Prefer="wait=1", Content_Type="application/offset+octet-stream")
        put = self.api.ask("PUT", f"/v1/instances/{instance}/files/a", b"a")
        assert (made.status, put.status) == (201, 202)
        assert self.api.ask("GET", f"/v1/tasks?instance={instance}").status == 200

    def send(self, pieces: Sequence[bytes]) -> list[int]:
        """Send pieces on a connection of their own, and then nothing more; return the statuses of the answers."""
        with self.api.raw() as connection:
            writing = threading.Thread(target=_write, args=(connection, pieces))
            writing.start()
            answers = _ANSWER.findall(_read(connection))
            writing.join()
        for status, rest in answers:
            assert _is_documented(int(status), rest), (status, rest)
            if made := _MADE.search(rest):
                self.made = made[1]
        return [int(status) for status, _ in answers]

    def check(self) -> None:
        """It answers, has made no mistake, and has written nothing but events of which all is documented."""
        assert self.api.ask("GET", "/healthz").status == 200
        events = list(self.api.events)
        trouble = [event for event in events if event["level"] not in {"debug", "info", "warning"} or "traceback" in event]
        assert not trouble, trouble
        assert {event["code"] for event in events if "code" in event} <= ERRORS.keys()
        assert self.api.other_lines == []
        self._accepted |= {event["task_id"] for event in events if event["event"] == "upload.accepted"}
        del self.api.events[:len(events)]

    def check_for_leaks(self) -> None:
        """Nothing is open that was not, and in the spool is what was accepted."""
        wait_until(lambda: self.api.unnamed_files() == 0, "no unnamed file is left")
        wait_until(lambda: self.api.descriptors() <= self._descriptors + _SPARE_DESCRIPTORS, "no descriptor is left open")

        def is_told() -> bool:
            self.check()
            return {path.name for path in self.api.spooled()} == self._accepted

        wait_until(is_told, "the spool has what was accepted, and nothing else")


def _is_documented(status: int, rest: bytes) -> bool:
    """True when a client may get an answer of that status, with these headers and that body."""
    if status < _SERVER_ERROR:
        return True
    if rest.endswith(b"\r\n\r\n"):
        # To a HEAD.
        return status in {ERRORS[code].status for code in _FROM_500_ON}
    code = _CODE.search(rest)
    if b'{"ready": false}' in rest:
        # Strangers are not told why.
        return True
    return code is not None and (code[1] or code[2]).decode() in _FROM_500_ON


def _write(connection: socket.socket, pieces: Sequence[bytes]) -> None:
    try:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _read(connection: socket.socket) -> bytes:
    connection.settimeout(PATIENCE_S)
    answers = b""
    try:
        while piece := connection.recv(65536):
            answers += piece
    except ConnectionError:
        pass
    return answers
