"""Makes a function behind a pipeline look like the function to `inspect`, `functools` and frameworks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from seawall import _seawall

# What `inspect` reads to tell a coroutine function and its signature, beyond what functools copies.
_FUNCTION_PARTS = ("__code__", "__defaults__", "__kwdefaults__")


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))


def _is_generator_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def guarded(pipeline: _seawall.Pipeline, function: Callable[..., Any]) -> Any:
    """The function behind the pipeline.

    Raises:
        TypeError: for generator functions, whose end this version does not see.
    """
    if _is_generator_function(function):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{name} is a generator function: guard the function that consumes it instead")
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    wrapper = _seawall.Guarded(pipeline, function, name, _is_coroutine_function(function))
    functools.update_wrapper(wrapper, function)
    for part in _FUNCTION_PARTS:
        if hasattr(function, part):
            wrapper.__dict__[part] = getattr(function, part)
    return wrapper
