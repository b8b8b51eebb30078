"""What `Cache` asks of Python: what a value is for its key, how much an answer takes up, and streams given again."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, NamedTuple

from seawall import _seawall
from seawall._word import shown
from seawall.errors import ConfigurationTypeError

# Classes whose values are said by their own constructor's arguments.
_BY_REDUCTION = {
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "zoneinfo": ("ZoneInfo",),
    "builtins": ("complex", "range", "slice", "bytearray"),
}
# What a value of a class derived from these holds of them.
_BASES: dict[type, Callable[[Any], Any]] = {str: str.__str__, bytes: bytes, int: int, float: float, tuple: tuple, list: list}
# So many parts of an answer are looked at for its size; the rest is taken to be like them.
_MOST = 2_000


# The calls of coroutines that wait for the code that runs here, by numbers of theirs.
asking: ContextVar[tuple[int, ...]] = ContextVar("seawall_asking", default=())
# What is said of caches around the code that runs here: past them (False), or the answer anew (True).
anew: ContextVar[bool | None] = ContextVar("seawall_anew", default=None)


@contextmanager
def cache_bypass(*, refresh: bool = False) -> Iterator[None]:
    """Calls inside go past all caches: they ask, and what they are answered is not kept. For functions, models and pipelines alike,
    in this thread or task and in what it starts.

    Args:
        refresh: they ask anew, and their answers take the place of those that are kept.
    """
    if not isinstance(refresh, bool):
        raise ConfigurationTypeError(f"refresh must be True or False, not {shown(refresh)}")
    _seawall.caching_is_said()
    token = anew.set(refresh)
    try:
        yield
    finally:
        anew.reset(token)


class CacheStats(NamedTuple):
    """What has come of a cache's calls, and what it keeps.

    Attributes:
        hits: calls answered from the cache.
        misses: calls that were made.
        stale: failures for which an answer that was past its time stood in.
        joined: calls that were given the answer of an equal one under way.
        items: answers kept.
        bytes: what they take up, about.
    """

    hits: int
    misses: int
    stale: int
    joined: int
    items: int
    bytes: int


def plain(value: Any) -> tuple[Any, ...] | None:
    """A value that is none of Python's own plain types, as plain data; `None` for an object that is equal to itself alone.

    Raises:
        TypeError: it is equal to others, and nobody can say to which.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Enum):
        return name, value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return name, {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    if callable(getattr(kind, "model_dump", None)):  # pydantic's, LangChain's messages among them
        return name, value.model_dump()
    if kind.__name__ in _BY_REDUCTION.get(kind.__module__, ()):
        return name, repr(value)
    for base, make in _BASES.items():
        if isinstance(value, base):
            return name, make(value)
    if isinstance(value, Mapping):
        return name, dict(value)
    own: tuple[Any, Any] = (kind.__eq__, kind.__hash__)
    if isinstance(value, type) or own == (object.__eq__, object.__hash__):
        return None
    if hasattr(value, "__func__") and hasattr(value, "__self__"):
        return name, value.__func__, value.__self__
    raise TypeError(
        f"the cache cannot tell when two arguments of type {kind.__qualname__} are equal: give Cache(key=…), a function of the "
        "call's arguments that gives plain data (or None for a call that is not to be cached)"
    )


def size(value: Any, items: tuple[Any, ...] | None = None) -> int:
    """About how many bytes an answer takes up."""
    total, seen, looked, ahead = 0, set(), 0, [value] if items is None else [value, items]
    while ahead and looked < _MOST:
        part = ahead.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        looked += 1
        total += sys.getsizeof(part, 64)
        if isinstance(part, (str, bytes, bytearray, int, float, type)):
            continue
        if isinstance(part, Mapping):
            ahead += part.keys()
            ahead += part.values()
        elif isinstance(part, (list, tuple, set, frozenset)):
            ahead += part
        else:
            ahead += getattr(part, "__dict__", {}).values()
    return total if not ahead else total * (looked + len(ahead)) // looked


def replayed(items: tuple[Any, ...], returned: Any) -> Generator[Any, None, Any]:
    """The items of a generator once more, and what it returned."""
    yield from items
    return returned


async def areplayed(items: tuple[Any, ...]) -> AsyncIterator[Any]:
    """The same of an asynchronous one."""
    for item in items:
        yield item


def stands_in_for(error: BaseException) -> bool:
    """Whether an answer that is past its time may stand in for this failure: one that passes, and is nobody's mistake."""
    from seawall._classify import classify
    from seawall.errors import Rejected

    return isinstance(error, Rejected) or classify(error) in ("transient", "rate_limited", "quota", "malformed")


def as_json(value: Any, items: tuple[Any, ...] | None) -> str | None:
    """An answer as JSON that gives just that again; `None` where JSON cannot say it."""
    parts = [value, None if items is None else list(items)]
    if not _is_json(parts):
        return None
    import json  # most programs have no file

    try:
        return json.dumps(["data", *parts], separators=(",", ":"))
    except (ValueError, RecursionError):  # it holds itself
        return None


def from_json(text: bytes) -> tuple[Any, tuple[Any, ...] | None] | None:
    """The answer that `as_json` wrote."""
    import json

    try:
        kind, value, items = json.loads(text)
    except (ValueError, TypeError):
        return None
    return (value, None if items is None else tuple(items)) if kind == "data" else None


def _is_json(value: Any) -> bool:
    ahead, looked = [value], 0
    while ahead:
        part = ahead.pop()
        looked += 1
        if looked > 1_000_000:  # or it holds itself
            return False
        if type(part) is dict:
            if not all(type(key) is str for key in part):
                return False
            ahead += part.values()
        elif type(part) is list:
            ahead += part
        elif part is not None and type(part) not in (str, int, float, bool):
            return False
    return True


@functools.lru_cache(maxsize=1_000)
def fingerprint(function: Any) -> str | None:
    """What a function is in every process: its place, and its code; `None` for one that means something only here."""
    function = inspect.unwrap(function)
    code, name = getattr(function, "__code__", None), getattr(function, "__qualname__", "<")
    if code is None or "<" in name or getattr(function, "__closure__", None) or hasattr(function, "__self__"):
        return None
    defaults = (function.__defaults__, function.__kwdefaults__)
    if not _is_json([list(function.__defaults__ or ()), function.__kwdefaults__]):
        return None
    place = code.co_filename if function.__module__ == "__main__" else function.__module__
    return repr((place, name, defaults, _code(code)))


def _code(code: Any) -> tuple[Any, ...]:
    """A function's code as what it does, wherever it stands. Of another version of Python it is another."""
    said = (sorted(map(repr, part)) if isinstance(part, frozenset) else part for part in code.co_consts)
    inner = tuple(_code(part) if hasattr(part, "co_code") else repr(part) for part in said)
    return sys.version_info[:2], code.co_code.hex(), code.co_names, code.co_varnames, inner


@functools.cache
def flush_at_exit() -> None:
    """Has a program that ends wait until the files of its caches have what they are to have."""
    atexit.register(_seawall.flush_cache_files)
