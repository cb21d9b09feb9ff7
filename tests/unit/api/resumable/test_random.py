"""Whatever clients and disks do, in whatever order: what was told stays, and the whole comes out of it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from api.resumable.values import Checksum, Progress, WrongOffset
from api.uploads.body import ClientGone
from daemon import failpoints
from daemon.errors import Rejected
from daemon.state.layout import Layout
from tests.support.bodies import body
from tests.support.resumables import Kit, coming, kit

#: Sequences that are tried; the others are tried by `make test-full` alone.
_SEEDS = [pytest.param(seed, marks=[] if seed < 4 else pytest.mark.full) for seed in range(120)]
_LARGEST = 700_000
#: After so many steps nothing goes wrong any more.
_STEPS = 30
_FAULTS = [step for step in failpoints.PARTIAL_STEPS if step != "partials.remove"] + [
    "spool.linksync", "spool.dirsync", "queue.insert", "queue.commit"]


class Client:
    """One client, and what it knows."""

    def __init__(self, chance: Random, kits: list[Kit], size: int, seed: int) -> None:
        """Its upload is made, of a length that it says at once or later."""
        self._chance = chance
        self._kits = kits
        self.data = body(seed, size)
        self._said = chance.random() < 0.7
        self.progress: Progress | None = None

    async def step(self, act: str) -> None:
        """Do one thing, and look whether what is told of it can be."""
        made = self._chance.choice(self._kits)
        if self.progress is None:
            self.progress = await made.create(len(self.data) if self._said else None)
        if self.progress.complete:
            return
        before = self.progress
        done = await _ACTS[act](self, made, before)
        assert done.offset >= before.offset
        assert done.offset < len(self.data) or done.complete or not self._said or not self.data
        self.progress = done

    async def append(self, made: Kit, before: Progress) -> Progress:
        """Some or all of the rest, in one piece or many."""
        rest = self.data[before.offset:]
        part = rest[:self._chance.randint(0, len(rest))] if self._chance.random() < 0.6 else rest
        pieces = [part[at:at + 50_000] for at in range(0, len(part), 50_000)]
        return await made.append(
            before.upload_id, before.offset, coming(pieces, None), length=len(self.data) if part is rest else None,
            content_length=None if self._chance.random() < 0.3 else len(part))

    async def checked(self, made: Kit, before: Progress) -> Progress:
        """With a checksum, which is right."""
        part = self.data[before.offset:before.offset + self._chance.randint(1, 300_000)]
        return await made.append(before.upload_id, before.offset, part, checksum=Checksum("sha1", hashlib.sha1(part).digest()))

    async def damaged(self, made: Kit, before: Progress) -> Progress:
        """With a checksum that the bytes do not have."""
        part = self.data[before.offset:before.offset + self._chance.randint(1, 300_000)]
        if not part:
            return await self.look(made, before)
        wrong = part[:-1] + bytes([part[-1] ^ 1])
        with pytest.raises(Rejected) as refused:
            await made.append(before.upload_id, before.offset, wrong, checksum=Checksum("sha256", hashlib.sha256(part).digest()))
        assert refused.value.code == "checksum_mismatch" or refused.value.kind.status >= 500
        return await self.look(made, before)

    async def cut(self, made: Kit, before: Progress) -> Progress:
        """Gone in the middle."""
        rest = self.data[before.offset:]
        part = rest[:self._chance.randint(0, max(0, len(rest) - 1))]
        with pytest.raises(ClientGone):
            await made.append(before.upload_id, before.offset, coming([part], None, gone=True), content_length=len(rest))
        return await self.look(made, before)

    async def stray(self, made: Kit, before: Progress) -> Progress:
        """At another offset."""
        with pytest.raises(WrongOffset):
            await made.append(before.upload_id, before.offset + self._chance.choice([-1, 1]), b"x" * (before.offset < len(self.data)))
        return await self.look(made, before)

    async def look(self, made: Kit, before: Progress) -> Progress:
        """Only ask."""
        return await made.look(before.upload_id)


_ACTS: dict[str, Callable[[Client, Kit, Progress], Awaitable[Progress]]] = {
    "append": Client.append, "checked": Client.checked, "damaged": Client.damaged, "cut": Client.cut, "stray": Client.stray,
    "look": Client.look}


@pytest.mark.parametrize("seed", _SEEDS)
def test_whatever_happens_the_whole_comes_out(quick_path: Path, seed: int) -> None:
    """Of an upload that two processes take parts of, while lines and disks fail."""
    layout, chance = Layout(quick_path / "state"), Random(seed)
    layout.create()

    async def happen() -> None:
        async with kit(layout) as one, kit(layout) as other:
            client = Client(chance, [one, other], chance.choice([0, 1, 2, chance.randint(3, _LARGEST)]), seed)
            step = 0
            while client.progress is None or not client.progress.complete:
                step += 1
                assert step < 2 * _STEPS
                failpoints.arm(f"{chance.choice(_FAULTS)}=EIO@1" if step < _STEPS and chance.random() < 0.3 else "")
                try:
                    await client.step(chance.choice(list(_ACTS)) if step < _STEPS else "append")
                except Rejected as refused:
                    if refused.kind.status < 500 or step >= _STEPS:
                        raise
                    failpoints.arm("")
                    if client.progress is not None:
                        await client.step("look")
                finally:
                    failpoints.arm("")
            assert one.bytes_of(client.progress.task_id or "") == client.data
            assert one.reader.waiting().tasks == 1

    asyncio.run(happen())
