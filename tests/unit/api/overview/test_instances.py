"""The order of instances, and pages that stay right while they move."""

import pytest

from api.overview.instances import InstanceRow, Page, Rank, Ranking, Rows, page_of, together
from daemon.errors import Rejected
from daemon.explain import Explanation
from daemon.task_queue import Standing


def rank(name: str, waiting: int) -> Rank:
    """The place of an instance."""
    return Rank(-waiting, f"local/default/{name}")


def ranking(*ranks: Rank, more: int = 0) -> Ranking:
    """These, and so many behind them."""
    return Ranking(ranks, more)


A, B, C, D = rank("a", 9), rank("b", 9), rank("c", 4), rank("d", 0)


def test_shards_are_put_together_as_if_there_were_one() -> None:
    """Those with most waiting first, then by name; of the others how many they are."""
    assert together([ranking(B, D, more=5), ranking(A, C)], 3) == Ranking((A, B, C), 6)
    assert together([], 3) == Ranking((), 0)


def test_page_leads_to_what_comes_behind_its_last_row() -> None:
    """Whatever moves meanwhile: the next one begins behind a place, not behind a number of rows."""
    assert page_of(ranking(A, B, C, D), 2, None) == Page((A, B), 2, B)
    assert page_of(ranking(C, D), 2, None) == Page((C, D), 0, None)
    assert page_of(ranking(C, D, more=7), 2, None) == Page((C, D), 7, D)
    assert Rank.read(B.cursor) == B


def test_who_sees_few_gets_theirs_and_is_led_on_past_all_that_were_looked_at() -> None:
    """Also with an empty page: what is looked at for one is bounded."""
    def sees(key: str) -> bool:
        return key in {A.instance_key, C.instance_key}

    assert page_of(ranking(A, B, C, D), 1, sees) == Page((A,), 1, A)
    assert page_of(ranking(B, C, D), 1, sees) == Page((C,), 0, None)
    assert page_of(ranking(B, D, more=3), 1, sees) == Page((), 0, D)


@pytest.mark.parametrize("cursor", ["", "x", "1/a", "1/a/b", "-1/a/b/c", "1/a/b/c/d", "1" * 16 + "/a/b/c", "1/a/b/\n", "١/a/b/c",
                                    "1/a/b/" + "c" * 300])
def test_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    """It reaches no database."""
    with pytest.raises(Rejected, check=lambda error: error.code == "bad_query"):
        Rank.read(cursor)


def test_rows_are_found_out_once_a_second_for_all() -> None:
    """Each instance for itself."""
    asked: list[str] = []

    def look(keys: object) -> list[InstanceRow]:
        assert isinstance(keys, list)
        asked.extend(keys)
        return [InstanceRow(Standing(instance_key=key, totals={}, oldest_at=None), (), Explanation(stuck=False, summary="")) for key in keys]

    rows = Rows(look)
    assert [row.standing.instance_key for row in rows.of(["a", "b"])] == ["a", "b"]
    assert [row.standing.instance_key for row in rows.of(["c", "a"])] == ["c", "a"]
    assert asked == ["a", "b", "c"]
