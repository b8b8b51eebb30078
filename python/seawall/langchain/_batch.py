"""Batches in which result i belongs to input i and no failure loses a finished answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.runnables.config import RunnableConfig, get_config_list, get_executor_for_config

# So many calls at a time where `max_concurrency` says nothing.
CONCURRENCY = 64


def first_failure(results: list[Any], return_exceptions: bool) -> list[Any]:
    """The results; without `return_exceptions` the first failure, which carries them all as `results`."""
    if not return_exceptions:
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            failed.results = results  # type: ignore[attr-defined]
            raise failed
    return results


def batch(
    invoke: Callable[..., Any],
    inputs: Sequence[Any],
    config: RunnableConfig | Sequence[RunnableConfig] | None,
    return_exceptions: bool,
    kwargs: dict[str, Any],
) -> list[Any]:
    """Invokes for each input in threads, at most `max_concurrency` (64) at a time."""
    if not inputs:
        return []
    configs = get_config_list(config, len(inputs))

    def one(place: int) -> Any:
        try:
            return invoke(inputs[place], configs[place], **kwargs)
        except Exception as error:
            return error

    if len(inputs) == 1:
        return first_failure([one(0)], return_exceptions)
    limited = configs[0].copy()
    if limited.get("max_concurrency") is None:
        limited["max_concurrency"] = min(CONCURRENCY, len(inputs))
    with get_executor_for_config(limited) as executor:
        results = list(executor.map(one, range(len(inputs))))
    return first_failure(results, return_exceptions)


async def abatch(
    ainvoke: Callable[..., Awaitable[Any]],
    inputs: Sequence[Any],
    config: RunnableConfig | Sequence[RunnableConfig] | None,
    return_exceptions: bool,
    kwargs: dict[str, Any],
) -> list[Any]:
    """As `batch`, in tasks of the running loop."""
    if not inputs:
        return []
    configs = get_config_list(config, len(inputs))
    places = asyncio.Semaphore(configs[0].get("max_concurrency") or CONCURRENCY)

    async def one(place: int) -> Any:
        async with places:
            try:
                return await ainvoke(inputs[place], configs[place], **kwargs)
            except Exception as error:
                return error

    return first_failure(list(await asyncio.gather(*(one(place) for place in range(len(inputs))))), return_exceptions)
