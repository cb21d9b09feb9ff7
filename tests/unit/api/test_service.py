"""The parts of the API process belong together."""

import asyncio
from pathlib import Path

import pytest

from api import service
from api.access.roster import Roster
from api.uploads.intake import Uploads
from daemon.config import load
from daemon.log import flush
from daemon.process.shared_counts import SharedCounts
from daemon.state.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new state."""
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout


def test_process_ends_when_nobody_looks_for_changes_of_rights_any_more(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """A mistake of ours there would leave revoked tokens in force for ever: the process says so, and is started anew."""
    def mistake(_: Roster) -> bool:
        raise LookupError("a mistake")

    monkeypatch.setattr(Roster, "look", mistake)
    assert asyncio.run(service.run(load(None), None, layout, [], SharedCounts())) is False
    flush(within_s=60)
    assert "LookupError('a mistake')" in capfd.readouterr().err


def test_changes_of_rights_are_seen_while_an_upload_cannot_be_looked_at(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk that has what was handed on hangs, for example: a revoked token ends all the same."""
    looks: list[int] = []

    async def hang(_: Uploads) -> None:
        await asyncio.Event().wait()

    def look(_: Roster) -> bool:
        looks.append(len(looks))
        if len(looks) == 3:
            raise LookupError("enough")
        return True

    monkeypatch.setattr(Uploads, "recheck", hang)
    monkeypatch.setattr(Roster, "look", look)
    assert asyncio.run(service.run(load(None), None, layout, [], SharedCounts())) is False
    assert looks == [0, 1, 2]
