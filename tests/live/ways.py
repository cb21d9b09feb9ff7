"""The ways to deliver that promise the same: SFTP and the files API of a real Incus, and the directory."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from daemon.errors import Undelivered
from tests.live.world import World

LIVE = pytest.mark.live
ATOMIC = [pytest.param("sftp", marks=LIVE), "directory"]
ALL = [*ATOMIC, pytest.param("files_api", marks=LIVE)]
#: All of them where another user than the one who delivers can own something: as root.
AS_ROOT = [pytest.param(way, marks=LIVE) for way in ("sftp", "directory", "files_api")]
IN_INCUS = [pytest.param("sftp", marks=LIVE), pytest.param("files_api", marks=LIVE)]


def refused(world: World, path: str, data: bytes = b"new", **changes: Any) -> str:
    """Deliver to a destination that refuses it; return the code."""
    with pytest.raises(Undelivered) as caught:
        world.deliver(path, data, **changes)
    return caught.value.code


class Watched(io.BytesIO):
    """A source that calls back at each reading."""

    def __init__(self, data: bytes, on_read: Callable[[], None]) -> None:
        super().__init__(data)
        self._on_read = on_read

    def readinto(self, buffer: Any, /) -> int:
        """Read as ever, and call back."""
        self._on_read()
        return super().readinto(buffer)
