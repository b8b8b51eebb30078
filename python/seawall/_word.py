"""What the words for stops, predicates and hooks have in common, and the checks of their arguments."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from seawall.errors import ConfigurationError


class Word:
    """A small value: compared, hashed, pickled and shown by what it was made with."""

    __slots__: tuple[str, ...] = ()

    def _made_with(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Word) and type(other) is type(self) and other._made_with() == self._made_with()

    def __hash__(self) -> int:
        return hash((type(self), self._made_with()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_with()

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({', '.join(map(repr, self._made_with()))})"


def seconds(argument: str, value: float | timedelta) -> float:
    """The value in seconds; refused where it is none."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, (bool, str, bytes)) or not hasattr(number, "__float__"):
        raise ConfigurationError(f"{argument} must be a number of seconds or a timedelta, not {value!r}")
    number = float(number)
    if math.isnan(number) or number < 0:
        raise ConfigurationError(f"{argument} must be at least 0 seconds, not {value!r}")
    return number


def called(argument: str, value: Any) -> Any:
    """The value; refused where it cannot be called."""
    if not callable(value):
        raise ConfigurationError(f"{argument} must be something that can be called, not {value!r}")
    return value


def only_exceptions(argument: str, value: Any) -> Any:
    """The value; refused where it is neither an exception class nor a tuple of them."""
    for kind in value if isinstance(value, tuple) else (value,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigurationError(f"{argument} must be an exception class or a tuple of them; {kind!r} is none")
    return value
