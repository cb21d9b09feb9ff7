"""A stand-in for the engine of resumable uploads: one upload, kept in memory, that does what a test wants."""

from dataclasses import dataclass, field, replace
from typing import Any

from api.access.requester import Requester
from api.following.outcomes import Headers
from api.http.prefer import wait_s
from api.http.response import Receive, Scope
from api.resumable.values import Checksum, Progress, WrongOffset
from api.uploads.request import UploadRequest
from daemon.errors import Rejected
from daemon.model.upload import Upload

ID = "upload-1"
TASK = "0190a6a0-0000-7000-8000-000000000001"
#: Friday, 1 January 2100.
EXPIRES_AT = 4102444800.0


@dataclass
class PretendedOutcomes:
    """Everything is decided as soon as somebody waits for it."""

    waited_for: list[str] = field(default_factory=list)

    async def wait(self, scope: Scope, receive: Receive, task_id: str) -> Headers:
        """Note who is waited for, where somebody prefers to."""
        preferred_s = wait_s(scope["headers"])
        if preferred_s is None:
            return ()
        self.waited_for.append(task_id)
        return (("Preference-Applied", f"wait={preferred_s}"),)


@dataclass
class PretendedEngine:
    """It takes all that it is sent, and notes what it was asked."""

    stored: bytes = b""
    progress: Progress | None = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    #: Raised by the next call, once.
    trouble: Rejected | None = None
    #: Raised for each part.
    part_trouble: Rejected | None = None
    request: UploadRequest | None = None

    def _ask(self, *what: object) -> Progress:
        self.asked.append(what)
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble
        if self.progress is None:
            raise Rejected("upload_not_found")
        return self.progress

    def _complete(self) -> None:
        assert self.progress is not None
        assert self.request is not None
        upload = Upload(task_id=TASK, destination=self.request.destination, size=len(self.stored), sha256="0" * 64)
        self.progress = replace(self.progress, offset=len(self.stored), length=len(self.stored), complete=True,
                                task_id=TASK, upload=upload)

    async def create(self, request: UploadRequest, metadata: str, requester: Requester, peer: str) -> Progress:
        """Make the upload."""
        self.request = request
        self.progress = Progress(upload_id=ID, offset=0, length=request.length, metadata=metadata, expires_at=EXPIRES_AT)
        self._ask("create", request.length)
        if request.length == 0:
            self._complete()
        return self.progress

    async def look(self, upload_id: str, requester: Requester) -> Progress:
        """How it stands."""
        return self._ask("look", upload_id)

    async def append(
        self, upload_id: str, offset: int, receive: Receive, requester: Requester, peer: str, *,
        content_length: int | None, length: int | None = None, final: bool | None = None, checksum: Checksum | None = None,
    ) -> Progress:
        """Take the body."""
        progress = self._ask("append", upload_id, offset, content_length, length, final, checksum)
        if self.part_trouble is not None:
            raise self.part_trouble
        if offset != progress.offset:
            raise WrongOffset(progress.offset)
        more = True
        while more:
            event = await receive()
            self.stored += event.get("body", b"")
            more = event.get("more_body", False)
        whole = length if progress.length is None else progress.length
        self.progress = replace(progress, offset=len(self.stored), length=whole)
        if final or (final is None and len(self.stored) == whole):
            self._complete()
        return self.progress

    async def end(self, upload_id: str, requester: Requester) -> None:
        """Remove it."""
        self._ask("end", upload_id)
        self.progress = None
