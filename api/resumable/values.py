"""What goes in and out of the engine of resumable uploads: plain values."""

from dataclasses import dataclass

from api.uploads.receive import Accepted
from daemon.errors import Rejected
from daemon.model.upload import Upload


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How a resumable upload stands, as its client may be told."""

    upload_id: str
    #: So many bytes are on the disk. It is less than `length` until the task is in the queue.
    offset: int
    #: None: nobody has said it yet.
    length: int | None
    #: What its client sent to be told again, as it was sent.
    metadata: str
    #: When it is forgotten unless more comes, in seconds since the epoch.
    expires_at: float
    #: True once its task is in the queue.
    complete: bool = False
    #: The task that stands for it, once complete.
    task_id: str | None = None
    #: What its task is about; None before, and where that is not known any more.
    upload: Upload | None = None
    #: How it got into the queue; None unless this very request brought it there.
    accepted: Accepted | None = None


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one append must have: `sha1` or `sha256`, and the digest itself."""

    algorithm: str
    digest: bytes


class WrongOffset(Rejected):
    """Raised for an append that does not begin where the upload stands: `offset` is where. Nothing was stored."""

    def __init__(self, offset: int) -> None:
        super().__init__("wrong_offset", f"The upload stands at {offset}.", headers=[("Upload-Offset", str(offset))])
        self.offset = offset
