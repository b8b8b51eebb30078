"""Makes a function behind a pipeline look like the function to `inspect`, `functools` and frameworks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from seawall import _seawall

# What `inspect` reads to tell a coroutine function and its signature, beyond what functools copies.
_FUNCTION_PARTS = ("__code__", "__defaults__", "__kwdefaults__")


def kind(function: Any) -> str:
    """What calling the function gives: `function`, `coroutine`, `generator` or `async generator`."""
    while isinstance(function, functools.partial):
        function = function.func
    for candidate in (function, getattr(type(function), "__call__", None)):
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "function"


async def several(value: Any) -> AsyncIterator[Any]:
    """What a plain alternative gives in place of an asynchronous stream: its items, or itself as the one item."""
    if inspect.isawaitable(value):
        value = await value
    for item in value if isinstance(value, (list, tuple)) or hasattr(value, "__next__") else (value,):
        yield item


def guarded(pipeline: _seawall.Pipeline, function: Callable[..., Any]) -> Any:
    """The function behind the pipeline."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    wrapper = _seawall.Guarded(pipeline, function, name, kind(function))
    functools.update_wrapper(wrapper, function)
    for part in _FUNCTION_PARTS:
        if hasattr(function, part):
            wrapper.__dict__[part] = getattr(function, part)
    return wrapper
