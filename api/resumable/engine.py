"""Resumable uploads from their making to the task, whatever protocol they come by.

Guarantees: an offset that was answered is on the disk; one request at a time, of all processes, changes an upload, and
a newer one, `look` included, ends the older within two seconds; the last byte is told only when the task is in the
queue; completing it again after any crash gives the same task. Another identity's upload looks as if it did not exist.
"""

from api.access.requester import Requester
from api.http.response import Receive
from api.resumable.values import Checksum, Progress
from api.uploads.request import UploadRequest


class Resumable:
    """Takes resumable uploads. To be used on the event loop."""

    async def create(self, request: UploadRequest, metadata: str, requester: Requester, peer: str) -> Progress:
        """Make an upload of `request.length` bytes, or of as many as are said later (None); none is sent yet.

        One of no bytes is complete at once. Raises Rejected: what `Uploads.take` raises from a head, 'rate_limited' and
        'too_many_pending' (429), 'too_many_partials' (503).
        """
        raise NotImplementedError

    async def look(self, upload_id: str, requester: Requester) -> Progress:
        """How an upload stands; the request that sends to it is ended first.

        Raises Rejected('upload_not_found' or 'upload_busy').
        """
        raise NotImplementedError

    async def append(
        self, upload_id: str, offset: int, receive: Receive, requester: Requester, peer: str, *,
        content_length: int | None, length: int | None = None, final: bool | None = None,
        checksum: Checksum | None = None,
    ) -> Progress:
        """Add the body to an upload that stands at `offset`; the request that sends to it is ended first.

        `content_length` is that of the body, None when it comes in chunks; `length` is that of the upload, where it is
        said only now. `final`: None completes an upload when all its bytes are there; True says that this is its last
        append; False that it is not. With a `checksum` none of the body counts unless all of it came and has that.
        Returns when all that is told is on the disk, and, where it is complete, its task in the queue.

        Raises WrongOffset, and Rejected: 'upload_not_found', 'upload_busy' (423, also when a newer request ended this
        one), 'inconsistent_length' (400), 'upload_completed' (400), 'beyond_length' (413), 'checksum_mismatch' (460),
        'bad_checksum' (400), 'bad_length', 'incomplete_body', 'too_slow', 'too_large'; 403 codes, which end the upload
        when they come at its completion; 503 codes, which keep it, never 429; and ClientGone. What came before it was
        cut off is kept.
        """
        raise NotImplementedError

    async def end(self, upload_id: str, requester: Requester) -> None:
        """Remove an upload; the request that sends to it is ended first. The task of a finished one is cancelled.

        Raises Rejected('upload_not_found' or 'upload_busy'), and 'not_cancellable' (409) for a finished one whose task
        does not wait any more.
        """
        raise NotImplementedError
