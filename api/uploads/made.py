"""What the bytes that were received for a request become: an upload, with its id and its place in the order."""

import time
from dataclasses import replace

import uuid_utils

from api.uploads.request import UploadRequest
from daemon.model.upload import Upload


def new_upload(request: UploadRequest, size: int, sha256: str) -> Upload:
    """A new task, with its place in the order of now."""
    return upload_of(request, size, sha256, str(uuid_utils.uuid7()), time.time())


def upload_of(request: UploadRequest, size: int, sha256: str, task_id: str, created_at: float) -> Upload:
    """The task of that id, which was made then."""
    return Upload(
        task_id=task_id, destination=request.destination, size=size, sha256=sha256,
        mode=request.mode, uid=request.uid, gid=request.gid, mkdirs=bool(request.mkdirs),
        display_name=request.display_name, created_at=created_at, idempotency_key=request.idempotency_key,
        client=request.client, traceparent=request.traceparent)


def chosen_anew(upload: Upload) -> Upload:
    """The same bytes as another task, with its place in the order of now."""
    return replace(upload, task_id=str(uuid_utils.uuid7()), created_at=time.time())
