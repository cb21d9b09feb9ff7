"""Which host uses a state directory: who may begin, who has to wait, and who has lost it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.state import tenure
from daemon.state.layout import Layout
from daemon.state.tenure import STALE_S, Host, HostToken, Tenure, is_others, read_token, refusal, this_host

ME = Host("a", "boot-1")
OTHER = Host("b", "boot-9")
NOW = 2e9


@contextmanager
def held(layout: Layout, me: Host, *, take_over: bool = False) -> Iterator[Tenure]:
    """A worker of that host that uses the state, until it dies."""
    made = Tenure(layout, me)
    try:
        made.take(take_over=take_over)
        yield made
    finally:
        made.close()


def token_of(layout: Layout) -> HostToken:
    """What the token says."""
    found = read_token(layout)
    assert found is not None
    return found


def lost(check: Tenure) -> str:
    """Why the state is not a worker's any more."""
    with pytest.raises(CannotStart) as caught:
        check.check()
    assert caught.value.code == "state_lost"
    return caught.value.detail


@pytest.mark.parametrize(("found", "others"), [
    (None, False),
    (HostToken(host="b", boot="boot-9", epoch=1, at=NOW), True),
    (HostToken(host="b", boot="boot-9", epoch=1, at=NOW - STALE_S + 1), True),
    (HostToken(host="b", boot="boot-9", epoch=1, at=NOW + 1e6), True),
    (HostToken(host="b", boot="boot-9", epoch=1, at=NOW - STALE_S), False),
    (HostToken(host="b", boot="boot-9", epoch=1, at=NOW, ended=True), False),
    (HostToken(host="a", boot="boot-9", epoch=1, at=NOW), False),
    (HostToken(host="b", boot="boot-1", epoch=1, at=NOW), False),
    (HostToken(host="b", boot="", epoch=1, at=NOW), True),
])
def test_other_host_may_be_using_what_it_said_lately(found: HostToken | None, others: bool) -> None:
    """Not one that has ended or been silent for long, nor this one before it was started anew, nor this very kernel."""
    assert is_others(found, ME, NOW) is others
    assert (refusal(found, ME, NOW) is not None) is others
    # Where nobody says which boot it is, the name tells.
    assert is_others(found, replace(ME, boot=""), NOW) is (others or (found is not None and found.boot == "boot-1"))


def test_host_is_called_as_configured_or_as_was_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was copied with an image is told apart by the machine's id, and the other way round."""
    written, machine = tmp_path / "host", tmp_path / "machine-id"
    monkeypatch.setattr(tenure, "NAME_FILE", written)
    monkeypatch.setattr(tenure, "_MACHINE_ID", machine)
    assert this_host("node-1").name == "node-1"
    assert this_host().name == f"{os.uname().nodename}/"
    written.write_text("node-2-x\nmore\n")
    machine.write_text("0123456789abcdef0123456789abcdef\n")
    assert this_host().name == "node-2-x/0123456789ab"
    written.write_bytes(b"\xff\n")
    assert this_host().name == f"{os.uname().nodename}/0123456789ab"
    written.write_text("\x1b[31m\n")
    assert this_host().name == f"{os.uname().nodename}/0123456789ab"


def test_host_that_finds_another_ones_token_is_refused_unless_it_takes_over(layout: Layout) -> None:
    """It is told whose it is; who takes over begins an epoch, and the other one finds out."""
    with held(layout, OTHER) as other:
        with pytest.raises(CannotStart) as caught, held(layout, ME):
            pass
        assert caught.value.code == "state_in_use"
        assert "The host b said" in caught.value.detail
        other.check()
        with held(layout, ME, take_over=True) as mine:
            assert (token_of(layout).host, mine.epoch) == ("a", other.epoch + 1)
            mine.check()
            assert "the host a has it" in lost(other)
            # It does not write over the other one's.
            other.leave()
            assert token_of(layout).host == "a"


def test_own_restart_of_the_host_is_never_refused(layout: Layout) -> None:
    """It is another epoch: what the kernel before had not synced cannot be presumed."""
    with held(layout, ME) as before, held(layout, replace(ME, boot="boot-2")) as after:
        assert after.epoch == before.epoch + 1


def test_workers_of_one_boot_share_an_epoch(layout: Layout) -> None:
    """Also under another name, as in a container that was made anew: the locks of the kernel hold between them."""
    with held(layout, ME) as one, held(layout, replace(ME, name="c")) as two:
        assert one.epoch == two.epoch
        one.check()
        two.check()


def test_host_that_ended_in_order_leaves_the_state_to_any_other(layout: Layout) -> None:
    """At once; it begins again as if nothing had been."""
    with held(layout, OTHER) as other:
        other.leave()
    assert token_of(layout).ended
    with held(layout, ME):
        assert not token_of(layout).ended


def test_host_says_that_it_is_there_once_a_minute_for_all_of_its_workers(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever looks first; in between nothing is written."""
    clock = [NOW]
    monkeypatch.setattr("daemon.state.tenure.time.time", lambda: clock[0])
    monkeypatch.setattr("daemon.state.tenure.time.monotonic", lambda: clock[0])
    with held(layout, ME) as one, held(layout, ME) as two:
        said = set()
        for _ in range(600):
            clock[0] += 1
            for each in (one, two):
                each.refresh()
                each.check()
            said.add(token_of(layout).at)
            assert clock[0] - token_of(layout).at < STALE_S / 2
        assert len(said) <= 11


def test_what_is_half_written_or_makes_no_sense_is_not_believed(layout: Layout) -> None:
    """The slot before counts, or nothing does."""
    with held(layout, OTHER):
        pass
    with held(layout, OTHER):
        pass
    newest = layout.host_token.read_bytes()
    layout.host_token.write_bytes(b"\xff" * 20 + newest[20:])
    assert token_of(layout).host == "b"
    for nonsense in (b"", b"\xff" * len(newest), newest[:30]):
        layout.host_token.write_bytes(nonsense)
        assert read_token(layout) is None
    layout.host_token.unlink()
    assert read_token(layout) is None


def test_state_on_a_full_disk_can_be_used(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finishes its work makes room; it is written down later."""
    real = os.posix_fallocate

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with held(layout, ME) as mine:
        assert read_token(layout) is None
        mine.check()
        monkeypatch.setattr(os, "posix_fallocate", real)
        mine.refresh()
        assert token_of(layout).host == "a"
        mine.check()


def test_worker_finds_out_when_its_directory_was_replaced(layout: Layout) -> None:
    """Another one has its name, or none has; and no token is left of before."""
    with held(layout, ME) as mine:
        aside = layout.directory.with_name("aside")
        layout.directory.rename(aside)
        assert "is gone" in lost(mine)
        Layout(layout.directory).create()
        assert "another directory" in lost(mine)
        os.rename(layout.directory, layout.directory.with_name("later"))
        aside.rename(layout.directory)
        mine.check()
        layout.host_token.write_bytes(b"")
        assert "nobody can tell" in lost(mine)
