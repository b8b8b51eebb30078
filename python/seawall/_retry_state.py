"""The state of a call on its way through Retry, in tenacity's shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


class Outcome:
    """How an attempt ended; read like a finished `concurrent.futures.Future`.

    Args:
        attempt_number: which attempt it was, from 1.
        exception: what it raised, or `None`.
        result: what it returned.
    """

    __slots__ = ("_exception", "_result", "attempt_number")

    def __init__(self, attempt_number: int, *, exception: BaseException | None = None, result: Any = None) -> None:
        self.attempt_number = attempt_number
        self._exception = exception
        self._result = result

    @property
    def failed(self) -> bool:
        """Whether it raised."""
        return self._exception is not None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What it raised, or `None`. Never waits."""
        return self._exception

    def result(self, timeout: float | None = None) -> Any:
        """What it returned. Never waits.

        Raises:
            BaseException: what the attempt raised, if it did.
        """
        if self._exception is not None:
            raise self._exception
        return self._result

    def done(self) -> bool:
        """Always true."""
        return True

    def cancelled(self) -> bool:
        """Always false: a cancelled attempt has no outcome."""
        return False

    def running(self) -> bool:
        """Always false."""
        return False


class NextAction:
    """What comes next: another attempt, `sleep` seconds from now."""

    __slots__ = ("name", "sleep")

    def __init__(self, sleep: float) -> None:
        self.name = "retry"
        self.sleep = sleep

    def __repr__(self) -> str:
        return f"RetryAction(sleep={self.sleep!r})"


class RetryState:
    """One call on its way through Retry, in the shape of tenacity's `RetryCallState`. Hooks, stops and waits get it.

    Attributes:
        fn, args, kwargs: the call.
        attempt_number: the attempts begun, from 1.
        outcome: how the last one ended; `None` while it runs.
        start_time, outcome_timestamp: when the first began and the last ended, in seconds of one clock.
        idle_for: seconds waited so far.
        upcoming_sleep: the last wait decided on, in seconds.
        next_action: set, with its `sleep`, once another attempt is decided on.
        retry_object: the policy, or whatever drives the retries.
    """

    __slots__ = (
        "args",
        "attempt_number",
        "fn",
        "idle_for",
        "kwargs",
        "next_action",
        "outcome",
        "outcome_timestamp",
        "retry_object",
        "start_time",
        "upcoming_sleep",
    )

    def __init__(
        self,
        *,
        fn: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        attempt_number: int = 1,
        outcome: Outcome | None = None,
        start_time: float = 0.0,
        outcome_timestamp: float | None = None,
        idle_for: float = 0.0,
        upcoming_sleep: float = 0.0,
        next_action: NextAction | None = None,
        retry_object: Any = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = {} if kwargs is None else kwargs
        self.attempt_number = attempt_number
        self.outcome = outcome
        self.start_time = start_time
        self.outcome_timestamp = outcome_timestamp
        self.idle_for = idle_for
        self.upcoming_sleep = upcoming_sleep
        self.next_action = next_action
        self.retry_object = retry_object

    @property
    def seconds_since_start(self) -> float | None:
        """From the first attempt's beginning to the last one's end; `None` while none has ended."""
        return None if self.outcome_timestamp is None else self.outcome_timestamp - self.start_time

    def __repr__(self) -> str:
        # Neither arguments nor results: this lands in logs.
        if self.outcome is None:
            last = "none yet"
        elif self.outcome.failed:
            last = f"failed ({type(self.outcome.exception()).__name__})"
        else:
            last = "returned"
        return f"<RetryState: attempt #{self.attempt_number}; slept for {round(self.idle_for, 2)}; last result: {last}>"


def retry_state(
    fn: Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    attempt_number: int,
    elapsed: float,
    ended: bool,
    exception: BaseException | None,
    result: Any,
    sleep: float | None,
    upcoming: float | None = None,
    idle: float = 0.0,
) -> RetryState:
    """The state as the drivers tell it: `elapsed` seconds since the first attempt began; `ended` if the last one has."""
    now = time.monotonic()
    return RetryState(
        fn=fn,
        args=args,
        kwargs=kwargs,
        attempt_number=attempt_number,
        outcome=Outcome(attempt_number, exception=exception, result=result) if ended else None,
        start_time=now - elapsed,
        outcome_timestamp=now if ended else None,
        idle_for=idle,
        upcoming_sleep=(sleep if upcoming is None else upcoming) or 0.0,
        next_action=None if sleep is None else NextAction(sleep),
    )


def outcome_of(retry_state: Any) -> Any:
    if retry_state.outcome is None:
        raise RuntimeError("a predicate was asked before an attempt had ended: its retry state has no outcome")
    return retry_state.outcome


def elapsed(retry_state: Any) -> Any:
    seconds = retry_state.seconds_since_start
    if seconds is None:
        raise RuntimeError("a stop was asked before an attempt had ended: its retry state has no outcome_timestamp")
    return seconds
