"""What travels between who takes uploads and who stores them: it comes out as it went in."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.uploads.group_commit import CommitResult
from api.uploads.made import new_upload
from api.uploads.request import UploadRequest
from api.uploads.store_wire import Messages, answers_message, job_message, read_answers, read_job
from daemon.errors import Rejected
from daemon.model.upload import Destination
from daemon.task_queue import Put, PutOutcome

texts = st.text(max_size=20)
perhaps = st.none() | texts
owners = st.none() | st.integers(0, 2**32 - 2)
requests = st.builds(
    UploadRequest, destination=st.builds(Destination, texts, texts, texts, texts), display_name=texts, mode=owners,
    uid=owners, gid=owners, mkdirs=st.none() | st.booleans(), idempotency_key=perhaps,
    digests=st.frozensets(st.tuples(texts, texts), max_size=2), length=st.none(), client=perhaps, traceparent=perhaps)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.tuples(requests, st.lists(st.binary(max_size=50), max_size=3), st.booleans()), max_size=4),
       st.lists(st.integers(0, 10_000), max_size=8))
def test_jobs_come_out_as_they_went_in_however_they_are_cut(jobs: list[Any], places: list[int]) -> None:
    """All that is stored of an upload, its bytes, and whether it replaces older ones."""
    sent = b"".join(job_message(number, request, pieces, supersede=supersede, at=number / 3)
                    for number, (request, pieces, supersede) in enumerate(jobs))
    messages = Messages()
    found = [read_job(*message) for piece in cut(sent, places) for message in messages.take(piece)]
    assert [(job.number, job.at) for job in found] == [(number, number / 3) for number in range(len(jobs))]
    for job, (request, pieces, supersede) in zip(found, jobs, strict=True):
        assert (job.body, job.supersede) == (b"".join(pieces), supersede)
        made = new_upload(request, 1, "0" * 64)
        again = new_upload(job.request, 1, "0" * 64)
        assert {**vars(made), "task_id": "", "created_at": 0} == {**vars(again), "task_id": "", "created_at": 0}
        assert job.request.digests == request.digests


@given(st.lists(requests, max_size=4), st.integers(0, 2**40), st.data())
def test_answers_come_out_as_they_went_in(some: list[UploadRequest], size: int, data: st.DataObject) -> None:
    """Each is of the upload that it is about; a refusal has its code and what is said besides."""
    outcomes = st.builds(Put, st.sampled_from(PutOutcome), texts, st.dictionaries(texts, perhaps, max_size=2))
    answers = {number: data.draw(st.one_of(
        st.builds(CommitResult, st.builds(new_upload, st.just(request), st.just(size), texts), outcomes),
        st.builds(Rejected, st.just("no_room"), texts))) for number, request in enumerate(some)}
    [(_, values, _)] = Messages().take(answers_message(answers.items()))
    found = dict(read_answers(values, {number: (request, size) for number, request in enumerate(some)}))
    assert found.keys() == answers.keys()
    for number, answer in answers.items():
        again = found[number]
        if isinstance(answer, CommitResult):
            assert again == answer
        else:
            assert isinstance(again, Rejected)
            assert (again.code, again.detail) == (answer.code, answer.detail)
