"""What `RateLimit` and `Bulkhead` ask of Python: what a call may use and has used, and where they are found again."""

from __future__ import annotations

import functools
import inspect
import os
import weakref
from collections.abc import Mapping
from typing import Any

from seawall import _response, _seawall
from seawall._classify import classify
from seawall.errors import ConfigurationError

# A rule of thumb for English; other languages and code have more tokens for their characters, and more bytes too.
_BYTES_A_TOKEN = 4
# Of a picture or a sound in base64 the length says nothing of its tokens: about what a picture costs at most places.
ATTACHMENT = 1_000
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
# So deep are messages looked into: a list of messages of parts of a picture's address.
DEEP = 8

_known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


@functools.cache
def watch_forks() -> None:
    """Has forked processes forget who waits, and who is inside: they are not there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_seawall.forget_waiters)


def reduced(limit: Any, args: tuple[Any, ...], said: dict[str, Any]) -> tuple[Any, ...]:
    """How a limit is pickled."""
    _known[limit._identity] = limit
    return restored, (type(limit), limit._identity, args, {key: value for key, value in said.items() if value is not None})


def restored(cls: type, identity: int, args: tuple[Any, ...], said: dict[str, Any]) -> Any:
    """What an unpickled limit is: the one that was pickled, or the one made of it here before, or else a new one."""
    known = _known.get(identity)
    if known is None:
        known = _known[identity] = cls(*args, **said)
    return known


def _length(value: Any, deep: int) -> int:
    if isinstance(value, str):
        if value.startswith("data:"):
            return _BYTES_A_TOKEN * ATTACHMENT
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if deep == 0:
        return 0
    if isinstance(value, Mapping):
        return sum(_length(item, deep - 1) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_length(item, deep - 1) for item in value)
    # A message, or a prompt that holds some.
    for name in ("content", "messages"):
        inside = _response.get(value, name)
        if isinstance(inside, (str, list, tuple)):
            return _length(inside, deep - 1)
    return 0


def most(kwargs: Mapping[str, Any]) -> int:
    """What the call allows the answer to have."""
    for name in _LIMITS:
        given = kwargs.get(name)
        if isinstance(given, int) and not isinstance(given, bool) and given > 0:
            return given
    return 0


def estimate(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> int:
    """The tokens that a call with these arguments may use: those of its text, and of the longest answer where that is said."""
    kwargs = kwargs or {}
    length = _length(args, DEEP) + _length(kwargs, DEEP)
    return -(-length // _BYTES_A_TOKEN) + most(kwargs)


# Where a function has the argument, if it has one: asked once for each function.
_places: weakref.WeakKeyDictionary[Any, dict[str, tuple[int | None, Any]]] = weakref.WeakKeyDictionary()


def argument(name: str, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
    """What a call of the function gives for an argument.

    Raises:
        ConfigurationError: the function has no such argument.
    """
    if kwargs and name in kwargs:
        return kwargs[name]
    try:
        known = _places.setdefault(function, {})
    except TypeError:  # it takes no weak references
        known = {}
    if name not in known:
        known[name] = _place(name, function)
    place, default = known[name]
    return args[place] if place is not None and place < len(args) else default


def _place(name: str, function: Any) -> tuple[int | None, Any]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # it tells of none
        parameters = []
    for place, each in enumerate(parameters):
        if each.name == name:
            is_placed = each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
            return (place if is_placed else None), (None if each.default is each.empty else each.default)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None, None
    there = ", ".join(each.name for each in parameters) or "none"
    raise ConfigurationError(
        f"key={name!r} is the name of an argument, and {getattr(function, '__qualname__', function)} has none such (it has {there}): "
        "give the name of one, or a function of its arguments"
    )


def _item(usage: Any, name: str) -> Any:
    return usage.get(name) if isinstance(usage, Mapping) else _response.get(usage, name)


def _count(usage: Any, *names: str) -> int | None:
    for name in names:
        count = _item(usage, name)
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return count
    return None


def used(result: Any) -> int | None:
    """The tokens that an answer says it has used, in the words of OpenAI, Anthropic, Google and LangChain."""
    for name in ("usage", "usage_metadata"):
        usage = _item(result, name)
        if usage is None or callable(usage):
            continue
        total = _count(usage, "total_tokens", "total_token_count")
        if total is not None:
            return total
        sent = _count(usage, "input_tokens", "prompt_tokens", "prompt_token_count")
        made = _count(usage, "output_tokens", "completion_tokens", "candidates_token_count")
        if sent is not None or made is not None:
            return (sent or 0) + (made or 0)
    return None


def headers(error: BaseException) -> dict[str, str] | None:
    """What the response behind a failure says of limits."""
    said = dict(zip(_NAMES, _response.header(error, *_NAMES), strict=True))
    found = {name: value for name, value in said.items() if value is not None}
    return found or None


def is_limited(error: BaseException) -> bool:
    """Whether a failure is a server's 429 that a wait mends."""
    return classify(error) == "rate_limited"


_NAMES = [
    *(f"x-ratelimit-{part}-{kind}" for part in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
    *(f"anthropic-ratelimit-{kind}-{part}" for part in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
]
