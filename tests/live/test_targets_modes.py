"""Mode and owner, exactly as asked or as they were, whatever the way to deliver."""

import pytest

from tests.live.ways import ALL, ATOMIC, refused
from tests.live.world import World


@pytest.mark.parametrize("way", ALL)
class TestModeAndOwner:
    """Exact, on new files and on old ones."""

    def test_new_file_has_the_mode_and_owner_that_were_asked(self, world: World) -> None:
        """A new file gets exactly what was asked for."""
        uid, gid = world.owner
        world.deliver(f"{world.home}/f", b"secret", mode=0o600, uid=uid, gid=gid)
        facts = world.facts(f"{world.home}/f")
        assert (facts.mode, facts.uid, facts.gid) == (0o600, uid, gid)

    def test_existing_file_gets_the_mode_and_owner_that_were_asked(self, world: World) -> None:
        """What was there before does not matter when mode and owner are given."""
        uid, gid = world.owner
        world.make_file(f"{world.home}/f", b"old", 0o666)
        world.deliver(f"{world.home}/f", b"new", mode=0o640, uid=uid, gid=gid)
        facts = world.facts(f"{world.home}/f")
        assert (facts.data, facts.mode, facts.uid, facts.gid) == (b"new", 0o640, uid, gid)

    def test_existing_file_keeps_its_own_when_nothing_was_asked(self, world: World) -> None:
        """Without a mode and an owner an existing file keeps those it had."""
        world.make_file(f"{world.home}/f", b"old", 0o751, world.owner)
        world.deliver(f"{world.home}/f", b"new")
        facts = world.facts(f"{world.home}/f")
        assert (facts.data, facts.mode, (facts.uid, facts.gid)) == (b"new", 0o751, world.owner)

    def test_existing_file_keeps_its_owner_when_only_a_mode_was_asked(self, world: World) -> None:
        """Mode and owner are kept or changed each for itself."""
        world.make_file(f"{world.home}/f", b"old", 0o751, world.owner)
        world.deliver(f"{world.home}/f", b"new", mode=0o600)
        facts = world.facts(f"{world.home}/f")
        assert (facts.data, facts.mode, (facts.uid, facts.gid)) == (b"new", 0o600, world.owner)

    def test_new_file_has_the_default_mode_when_nothing_was_asked(self, world: World) -> None:
        """Without a mode a new file gets the configured one."""
        world.deliver(f"{world.home}/f", b"new", default_mode=0o604)
        assert world.facts(f"{world.home}/f").mode == 0o604

    @pytest.mark.parametrize("mode", [0o000, 0o400, 0o777])
    def test_mode_is_exact_whatever_the_umask(self, world: World, mode: int) -> None:
        """Every permission bit is as asked, none is masked."""
        world.deliver(f"{world.home}/f", b"x", mode=mode)
        assert world.facts(f"{world.home}/f").mode == mode


@pytest.mark.parametrize("way", ATOMIC)
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6750, 0o1644])
def test_special_bits_survive_the_owner_and_the_bytes(world: World, mode: int) -> None:
    """Setuid and setgid are set last, for a write or a change of owner would take them away."""
    uid, gid = world.owner
    world.deliver(f"{world.home}/f", b"x" * 100, mode=mode, uid=uid, gid=gid)
    assert world.facts(f"{world.home}/f").mode == mode


@pytest.mark.live
@pytest.mark.parametrize("way", ["files_api"])
def test_special_bits_are_refused_without_sftp(world: World) -> None:
    """The files API cannot set setuid, so such a file is refused rather than delivered without it."""
    assert refused(world, f"{world.home}/f", mode=0o4755) == "permission_denied"
