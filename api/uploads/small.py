"""Bytes that have all come become an upload; a small one, whole in memory, becomes ready to be sealed, wherever."""

from collections.abc import Sequence

from api.uploads.digests import Check
from api.uploads.made import new_upload
from api.uploads.request import UploadRequest
from daemon.model.upload import Upload
from daemon.spool import Incoming, Receive


def make_ready(spool: Receive, request: UploadRequest, pieces: Sequence[bytes]) -> tuple[Incoming, Upload]:
    """Have a small upload ready to be sealed. Raises Rejected; nothing is left of it then."""
    check, incoming = Check(request.digests), spool.begin()
    try:
        for piece in pieces:
            incoming.write(piece)
            check.update(piece)
        return incoming, received(incoming, check, request)
    except BaseException:
        incoming.discard()
        raise


def received(incoming: Incoming, check: Check, request: UploadRequest) -> Upload:
    """The upload whose bytes have all come. Raises Rejected when they are not those that were announced."""
    sha256 = incoming.hexdigest()
    check.conclude(sha256)
    return new_upload(request, incoming.size, sha256)
