"""What an append may do: decided without anything being waited for."""

import pytest

from api.resumable.appending import is_due
from api.resumable.decide import AppendStep, is_whole, step_of, told, unreserved
from api.resumable.engine import fits
from api.resumable.sweeping import pause_s
from api.resumable.values import WrongOffset
from daemon.config import UploadsSection
from daemon.errors import Rejected
from daemon.partials import Census, PartialState, Phase

KNOWN = PartialState(offset=4, length=10, changed_at=0.0)
UNKNOWN = PartialState(offset=4, length=None, changed_at=0.0)
FROZEN = PartialState(offset=9, length=10, changed_at=0.0, phase=Phase.COMPLETING)
DONE = PartialState(offset=10, length=10, changed_at=0.0, phase=Phase.COMPLETE)


@pytest.mark.parametrize(("state", "offset", "content_length", "length", "final", "step"), [
    (KNOWN, 4, 3, None, None, AppendStep(10, 6)),
    (KNOWN, 4, 6, 10, None, AppendStep(10, 6)),
    (KNOWN, 4, None, None, None, AppendStep(10, 6)),
    (KNOWN, 4, 6, None, True, AppendStep(10, 6)),
    (KNOWN, 4, 3, None, False, AppendStep(10, 6)),
    (UNKNOWN, 4, 3, None, None, AppendStep(None, None)),
    (UNKNOWN, 4, 3, 7, None, AppendStep(7, 3)),
    (UNKNOWN, 4, 3, None, True, AppendStep(7, 3)),
    (UNKNOWN, 4, None, None, True, AppendStep(None, None)),
    (UNKNOWN, 4, 0, 4, True, AppendStep(4, 0)),
    (FROZEN, 9, 1, None, None, AppendStep(10, 1, frozen=True)),
    (DONE, 10, 0, None, None, AppendStep(10, 0, complete=True)),
    (DONE, 10, 0, 10, True, AppendStep(10, 0, complete=True)),
])
def test_append_is_let_in_for_what_is_missing(
    state: PartialState, offset: int, content_length: int | None, length: int | None, final: bool | None,
    step: AppendStep,
) -> None:
    """As far as it is known how much that is."""
    assert step_of(state, offset, content_length=content_length, length=length, final=final) == step


@pytest.mark.parametrize(("state", "offset", "content_length", "length", "final", "code"), [
    (KNOWN, 3, 1, None, None, "wrong_offset"),
    (KNOWN, 5, 1, None, None, "wrong_offset"),
    (FROZEN, 10, 0, None, None, "wrong_offset"),
    (DONE, 4, 6, None, None, "wrong_offset"),
    (KNOWN, 4, 7, None, None, "beyond_length"),
    (FROZEN, 9, 2, None, None, "beyond_length"),
    (KNOWN, 4, 1, 11, None, "inconsistent_length"),
    (UNKNOWN, 4, 1, 3, None, "inconsistent_length"),
    (UNKNOWN, 4, 1, 4, None, "beyond_length"),
    (KNOWN, 4, 3, None, True, "inconsistent_length"),
    (UNKNOWN, 4, 1, 7, True, "inconsistent_length"),
    (DONE, 10, 1, None, None, "upload_completed"),
    (DONE, 10, None, None, None, "upload_completed"),
    (DONE, 10, 0, None, False, "upload_completed"),
])
def test_append_that_contradicts_what_is_known_is_refused(
    state: PartialState, offset: int, content_length: int | None, length: int | None, final: bool | None, code: str,
) -> None:
    """Before any of it is read."""
    with pytest.raises(Rejected) as refused:
        step_of(state, offset, content_length=content_length, length=length, final=final)
    assert refused.value.code == code
    if isinstance(refused.value, WrongOffset):
        assert refused.value.offset == told(state)
        assert refused.value.headers == (("Upload-Offset", str(told(state))),)


@pytest.mark.parametrize(("size", "length", "final", "whole"), [
    (9, 10, None, False), (10, 10, None, True), (10, 10, False, False), (10, 10, True, True), (10, None, None, False),
    (10, None, True, True), (10, None, False, False), (0, 0, None, True),
])
def test_upload_is_completed_by_its_last_byte_or_by_a_word(
    size: int, length: int | None, final: bool | None, whole: bool,
) -> None:
    """As its protocol has it."""
    assert is_whole(size, length, final=final) is whole


def test_only_what_nobody_announced_is_counted_anew() -> None:
    """The rest counts from the beginning."""
    assert unreserved(KNOWN, 4, 6, None) == 0
    assert unreserved(UNKNOWN, 4, 6, None) == 6
    assert unreserved(UNKNOWN, 4, 6, 20) == 16
    assert unreserved(UNKNOWN, 4, None, None) is None


def test_last_part_that_leaves_bytes_out_is_refused() -> None:
    """It came in chunks, so nobody knew before."""
    with pytest.raises(Rejected) as refused:
        is_whole(9, 10, final=True)
    assert refused.value.code == "inconsistent_length"


def test_uploads_fit_up_to_the_limits() -> None:
    """Both that of their number and that of all their bytes, those that are still to come among them."""
    limits = UploadsSection(max_partials=3, max_partial_bytes=100)
    census = Census(number=2, present_bytes=30, owed_bytes=50)
    assert fits(census, limits, 1, 20)
    assert not fits(census, limits, 1, 21)
    assert not fits(census, limits, 2, 0)


@pytest.mark.parametrize(("expire_s", "expected_s"), [(86400.0, 60.0), (100.0, 25.0), (0.1, 0.5)])
def test_sweeps_come_often_enough_for_what_expires(expire_s: float, expected_s: float) -> None:
    """And never all the time."""
    assert pause_s(expire_s) == expected_s


@pytest.mark.parametrize(("size", "age_s", "due"), [
    (64 * 2**20, 0.0, True), (64 * 2**20 - 1, 1.9, False), (2**20, 2.0, True), (2**20 - 1, 60.0, False)])
def test_long_append_becomes_durable_on_its_way(size: int, age_s: float, due: bool) -> None:
    """Seldom on a fast line, and after a while on a slow one."""
    assert is_due(size, age_s) is due
