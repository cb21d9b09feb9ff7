"""The bytes and the names that arrive, whatever the way to deliver."""

import contextlib
import io
import os

import pytest

from daemon.errors import Undelivered
from tests.live.ways import ALL, Watched, refused
from tests.live.world import World

MIB = 2**20


@pytest.mark.parametrize("way", ALL)
class TestBytes:
    """What arrives."""

    @pytest.mark.parametrize("size", [0, 1, 255 * 1024, 255 * 1024 + 1, 8 * MIB])
    def test_file_arrives_whole_without_the_bytes_that_follow_it_in_the_spool(self, world: World, size: int) -> None:
        """A file of any size arrives, and not a byte more than its size."""
        data = os.urandom(size)
        world.deliver(f"{world.home}/f", data)
        assert world.facts(f"{world.home}/f").data == data

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB])
    def test_file_is_compared_by_digest_when_asked(self, world: World, size: int) -> None:
        """With verify = "digest" the bytes are read back, and the right ones pass."""
        data = os.urandom(size)
        world.deliver(f"{world.home}/f", data, verify="digest")
        assert world.facts(f"{world.home}/f").data == data

    def test_bytes_that_are_not_those_accepted_are_refused_when_asked_to_compare(self, world: World) -> None:
        """With verify = "digest" a spool file that has changed is told apart from an instance that has."""
        assert refused(world, f"{world.home}/f", verify="digest", sha256="0" * 64) == "bytes_damaged"
        data, path = os.urandom(3 * MIB), f"{world.home}/g"

        def spoil() -> None:
            for written in (*world.host_path(world.home).glob(".courier-*"), world.host_path(path)):
                if written.exists() and written.stat().st_size > MIB:
                    with written.open("r+b") as file:
                        file.write(bytes([data[0] ^ 1]))

        source = Watched(data, spoil)
        with contextlib.closing(world.open()) as session, pytest.raises(Undelivered) as caught:
            session.deliver(world.delivery(path, data, verify="digest"), source, lambda: None)
        assert caught.value.code == "verify_failed"

    def test_shorter_file_replaces_a_longer_one(self, world: World) -> None:
        """Nothing of the old file's end stays."""
        world.make_file(f"{world.home}/f", b"old and long")
        world.deliver(f"{world.home}/f", b"new")
        assert world.facts(f"{world.home}/f").data == b"new"

    def test_empty_file_replaces_a_full_one(self, world: World) -> None:
        """An empty upload empties the file."""
        world.make_file(f"{world.home}/f", b"old")
        world.deliver(f"{world.home}/f", b"")
        assert world.facts(f"{world.home}/f").data == b""

    def test_source_that_ends_too_early_is_damaged(self, world: World) -> None:
        """A spool file with too few bytes is never delivered."""
        delivery = world.delivery(f"{world.home}/f", b"x" * 100)
        with contextlib.closing(world.open()) as session, pytest.raises(Undelivered) as caught:
            session.deliver(delivery, io.BytesIO(b"short"), lambda: None)
        assert caught.value.code == "bytes_damaged"

    @pytest.mark.parametrize("name", ["한글 이름.txt", "emoji 😀👍", "a  b", "-rf", "x?y#z&project=nope%2e", "가" * 85, "x" * 255])
    def test_name_of_any_script_arrives_as_it_is(self, world: World, name: str) -> None:
        """Names are bytes to the instance: Korean, emoji, spaces and 255 bytes all arrive unchanged."""
        world.deliver(f"{world.home}/{name}", b"data")
        assert world.names(world.home) == [name]

    def test_path_of_4095_bytes_arrives(self, world: World) -> None:
        """The longest path that Linux takes is delivered, its directories made."""
        above = world.home + "/" + "/".join(["d" * 249] * 16)
        path = f"{above}/{'f' * (4094 - len(above))}"
        assert len(path) == 4095
        world.deliver(path, b"x", mkdirs=True)
        with contextlib.closing(world.open()) as session:
            delivery = world.delivery(path, b"x", recheck=True)
            assert session.deliver(delivery, io.BytesIO(b"x"), lambda: None).unchanged

    def test_name_of_256_bytes_is_too_long(self, world: World) -> None:
        """A name that the filesystem cannot hold has its own error."""
        assert refused(world, f"{world.home}/{'x' * 256}") == "name_too_long"

    def test_one_session_delivers_many_files(self, world: World) -> None:
        """A session goes on after a success and after a refusal."""
        with contextlib.closing(world.open()) as session:
            for number in range(20):
                session.deliver(world.delivery(f"{world.home}/{number}", b"x"), io.BytesIO(b"x"), lambda: None)
                with pytest.raises(Undelivered):
                    session.deliver(world.delivery(f"{world.home}/no/{number}", b"x"), io.BytesIO(b"x"), lambda: None)
            assert not session.broken
        assert len(world.names(world.home)) == 20
