"""The circuit breaker through its Python names."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref

import pytest

import seawall
from seawall import CircuitBreaker, CircuitBreakerError, CircuitBreakerMonitor, circuit
from seawall.errors import ConfigurationError


class Service:
    """Fails while `down`; counts its calls."""

    def __init__(self, error: type[BaseException] = ConnectionError) -> None:
        self.calls = 0
        self.down = True
        self.error = error

    def __call__(self, value: int = 1) -> int:
        self.calls += 1
        if self.down:
            raise self.error("down")
        return value


def tripped(**options: object) -> tuple[CircuitBreaker, Service]:
    """A breaker that one failure has opened, and its service, which works again."""
    breaker, service = CircuitBreaker(1, **options), Service()  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        breaker.call(service)
    service.down = False
    return breaker, service


def test_it_opens_after_failures_in_a_row_and_says_when_to_come_back() -> None:
    service = Service()
    guarded = circuit(failure_threshold=2, recovery_timeout=60, name="service")(service)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="down"):
            guarded()
    with pytest.raises(CircuitBreakerError, match="service") as refused:
        guarded()
    assert service.calls == 2
    assert 59 < refused.value.retry_after <= 60
    assert refused.value.name == "service"
    assert isinstance(refused.value.last_failure, ConnectionError)


def test_bare_and_called_are_the_same() -> None:
    @circuit
    def bare() -> str:
        return "bare"

    @circuit()
    def called() -> str:
        return "called"

    assert (bare(), called()) == ("bare", "called")


def test_what_is_not_expected_is_neutral() -> None:
    service = Service()
    breaker = CircuitBreaker(2, expected_exception=ConnectionError)
    for error in (ConnectionError, ValueError, ConnectionError):
        service.error = error
        with pytest.raises(error):
            breaker.call(service)
    assert breaker.state == "open"


def test_a_predicate_says_what_counts() -> None:
    for predicate in (lambda error: "a" in str(error), lambda kind, error: kind is KeyError and "a" in str(error)):
        breaker = CircuitBreaker(1, expected_exception=predicate)
        for text, state in (("b", "closed"), ("a", "open")):
            with pytest.raises(KeyError):
                breaker.call({}.__getitem__, text)
            assert breaker.state == state


def test_half_open_admits_one_of_many_threads() -> None:
    breaker, _ = tripped(recovery_timeout=0)
    inside, release, start = threading.Event(), threading.Event(), threading.Barrier(50)
    outcomes: list[str] = []

    def probe() -> None:
        inside.set()
        assert release.wait(20)

    def caller() -> None:
        start.wait(20)
        try:
            breaker.call(probe)
            outcomes.append("let through")
        except CircuitBreakerError:
            outcomes.append("rejected")
            if outcomes.count("rejected") == 49:
                release.set()

    threads = [threading.Thread(target=caller) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["let through"] + ["rejected"] * 49
    assert breaker.state == "closed"


async def test_half_open_admits_one_of_many_tasks() -> None:
    breaker, _ = tripped(recovery_timeout=0)
    release = asyncio.Event()

    @breaker
    async def probe() -> None:
        await release.wait()

    tasks = [asyncio.ensure_future(probe()) for _ in range(50)]
    _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    while len(waiting) > 1:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, CircuitBreakerError) for result in results) == 49
    assert breaker.state == "closed"


def test_a_success_that_began_before_the_trip_changes_nothing() -> None:
    breaker = CircuitBreaker(1, 60)
    began, finish = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert finish.wait(20)

    early = threading.Thread(target=breaker.call, args=(slow,))
    early.start()
    assert began.wait(20)
    with pytest.raises(ConnectionError):
        breaker.call(Service())
    finish.set()
    early.join(20)
    assert breaker.state == "open"


async def test_a_cancelled_call_is_neutral_and_gives_its_permit_back() -> None:
    breaker, _ = tripped(recovery_timeout=0)

    @breaker
    async def hangs() -> None:
        await asyncio.Event().wait()

    task = asyncio.ensure_future(hangs())
    await asyncio.sleep(0)
    assert breaker.state == "half_open"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.state == "half_open"
    assert breaker.call(lambda: "probe") == "probe"
    assert breaker.state == "closed"


def test_an_interrupt_is_neutral() -> None:
    breaker, service = tripped(recovery_timeout=0)
    for interrupt in (KeyboardInterrupt, SystemExit, GeneratorExit):
        service.down, service.error = True, interrupt
        with pytest.raises(interrupt):
            breaker.call(service)
        assert breaker.state == "half_open"
    service.down = False
    breaker.call(service)
    assert breaker.state == "closed"


def test_calls_pass_side_by_side() -> None:
    breaker, together = CircuitBreaker(5), threading.Barrier(10)
    threads = [threading.Thread(target=breaker.call, args=(together.wait, 20)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # A breaker that held a lock across the call would have broken the barrier.
    assert not together.broken
    assert breaker.failure_count == 0


def test_as_a_context_manager_it_rejects_when_open() -> None:
    breaker = CircuitBreaker(1, 60)
    with pytest.raises(ValueError, match="inside"), breaker:
        raise ValueError("inside")
    entered = False
    with pytest.raises(CircuitBreakerError), breaker:
        entered = True
    assert not entered


def test_the_fallback_function_serves_while_open_and_only_then() -> None:
    service = Service()
    guarded = circuit(failure_threshold=1, fallback_function=lambda value=1: f"instead of {value}")(service)
    with pytest.raises(ConnectionError):
        guarded(7)
    assert guarded(7) == "instead of 7"
    assert service.calls == 1


def test_methods_share_one_breaker_and_see_their_instance() -> None:
    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        @circuit(failure_threshold=1)
        def ask(self, fail: bool = False) -> str:
            if fail:
                raise ConnectionError
            return self.name

    a, b = Client("a"), Client("b")
    assert (a.ask(), b.ask()) == ("a", "b")
    with pytest.raises(ConnectionError):
        a.ask(fail=True)
    with pytest.raises(CircuitBreakerError):
        b.ask()


def test_states_by_hand_and_reset() -> None:
    breaker = CircuitBreaker(1, 60)
    breaker.force("forced_open")
    with pytest.raises(CircuitBreakerError):
        breaker.call(lambda: 1)
    breaker.force("disabled")
    with pytest.raises(ConnectionError):
        breaker.call(Service())
    assert breaker.state == "disabled"
    breaker.reset()
    assert (breaker.state, breaker.closed, breaker.opened) == ("closed", True, False)


def test_the_monitor_knows_breakers_weakly() -> None:
    guarded = circuit(name="to be forgotten")(lambda: 1)
    breaker = CircuitBreakerMonitor.get("to be forgotten")
    assert breaker is not None
    assert breaker in CircuitBreakerMonitor.get_closed()
    gone = weakref.ref(breaker)
    del breaker, guarded
    gc.collect()
    assert gone() is None
    assert CircuitBreakerMonitor.get("to be forgotten") is None


def test_two_functions_of_one_name_have_two_breakers() -> None:
    def make() -> object:
        @circuit(failure_threshold=1)
        def call(fail: bool) -> int:
            if fail:
                raise ConnectionError
            return 1

        return call

    one, two = make(), make()
    with pytest.raises(ConnectionError):
        one(True)  # type: ignore[operator]
    assert two(False) == 1  # type: ignore[operator]


class TimeoutSetting:
    """As a client library's `Timeout` configuration class: a class, but no exception."""


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"failure_threshold": 0}, r"failure_threshold must be a whole number from 1 on, not 0"),
        ({"failure_threshold": -1}, r"failure_threshold must be a whole number from 1 on, not -1"),
        ({"failure_threshold": 2.5}, r"failure_threshold must be a whole number from 1 on, not 2\.5 \(float\)"),
        ({"failure_threshold": "5"}, r"failure_threshold must be a whole number from 1 on, not '5' \(str\)"),
        ({"failure_threshold": True}, r"failure_threshold must be a whole number"),
        ({"failure_threshold": 2**70}, r"failure_threshold must be a whole number"),
        ({"recovery_timeout": -1}, r"recovery_timeout must be zero seconds or more, not -1 \(int\)"),
        ({"recovery_timeout": NAN}, r"recovery_timeout must be zero seconds or more, not nan"),
        ({"recovery_timeout": "60"}, r"recovery_timeout must be a number of seconds or a timedelta, not '60' \(str\)"),
        ({"recovery_timeout": True}, r"recovery_timeout must be a number of seconds"),
        ({"expected_exception": "ValueError"}, r"expected_exception must be an exception class.*not 'ValueError'"),
        ({"expected_exception": b"ValueError"}, r"expected_exception must be an exception class"),
        ({"expected_exception": int}, r"expected_exception must be an exception class.*not the class int"),
        ({"expected_exception": TimeoutSetting}, r"expected_exception must be an exception class.*TimeoutSetting"),
        ({"expected_exception": (ValueError, int)}, r"expected_exception must hold exception classes, and the class int is none"),
        ({"expected_exception": (ValueError, TimeoutSetting)}, r"expected_exception .*TimeoutSetting.* seawall\.errors\.Timeout"),
        ({"expected_exception": ()}, r"expected_exception must hold at least one exception class"),
        (
            {"expected_exception": KeyboardInterrupt},
            r"expected_exception must hold subclasses of Exception, and the class KeyboardInterrupt is none",
        ),
        ({"expected_exception": (ValueError, asyncio.CancelledError)}, r"expected_exception must hold subclasses of Exception"),
        ({"expected_exception": 5}, r"expected_exception must be an exception class.*not 5"),
        ({"ignore": "ValueError"}, r"ignore must be an exception class"),
        ({"ignore": TimeoutSetting}, r"ignore must be an exception class.*TimeoutSetting"),
        ({"ignore": [ValueError, 5]}, r"ignore must hold exception classes, and 5 is none"),
        ({"name": 5}, r"name must be a text, not 5 \(int\)"),
        ({"fallback_function": "sorry"}, r"fallback_function must be a function, not 'sorry' \(str\)"),
        ({"on_result": 5}, r"on_result must be a function, not 5"),
        ({"listeners": print}, r"listeners must be functions, in a list"),
        ({"listeners": [print, "log"]}, r"listeners must be a function, not 'log'"),
        ({"failure_rate": 0}, r"failure_rate must be a share, more than 0 and at most 1, not 0"),
        ({"failure_rate": 1.5}, r"failure_rate must be a share, more than 0 and at most 1, not 1\.5"),
        ({"failure_rate": 50}, r"failure_rate must be a share"),
        ({"failure_rate": -0.5}, r"failure_rate must be a share"),
        ({"failure_rate": NAN}, r"failure_rate must be a share"),
        ({"failure_rate": "50 %"}, r"failure_rate must be a share between 0 and 1, not '50 %' \(str\)"),
        ({"slow_call_rate": 2, "slow_call_duration": 1}, r"slow_call_rate must be a share"),
        ({"slow_call_rate": 0.5}, r"slow_call_rate needs slow_call_duration"),
        ({"slow_call_duration": 0}, r"slow_call_duration must be more than zero seconds, not 0"),
        ({"slow_call_duration": -1}, r"slow_call_duration must be zero seconds or more"),
        ({"failure_rate": 0.5, "window": 0}, r"window must be a whole number from 1 on, not 0"),
        ({"failure_rate": 0.5, "window": 0.0}, r"window must be more than zero seconds, not 0\.0"),
        ({"failure_rate": 0.5, "window": -10}, r"window must be a whole number from 1 on"),
        ({"failure_rate": 0.5, "window": "10"}, r"window must be a number of seconds"),
        ({"window": 0}, r"window must be"),
        ({"window": 10}, r"window needs failure_rate or slow_call_duration"),
        ({"minimum_calls": 5}, r"minimum_calls needs failure_rate or slow_call_duration"),
        ({"failure_rate": 0.5, "minimum_calls": 0}, r"minimum_calls must be a whole number from 1 on"),
        ({"failure_rate": 0.5, "window": 5, "minimum_calls": 6}, r"minimum_calls must be .* from 1 to the window \(5\), not 6"),
        ({"failure_rate": 0.5, "minimum_calls": 101}, r"minimum_calls must be .* from 1 to the window \(100\), not 101"),
        ({"half_open_max_calls": 0}, r"half_open_max_calls must be a whole number from 1 on"),
        ({"success_threshold": 0}, r"success_threshold must be a whole number from 1 on"),
        ({"max_half_open_time": 0}, r"max_half_open_time must be more than zero seconds"),
        ({"recovery_backoff": 5}, r"recovery_backoff must be a wait_… object of seawall, not 5 \(int\)"),
    ],
)
def test_bad_configuration_is_refused_when_it_is_written(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CircuitBreaker(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=says):
        circuit(**options)  # type: ignore[call-overload]


def test_a_wrong_type_is_a_type_error_and_a_wrong_value_a_value_error() -> None:
    with pytest.raises(TypeError):
        CircuitBreaker("5")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        CircuitBreaker(0)
    with pytest.raises(TypeError, match="patience"):
        CircuitBreaker(patience=5)  # type: ignore[call-arg]


def test_a_small_window_asks_for_no_more_calls_than_it_holds() -> None:
    breaker = CircuitBreaker(failure_rate=1.0, window=3)
    for _ in range(3):
        breaker.acquire().on_failure()
    assert breaker.state == "open"


def test_an_endless_recovery_time_is_for_ever() -> None:
    breaker = CircuitBreaker(1, INF)
    breaker.acquire().on_failure()
    assert breaker.open_remaining is not None
    assert breaker.open_remaining > 1e9


def test_zero_seconds_means_zero() -> None:
    breaker, _ = tripped(recovery_timeout=0)
    assert breaker.state == "half_open"


def test_a_failure_rate_over_a_window() -> None:
    breaker = CircuitBreaker(failure_rate=0.5, window=10, minimum_calls=4)
    for fails in (True, True, False):
        with contextlib.suppress(ConnectionError):
            breaker.call(Service() if fails else int)
    assert breaker.state == "closed"
    with pytest.raises(ConnectionError):
        breaker.call(Service())
    assert breaker.state == "open"


def test_the_breakers_of_guards_count_what_the_table_says() -> None:
    service = Service()
    breaker = CircuitBreaker(1, 60, seawall.transient)
    service.error = ValueError
    with pytest.raises(ValueError, match="down"):
        breaker.call(service)
    assert breaker.state == "closed"
    service.error = TimeoutError
    with pytest.raises(TimeoutError):
        breaker.call(service)
    assert breaker.state == "open"


def test_a_breaker_that_decorates_has_its_fallback_function_stand_in() -> None:
    breaker = CircuitBreaker(1, fallback_function=lambda question: f"later: {question}")

    @breaker
    def ask(question: str) -> str:
        raise ConnectionError(question)

    with pytest.raises(ConnectionError):
        ask("why")
    assert ask("why") == "later: why"
    with pytest.raises(CircuitBreakerError):
        breaker.call(str, "by hand it is not used")
