"""How alerts get from monitors to sinks: queues, and one worker that empties them. What a sink is, `seawall.sinks` says.

Putting an alert into a queue is all that happens in a call's way. Each delivery is a call through a pipeline of seawall's own: tried
again, limited in time, and behind a breaker of the sink. What cannot be delivered for now stays first in its sink's queue.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from seawall import _seawall, _worker
from seawall._classify import classify
from seawall._guarded import kind
from seawall._known_errors import CLASSES
from seawall._monitoring import Alert
from seawall._word import shown
from seawall.errors import (
    APIError,
    APIStatusError,
    CircuitBreakerError,
    ConfigurationError,
    ConfigurationTypeError,
    Rejected,
    SeawallError,
)

_log = logging.getLogger("seawall.sinks")

LEVELS = ("normal", "warning", "critical", "emergency")
# Alerts that wait for one sink; older ones make way.
MOST = 100
# One delivery: attempts, seconds of each, seconds a sink that fails is left alone, at first and at last.
ATTEMPTS, LIMIT, REST, LONGEST_REST = 4, 10.0, 30.0, 600.0
# Seconds that the program's end waits for alerts.
AT_EXIT = 2.0


class DeliveryError(SeawallError):
    """A sink could not deliver an alert, for now. Its text is logged, so that it must hold no secret."""


class _Failure(Exception):
    """What a sink raised, without its text, which may hold the sink's address: breakers remember and show what failed last."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(told(error))
        self.failure = _class(error)
        # How long to wait, if a server said so.
        self.response = getattr(error, "response", None)


def _class(error: BaseException) -> str:
    return error.failure if isinstance(error, _Failure) else classify(error)


def _again(error: BaseException) -> bool:
    """Whether the same delivery may come off if it is tried again: not where a server answered that it will not."""
    if isinstance(error, (Rejected, APIStatusError)):
        return CLASSES[_class(error)].retry is True
    return CLASSES[_class(error)].retry is not False


class Line:
    """What leads to one sink, whatever the number of monitors: alerts in order, one at a time."""

    def __init__(self, sink: Callable[[Alert], Any]) -> None:
        self.sink = sink
        self.label = label(sink)
        self.is_async = kind(sink) == "coroutine"
        self.lost = 0
        self._queue: deque[Alert] = deque()
        self._current: Alert | None = None
        self._is_failing = self._is_full = self._is_running = False
        # What ends its rest, and when.
        self._rest: Any = None
        self._rested = 0
        self._job: _Job | None = None
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        name = f"seawall.sinks {self.label}"
        retry = _seawall.Retry(ATTEMPTS, on=_again, wait=_seawall.wait_exponential_jitter(0.5, 8))
        # One alert's attempts and one more.
        breaker = _seawall.CircuitBreaker(
            ATTEMPTS + 1, REST, name=name, recovery_backoff=_seawall.wait_exponential(REST, LONGEST_REST, min=REST)
        )
        self._pipeline = _seawall.Pipeline(retry, breaker, _seawall.Timeout(LIMIT), name=name)
        # Time that a test moves says nothing of how long a delivery takes.
        self._in_a_test = _seawall.Pipeline(retry, breaker, name=name)

    def put(self, alert: Alert) -> None:
        """From any thread; never waits."""
        if len(self._queue) >= MOST:
            try:
                self._queue.popleft()
                self.lost += 1
            except IndexError:  # the worker was faster
                pass
            if not self._is_full:
                self._is_full = True
                _log.warning("more than %d alerts wait for %s: the oldest are dropped", MOST, self.label)
        self._queue.append(alert)
        _worker.soon(self._begin)

    @property
    def pending(self) -> int:
        """Alerts that are not delivered yet."""
        return len(self._queue) + (self._current is not None)

    @property
    def is_resting(self) -> bool:
        """Whether the sink failed so often that it is left alone for now."""
        return self._rest is not None and _seawall.clock_now() < self._rested

    def forget(self) -> None:
        """In a forked child: what waits is the parent's to deliver."""
        self._queue.clear()
        self._current = self._rest = self._job = self._jobs = None
        self._is_running = self._is_full = False

    # -- all below in the worker's loop ------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._is_running and self._rest is None:
            self._is_running = True
            task = _worker.loop().create_task(self._empty())
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    async def _empty(self) -> None:
        try:
            while (alert := self._next()) is not None:
                pipeline = self._in_a_test if _seawall.clock_stands() else self._pipeline
                try:
                    await pipeline.acall(self._send, alert)
                except CircuitBreakerError as refused:
                    self._leave_alone(refused.retry_after)
                    return
                except (Exception, asyncio.CancelledError) as error:
                    self._failed(error)
                else:
                    self._current = None
                    self._delivered()
            self._is_full = False
        finally:
            self._is_running = False
            _changed()

    def _next(self) -> Alert | None:
        if self._current is None:
            with contextlib.suppress(IndexError):  # another thread may make room meanwhile
                self._current = self._queue.popleft()
        return self._current

    def _leave_alone(self, seconds: float | None) -> None:
        def again() -> None:
            self._rest = None
            self._begin()

        span = REST if seconds is None else seconds
        self._rested = _seawall.clock_now() + round(span * 1e9)
        if _seawall.clock_stands():
            from seawall import _virtual_time

            self._rest = _virtual_time.call_at(_worker.loop(), self._rested, again)
        else:
            self._rest = _worker.loop().call_later(span, again)

    def _failed(self, error: BaseException) -> None:
        is_kept = isinstance(error, DeliveryError) or _class(error) in ("transient", "rate_limited")
        if not is_kept:
            # Its own fault, or that of the sink's settings: it must not stand in the others' way.
            self._current = None
            self.lost += 1
        if not self._is_failing:
            self._is_failing = True
            then = "alerts are kept and tried again later" if is_kept else "that alert is lost"
            _log.warning("an alert could not be delivered to %s (%s): %s", self.label, told(error), then)

    def _delivered(self) -> None:
        if self._is_failing:
            self._is_failing = False
            lost, self.lost = self.lost, 0
            level = logging.WARNING if lost else logging.INFO
            _log.log(level, "alerts are delivered to %s again; %s", self.label, f"{lost} were lost" if lost else "none was lost")

    async def _send(self, alert: Alert) -> None:
        try:
            if self.is_async:
                await self.sink(alert)
                return
            given = await self._aside(alert)
            if isinstance(given, Awaitable):
                await given
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # an interrupt would end the worker
            if isinstance(error, (DeliveryError, _Failure)) or (is_ours(self.sink) and isinstance(error, APIError)):
                raise
            raise _Failure(error) from None

    async def _aside(self, alert: Alert) -> Any:
        """Runs a sink that blocks, in a thread of its own. One that outlasts its time is waited for by the next attempt, not run again."""
        while self._job is not None and self._job.alert is not alert and not self._job.outcome.done():
            await asyncio.wait([self._job.outcome])
        if self._job is None or self._job.alert is not alert or self._job.has_failed:
            self._job = _Job(self.sink, alert)
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                # The thread ends with the line.
                weakref.finalize(self, self._jobs.put, None).atexit = False
                try:
                    threading.Thread(target=_work, args=(self._jobs,), name=f"seawall {self.label}", daemon=True).start()
                except RuntimeError:  # the interpreter ends: there are no more threads
                    self._jobs = None
                    self._job.run()
            if self._jobs is not None:
                self._jobs.put(self._job)
        return await asyncio.shield(self._job.outcome)


class _Job:
    """One call of a sink that blocks."""

    def __init__(self, sink: Callable[[Alert], Any], alert: Alert) -> None:
        self.sink = sink
        self.alert = alert
        self.event_loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Any] = self.event_loop.create_future()

    @property
    def has_failed(self) -> bool:
        return self.outcome.done() and self.outcome.exception() is not None

    def run(self) -> None:
        try:
            value = self.sink(self.alert)
        except BaseException as error:
            # A future takes no StopIteration, and what would end a thread must not end the worker.
            held = (
                error
                if isinstance(error, Exception) and not isinstance(error, StopIteration)
                else RuntimeError(type(error).__name__)
            )
            self._end(lambda: self.outcome.set_exception(held))
        else:
            self._end(lambda: self.outcome.set_result(value))

    def _end(self, settle: Callable[[], None]) -> None:
        def ended() -> None:
            settle()
            # Nobody may ask for it any more.
            self.outcome.exception()

        with contextlib.suppress(RuntimeError):  # the program ends
            self.event_loop.call_soon_threadsafe(ended)


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # it holds the sink


_tasks: set[asyncio.Task[None]] = set()
_lines: weakref.WeakValueDictionary[int, Line] = weakref.WeakValueDictionary()
_known = threading.Condition(threading.RLock())


def _changed() -> None:
    with _known:
        _known.notify_all()


def line(sink: Callable[[Alert], Any]) -> Line:
    """The one that leads to a sink."""
    with _known:
        found = _lines.get(id(sink))
        if found is None:
            found = _lines[id(sink)] = Line(sink)
        return found


def is_ours(sink: Any) -> bool:
    """Whether it is one of `seawall.sinks`, which show no secret."""
    return getattr(type(sink), "_is_ours", False) is True


def label(sink: Any) -> str:
    """A sink as logs name it; never what it was made with."""
    if is_ours(sink):
        return repr(sink)
    name = getattr(sink, "__qualname__", None)
    return name if isinstance(name, str) else type(sink).__qualname__


def told(error: BaseException) -> str:
    """An error as logs show it: its kind and status. Its text may hold a sink's address."""
    if isinstance(error, (DeliveryError, _Failure)):
        return str(error)
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__} {status}" if isinstance(status, int) else type(error).__name__


class Outlet:
    """A monitor's way to a sink: which alerts go there."""

    def __init__(self, sink: Callable[[Alert], Any], level: str) -> None:
        self.sink = sink
        self.level = level
        self._least = LEVELS.index(level)
        self._line = line(sink)
        # The incident that the sink knows of.
        self._incident: int | None = None

    def __call__(self, alert: Alert) -> None:
        is_bad_enough = LEVELS.index(alert.level) >= self._least
        if is_bad_enough:
            self._incident = alert.incident
        elif alert.kind == "raised":
            self._incident = None
        if self._incident == alert.incident:
            self._line.put(alert)
            if alert.kind == "resolved":
                self._incident = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Outlet, (self.sink, self.level)


def outlet(sink: Any, level: str | None = None) -> Outlet:
    """A way to a sink; refused where that is none."""
    wanted = "warning" if level is None else level
    if wanted not in LEVELS[1:]:
        raise ConfigurationError(f"level must be one of {', '.join(LEVELS[1:])}, not {shown(level)}")
    if isinstance(sink, type):
        raise ConfigurationTypeError(f"sink must be made by a call, as in {sink.__name__}(…), not {sink.__name__} itself")
    if not callable(sink):
        raise ConfigurationTypeError(f"sink must be one of seawall.sinks or a function of an alert, not {shown(sink)}")
    if kind(sink) not in ("function", "coroutine"):
        raise ConfigurationError("sink must be a function or a coroutine function of an alert, not a generator")
    return Outlet(sink, wanted)


def outlets(sinks: Iterable[Any]) -> list[Outlet]:
    """Ways to all of these."""
    if callable(sinks) or isinstance(sinks, (str, bytes)) or not isinstance(sinks, Iterable):
        raise ConfigurationTypeError(
            f"sinks must be a list of sinks, not {shown(sinks) if isinstance(sinks, str) else label(sinks)}"
        )
    return [outlet(sink) for sink in sinks]


def outlet_to(callbacks: Iterable[Any], sink: Any) -> Outlet:
    """The first way to a sink among a monitor's callbacks."""
    for callback in callbacks:
        if isinstance(callback, Outlet) and (callback.sink is sink or callback.sink == sink):
            return callback
    raise ValueError(f"{label(sink)} is no sink of this monitor")


def sinks_of(callbacks: Iterable[Any]) -> list[Any]:
    """The sinks among a monitor's callbacks."""
    return [callback.sink for callback in callbacks if isinstance(callback, Outlet)]


def pending(resting: bool = True) -> int:
    """Alerts that are not delivered yet, with or without those for sinks that are left alone for now."""
    with _known:
        return sum(each.pending for each in list(_lines.values()) if resting or not each.is_resting)


def flush(timeout: float, resting: bool) -> bool:
    """Waits until nothing is pending."""
    until = time.monotonic() + timeout
    with _known:
        while pending(resting):
            left = until - time.monotonic()
            # Woken too when a sink is left alone; looked at again by itself, since an alert on its way in wakes nobody.
            if left <= 0 or _worker.is_here():
                return False
            _known.wait(min(left, 0.05))
        return True


def _at_exit() -> None:
    flush(AT_EXIT, resting=False)
    _worker.stop(0.5)


def _in_child() -> None:
    global _known
    _known = threading.Condition(threading.RLock())
    _tasks.clear()
    for each in list(_lines.values()):
        each.forget()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
