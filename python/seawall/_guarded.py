"""Makes a function behind a pipeline look like the function to `inspect`, `functools` and frameworks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from types import CodeType
from typing import Any

from seawall import _seawall
from seawall._word import shown
from seawall.errors import ConfigurationTypeError

# What `inspect` reads to tell a coroutine function and its signature, beyond what functools copies.
_FUNCTION_PARTS = ("__code__", "__defaults__", "__kwdefaults__")
# What stands in a class body around a function, and is no function itself.
_DESCRIPTORS = (classmethod, staticmethod, property, functools.cached_property)

# What stands around functions, and is no function itself though it is callable, some only to say so.
_POLICIES = (
    *(_seawall.Bulkhead, _seawall.Cache, _seawall.Chaos, _seawall.CircuitBreaker, _seawall.Fallback, _seawall.Guardrails),
    *(_seawall.Hedge, _seawall.Pipeline, _seawall.RateLimit, _seawall.Retry, _seawall.Timeout),
)


def is_decorated(value: Any) -> bool:
    """Whether a decorator written without its brackets got what it decorates."""
    return (callable(value) and not isinstance(value, _POLICIES)) or isinstance(value, _DESCRIPTORS)


def _innermost(function: Any) -> Any:
    """The function whose code runs: that of a partial, of a bound method, of an object's `__call__`."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__code__") or isinstance(function, type):
            return function
        else:
            method = getattr(type(function), "__call__", None)
            return method if hasattr(method, "__code__") else function


def kind(function: Any) -> str:
    """What calling the function gives: `function`, `coroutine`, `generator` or `async generator`."""
    innermost = _innermost(function)
    code = getattr(innermost, "__code__", None)
    # A generator that `types.coroutine` has marked is awaited.
    is_marked = isinstance(code, CodeType) and code.co_flags & inspect.CO_ITERABLE_COROUTINE
    if is_marked or any(inspect.iscoroutinefunction(candidate) for candidate in (function, innermost)):
        return "coroutine"
    if inspect.isasyncgenfunction(innermost):
        return "async generator"
    if inspect.isgeneratorfunction(innermost):
        return "generator"
    return "function"


async def several(value: Any) -> AsyncIterator[Any]:
    """What a plain alternative gives in place of an asynchronous stream: its items, or itself as the one item."""
    if inspect.isawaitable(value):
        value = await value
    for item in value if isinstance(value, (list, tuple)) or hasattr(value, "__next__") else (value,):
        yield item


def _descriptor(pipeline: _seawall.Pipeline, descriptor: Any) -> Any:
    """The same descriptor around guarded functions."""
    if isinstance(descriptor, property):
        get, put, delete = (part and guarded(pipeline, part) for part in (descriptor.fget, descriptor.fset, descriptor.fdel))
        return type(descriptor)(get, put, delete, descriptor.__doc__)
    function = descriptor.func if isinstance(descriptor, functools.cached_property) else descriptor.__func__
    return type(descriptor)(guarded(pipeline, function))


def guarded(pipeline: _seawall.Pipeline, function: Callable[..., Any]) -> Any:
    """The function behind the pipeline; a `classmethod`, `staticmethod` or `property` is guarded inside."""
    if isinstance(function, _DESCRIPTORS):
        return _descriptor(pipeline, function)
    if not callable(function) or isinstance(function, _POLICIES):
        raise ConfigurationTypeError(f"a pipeline guards a function, not {shown(function)}")
    innermost, what = _innermost(function), kind(function)
    name = getattr(function, "__qualname__", getattr(innermost, "__qualname__", type(function).__qualname__))
    wrapper = _seawall.guarded(pipeline, function, name, what)
    functools.update_wrapper(wrapper, function)
    known = wrapper.__dict__
    known.setdefault("__name__", getattr(innermost, "__name__", type(function).__name__))
    known.setdefault("__qualname__", name)
    # By its code `inspect` tells of what kind a function is; its signature is read from `__wrapped__`.
    holder = function if what == "function" else innermost
    for part in _FUNCTION_PARTS:
        if hasattr(holder, part):
            known[part] = getattr(holder, part)
    if what != "function":
        known.setdefault("__annotations__", {})
    return wrapper
