"""Chaos through its Python names."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from seawall import Chaos, CircuitBreaker, Fallback, Pipeline, PipelineOrderWarning, Retry, Timeout, guard, testing
from seawall.errors import CallTimeoutError, ConfigurationError


def answer() -> str:
    return "there"


async def answer_async() -> str:
    return "there"


def test_it_is_off_unless_switched_on() -> None:
    chaos = Chaos(exception=ConnectionError)
    pipeline = Pipeline(chaos)
    assert not chaos.enabled
    assert pipeline.call(answer) == "there"
    chaos.enable()
    assert chaos.enabled
    with pytest.raises(ConnectionError):
        pipeline.call(answer)
    chaos.disable()
    assert pipeline.call(answer) == "there"
    with pytest.raises(ConnectionError):
        Pipeline(Chaos(exception=ConnectionError, enabled=True)).call(answer)


def test_it_is_on_for_a_block_and_no_longer_than_said(seawall_clock: testing.clock) -> None:
    chaos = Chaos(exception=ConnectionError)
    with chaos.enabled_for(timedelta(seconds=30)) as same:
        assert same is chaos
        with chaos.enabled_for():
            seawall_clock.advance(60)
            assert chaos.enabled
        assert not chaos.enabled
    with pytest.raises(KeyError), chaos.enabled_for():
        raise KeyError
    assert not chaos.enabled
    block = chaos.enabled_for()
    with block:
        chaos.disable()
        assert not chaos.enabled
    with pytest.raises(RuntimeError, match="entered"):
        block.__exit__()


def test_the_function_is_not_called_in_place_of_which_something_comes() -> None:
    calls: list[int] = []
    with pytest.raises(ConnectionError):
        Pipeline(Chaos(exception=ConnectionError, enabled=True)).call(calls.append, 1)
    assert Pipeline(Chaos(result="wrong", enabled=True)).call(calls.append, 1) == "wrong"
    assert Pipeline(Chaos(result_rate=1, enabled=True)).call(calls.append, 1) is None
    assert calls == []


def test_an_exception_is_fresh_each_time() -> None:
    given = ConnectionError("down", 5)
    for exception in (given, lambda: ConnectionError("down", 5)):
        pipeline = Pipeline(Retry(1), Chaos(exception=exception, enabled=True))
        seen = []
        for _ in range(2):
            with pytest.raises(ConnectionError) as raised:
                pipeline.call(answer)
            seen.append(raised.value)
        assert seen[0] is not seen[1]
        assert [error.args for error in seen] == [("down", 5)] * 2
    assert not hasattr(given, "__notes__")
    with pytest.raises(ConfigurationError, match="no exception"):
        Pipeline(Chaos(exception=lambda: "x", enabled=True)).call(answer)  # type: ignore[arg-type,return-value]


def test_what_is_around_sees_a_failure_like_any_other() -> None:
    breaker = CircuitBreaker(4)
    pipeline = Pipeline(Retry(3, wait=0), breaker, Chaos(exception=ConnectionError("x"), enabled=True), name="chat")
    with pytest.raises(ConnectionError) as raised:
        pipeline.call(answer)
    assert "3 attempts" in raised.value.__notes__[0]
    assert breaker.failure_count == 3


def test_latency_is_waited_before_the_call(seawall_clock: testing.clock, seawall_events: testing.Events) -> None:
    pipeline = Pipeline(Retry(1), Chaos(latency=timedelta(seconds=4), enabled=True))
    assert pipeline.call(answer) == "there"
    assert seawall_clock.now == 4
    assert [(e.name, e.span, e.reason) for e in seawall_events[1:]] == [("chaos.injected", 4, "latency")]
    with pytest.raises(CallTimeoutError):
        Pipeline(Timeout(3), pipeline).call(answer)
    assert seawall_clock.now == 7


async def test_coroutines_are_harmed_alike(seawall_clock: testing.clock) -> None:
    assert await Pipeline(Chaos(latency=4, enabled=True)).acall(answer_async) == "there"
    assert seawall_clock.now == 4
    with pytest.raises(CallTimeoutError):
        await Pipeline(Timeout(3), Chaos(latency=4, enabled=True)).acall(answer_async)
    with pytest.raises(ConnectionError):
        await Pipeline(Chaos(exception=ConnectionError, enabled=True)).acall(answer_async)
    assert await Pipeline(Chaos(result=[1], enabled=True)).acall(answer_async) == [1]


def harms(chaos: Chaos, calls: int = 200) -> list[Any]:
    with testing.record() as events:
        pipeline = Pipeline(chaos)
        return [(pipeline.call(answer), events.clear())[0] for _ in range(calls)]


def test_a_seed_gives_its_harm_again_at_its_rate() -> None:
    def given(seed: int | None) -> list[Any]:
        return harms(Chaos(result="wrong", result_rate=0.25, seed=seed, enabled=True))

    assert given(7) == given(7) != given(8)
    assert 20 < given(7).count("wrong") < 80
    with testing.seed(3):
        first = given(None)
    with testing.seed(3):
        assert given(None) == first


async def test_latency_lies_between_its_two_bounds(seawall_clock: testing.clock) -> None:
    with testing.record() as events:
        pipeline = Pipeline(Chaos(latency=(1, 2), latency_rate=0.5, seed=1, enabled=True))
        for _ in range(100):
            await pipeline.acall(answer_async)
    spans = [event.span for event in events.named("chaos.injected")]
    assert 25 < len(spans) < 75
    assert all(1 <= span <= 2 for span in spans)
    assert len(set(spans)) > 10


def test_threads_share_one_switch_and_one_sequence() -> None:
    chaos = Chaos(result="wrong", result_rate=0.5, seed=7, enabled=True)
    alone = sorted(harms(Chaos(result="wrong", result_rate=0.5, seed=7, enabled=True), 400))
    together: list[str] = []
    pipeline = Pipeline(chaos)
    threads = [threading.Thread(target=lambda: together.extend(pipeline.call(answer) for _ in range(100))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(together) == alone


def test_guards_have_it_only_if_it_was_said() -> None:
    for preset in (None, "dev", "test", "prod"):
        assert not any(isinstance(p, Chaos) for p in guard(preset, fallback=None).policies)
    chaos = Chaos(exception=ConnectionError, enabled=True)
    ask = guard("prod", fallback="instead", retry=2, chaos=chaos)
    assert ask.policies[-1] is chaos
    assert Pipeline(ask).policies[-1] is chaos
    with testing.no_waits():
        assert ask(answer)() == "instead"
    with pytest.raises(ConfigurationError, match="chaos"):
        guard(chaos=True)  # type: ignore[call-overload]


def test_any_other_place_than_next_to_the_call_warns() -> None:
    with pytest.warns(PipelineOrderWarning, match="innermost"):
        Pipeline(Chaos(exception=ConnectionError), Retry(3))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"latency": (2, 1)}, "latency"),
        ({"latency": (1, 2, 3)}, "latency"),
        ({"latency_rate": 0.5}, "latency_rate needs latency"),
        ({"exception_rate": 0.5}, "exception_rate needs exception"),
    ],
)
def test_what_makes_no_harm_together_is_refused_when_it_is_written(options: dict[str, Any], named: str) -> None:
    with pytest.raises((ConfigurationError, TypeError), match=named):
        Chaos(**options)


def test_a_rate_of_zero_is_a_rate() -> None:
    chaos = Chaos(exception=ConnectionError, exception_rate=0, latency=1, latency_rate=0, result=1, result_rate=0.0, enabled=True)
    assert Pipeline(chaos).call(answer) == "there"


def test_its_repr_says_what_it_does() -> None:
    chaos = Chaos(latency=(1, 2.5), latency_rate=0.5, exception=ConnectionError, result={}, result_rate=0.1)
    assert repr(chaos) == (
        "Chaos(latency=(1, 2.5), latency_rate=0.5, exception=ConnectionError, exception_rate=1, result={}, result_rate=0.1, "
        "enabled=False)"
    )


async def test_cancelling_a_call_that_is_held_up_leaves_nothing_behind() -> None:
    task = asyncio.ensure_future(Pipeline(Chaos(latency=600, enabled=True)).acall(answer_async))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_it_does_is_told_of_the_function_and_not_of_an_alternative() -> None:
    harm = Chaos(exception=ConnectionError, exception_rate=1, enabled=True)
    harmed = Pipeline(harm)(answer)
    guarded = Pipeline(Fallback(harmed, lambda: "b"), Retry(2, wait=0), harm)(answer)
    assert guarded() == "b"
    assert [attempt.alternative for attempt in guarded.story.attempts] == [0, 0, 1, 2]
    assert [attempt.outcome for attempt in guarded.story.attempts] == ["ConnectionError"] * 3 + ["ok"]
