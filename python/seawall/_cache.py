"""What `Cache` asks of Python: what a value is for its key, how much an answer takes up, and streams given again."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from enum import Enum
from typing import Any, NamedTuple

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
