"""Ten thousand clients that wait at once."""

import asyncio
import json
import re
import resource
from collections.abc import Callable

import pytest

from daemon.model.task import State
from daemon.task_queue import Settlement
from tests.integration.api.running import Api
from tests.support.depot import Depot
from tests.support.processes import ROOT
from tests.support.waiting import PATIENCE_S

CLIENTS = 10_000
#: A quarter is kept for those who have few: clients are told apart by their addresses.
PLACES = CLIENTS * 5 // 4
ADDRESSES = 50
#: What one takes at most.
EACH_BYTES = 48 * 1024
#: Connections that are being made at once: no more than wait at the door.
AT_ONCE = 50
#: Descriptors that a process needs besides one for each client.
BESIDES = 500


@pytest.mark.full
def test_ten_thousand_that_wait_fit_into_the_memory_of_the_unit(start: Callable[..., Api]) -> None:
    """Before its limit slows it down; and all of them learn the outcome."""
    unit = (ROOT / "systemd" / "incus-courier-api.service").read_text()
    high_bytes = int(re.findall(r"MemoryHigh=(\d+)G", unit)[0]) * 2**30
    assert int(re.findall(r"LimitNOFILE=(\d+)", unit)[0]) >= CLIENTS + BESIDES
    api = start(queue={"shards": 1}, api={"max_connections": PLACES, "max_wait_s": 3600})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert most >= CLIENTS + BESIDES, f"no more than {most} descriptors are allowed here"
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    resource.prlimit(api.pid, resource.RLIMIT_NOFILE, (most, most))
    address = api.put("x").headers["location"]
    head = f"GET {address} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=3600\r\nConnection: close\r\n\r\n".encode()
    with Depot(api.state) as depot:
        [task] = depot.claim()
        answers, bytes_each = asyncio.run(_wait_together(api, head, lambda: depot.queue.settle(
            [Settlement(order=task.order, state=State.DELIVERED, attempts=1)])))
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
    assert {json.loads(answer.partition(b"\r\n\r\n")[2])["state"] for answer in answers} == {"delivered"}
    assert api.memory_bytes() < high_bytes
    assert bytes_each < EACH_BYTES


async def _wait_together(api: Api, head: bytes, settle: Callable[[], object]) -> tuple[list[bytes], float]:
    """Have all clients wait, then settle; their answers, and the bytes of the process for each."""
    before = api.memory_bytes()
    turn = asyncio.Semaphore(AT_ONCE)

    async def connect(number: int) -> asyncio.StreamReader:
        async with turn:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", api.port, local_addr=(f"127.0.0.{2 + number % ADDRESSES}", 0))
            writer.write(head)
            await writer.drain()
            kept.append(writer)
            return reader

    kept: list[asyncio.StreamWriter] = []
    readers = await asyncio.gather(*(connect(number) for number in range(CLIENTS)))
    async with asyncio.timeout(PATIENCE_S):
        # Each is read from before this is.
        await asyncio.to_thread(api.ask, "GET", "/v1/tasks")
    bytes_each = (api.memory_bytes() - before) / CLIENTS
    settle()
    async with asyncio.timeout(2 * PATIENCE_S):
        answers = await asyncio.gather(*(reader.read() for reader in readers))
    for writer in kept:
        writer.close()
    return answers, bytes_each
