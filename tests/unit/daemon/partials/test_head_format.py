"""The form of a head: what survives a power cut in the middle of a write."""

from dataclasses import replace

import pytest

from daemon.model.upload import Destination
from daemon.partials.head_format import (
    BLOCK_BYTES,
    PLAN_AT,
    RECORD_BYTES,
    Record,
    chosen_where,
    newest,
    plan_json,
    read_chosen,
    read_plan,
    read_record,
    read_text,
    record_bytes,
    tellable,
    text_bytes,
)
from daemon.partials.values import PartialState, Phase, Plan
from tests.support.depot import an_upload

STATE = PartialState(offset=5, length=None, changed_at=1.5)
PLAN = Plan(destination=Destination("local", "default", "c1", "/ä"), display_name="ä", mode=0o640, uid=1, gid=2, mkdirs=True,
            idempotency_key="k", digests=frozenset({("sha-256", "aa"), ("sha-512", "bb")}), owner="token:ci/x",
            metadata="path w6Q=", created_at=1.25)


@pytest.mark.parametrize("state", [
    STATE, replace(STATE, length=2**40), replace(STATE, phase=Phase.COMPLETE, task_id=an_upload().task_id)])
def test_record_is_read_as_it_was_written(state: PartialState) -> None:
    """Every field of it."""
    record = Record(7, state)
    data = record_bytes(record)
    assert len(data) == RECORD_BYTES <= BLOCK_BYTES
    assert read_record(data.ljust(BLOCK_BYTES, b"\0")) == record
    assert (Record(6, STATE).at, record.at) == (0, BLOCK_BYTES)


def test_torn_record_leaves_the_one_before() -> None:
    """Wherever the write ended."""
    before, after = Record(6, STATE), Record(7, replace(STATE, offset=9))
    for end in range(RECORD_BYTES):
        torn = record_bytes(after)[:end].ljust(RECORD_BYTES, b"\0")
        assert newest(read_record(record_bytes(before)), read_record(torn)) == before
    assert newest(read_record(record_bytes(before)), read_record(record_bytes(after))) == after
    assert newest(read_record(b""), None) is None


def test_plan_is_read_as_it_was_written() -> None:
    """And one that is damaged is not taken for another."""
    text = text_bytes(plan_json(PLAN))
    assert read_plan(read_text(text)) == PLAN
    for damaged in (text[:-1], text[:20] + b"?" + text[21:], b"", b"x" * 100):
        with pytest.raises(ValueError, match="resumable upload"):
            read_text(damaged)
    for wrong in (b"{}", b"[]", b"nonsense"):
        with pytest.raises(ValueError, match="not the plan"):
            read_plan(wrong)


def test_choice_counts_only_when_it_is_whole() -> None:
    """A record may be on the disk before what it speaks of: then nothing has come of it yet."""
    upload = an_upload()
    where, text = chosen_where(plan_json(PLAN), upload)
    assert where.at == PLAN_AT + len(text_bytes(plan_json(PLAN)))
    assert read_chosen(where, text) == upload
    assert read_chosen(where, text[:-1]) is None
    assert read_chosen(where, bytes(len(text))) is None


@pytest.mark.parametrize(("offset", "length", "size", "expected"), [
    (0, 10, 5, 5), (0, 10, 10, 9), (0, None, 10, 10), (10, 10, 10, 10), (0, 0, 0, 0), (0, 1, 1, 0), (9, 10, 9, 9)])
def test_last_byte_is_not_told_and_nothing_is_taken_back(offset: int, length: int | None, size: int, expected: int) -> None:
    """What may be told of bytes that are on the disk."""
    assert tellable(PartialState(offset=offset, length=length, changed_at=0.0), size) == expected
