"""Past a cache, and anew: by a call's own argument, and for all that is called in a block."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from _canary import CANARY

from seawall import Cache, cache_bypass, guard
from seawall.errors import APIError, ConfigurationError
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults


def numbered(cache: Cache) -> dict[str, Any]:
    """Functions of all kinds, each of which gives another number each time."""
    numbers = count()

    @guard(cache=cache)
    def plain() -> int:
        return next(numbers)

    @guard(cache=cache)
    async def later() -> int:
        return next(numbers)

    @guard(cache=cache)
    def items() -> Any:
        yield next(numbers)

    @guard(cache=cache)
    async def later_items() -> Any:
        yield next(numbers)

    async def collected() -> list[int]:
        return [item async for item in later_items()]

    return {
        "plain": plain,
        "async": lambda: asyncio.run(later()),
        "items": lambda: list(items()),
        "async items": lambda: asyncio.run(collected()),
    }


@pytest.mark.parametrize("kind", ["plain", "async", "items", "async items"])
def test_functions_of_all_kinds(kind) -> None:
    cache = Cache()
    call = numbered(cache)[kind]
    first = call()
    assert call() == first
    with cache_bypass():
        past = call()
        assert past != first and call() != past
    assert call() == first
    with cache_bypass(refresh=True):
        anew = call()
        with cache_bypass():
            assert call() != anew
    assert call() == anew != first


def test_models_by_argument_and_by_block(sim, tmp_path) -> None:
    for cache in (Cache(), Cache(path=tmp_path / "cache.db")):
        place = {"api_key": CANARY, "base_url": sim.base_url, "cache": cache}
        chat, vectors = Chat("m", **place), Embeddings("e", **place)
        first = chat.invoke("x").id
        assert chat.invoke("x", cache=True).id == first
        assert chat.invoke("x", cache=False).id != first
        assert asyncio.run(chat.ainvoke("x", cache=False)).id != first
        assert chat.batch(["x"], cache=False)[0].id != first
        assert chat.invoke("x").id == first
        anew = chat.invoke("x", cache="refresh")
        assert not anew.cached and chat.invoke("x").id == anew.id != first
        with cache_bypass(refresh=True):
            newer = chat.invoke("x")
        assert chat.invoke("x").id == newer.id != anew.id

        def streamed(chat: Chat = chat, **more: Any) -> Any:
            return next(iter(list(chat.stream("x", **more)))).id

        begun = streamed()
        assert streamed() == begun != streamed(cache=False)
        assert streamed(cache="refresh") == streamed() != begun
        before = sim.count()
        vectors.invoke("x")
        vectors.invoke("x", cache=False)
        assert vectors.invoke("x").cached and sim.count() == before + 2
        assert cache.flush()


def test_what_is_asked_anew_and_fails_leaves_what_is_there(sim) -> None:
    cache = Cache(stale_if_error=60)
    chat = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache, max_retries=0)
    first = chat.invoke("x")
    sim.on("m", faults.status(400), times=1)
    with pytest.raises(APIError):
        chat.invoke("x", cache="refresh")
    assert chat.invoke("x").id == first.id


def test_tasks_have_their_own() -> None:
    cache, numbers = Cache(), count()

    @guard(cache=cache)
    async def ask() -> int:
        return next(numbers)

    async def run() -> None:
        first = await ask()
        inside = asyncio.Event()

        async def past() -> int:
            with cache_bypass():
                inside.set()
                await asyncio.sleep(0)
                return await ask()

        task = asyncio.create_task(past())
        await inside.wait()
        assert await ask() == first
        assert await task != first

    asyncio.run(run())


@pytest.mark.parametrize("given", [1, "no", Cache(), 0.5])
def test_what_a_call_cannot_mean_is_refused(given) -> None:
    with pytest.raises(ConfigurationError, match="True, False or 'refresh'"):
        Chat("m", api_key="k").invoke("x", cache=given)


def test_what_a_block_cannot_mean_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="refresh must be"), cache_bypass(refresh="yes"):  # type: ignore[arg-type]
        pass


# --- a call that comes back to its own question


async def test_a_coroutine_that_awaits_itself_does_not_wait_for_itself() -> None:
    depths: list[int] = []

    @guard(cache=Cache())
    async def ask(question: str) -> int:
        depths.append(1)
        await asyncio.sleep(0)
        if len(depths) < 3:
            # Directly, and in a task of its own, which this one waits for.
            inner = await ask(question) if len(depths) == 1 else await asyncio.create_task(ask(question))
            return inner + 1
        return 0

    assert await asyncio.wait_for(ask("x"), 60) == 2
    assert await ask("x") == 2 and len(depths) == 3


async def test_those_that_are_asked_inside_of_another_still_wait_for_one_another() -> None:
    calls = 0

    @guard(cache=Cache())
    async def inner() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return calls

    @guard(cache=Cache())
    async def outer() -> list[int]:
        return await asyncio.gather(*(inner() for _ in range(10)))

    assert await outer() == [1] * 10


async def test_one_that_takes_over_knows_itself_too() -> None:
    """The next of those that wait asks where the first has failed: it must not wait for itself either."""
    begun, calls = asyncio.Event(), 0

    @guard(cache=Cache(), retry=1)
    async def ask() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            begun.set()
            await asyncio.sleep(0)
            raise ValueError("the first fails")
        return await ask() if calls == 2 else calls

    first = asyncio.create_task(ask())
    await begun.wait()
    second = asyncio.create_task(ask())
    with pytest.raises(ValueError, match="the first"):
        await first
    assert await asyncio.wait_for(second, 60) == 3
