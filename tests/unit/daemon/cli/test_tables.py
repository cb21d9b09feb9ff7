"""Tables for people, on a screen and elsewhere."""

import sys

import pytest

from daemon.cli.tables import show_table


def test_table_has_a_line_for_each_row_where_nobody_looks_at_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """However long it is; the columns stand one below the other, also beside letters that are two columns wide."""
    show_table(("a", "b", "c"), [[1, "日本", 2], [22, "x" * 500, "\n"]])
    first, *lines = capsys.readouterr().out.splitlines()
    assert (first.split(), len(lines)) == (["a", "b", "c"], 2)
    assert lines[0] == "1   日本" + " " * 498 + "2"
    assert lines[1] == "22  " + "x" * 500 + r"  \n"


def test_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what there is nothing of."""
    show_table(("a", "b"), [])
    assert capsys.readouterr().out == "a  b\n"


def test_table_is_no_wider_than_the_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A long cell goes on in the next line, and none of it is left out."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "5")
    show_table(("a", "b"), [["1", "x" * 50]])
    _, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 20
    assert "".join(lines).count("x") == 50
