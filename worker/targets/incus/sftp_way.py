"""Where a path of an instance leads, by SFTP, and whether it still leads there.

All of SFTP goes by path, and the server follows every link on the way. So who is to stay within bounds resolves the
links himself, once, and goes by what is left. Where only root can change names, that stays as it is. Elsewhere a user
can put a link in the place of a directory at any moment: there it is looked at again and again, in an order that nobody
can foresee.
"""

import contextlib
import posixpath
import random
import stat
from collections import deque
from typing import Final

from daemon.errors import Undelivered
from worker.targets.attributes import MAX_LINKS, Attributes, refuse_unless_trusted, shown, where
from worker.targets.base import Delivery
from worker.targets.incus.sftp_channel import NO_SUCH_FILE, Channel, SftpStatus
from worker.targets.incus.sftp_part import closing_handle, digest
from worker.targets.incus.sftp_wire import WireBroken

#: Questions on their way at once.
_WINDOW: Final = 16
#: How often each name is looked at in one go. Who swaps them without a pause passes one look of two.
_LOOKS: Final = 8
_UNFORESEEABLE: Final = random.SystemRandom()


class Way:
    """The directories down to a file, none of which was a link."""

    def __init__(self, channel: Channel, delivery: Delivery, path: bytes, open_to_others: list[bytes]) -> None:
        """`path` is the file's; `open_to_others` are the directories on the way that others than root may swap."""
        self._channel = channel
        self._delivery = delivery
        self.path: Final = path
        self.open_to_others: Final = open_to_others

    async def hold(self, file: bytes, expected: Attributes | None = None) -> None:
        """Return when the way is what it was, and `file`, which is at its end, is there (and looks as expected).

        Raises Undelivered: not_allowed when a link is in the way by now, verify_failed for anything else.
        """
        for path, seen in await self._look_often(file):
            if seen is None or not (_is_file(seen, expected) if path == file else seen.is_directory):
                raise Undelivered("verify_failed", f"{where(self._delivery)}: {shown(path)} is not what it was")

    async def held(self, filled: Attributes) -> None:
        """Return when no link is in the way, now that the file has its name. What becomes of it is others' business.

        Raises Undelivered('not_allowed') otherwise. Where the link led, the file is removed if it is certainly this.
        """
        try:
            await self._look_often()
        except Undelivered as error:
            removed = await self._take_back(filled)
            said = f", and removed again at {', '.join(map(shown, removed))}" if removed else ""
            raise Undelivered(error.code, f"{error.detail}; the file may have been put elsewhere{said}") from error

    async def remove_astray(self, name: bytes) -> None:
        """Remove a part file that was made where a link led. Nothing else has that name."""
        # The failure that led here is the one to report.
        with contextlib.suppress(WireBroken):
            for place in await self._led_to():
                with contextlib.suppress(SftpStatus):
                    await self._channel.done(self._channel.remove(posixpath.join(posixpath.dirname(place), name)))

    async def _look_often(self, *files: bytes) -> list[tuple[bytes, Attributes | None]]:
        """Look at what others may swap, and if there is any at `files`. Raises Undelivered('not_allowed') at a link."""
        looks = [*self.open_to_others, *files] * _LOOKS if self.open_to_others else []
        _UNFORESEEABLE.shuffle(looks)
        found = await _look(self._channel, looks)
        for path, seen in found:
            if path in self.open_to_others and seen is not None and seen.is_link:
                raise Undelivered("not_allowed", f"{where(self._delivery)}: {shown(path)} became a link meanwhile")
        return found

    async def _take_back(self, filled: Attributes) -> list[bytes]:
        removed = []
        for place in await self._led_to():
            # Why it did not go where it should is what matters to others, not what is the matter here.
            with contextlib.suppress(SftpStatus, Undelivered):
                way = await find_way(self._channel, self._delivery, place)
                if not way.open_to_others and self._is_outside(way.path) and await self._is_this(way.path, filled):
                    await self._channel.done(self._channel.remove(way.path))
                    removed.append(way.path)
        return removed

    async def _led_to(self) -> list[bytes]:
        """Where the path leads, or led a moment ago, by a link in the place of a directory."""
        places = []
        for directory in self.open_to_others:
            for number in [self._channel.readlink(directory) for _ in range(_WINDOW)]:
                try:
                    target = await self._channel.link(number)
                except SftpStatus:
                    continue
                places.append(posixpath.join(posixpath.dirname(directory), target) + self.path.removeprefix(directory))
        return list(dict.fromkeys(places))

    def _is_outside(self, path: bytes) -> bool:
        rule = self._delivery.path_rule
        return rule is not None and rule(path.decode("utf-8", "surrogateescape")) is not None

    async def _is_this(self, path: bytes, filled: Attributes) -> bool:
        if await self._channel.attributes(self._channel.lstat(path)) != filled:
            return False
        async with closing_handle(self._channel, self._channel.open(path)) as handle:
            return await digest(self._channel, handle, self._delivery.size) == self._delivery.sha256


async def find_way(channel: Channel, delivery: Delivery, path: bytes) -> Way:
    """Resolve every link on the way to the file at an absolute path; its own name is left as it is.

    What is not there yet is taken as it is written. Raises Undelivered('too_many_links').
    """
    directory, _, name = path.rpartition(b"/")
    real, links = b"", 0
    ahead = deque(directory.split(b"/"))
    seen: dict[bytes, Attributes | None] = {}
    while ahead:
        following = ahead.popleft()
        if following in {b"", b"."}:
            continue
        if following == b"..":
            real = posixpath.dirname(real).rstrip(b"/")
            continue
        place = real + b"/" + following
        if place not in seen:
            seen.update(await _look(channel, _run(place, ahead)))
        found = seen[place]
        if found is None or not found.is_link:
            real = place
            continue
        above = seen[real] if real else None
        if above is not None:
            refuse_unless_trusted(delivery, found, above)
        links += 1
        if links > MAX_LINKS:
            raise Undelivered("too_many_links", f"{where(delivery)}: more than {MAX_LINKS} symbolic links")
        try:
            target = await channel.link(channel.readlink(place))
        except SftpStatus as status:
            raise Undelivered("verify_failed", f"{where(delivery)}: {shown(place)} is a link no more") from status
        ahead.extendleft(reversed(target.split(b"/")))
        real = b"" if target.startswith(b"/") else real
        # What was seen below the link was seen through it.
        seen = {each: at_each for each, at_each in seen.items() if not each.startswith(place + b"/")}
    return Way(channel, delivery, real + b"/" + name, _open_to_others(real, seen))


def _run(place: bytes, ahead: deque[bytes]) -> list[bytes]:
    """Directories that can be asked for together: that one, and those below it on the way."""
    run = [place]
    for name in ahead:
        if name in {b"", b".", b".."} or len(run) == _WINDOW:
            break
        run.append(run[-1] + b"/" + name)
    return run


def _open_to_others(directory: bytes, seen: dict[bytes, Attributes | None]) -> list[bytes]:
    """The directories down to that one which others than root may put something else in the place of."""
    names = directory.split(b"/")[1:]
    places = [b"/" + b"/".join(names[:depth]) for depth in range(1, len(names) + 1)]
    for number, place in enumerate(places):
        found = seen[place]
        if found is None or not found.keeps_names:
            return places[number:]
    return []


def _is_file(seen: Attributes, expected: Attributes | None) -> bool:
    return stat.S_ISREG(seen.mode) if expected is None else seen == expected


async def _look(channel: Channel, paths: list[bytes]) -> list[tuple[bytes, Attributes | None]]:
    """What is at each path, links not followed, looked at one after the other in this order."""
    found = []
    for start in range(0, len(paths), _WINDOW):
        asked = [(path, channel.lstat(path)) for path in paths[start:start + _WINDOW]]
        found += [(path, await _existing(channel, number)) for path, number in asked]
    return found


async def _existing(channel: Channel, looked: int) -> Attributes | None:
    try:
        return await channel.attributes(looked)
    except SftpStatus as status:
        if status.code == NO_SUCH_FILE:
            return None
        raise
