import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Rejected
from daemon.model.task import FINISHED, PENDING, TRANSITIONS, State
from daemon.model.upload import BUCKETS, Destination, Upload, first_id_of, is_task_id
from tests.support.depot import an_upload, new_id

A_TASK_ID = "01a203a8-e1df-7146-a9da-9cb36be98e81"


def test_states_are_pending_finished_or_failed() -> None:
    """Every state is one of: still wanted, nothing more happens, waits for a person."""
    assert PENDING | FINISHED | {State.FAILED} == set(State)
    assert not PENDING & FINISHED


def test_transitions_have_a_row_for_every_state() -> None:
    """The table is complete, and no state leads to itself."""
    assert set(TRANSITIONS) == set(State)
    assert all(state not in targets for state, targets in TRANSITIONS.items())


def test_finished_tasks_go_nowhere_but_back_for_a_recheck() -> None:
    """Nothing revives a cancelled or superseded task; a delivery is only ever compared once more."""
    assert {state: TRANSITIONS[state] for state in FINISHED} == {
        State.DELIVERED: {State.QUEUED}, State.SUPERSEDED: frozenset(), State.CANCELLED: frozenset()}


uploads = st.builds(
    an_upload,
    path=st.sampled_from(["/x", "/a b/한국어", "/🙂"]), data=st.binary(max_size=10), instance=st.sampled_from(["c1", "web-2"]),
    remote=st.sampled_from(["local", "eu"]), project=st.sampled_from(["default", "p.1"]),
    mode=st.none() | st.integers(0, 0o7777), uid=st.none() | st.integers(0, 2**32 - 2),
    gid=st.none() | st.integers(0, 2**32 - 2), mkdirs=st.booleans(), display_name=st.text(max_size=20).map(
        lambda text: text.encode(errors="replace").decode()),
    created_at=st.floats(0, 1e10), idempotency_key=st.none() | st.text("abc!~", min_size=1, max_size=5),
    client=st.sampled_from([None, "token:ci", "peer:앨리스"]),
    traceparent=st.sampled_from([None, f"00-{'a' * 32}-{'b' * 16}-01"]))


@given(uploads)
def test_upload_survives_json(upload: Upload) -> None:
    """What is written into the spool and the queue reads back as the same upload, on one line."""
    text = upload.to_json()
    assert Upload.from_json(text) == upload
    assert Upload.from_json(text.encode()) == upload
    assert "\n" not in text


def _changed(**values: Any) -> str:
    return json.dumps({**json.loads(an_upload(mode=0o644, uid=0).to_json()), **values})


def _moved(**values: Any) -> str:
    made = json.loads(an_upload().to_json())
    return json.dumps({**made, "destination": {**made["destination"], **values}})


@pytest.mark.parametrize("text", [
    "", "{", "null", "7", "[]", '"x"', "{}", "\x00", b"\xff\xfe", "[" * 100_000, '{"destination": {}}', '{"destination": 7}',
    _changed(task_id=None), _changed(task_id="../../etc/passwd"), _changed(task_id=A_TASK_ID.upper()),
    _changed(size=-1), _changed(size="7"), _changed(size=1.5), _changed(size=True), _changed(size=2**63),
    _changed(sha256="x" * 64), _changed(sha256=""), _changed(sha256=None), _changed(sha256="A" * 64),
    _changed(mode=0o10000), _changed(mode=-1), _changed(mode="0644"), _changed(mode=True),
    _changed(uid=2**32 - 1), _changed(uid=-1), _changed(gid=2**32 - 1), _changed(gid="root"),
    _changed(mkdirs=1), _changed(mkdirs="true"), _changed(display_name=None), _changed(display_name=7),
    _changed(display_name="\ud800"), _changed(idempotency_key="\udfff"),
    _changed(idempotency_key="a\nb"), _changed(client=""), _changed(client="x" * 513), _changed(client="a\nb"),
    _changed(client=7), _changed(traceparent=7), _changed(traceparent=""), _changed(traceparent=f"00-{'0' * 32}-{'b' * 16}-01"),
    _changed(client="\u200b"), _changed(idempotency_key=7), _changed(created_at="now"), _changed(created_at=float("nan")),
    _changed(created_at=float("inf")), _changed(created_at=-1), _changed(created_at=10**400), _changed(surprise=1),
    _moved(path="/../x"), _moved(path="x"), _moved(path=7), _moved(path="/\ud800"), _moved(instance="c1#x"),
    _moved(instance=None), _moved(project="a/b"), _moved(remote="a:b"), _moved(remote=""), _moved(more="x"),
])
def test_upload_is_refused_when_anything_in_its_json_is_not_legal(text: str | bytes) -> None:
    """Whoever can write into the spool or the queue gets a ValueError, and nothing but that, for what is not an upload."""
    with pytest.raises(ValueError, match="not an upload: "):
        Upload.from_json(text)


def test_anonymous_upload_is_described_without_a_client() -> None:
    """Its description has the bytes that it had when no upload had a client, and one of then reads back."""
    upload = an_upload(idempotency_key="k")
    assert not {"client", "traceparent"} & json.loads(upload.to_json()).keys()
    assert Upload.from_json(upload.to_json()).client is None
    assert json.loads(replace(upload, client="token:ci").to_json())["client"] == "token:ci"


def test_key_belongs_to_its_client_whatever_keys_others_choose() -> None:
    """An anonymous one is the key itself; neither a client's name nor a key can be made to look like both of another."""
    uploads = [an_upload(client=client, idempotency_key=key) for client in (None, "a", "a:b", "a b", "ab")
               for key in ("k", "b k", "b:k", "bk", "a k", "a:k", "ak")]
    for upload in uploads:
        upload.check()
    assert len({upload.scoped_key for upload in uploads}) == len(uploads)
    assert all(upload.scoped_key == upload.idempotency_key for upload in uploads if upload.client is None)
    assert an_upload(client="a").scoped_key is None
    assert replace(uploads[0], client="a").fingerprint == uploads[0].fingerprint


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)))
def test_upload_is_refused_when_its_json_is_anything_else(value: object) -> None:
    """No JSON of another shape gets through, or raises anything else."""
    with pytest.raises(ValueError, match="not an upload: "):
        Upload.from_json(json.dumps(value))


@pytest.mark.parametrize("change", [
    {"sha256": "0" * 64}, {"mode": 0o600}, {"uid": 1}, {"gid": 1}, {"mkdirs": True},
    {"destination": Destination("local", "default", "c1", "/y")}, {"destination": Destination("eu", "default", "c1", "/x")},
])
def test_fingerprint_differs_when_the_upload_would_do_something_else(change: dict[str, Any]) -> None:
    """A key is bound to destination, digest, mode, owner and mkdirs."""
    upload = an_upload()
    assert replace(upload, **change).fingerprint != upload.fingerprint


def test_fingerprint_is_the_same_for_a_repetition() -> None:
    """A new id, time and display name do not make another upload of it."""
    upload = an_upload()
    again = replace(upload, task_id=new_id(), created_at=1.0, display_name="other")
    assert again.fingerprint == upload.fingerprint


def test_bucket_never_changes_and_a_shard_is_a_set_of_buckets() -> None:
    """Where an instance's files are is the same for ever; only the shard depends on the number of shards."""
    destination = Destination("local", "default", "c1", "/x")
    assert destination.bucket == 205
    assert all(destination.shard(shards) == destination.bucket % shards for shards in range(1, BUCKETS))


def test_destinations_of_one_instance_share_a_bucket() -> None:
    """All tasks of one instance meet in one worker."""
    buckets = {Destination("local", "default", "c1", path).bucket for path in ("/a", "/b", "/c/d")}
    assert len(buckets) == 1


def test_targets_differ_when_any_part_differs() -> None:
    """Order per path is kept apart for each remote, project, instance and path."""
    parts = [("local", "default", "c1", "/x"), ("eu", "default", "c1", "/x"), ("local", "p", "c1", "/x"),
             ("local", "default", "c2", "/x"), ("local", "default", "c1", "/y")]
    assert len({Destination(*part).digest for part in parts}) == len(parts)


def test_destination_is_checked_as_a_whole() -> None:
    """Each part is looked at."""
    with pytest.raises(Rejected):
        Destination("local", "default", "c1", "relative").checked()


@pytest.mark.parametrize("text", ["", "x", A_TASK_ID[:-1], A_TASK_ID + "0", A_TASK_ID.upper(), A_TASK_ID.replace("-", "0"),
                                  "../../../../../../../../etc/passwd00", A_TASK_ID[:-1] + "\n", A_TASK_ID[:-1] + "٣"])
def test_task_id_is_told_from_other_text(text: str) -> None:
    """What passes as an id can be a file's name and nothing else."""
    assert not is_task_id(text)


def test_task_id_of_the_api_is_one() -> None:
    """The ids that are given out have the form that is asked for."""
    assert is_task_id(new_id())


def test_first_id_of_a_time_is_before_all_ids_given_from_then_on() -> None:
    """Choosing by age is choosing by id."""
    before = time.time()
    given = new_id()
    after = time.time()
    # An id knows its time to the millisecond.
    assert first_id_of(before - 0.001) <= given < first_id_of(after + 0.001)
    assert is_task_id(first_id_of(0))
