"""Items of an asynchronous source are handed on as they come, whatever kind of source it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, Fallback, Pipeline, Retry


class Counter:
    """An asynchronous iterator written by hand; fails at some item, synchronously or when it is awaited."""

    def __init__(self, fails_at: int, at_once: bool) -> None:
        self.at, self.fails_at, self.at_once, self.asked = 0, fails_at, at_once, 0

    def __aiter__(self) -> Counter:
        return self

    def __anext__(self) -> Any:
        self.asked += 1
        if self.at_once and self.at == self.fails_at:
            raise ConnectionError("at once")
        return self.item()

    async def item(self) -> int:
        self.at += 1
        if self.at % 2:
            await asyncio.sleep(0)
        if self.at > self.fails_at:
            raise ConnectionError("when awaited")
        return self.at


@pytest.mark.filterwarnings("ignore:the .* stands outside the Fallback")
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_failure_of_the_source_is_the_calls(at_once: bool, hooks: dict[str, Any]) -> None:
    """Counted once, asked once, and after the first item not tried again."""
    breaker, sources = CircuitBreaker(9), []

    async def items() -> AsyncIterator[int]:
        raise ConnectionError("no item")
        yield

    def source() -> Counter:
        sources.append(Counter(3, at_once))
        return sources[-1]

    # What an alternative gives may be any asynchronous iterator.
    guarded = Pipeline(breaker, Retry(3, wait=0, **hooks), Fallback(source, on=ConnectionError))(items)
    taken = []
    with pytest.raises(ConnectionError):
        async for item in guarded():
            taken.append(item)
    assert (taken, len(sources), sources[0].asked, breaker.failure_count) == ([1, 2, 3], 1, 4, 1)


class Slow:
    """Awaited by hand: gives what its loop sent."""

    def __await__(self) -> Iterator[str]:
        return (yield "waiting")


async def test_an_item_is_awaited_once(guarding: Any) -> None:
    async def items() -> AsyncIterator[Any]:
        yield 1
        yield await Slow()
        yield 3

    running = guarding(items)()
    assert await running.__anext__() == 1
    item = running.__anext__()
    assert item.send(None) == "waiting"
    with pytest.raises(RuntimeError, match="already running"):
        running.__anext__().send(None)
    with pytest.raises(StopIteration) as second:
        item.send("sent")
    assert second.value.value == "sent"
    with pytest.raises(RuntimeError, match="cannot reuse"):
        item.send(None)
    third = running.__anext__()
    with pytest.raises(StopIteration):
        third.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        third.send(None)
    with pytest.raises(StopAsyncIteration):
        await running.__anext__()
    with pytest.raises(StopAsyncIteration):
        await running.__anext__()


async def test_tuples_and_exceptions_are_items_too(guarding: Any) -> None:
    """A `StopIteration` that carries them would take them apart."""
    given = [(1, 2), None, KeyError("an item"), StopIteration(5), ()]

    async def items() -> AsyncIterator[Any]:
        for item in given:
            yield item

    assert [item async for item in guarding(items)()] == given


async def test_a_source_may_come_back_to_its_own_stream(guarding: Any) -> None:
    story: list[str] = []

    async def items() -> AsyncIterator[int]:
        yield 1
        for enter in (lambda: running.__anext__().send(None), lambda: running.aclose().send(None), lambda: repr(running)):
            try:
                story.append(str(enter()))
            except RuntimeError as error:
                story.append(str(error))
        yield 2

    running = guarding(items)()
    assert [item async for item in running] == [1, 2]
    assert len(story) == 3
    assert all("running" in text for text in story), story
