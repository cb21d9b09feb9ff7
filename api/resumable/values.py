"""What goes in and out of the engine of resumable uploads: plain values."""

from dataclasses import dataclass

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
    #: What was accepted; None before.
    upload: Upload | None = None


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
