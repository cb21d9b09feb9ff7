"""What travels between a process that takes uploads and the one that stores them: jobs there, answers back.

A message is its length, the length of what it says in JSON, and a number that the sender chose; then the JSON, then
bytes. Either side may be of an older start, never of another version: both are children of one supervisor.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

from api.uploads.group_commit import Answer, CommitResult
from api.uploads.made import upload_of
from api.uploads.request import UploadRequest
from daemon.errors import CourierError, Rejected
from daemon.model.upload import Destination
from daemon.task_queue import Put, PutOutcome

_HEAD: Final = Struct(">III")
_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Job(NamedTuple):
    """One small upload to be stored."""

    number: int
    request: UploadRequest
    body: bytes
    #: Whether it replaces older ones of its path.
    supersede: bool
    #: When it was handed over, on the monotonic clock of the machine: the order of jobs, whoever took them.
    at: float


class Messages:
    """Finds the messages in what comes, however it is cut."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> Iterator[tuple[int, Any, bytes]]:
        """The number, the values and the bytes of each message that is whole now."""
        self._data += data
        start, end = 0, len(self._data)
        while end - start >= _HEAD.size:
            length, values_length, number = _HEAD.unpack_from(self._data, start)
            if end - start < length:
                break
            values_at = start + _HEAD.size
            body_at, start = values_at + values_length, start + length
            yield number, json.loads(self._data[values_at:body_at]), bytes(self._data[body_at:start])
        del self._data[:start]


def _message(number: int, values: object, pieces: Sequence[bytes] = ()) -> bytes:
    said = _encode(values).encode()
    length = _HEAD.size + len(said) + sum(map(len, pieces))
    return b"".join((_HEAD.pack(length, len(said), number), said, *pieces))


def job_message(
    number: int, request: UploadRequest, pieces: Sequence[bytes], *, supersede: bool, at: float,
) -> bytes:
    """A job for whoever stores."""
    to = request.destination
    return _message(number, (
        to.remote, to.project, to.instance, to.path, request.display_name, request.mode, request.uid, request.gid,
        request.mkdirs, request.idempotency_key, tuple(request.digests), request.client, request.traceparent,
        supersede, at), pieces)


def read_job(number: int, values: Any, body: bytes) -> Job:
    """The job that a message is."""
    (remote, project, instance, path, display_name, mode, uid, gid, mkdirs, key, digests, client, traceparent,
     supersede, at) = values
    request = UploadRequest(
        destination=Destination(remote, project, instance, path), display_name=display_name, mode=mode, uid=uid,
        gid=gid, mkdirs=mkdirs, idempotency_key=key, digests=frozenset(map(tuple, digests)), length=len(body),
        client=client, traceparent=traceparent)
    return Job(number, request, body, supersede, at)


def answers_message(answers: Iterable[tuple[int, Answer]]) -> bytes:
    """What became of jobs, by their numbers."""
    return _message(0, [(number, *_said(answer)) for number, answer in answers])


def _said(answer: Answer) -> tuple[object, ...]:
    if isinstance(answer, CourierError):
        return answer.code, answer.detail
    upload, put = answer.upload, answer.put
    return upload.task_id, upload.sha256, upload.created_at, put.outcome.value, put.task_id, put.superseded


def read_answers(values: Any, jobs: Mapping[int, tuple[UploadRequest, int]]) -> Iterator[tuple[int, Answer]]:
    """What became of `jobs`, of each of which the request and the size are known, by their numbers."""
    for number, *said in values:
        if len(said) == 2:
            yield number, Rejected(*said)
            continue
        task_id, sha256, created_at, outcome, stands_for_it, superseded = said
        request, size = jobs[number]
        yield number, CommitResult(upload_of(request, size, sha256, task_id, created_at),
                                   Put(PutOutcome(outcome), stands_for_it, superseded))
