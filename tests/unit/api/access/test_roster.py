"""Strangers who had everything get it never again, once somebody was given rights."""

import os
from pathlib import Path

import pytest

from api.access.roster import Roster
from api.live_config import LiveConfig
from daemon.config import Config, Peer, load
from daemon.errors import CannotStart
from daemon.model.grant import Grant
from daemon.state.layout import Layout
from tests.support.tokens import make_token, revoke_token


def with_peers(config: Config) -> Config:
    """The same configuration, and somebody who has rights."""
    return config.model_copy(update={"peers": [Peer(name="web", user="0", grant=Grant.read({"may": ["upload"]}))]})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new state."""
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout


def test_door_stays_closed_while_the_mark_cannot_be_written(layout: Layout) -> None:
    """The last right is taken back before the disk takes the mark: nobody is let in, and the mark is made when it can be."""
    live = LiveConfig(with_peers(load(None)))
    layout.access.rmdir()
    roster = Roster(live, layout, None, tells=True)
    live.adopt(load(None), live.proxies)
    roster.look()
    assert roster.known.config.peers == []
    assert roster.known.closed
    layout.access.mkdir()
    roster.look()
    assert Roster(live, layout, None, tells=True).known.closed


def test_mark_that_cannot_be_looked_at_does_not_count_as_none(layout: Layout) -> None:
    """Whether strangers may come in is not known then: the service does not start."""
    layout.access.rmdir()
    layout.access.symlink_to(layout.access)
    with pytest.raises(OSError, match="symbolic links"):
        Roster(LiveConfig(load(None)), layout, None, tells=True)


def test_change_that_could_not_be_read_is_read_later(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there was no descriptor left, for example: else a revoked token would stay in force for ever."""
    config = tmp_path / "config.toml"
    make_token(config, "ci", may=["upload"])
    roster = Roster(LiveConfig(load(None)), layout, config, tells=True)
    revoke_token(config, "ci")

    def fails(_: Path) -> None:
        raise CannotStart("bad_tokens", "Too many open files") from OSError(24, os.strerror(24))

    with monkeypatch.context() as patched:
        patched.setattr("api.access.live_tokens.read_tokens", fails)
        assert not roster.look()
    troubles = [roster.trouble]
    assert roster.look()
    assert [*troubles, roster.trouble] == ["Too many open files", None]
    assert [token.revoked_at is None for token in roster.known.tokens.every] == [False]
