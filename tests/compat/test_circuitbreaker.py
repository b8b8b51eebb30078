"""The drop-in for the `circuitbreaker` package: side by side with the package itself, and what it adds."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
from collections.abc import Iterator
from typing import Any
from unittest import mock

import circuitbreaker as original
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import seawall
import seawall.compat.circuitbreaker as dropin

BOTH = pytest.mark.parametrize("module", [original, dropin], ids=["original", "dropin"])


class Expected(Exception):
    pass


class Narrower(Expected):
    pass


OUTCOMES = [None, Expected, Narrower, ValueError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit]


class SideBySide(RuleBasedStateMachine):
    """Every call is made through both packages, on one clock; all that can be seen must be equal."""

    @initialize(
        threshold=st.sampled_from([None, 0, 1, 2, 3, 2.5]),
        timeout=st.sampled_from([None, 0, 1, 10, 2.5]),
        expected=st.sampled_from([None, Expected, (Narrower, KeyError), lambda kind, error: kind is Expected]),
        fallback=st.booleans(),
    )
    def start(self, threshold: Any, timeout: Any, expected: Any, fallback: bool) -> None:
        self.now = 1000.0
        self.patches = contextlib.ExitStack()
        for module in (original, dropin):
            self.patches.enter_context(mock.patch.object(module, "monotonic", lambda: self.now))
        instead = (lambda outcome=None: "instead") if fallback else None
        self.pair = [m.CircuitBreaker(threshold, timeout, expected, "pair", instead) for m in (original, dropin)]
        self.functions = [breaker(self.work) for breaker in self.pair]
        self.generators = [breaker(self.items) for breaker in self.pair]
        self.started: list[list[Iterator[Any]]] = []

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            self.patches.close()

    def work(self, outcome: type[BaseException] | None) -> str:
        if outcome is not None:
            raise outcome("worked badly")
        return "worked"

    def items(self, outcome: type[BaseException] | None) -> Iterator[str]:
        yield "item"
        self.work(outcome)

    def both(self, *calls: Any) -> None:
        seen = []
        for call in calls:
            try:
                seen.append(("value", call()))
            except BaseException as error:
                seen.append((type(error).__name__, str(error).split(" OPEN until ")[0], str(error).partition(" (")[2]))
        assert seen[0] == seen[1]

    @rule(outcome=st.sampled_from(OUTCOMES))
    def call(self, outcome: Any) -> None:
        self.both(*[lambda f=f: f(outcome) for f in self.functions])

    @rule(outcome=st.sampled_from(OUTCOMES))
    def call_past_the_gate(self, outcome: Any) -> None:
        self.both(*[lambda b=b: b.call(self.work, outcome) for b in self.pair])

    @rule(outcome=st.sampled_from(OUTCOMES))
    def block(self, outcome: Any) -> None:
        def enter(breaker: Any) -> Any:
            with breaker as entered:
                self.work(outcome)
            return entered

        self.both(*[lambda b=b: enter(b) for b in self.pair])

    @rule(outcome=st.sampled_from(OUTCOMES))
    def coroutine(self, outcome: Any) -> None:
        async def work() -> str:
            return self.work(outcome)

        def run(coroutine: Any) -> Any:
            try:
                coroutine.send(None)
            except StopIteration as done:
                return done.value

        self.both(*[lambda b=b: run(b.decorate(work)()) for b in self.pair])

    @rule(outcome=st.sampled_from([None, Expected, ValueError]))
    def begin_a_generator(self, outcome: Any) -> None:
        running = [g(outcome) for g in self.generators]
        self.both(*[lambda g=g: next(g) for g in running])
        self.started.append(running)

    @rule(which=st.integers(0, 9), how=st.sampled_from(["next", "close", "list"]))
    def end_a_generator(self, which: int, how: str) -> None:
        if self.started:
            running = self.started.pop(which % len(self.started))
            end = {"next": lambda g: next(g, "over"), "close": lambda g: g.close(), "list": list}[how]
            self.both(*[lambda g=g: end(g) for g in running])

    @rule()
    def reset(self) -> None:
        for breaker in self.pair:
            breaker.reset()

    @rule(seconds=st.sampled_from([0.25, 1, 5, 31]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(threshold=st.integers(1, 4), timeout=st.sampled_from([0, 1, 20]))
    def limits_change(self, threshold: int, timeout: int) -> None:
        for breaker in self.pair:
            breaker._failure_threshold, breaker._recovery_timeout = threshold, timeout

    @invariant()
    def all_that_can_be_seen_is_equal(self) -> None:
        if not hasattr(self, "pair"):
            return
        one, two = self.pair
        for name in (
            "state",
            "closed",
            "opened",
            "failure_count",
            "open_remaining",
            "name",
            "_failure_threshold",
            "_recovery_timeout",
        ):
            assert getattr(one, name) == getattr(two, name), name
        assert type(one.last_failure) is type(two.last_failure)
        assert str(one) == str(two)
        assert abs((one.open_until - two.open_until).total_seconds()) < 5


SideBySide.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSideBySide = SideBySide.TestCase


@pytest.fixture(autouse=True)
def _fresh_monitors() -> Iterator[None]:
    for module in (original, dropin):
        module.CircuitBreakerMonitor.circuit_breakers = {}
    yield


def test_the_public_names_are_all_there() -> None:
    public = {
        n
        for n, v in vars(original).items()
        if not n.startswith("_") and getattr(v, "__module__", "circuitbreaker") == "circuitbreaker"
    }
    public -= {n for n in public if inspect.ismodule(getattr(original, n))}
    assert public - set(vars(dropin)) == set()
    for kind in ("CircuitBreaker", "CircuitBreakerError", "CircuitBreakerMonitor"):
        theirs = {n for n in vars(getattr(original, kind)) if not n.startswith("_")}
        assert theirs - set(dir(getattr(dropin, kind))) == set()
    for name in ("circuit", "in_exception_list", "build_failure_predicate"):
        assert list(inspect.signature(getattr(original, name)).parameters) == list(
            inspect.signature(getattr(dropin, name)).parameters
        )
    for name in ("STATE_CLOSED", "STATE_OPEN", "STATE_HALF_OPEN", "STRING_TYPES"):
        assert getattr(original, name) == getattr(dropin, name)


@BOTH
def test_zeros_mean_the_defaults(module: Any) -> None:
    breaker = module.CircuitBreaker(0, 0, ())
    assert (breaker._failure_threshold, breaker._recovery_timeout) == (5, 30)
    assert breaker.is_failure(Exception, Exception())


@BOTH
def test_a_grandchild_does_not_inherit_the_expected_exception(module: Any) -> None:
    class Child(module.CircuitBreaker):
        EXPECTED_EXCEPTION = Expected
        FAILURE_THRESHOLD = 2
        RECOVERY_TIMEOUT = 7

    class Grandchild(Child):
        pass

    assert not Child().is_failure(ValueError, ValueError())
    assert Grandchild().is_failure(ValueError, ValueError())
    assert (Grandchild()._failure_threshold, Grandchild()._recovery_timeout) == (2, 7)


@BOTH
def test_a_subclass_may_take_other_arguments_and_override_methods(module: Any) -> None:
    class Service(module.CircuitBreaker):
        def __init__(self, *, service: str) -> None:
            super().__init__(failure_threshold=1, name=service)
            self.seen: list[str] = []

        def call(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.append("call")
            return super().call(func, *args, **kwargs)

        def reset(self) -> None:
            self.seen.append("reset")
            super().reset()

    breaker = Service(service="search")
    assert breaker(lambda: 1)() == 1
    assert (str(breaker), breaker.seen) == ("search", ["call", "reset"])


@BOTH
@pytest.mark.parametrize("expected", [object, BaseException, KeyboardInterrupt, 5, "name", b"name", int])
def test_what_is_no_exception_is_refused(module: Any, expected: Any) -> None:
    with pytest.raises(ValueError, match="expected_exception (does not look like a predicate|cannot be a string)"):
        module.CircuitBreaker(expected_exception=expected)


@BOTH
def test_bare_use_ignores_the_other_arguments(module: Any) -> None:
    def function() -> int:
        return 1

    module.circuit(function, 99, KeyError, "ignored")
    breaker = module.CircuitBreakerMonitor.get(function.__qualname__)
    assert (breaker.name, breaker._recovery_timeout, breaker.fallback_function) == (function.__qualname__, 30, None)


@BOTH
def test_names_and_registration(module: Any) -> None:
    breaker = module.CircuitBreaker()
    with breaker:
        pass
    assert (str(breaker), breaker.name, list(module.CircuitBreakerMonitor.get_circuits())) == ("unnamed_CircuitBreaker", None, [])

    def first() -> None: ...

    def second() -> None: ...

    breaker(first)
    breaker(second)
    assert breaker.name == first.__qualname__
    assert list(module.CircuitBreakerMonitor.circuit_breakers) == [first.__qualname__]
    later = module.CircuitBreaker(name=first.__qualname__)
    later(second)
    assert module.CircuitBreakerMonitor.get(first.__qualname__) is later
    assert module.CircuitBreakerMonitor.all_closed() is True


@BOTH
def test_the_error_of_an_open_circuit(module: Any) -> None:
    breaker = module.CircuitBreaker(1, 30, name="refuses")
    error = module.CircuitBreakerError(breaker)
    assert error.args == ()
    assert module.CircuitBreakerError(breaker, "more").args == ("more",)

    def fail() -> None:
        raise Expected("x")

    guarded = breaker(fail)
    with pytest.raises(Expected):
        guarded()
    with pytest.raises(
        module.CircuitBreakerError, match=r'Circuit "refuses" OPEN until 2.*\(1 failures, \d+ sec remaining\) \(last_'
    ):
        guarded()


@BOTH
@pytest.mark.parametrize("half", [False, True])
def test_half_open_lets_everybody_through(module: Any, half: bool) -> None:
    breaker = module.CircuitBreaker(1, 10)

    def items() -> Iterator[int]:
        yield 1

    guarded = breaker(items)
    with contextlib.suppress(Expected), breaker:
        raise Expected
    with mock.patch.object(module, "monotonic", return_value=breaker._opened + (11 if half else 9)):
        got = []
        for generator in [guarded() for _ in range(3)]:
            with contextlib.suppress(module.CircuitBreakerError):
                got.append(next(generator))
    assert got == ([1, 1, 1] if half else [])


# --- what it adds


def test_it_is_the_native_breaker() -> None:
    breaker = dropin.CircuitBreaker(2, 30, name="native inside")
    assert isinstance(breaker, seawall.CircuitBreaker)
    told: list[str] = []
    breaker.add_listener(lambda event: told.append(event.new))
    guarded = breaker(lambda outcome: (_ for _ in ()).throw(outcome))
    for _ in range(2):
        with pytest.raises(Expected):
            guarded(Expected())
    assert told == ["open"]
    assert seawall.circuits["native inside"] is breaker
    assert "2 failures in a row" in breaker.explain()
    assert breaker.metrics().openings == 1


def test_its_error_is_seawalls_too_and_pickles() -> None:
    breaker = dropin.CircuitBreaker(1, 30, name="pickles its error")
    with contextlib.suppress(Expected), breaker:
        raise Expected("down")
    error = dropin.CircuitBreakerError(breaker)
    assert isinstance(error, seawall.CircuitBreakerError)
    assert (error.name, error.retry_after) == ("pickles its error", 30)
    there = pickle.loads(pickle.dumps(error))
    assert (str(there).split(" OPEN")[0], there.retry_after) == ('Circuit "pickles its error"', 30)


def test_it_pickles_by_name() -> None:
    breaker = dropin.CircuitBreaker(2, 7, Expected, "found by pickle")
    assert pickle.loads(pickle.dumps(breaker)) is breaker
    pickled = pickle.dumps(breaker)
    del breaker
    again = pickle.loads(pickled)
    assert (again.name, again._failure_threshold, again._recovery_timeout) == ("found by pickle", 2, 7)
    assert again.is_failure(Narrower, Narrower())
    assert not again.is_failure(ValueError, ValueError())


def test_an_isolation_outlasts_a_call_that_ends_well() -> None:
    breaker = dropin.CircuitBreaker(1, 30)
    guarded = breaker(lambda: 1)
    with breaker.isolate():
        with pytest.raises(dropin.CircuitBreakerError):
            guarded()
        assert breaker.call(lambda: 2) == 2
        assert breaker.state == "forced_open"
    assert guarded() == 1


def test_a_generator_keeps_what_is_sent_and_returned() -> None:
    @dropin.circuit
    def echo() -> Any:
        got = yield "ready"
        yield got
        return "done"

    generator = echo()
    assert (next(generator), generator.send("hello")) == ("ready", "hello")
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "done"


async def test_an_asynchronous_generator_is_closed_with_the_loop_that_is_left() -> None:
    closed = []

    @dropin.circuit
    async def items() -> Any:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    generator = items()
    assert await anext(generator) == 1
    await generator.aclose()
    assert closed == [True]
