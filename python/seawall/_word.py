"""What the words for stops, predicates and hooks have in common, and the checks of their arguments."""

from __future__ import annotations

import math
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from datetime import timedelta

# Where nothing is said and `None` says something; signatures show it.
UNSET: Any = type("Unset", (), {"__repr__": lambda _: "unset"})()


class Word:
    """A small value: compared, hashed, pickled and shown by what it was made with."""

    __slots__: tuple[str, ...] = ()

    def _made_with(self) -> tuple[Any, ...]:
        # What its bases hold too: a class with no slots of its own names none.
        slots = (name for kind in reversed(type(self).__mro__) for name in kind.__dict__.get("__slots__", ()))
        return tuple(getattr(self, name) for name in slots)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Word) and type(other) is type(self) and other._made_with() == self._made_with()

    def __hash__(self) -> int:
        return hash((type(self), self._made_with()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_with()

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({', '.join(map(repr, self._made_with()))})"


def shown(value: Any) -> str:
    """A value as an error message shows it: its repr, cut short, and its type."""
    kind = type(value).__name__
    try:
        return f"{repr(value)[:60]} ({kind})"
    except Exception:  # a foreign repr may do anything
        return f"an object of type {kind}"


def _as_number(value: Any) -> Any:
    from datetime import timedelta  # here: it takes longer to load than most of seawall

    return value.total_seconds() if isinstance(value, timedelta) else value


def seconds(argument: str, value: float | timedelta, most: float = math.inf) -> float:
    """The value in seconds; refused where it is none, or more than `most`. In the words of the native side's `convert`."""
    given = value if isinstance(value, (int, float)) else _as_number(value)
    try:
        if isinstance(given, (bool, str, bytes)):
            raise TypeError
        number = float(given)
    except OverflowError:
        number = math.inf if given > 0 else -math.inf
    except Exception:  # a foreign `__float__` may do anything
        raise ConfigurationTypeError(f"{argument} must be a number of seconds or a timedelta, not {shown(value)}") from None
    if math.isnan(number) or number < 0:
        raise ConfigurationError(f"{argument} must be zero seconds or more, not {shown(value)}")
    if number > most:
        raise ConfigurationError(f"{argument} must be at most {most:g} seconds, not {shown(value)}")
    return number


def whole_number(argument: str, value: int, least: int | None = None, most: int | None = None) -> int:
    """The value; refused where it is no whole number in these bounds."""
    may_be = "a whole number" if least is None else f"a whole number from {least} on"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(f"{argument} must be {may_be}, not {shown(value)}")
    if least is not None and value < least:
        raise ConfigurationError(f"{argument} must be {may_be}, not {shown(value)}")
    if most is not None and value > most:
        raise ConfigurationError(f"{argument} must be at most {most}, not {shown(value)}")
    return value


def called(argument: str, value: Any) -> Any:
    """The value; refused where it cannot be called, or gives something to await, which would be true whatever it says."""
    from seawall._guarded import kind  # not at the top: it loads the native module, which loads this one

    if not callable(value):
        raise ConfigurationTypeError(f"{argument} must be something that can be called, not {shown(value)}")
    if not isinstance(value, type) and kind(value) != "function":
        raise ConfigurationError(f"{argument} must answer at once, and {shown(value)} is asynchronous or a generator")
    return value


def made(argument: str, value: Any) -> Any:
    """As `called`, for words: one that was not called, as in `stop_after_attempt | …`, would take the retry state for its
    argument."""
    name = getattr(value, "__name__", "")
    if isinstance(value, type) or (isinstance(value, BuiltinFunctionType) and name.startswith("wait_")):
        raise ConfigurationTypeError(f"{argument} must be made by a call, as in {name}(…), not {name} itself")
    return called(argument, value)


def only_exceptions(argument: str, value: Any) -> Any:
    """The value; refused where it is neither an exception class nor a tuple of them."""
    for kind in value if isinstance(value, tuple) else (value,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigurationTypeError(f"{argument} must be an exception class or a tuple of them; {shown(kind)} is none")
    return value
