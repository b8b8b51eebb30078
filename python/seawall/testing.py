"""Make tests of guarded code quick and repeatable: a clock to move by hand, seeds, no waits, few attempts, and a record.

Each is a context manager, undone on exit whatever happens, and a pytest fixture (`seawall_clock`, `seawall_events`,
`seawall_no_waits`, `seawall_seed`, `seawall_cap_attempts`). All hold for the whole process, its threads and tasks.
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from seawall import _seawall, _virtual_time
from seawall._word import seconds as _seconds
from seawall._word import shown, whole_number
from seawall.errors import ConfigurationTypeError

_F = TypeVar("_F", bound=Callable[..., Any])
_lock = threading.Lock()
_recorders: list[Events] = []
_hurried: list[object] = []
_caps: list[int] = []
_MASK = 2**64 - 1
# The last moment of the clock but one second, in nanoseconds: it counts for five centuries.
_END = 2**64 - 10**9


def _apply() -> None:
    """Tells the core what holds now; with the lock held."""
    _seawall.set_trial(bool(_recorders), bool(_hurried), min(_caps, default=0))


def _remove(held: list[Any], one: Any) -> None:
    # By identity: two of them may be equal.
    place = next(place for place, each in enumerate(held) if each is one)
    del held[place]


class _Block(ABC):
    """A `with` block, that may decorate a function too. One object is entered once at a time."""

    _entered = False

    def __enter__(self) -> Any:
        with _lock:
            if self._entered:
                raise RuntimeError(f"this seawall.testing.{type(self).__name__.strip('_')} is entered already: make another one")
            entered = self._begin()
            self._entered = True
            return entered

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        with _lock:
            if self._entered:
                self._entered = False
                self._end()

    @abstractmethod
    def _begin(self) -> Any:
        """Begins; gives what `with` gives."""

    @abstractmethod
    def _end(self) -> None:
        """Ends what was begun."""

    @abstractmethod
    def _again(self) -> _Block:
        """One like it, for a call of a decorated function."""

    def __call__(self, function: _F) -> _F:
        """Decorates a function or a coroutine function: each call runs in such a block."""
        called = inspect.unwrap(function) if callable(function) else function
        if not callable(called) or inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            # The block would be over before a generator begins.
            block = type(self).__name__
            raise ConfigurationTypeError(
                f"seawall.testing.{block} decorates a function or a coroutine function, not {shown(function)}: "
                f"write `with testing.{block}(…):` inside of it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return asynchronous  # type: ignore[return-value]

        @functools.wraps(function)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return synchronous  # type: ignore[return-value]


class clock(_Block):
    """Stops the time of all policies; waits then take none of the test's, and move this clock instead.

    `with testing.clock() as time:` gives the clock. Breakers, limits, budgets, monitors and events go by it. A retry's wait
    moves it by itself, in threads and in asyncio. What a guarded function does in its own time (`time.sleep`, sockets)
    does not: let it call `sleep()` or `await asleep()` of this clock. There is one time: a second clock is refused
    while one runs. On exit time runs on from where it was left; waits still under way take the rest of their time.
    """

    def _begin(self) -> clock:
        if not _seawall.clock_stop():
            raise RuntimeError("a seawall.testing.clock runs already, and there is only one time: use that one")
        self._from = _seawall.clock_now()
        return self

    def _end(self) -> None:
        _seawall.clock_run()
        _virtual_time.released()

    def _again(self) -> clock:
        return clock()

    def _check(self) -> None:
        if not self._entered:
            raise RuntimeError("this clock does not run: use it inside of `with testing.clock() as …:`")

    @property
    def now(self) -> float:
        """Seconds since the block began."""
        self._check()
        return (_seawall.clock_now() - self._from) / 1e9

    def advance(self, seconds: float | timedelta) -> None:
        """Moves the time forward, and lets every wait and time limit that ends by then end.

        Raises:
            ConfigurationError: for a negative span, or one beyond the clock's end in five centuries.
        """
        self._check()
        span = _seconds("seconds", seconds, (_END - _seawall.clock_now()) / 1e9)
        _seawall.clock_advance(_seawall.clock_now() + round(span * 1e9))
        _virtual_time.moved()

    def sleep(self, seconds: float | timedelta) -> None:
        """What a guarded function calls that is to take so long: the time moves on."""
        self.advance(seconds)

    async def asleep(self, seconds: float | timedelta = math.inf) -> None:
        """What a guarded coroutine awaits that is to take so long; by default it hangs until it is cancelled.

        Sleeps of several tasks end in the order of their times.
        """
        self._check()
        await _virtual_time.sleep(_seconds("seconds", seconds))


class seed(_Block):
    """Makes chance repeatable: the calls begun in the block get the same jitter each time, in the order they begin.

    Chaos policies made without a seed of their own in the block are repeatable too. Blocks nest; the outer sequence goes on
    afterwards.

    Raises:
        ConfigurationError: if `number` is no whole number.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = whole_number("number", number)

    def _begin(self) -> seed:
        # Far from each other, so that the calls of two seeds have nothing in common.
        self._before = _seawall.sow(self.number * 0x9E3779B97F4A7C15 & _MASK)
        return self

    def _end(self) -> None:
        _seawall.sow(self._before)

    def _again(self) -> seed:
        return seed(self.number)


class no_waits(_Block):
    """Retries follow at once: what they would have waited is still decided on, logged and recorded.

    A wait that would not fit a deadline ends the retries as ever. Limits of rate and of concurrency are still waited for.
    """

    def _begin(self) -> no_waits:
        _hurried.append(self)
        _apply()
        return self

    def _end(self) -> None:
        _remove(_hurried, self)
        _apply()

    def _again(self) -> no_waits:
        return no_waits()


class cap_attempts(_Block):
    """No retry makes more than `attempts` attempts, whatever it was made with. Blocks nest; the smallest number holds.

    Raises:
        ConfigurationError: if `attempts` is no whole number from 1 on.
    """

    def __init__(self, attempts: int) -> None:
        self.attempts = whole_number("attempts", attempts, 1, 2**32 - 1)

    def _begin(self) -> cap_attempts:
        _caps.append(self.attempts)
        _apply()
        return self

    def _end(self) -> None:
        _caps.remove(self.attempts)
        _apply()

    def _again(self) -> cap_attempts:
        return cap_attempts(self.attempts)


@dataclass(frozen=True)
class Event:
    """Something that happened in a guarded call.

    Attributes:
        name: which kind of event, as in the table of events: `"attempt.started"`, `"retry.scheduled"`, …
        source: the name of the pipeline, the function or the breaker at which it happened.
        attempt: the attempt, from 1; for fallbacks the alternative; 0 where there is none.
        span: the seconds that it is about: the wait decided on, the limit that passed, the time taken.
        elapsed: seconds since the call reached the policy.
        at: when, in seconds of the policies' clock since `seawall.testing` was loaded.
        exception: the type of the exception that it is about, or `None`.
        reason: why, where the kind of event has several reasons.
    """

    name: str
    source: str
    attempt: int
    span: float
    elapsed: float
    at: float
    exception: type[BaseException] | None
    reason: str


class Events(list[Event]):
    """Events in the order in which they happened."""

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [event.name for event in self]

    def named(self, name: str) -> list[Event]:
        """Those of that name."""
        return [event for event in self if event.name == name]


class record(_Block):
    """Records what happens to all guarded calls: `with testing.record() as events:` gives the list that fills.

    Every call that goes through a Retry tells at least `attempt.started`. Calls under way when the block begins may
    tell less. Blocks nest: each gets everything.
    """

    def _begin(self) -> Events:
        self._events = Events()
        _recorders.append(self._events)
        _apply()
        return self._events

    def _end(self) -> None:
        _remove(_recorders, self._events)
        _apply()

    def _again(self) -> record:
        return record()


# Counted from here, small numbers keep their nanoseconds.
_BEGUN = _seawall.clock_now()


def _heard(
    name: str,
    source: str,
    attempt: int,
    span: float,
    elapsed: float,
    at: int,
    exception: type[BaseException] | None,
    reason: str,
) -> None:
    event = Event(name, source, attempt, span, elapsed, (at - _BEGUN) / 1e9, exception, reason)
    recorders: Iterable[Events] = tuple(_recorders)
    for events in recorders:
        events.append(event)


__all__ = ["Event", "Events", "cap_attempts", "clock", "no_waits", "record", "seed"]


def __dir__() -> list[str]:
    return sorted(__all__)
