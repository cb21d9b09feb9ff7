"""Names that a resolver does not answer hold up nobody else."""

import asyncio

import pytest

from sender.names import Found, Names

ADDRESS: Found = [(2, 1, 6, "", ("127.0.0.1", 80))]


def test_name_is_looked_up_once_for_all_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages wait for it, and whoever gives up; afterwards it is asked for anew."""
    async def happen() -> None:
        asked: list[str] = []
        answer = asyncio.Event()

        async def resolve(_loop: object, host: str, _port: int, **_: object) -> Found:
            asked.append(host)
            if host == "silent.example":
                await answer.wait()
                raise OSError(5, "no answer")
            return ADDRESS

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
        names = Names()
        first, second = (asyncio.create_task(names.look_up("silent.example", 80)) for _ in range(2))
        await asyncio.sleep(0)
        assert await names.look_up("other.example", 80) == ADDRESS
        first.cancel()
        await asyncio.wait([first])
        answer.set()
        with pytest.raises(OSError, match="no answer"):
            await second
        assert asked == ["silent.example", "other.example"]
        assert await names.look_up("other.example", 80) == ADDRESS
        assert asked[2:] == ["other.example"]

    asyncio.run(happen())
