"""Batches in which result i belongs to input i and no failure loses a finished answer."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.runnables.config import RunnableConfig, get_config_list

from seawall._chat_batch import raise_first

# So many calls at a time where `max_concurrency` says nothing.
CONCURRENCY = 64

Configs = RunnableConfig | Sequence[RunnableConfig] | None


def _concurrency(configs: list[RunnableConfig]) -> int:
    return configs[0].get("max_concurrency") or CONCURRENCY


def _waited_for(finished: queue.SimpleQueue[tuple[int, Any]]) -> tuple[int, Any]:
    while True:
        # In slices: a signal that comes just before a wait is noticed only after it.
        with contextlib.suppress(queue.Empty):
            return finished.get(timeout=0.1)


def _completed(
    invoke: Callable[..., Any], inputs: Sequence[Any], configs: list[RunnableConfig], kwargs: dict[str, Any]
) -> Iterator[tuple[int, Any]]:
    """Places and results as they finish, exceptions among them.

    The threads are daemons and are not waited for, so that Ctrl-C ends a batch while requests hang.
    """
    places = iter(range(len(inputs)))
    finished: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    lock, over = threading.Lock(), threading.Event()

    def work() -> None:
        while not over.is_set():
            with lock:
                place = next(places, None)
            if place is None:
                return
            try:
                result = invoke(inputs[place], configs[place], **kwargs)
            except BaseException as error:
                result = error
            finished.put((place, result))

    for _ in range(min(_concurrency(configs), len(inputs))):
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True, name="seawall-batch").start()
    try:
        for _ in inputs:
            place, result = _waited_for(finished)
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            yield place, result
    finally:
        over.set()


async def _acompleted(
    ainvoke: Callable[..., Any], inputs: Sequence[Any], configs: list[RunnableConfig], kwargs: dict[str, Any]
) -> AsyncIterator[tuple[int, Any]]:
    """As `_completed`, in tasks of the running loop; whoever leaves cancels them."""
    places = iter(range(len(inputs)))
    finished: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def work() -> None:
        for place in places:
            try:
                result = await ainvoke(inputs[place], configs[place], **kwargs)
            except asyncio.CancelledError as error:
                finished.put_nowait((place, error))
                raise
            except Exception as error:
                result = error
            finished.put_nowait((place, result))

    tasks = [asyncio.create_task(work()) for _ in range(min(_concurrency(configs), len(inputs)))]
    try:
        for _ in inputs:
            place, result = await finished.get()
            if isinstance(result, asyncio.CancelledError):
                raise result
            yield place, result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Batching:
    """The batch methods of a Runnable, on its `invoke` and `ainvoke`."""

    def batch(
        self: Any, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Invokes for each input, at most `max_concurrency` (64) at a time. Result i belongs to input i.

        Raises:
            Exception: the first failure, unless `return_exceptions`; its `.results` holds every finished answer.
        """
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        results = dict(_one(self.invoke, inputs, configs, kwargs) or _completed(self.invoke, inputs, configs, kwargs))
        return _ordered(results, return_exceptions)

    async def abatch(
        self: Any, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        results = {place: result async for place, result in _acompleted(self.ainvoke, inputs, configs, kwargs)}
        return _ordered(results, return_exceptions)

    def batch_as_completed(
        self: Any, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Pairs of an input's place and its result, as they finish.

        Raises:
            Exception: the first failure, unless `return_exceptions`, after all answers have been given out; its `.results`
                holds them, too.
        """
        if not inputs:
            return
        results: dict[int, Any] = {}
        for place, result in _completed(self.invoke, inputs, get_config_list(config, len(inputs)), kwargs):
            results[place] = result
            if return_exceptions or not isinstance(result, BaseException):
                yield place, result
        _ordered(results, return_exceptions)

    async def abatch_as_completed(
        self: Any, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """As `batch_as_completed`, for an event loop."""
        if not inputs:
            return
        results: dict[int, Any] = {}
        async with contextlib.aclosing(
            _acompleted(self.ainvoke, inputs, get_config_list(config, len(inputs)), kwargs)  # type: ignore[type-var]
        ) as completed:
            async for place, result in completed:
                results[place] = result
                if return_exceptions or not isinstance(result, BaseException):
                    yield place, result
        _ordered(results, return_exceptions)


def _one(
    invoke: Callable[..., Any], inputs: Sequence[Any], configs: list[RunnableConfig], kwargs: dict[str, Any]
) -> list[tuple[int, Any]] | None:
    """The only input's result, without a thread."""
    if len(inputs) > 1:
        return None
    try:
        return [(0, invoke(inputs[0], configs[0], **kwargs))]
    except Exception as error:
        return [(0, error)]


def _ordered(results: dict[int, Any], return_exceptions: bool) -> list[Any]:
    return raise_first([results[place] for place in range(len(results))], return_exceptions)
