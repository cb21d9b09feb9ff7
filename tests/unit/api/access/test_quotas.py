"""What callers may do of uploads, for all processes together."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import NoReturn, ParamSpec

import pytest

from api.access.quotas import Quotas
from daemon.access.caller import Caller, Link, anonymous
from daemon.errors import Rejected
from daemon.model.grant import Grant
from daemon.process.shared_counts import SharedCounts, create
from daemon.task_queue import Total

SECOND_NS = 10**9
Given = ParamSpec("Given")


def in_loop(test: Callable[Given, Coroutine[None, None, None]]) -> Callable[Given, None]:
    """Run the test on an event loop."""
    @wraps(test)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Memory for two processes."""
    made = create(2)
    yield made
    os.close(made)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """A thread that asks the queue."""
    with ThreadPoolExecutor(1) as made:
        yield made


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 10**6 * SECOND_NS

    def __call__(self) -> int:
        """The time."""
        return self.now


class World:
    """Two processes that share one memory, one clock and one queue."""

    def __init__(self, descriptor: int, threads: ThreadPoolExecutor) -> None:
        self.clock = Clock()
        self.queue: Callable[[str], Total] = lambda name: Total()
        self.first, self.second = (
            Quotas(SharedCounts(descriptor, row), lambda name: self.queue(name), threads, self.clock) for row in (0, 1))


@pytest.fixture
def world(descriptor: int, threads: ThreadPoolExecutor) -> World:
    """Two processes."""
    return World(descriptor, threads)


def caller(name: str, grant: Grant, *above: Link) -> Caller:
    """Somebody with that grant, which was handed on by those above."""
    return Caller(name=name, links=(Link(name, grant), *above))


async def code_of(quotas: Quotas, who: Caller, size: int | None = 1) -> str:
    """The code with which an upload is refused; empty: it was let in, and has ended."""
    try:
        with await quotas.enter(who, size):
            return ""
    except Rejected as error:
        return error.code


@in_loop
async def test_rate_holds_for_all_processes_together_and_says_when_to_come_back(world: World) -> None:
    """429 has how much there is, what is left and when; nobody else is held up."""
    ci, other = (caller(name, Grant(max_uploads_s=2.0, max_bytes_s=0.5)) for name in ("token:ci", "token:other"))
    assert world.first.headers(ci) == (
        ("RateLimit-Policy", '"uploads";q=2;w=1, "bytes";q=1;w=2'), ("RateLimit", '"uploads";r=2;t=0, "bytes";r=1;t=0'))
    assert await code_of(world.first, ci, 0) == ""
    assert await code_of(world.second, ci, 0) == ""
    with pytest.raises(Rejected) as refused:
        await world.first.enter(ci, 0)
    assert (refused.value.code, refused.value.retry_after_s) == ("rate_limited", 1)
    assert refused.value.headers == (
        ("RateLimit-Policy", '"uploads";q=2;w=1, "bytes";q=1;w=2'), ("RateLimit", '"uploads";r=0;t=1, "bytes";r=1;t=0'))
    assert await code_of(world.first, other) == ""
    world.clock.now += SECOND_NS // 2
    assert [await code_of(world.second, ci, 0) for _ in range(2)] == ["", "rate_limited"]


@in_loop
async def test_large_upload_is_let_in_and_the_next_one_waits_for_it(world: World) -> None:
    """Bytes that nobody announced count as they come; what is refused takes nothing."""
    ci = caller("token:ci", Grant(max_bytes_s=100.0))
    assert await code_of(world.first, ci, 1000) == ""
    with pytest.raises(Rejected) as refused:
        await world.second.enter(ci, 10**9)
    assert refused.value.retry_after_s == 10
    world.clock.now += 10 * SECOND_NS
    with await world.second.enter(ci, None) as admitted:
        await admitted.more(50)
        assert dict(world.first.headers(ci))["RateLimit"] == '"bytes";r=50;t=1'
        await admitted.more(5000)
    assert await code_of(world.first, ci) == "rate_limited"


@in_loop
async def test_what_was_handed_on_counts_for_who_handed_it_on(world: World) -> None:
    """Also where it has no limits of its own; the tightest one is told, and what one link refuses no other takes."""
    parent = Link("token:ci", Grant(max_uploads_s=2.0))
    child = caller("token:ci/a", Grant(max_uploads_s=1.0), parent)
    sibling = caller("token:ci/b", Grant(), parent)
    assert [await code_of(world.first, child) for _ in range(3)] == ["", "rate_limited", "rate_limited"]
    assert dict(world.first.headers(sibling))["RateLimit"] == '"uploads";r=1;t=1'
    assert dict(world.first.headers(child))["RateLimit-Policy"] == '"uploads";q=1;w=1'
    assert [await code_of(world.second, sibling) for _ in range(2)] == ["", "rate_limited"]


@in_loop
async def test_what_is_received_and_what_waits_are_within_the_limit_together(world: World) -> None:
    """In whichever process it is received."""
    ci = caller("token:ci", Grant(), Link("token:up", Grant(max_pending_tasks=3, max_pending_bytes=100)))
    world.queue = lambda name: {"token:up": Total(1, 40)}[name]
    with await world.first.enter(ci, 20):
        assert await code_of(world.second, ci, 41) == "too_many_pending"
        with await world.second.enter(ci, None) as admitted:
            await admitted.more(40)
            assert await code_of(world.first, ci, 0) == "too_many_pending"
            with pytest.raises(Rejected, match="waits to be delivered"):
                await admitted.more(1)
        assert await code_of(world.first, ci, 40) == ""


@in_loop
async def test_upload_that_goes_on_counts_only_the_bytes_that_come(world: World) -> None:
    """It is one of those that wait already; when it pauses, nothing of it is left."""
    ci = caller("token:ci", Grant(max_pending_tasks=1, max_pending_bytes=100))
    world.queue = lambda _: Total(1, 40)
    with world.first.going_on(ci) as admitted:
        await admitted.more(60)
        with pytest.raises(Rejected, match="waits to be delivered"):
            await admitted.more(1)
    world.queue = lambda _: Total(0, 40)
    assert await code_of(world.second, ci, 60) == ""


@in_loop
async def test_upload_that_is_queued_meanwhile_is_never_overlooked_and_refuses_nobody(world: World) -> None:
    """The queue is asked after what is being received is counted, and once more if both had it."""
    ci = caller("token:ci", Grant(max_pending_tasks=2))
    loop, asked = asyncio.get_running_loop(), 0
    moving = await world.first.enter(ci, 1)

    def queued(_: str) -> Total:
        nonlocal asked
        asked += 1
        loop.call_soon_threadsafe(moving.leave if asked == 1 else int)
        return Total(tasks=1)

    world.queue = queued
    assert await code_of(world.second, ci) == ""
    assert asked == 2
    world.queue = lambda name: Total(tasks=2)
    assert await code_of(world.second, ci) == "too_many_pending"


@in_loop
async def test_refused_upload_leaves_no_count(world: World) -> None:
    """By its rate, or by a queue that cannot be read."""
    ci = caller("token:ci", Grant(max_uploads_s=1.0, max_pending_tasks=1))
    assert [await code_of(world.first, ci) for _ in range(3)] == ["", "rate_limited", "rate_limited"]

    def unreadable(_: str) -> Total:
        raise Rejected("queue_unreadable")

    readable, world.queue = world.queue, unreadable
    assert await code_of(world.second, ci) == "queue_unreadable"
    world.queue = readable
    world.clock.now += SECOND_NS
    assert await code_of(world.second, ci) == ""


@in_loop
async def test_caller_without_limits_asks_nobody_and_is_told_nothing() -> None:
    """No lock, no clock, no queue, no headers."""
    def never(*_: object) -> NoReturn:
        raise AssertionError

    unused = ThreadPoolExecutor(1)
    unused.shutdown()
    quotas = Quotas(SharedCounts(), never, unused, never)
    with await quotas.enter(anonymous(None), None) as admitted:
        await admitted.more(10**9)
    assert quotas.headers(anonymous(None)) == ()


@in_loop
async def test_rates_that_a_stopped_process_holds_refuse_and_wait_for_nobody(world: World, descriptor: int) -> None:
    """Its caller alone gets 503 until it goes on or dies."""
    child = os.fork()
    if child == 0:
        times = SharedCounts(descriptor, 1).times()
        times.lock(["token:ci"])
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    ci, other = (caller(name, Grant(max_uploads_s=1.0)) for name in ("token:ci", "token:other"))
    try:
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        assert await code_of(world.first, ci) == "too_busy"
        assert await code_of(world.first, other) == ""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert await code_of(world.first, ci) == ""


def test_processes_side_by_side_never_let_in_more_than_the_limit(descriptor: int) -> None:
    """Two hammer one bucket while the time goes; together they get what it holds and gives, and all of that."""
    waiting, begin = os.pipe()
    ends = [hammer(descriptor, row, waiting) for row in (0, 1)]
    os.write(begin, b"..")
    counts = [int(os.read(reading, 64)) for reading, _ in ends]
    assert [os.waitpid(child, 0)[1] for _, child in ends] == [0, 0]
    for pipe in (waiting, begin, *(reading for reading, _ in ends)):
        os.close(pipe)
    # The clock stands still at the end of its 20 seconds: 100 that the bucket held, and 20 times 100.
    assert sum(counts) == 2100


def hammer(descriptor: int, row: int, waiting: int) -> tuple[int, int]:
    """A process that uploads as fast as it can once told to; where it writes how many were let in, and its id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(waiting, 1)
        os.write(writing, str(asyncio.run(let_in(SharedCounts(descriptor, row)))).encode())
        os._exit(0)
    os.close(writing)
    return reading, child


async def let_in(counts: SharedCounts) -> int:
    """How many uploads are let in until the time has gone by and no more are."""
    ci, clock = caller("token:ci", Grant(max_uploads_s=100.0)), Clock()
    quotas = Quotas(counts, lambda name: Total(), ThreadPoolExecutor(1), clock)
    number = refused = 0
    end = clock.now + 20 * SECOND_NS
    while clock.now < end or refused < 3:
        code = await code_of(quotas, ci)
        number += not code
        refused = refused + 1 if code == "rate_limited" else 0
        clock.now = min(clock.now + SECOND_NS // 100, end) if code else clock.now
    return number
