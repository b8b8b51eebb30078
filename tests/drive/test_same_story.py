"""The fast lane is a shortcut through the machine: any story gives the same answers, events, counts and states on both."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seawall import CircuitBreaker, CircuitBreakerError, Fallback, Monitor, Pipeline, Retry, Timeout


class Interrupted(BaseException):
    """What is no outcome."""


ENDS: dict[str, Any] = {
    "value": "value",
    "bad value": None,
    "transient": ConnectionError("passing"),
    "permanent": KeyError("for good"),
    "interrupt": Interrupted(),
}
ends = st.sampled_from(list(ENDS))


def came_out(call: Any) -> str:
    """How a call ended, in a word."""
    try:
        return f"returned {call()}"
    except StopIteration as end:
        return f"returned {end.value}"
    except StopAsyncIteration:
        return "no more items"
    except CircuitBreakerError:
        return "refused"
    except (Exception, Interrupted) as error:
        return f"raised {type(error).__name__} {getattr(error, '__notes__', [])}".split(" in ")[0]


def untimed(told: dict[str, Any], timed: set[str]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key not in timed}


class Pause:
    """Suspends until an end is sent in."""

    def __await__(self) -> Iterator[str]:
        return (yield "waiting")


class Twin:
    """One set of policies and what is called through it; told to `before`, calls need the machine."""

    def __init__(self, shape: dict[str, Any], told: Any) -> None:
        self.breakers = [CircuitBreaker(**shape["breaker"]) for _ in range(shape["breakers"])]
        self.monitor = Monitor(1000)
        self.events: list[str] = []
        hooks = {"before": told} if told else {}
        self.retry = Retry(shape["attempts"], wait=0, on_result=shape["on_result"], **hooks)
        policies: list[Any] = [self.retry, *self.breakers]
        if shape["limit"]:
            policies.append(Timeout(1000))
        if shape["fallback"]:
            policies.insert(0, Fallback("instead", on=ConnectionError))
        pipeline = Pipeline(*policies, name="twin", monitor=self.monitor)
        self.script: list[str] = []
        self.calls: list[Any] = []

        def end() -> Any:
            result = ENDS[self.script.pop(0) if self.script else "value"]
            if isinstance(result, BaseException):
                # Each time a new one: notes of one call are none of another's.
                raise type(result)(*result.args)
            return result

        @pipeline
        def plain() -> Any:
            return end()

        async def coroutine() -> Any:
            self.script[:0] = [await Pause()]
            return end()

        def items() -> Iterator[Any]:
            yield end()
            yield end()

        async def async_items() -> Any:
            yield end()
            self.script[:0] = [await Pause()]
            yield end()

        self.plain = plain
        self.kinds = {
            "coroutine": pipeline(coroutine),
            "given coroutine": pipeline(lambda: coroutine()),
            "items": pipeline(items),
            "given items": pipeline(lambda: items()),
            "async items": pipeline(async_items),
        }
        self.functions = [self.plain, *self.kinds.values()]

    def run(self, script: list[str]) -> str:
        self.script[:] = script
        return came_out(self.plain)

    def open(self, kind: str) -> str:
        self.script.clear()
        made: list[Any] = []
        told = came_out(lambda: made.append(self.kinds[kind]()))
        self.calls += made
        return told

    def go_on(self, at: int, end: str, script: list[str]) -> str:
        """A step of an open call: what it waits for ends so, and the attempts after it so."""
        call = self.calls[at % len(self.calls)]
        self.script[:] = script
        if hasattr(call, "__anext__"):
            item = call.__anext__()
            told = came_out(lambda: item.send(None))
            return told if told != "returned waiting" else came_out(lambda: item.send(end))
        if hasattr(call, "__await__"):
            return came_out(lambda: call.send(end if call.cr_suspended else None))
        return came_out(lambda: next(call))

    def leave(self, at: int, how: str) -> str:
        call = self.calls.pop(at % len(self.calls))
        is_async = hasattr(call, "__anext__")
        if how == "throw":
            return came_out(lambda: call.athrow(Interrupted()).send(None) if is_async else call.throw(Interrupted()))
        # What was never awaited is closed: whoever drops it is warned.
        if how == "close" or (hasattr(call, "cr_suspended") and not call.cr_suspended):
            return came_out(lambda: call.aclose().send(None) if is_async else call.close())
        return "dropped"

    def state(self) -> Any:
        """What policies and the monitor know, but for what depends on how long a step took; and the counts, once no call is open."""
        timed = {
            "retry_after",
            "avg_latency",
            "p50",
            "p95",
            "p99",
            "lifetime",
            "avg_first_token",
            "first_token_p50",
            "first_token_p95",
            "first_token_p99",
        }
        told = [{**vars(breaker.metrics()), "last_failure": repr(breaker.last_failure)} for breaker in self.breakers]
        metrics = [(breaker.failure_count, untimed(each, timed)) for breaker, each in zip(self.breakers, told, strict=True)]
        # The fast lane counts a call when it has ended.
        counted = [] if self.calls else [self.retry.statistics, *(function.statistics for function in self.functions)]
        # The last call that did not simply pass is a question of the way.
        last = {"last_attempts", "last_seconds", "last_error"}
        return metrics, untimed(self.monitor.snapshot(), timed), [untimed(counts, last) for counts in counted]


SHAPES = st.fixed_dictionaries(
    {
        "breaker": st.fixed_dictionaries(
            {
                "failure_threshold": st.integers(4, 6),
                "recovery_timeout": st.sampled_from([0, 1000]),
                "half_open_max_calls": st.integers(1, 2),
                "success_threshold": st.integers(1, 2),
            }
        ),
        "breakers": st.integers(0, 2),
        "attempts": st.integers(1, 3),
        "on_result": st.sampled_from([None, lambda value: value is None]),
        "limit": st.booleans(),
        "fallback": st.booleans(),
    }
)


class SameStory(RuleBasedStateMachine):
    twins: list[Twin]

    @initialize(shape=SHAPES)
    def make(self, shape: dict[str, Any]) -> None:
        # A limit would need a loop to wake a call that waits; plain calls and items pass it.
        self.limited = shape["limit"]
        self.twins = [Twin(shape, None), Twin(shape, lambda state: None)]
        self.logger = logging.getLogger("seawall")
        self.level, self.propagate, self.handler = self.logger.level, self.logger.propagate, logging.Handler()
        self.handler.emit = self.heard  # type: ignore[method-assign]
        self.logger.addHandler(self.handler)
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.at: Twin | None = None

    def heard(self, record: logging.LogRecord) -> None:
        # Only the machine tells of attempts, as only it is asked to.
        if self.at is not None and getattr(record, "seawall_event", None) != "attempt.started":
            self.at.events.append(record.getMessage().split(" (")[0])

    def both(self, step: Any) -> None:
        told = []
        for twin in self.twins:
            self.at = twin
            told.append(step(twin))
            self.at = None
        assert told[0] == told[1]

    @rule(script=st.lists(ends, max_size=4))
    def a_plain_call(self, script: list[str]) -> None:
        self.both(lambda twin: twin.run(script))

    @rule(kind=st.sampled_from(["coroutine", "given coroutine", "items", "given items", "async items"]))
    def a_call_begins(self, kind: str) -> None:
        if not self.limited or "items" in kind and "async" not in kind:
            self.both(lambda twin: twin.open(kind))

    @precondition(lambda self: self.twins[0].calls)
    @rule(at=st.integers(0, 99), end=ends, script=st.lists(ends, max_size=3))
    def a_call_goes_on(self, at: int, end: str, script: list[str]) -> None:
        self.both(lambda twin: twin.go_on(at, end, script))

    @precondition(lambda self: self.twins[0].calls)
    @rule(at=st.integers(0, 99), how=st.sampled_from(["close", "throw", "drop"]))
    def a_call_is_left(self, at: int, how: str) -> None:
        self.both(lambda twin: twin.leave(at, how))

    @precondition(lambda self: self.twins[0].breakers)
    @rule(state=st.sampled_from(["open", "closed", "forced_open", "disabled", "metrics_only"]))
    def a_breaker_is_forced(self, state: str) -> None:
        self.both(lambda twin: twin.breakers[0].force(state))

    @invariant()
    def they_are_the_same(self) -> None:
        if hasattr(self, "twins"):
            lane, machine = self.twins
            assert lane.state() == machine.state()
            assert lane.events == machine.events

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            for twin in self.twins:
                for call in twin.calls:
                    if hasattr(call, "close"):
                        came_out(call.close)
            self.logger.removeHandler(self.handler)
            self.logger.setLevel(self.level)
            self.logger.propagate = self.propagate


SameStory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSameStory = SameStory.TestCase
