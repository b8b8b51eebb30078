"""The story of a call: its attempts, and what policies did."""

from __future__ import annotations

import copy
import pickle

import pytest
from _canary import CANARY

import seawall
from seawall import CircuitBreaker, Fallback, Pipeline, Retry, Timeout, errors, guard
from seawall.llm import Chat
from seawall.simulator import faults
from seawall.testing import clock


def flaky(failures, error=ValueError):
    left = [failures]

    def function():
        if left[0]:
            left[0] -= 1
            raise error("no")
        return "yes"

    return function


def test_an_error_tells_what_was_tried_and_waited():
    with clock():
        call = Pipeline(Retry(3, on=ValueError, wait=seawall.wait_fixed(2)), name="mine")(flaky(5))
        with pytest.raises(ValueError) as caught:
            call()
    story = caught.value.story
    assert [(attempt.outcome, attempt.started, attempt.waited) for attempt in story.attempts] == [
        ("ValueError", 0, 2),
        ("ValueError", 2, 2),
        ("ValueError", 4, None),
    ]
    assert [(step.event, step.policy, step.number, step.seconds, step.error) for step in story] == [
        ("retry.scheduled", "mine", 1, 2, "ValueError"),
        ("retry.scheduled", "mine", 2, 2, "ValueError"),
        ("retry.exhausted", "mine", 3, 4, "ValueError"),
    ]
    assert [step.at for step in story] == [0, 2, 4]
    assert story[-1].reason == "attempts used up"
    assert (len(story), story.attempts == 3) == (3, True)
    assert call.story is story


def test_a_call_that_was_mended_is_told_by_its_function():
    call = guard(retry=Retry(3, on=ValueError, wait=seawall.wait_none()), circuit=False)(flaky(1))
    assert call.story is None
    assert call() == "yes"
    assert [attempt.outcome for attempt in call.story.attempts] == ["ValueError", "ok"]
    call()
    assert [step.event for step in call.story] == ["retry.scheduled"], "the last that did not simply pass"


def test_a_story_is_the_same_for_all_who_ask_and_stays_when_others_follow():
    function = flaky(1)
    again = flaky(2)
    call = Pipeline(Retry(4, on=ValueError, wait=0), name="mine")(lambda which: which())
    call(function)
    first = call.story
    assert call.story is first
    call(again)
    second = call.story
    assert second is not first
    assert call.story is second
    assert [len(story.attempts) for story in (first, second)] == [2, 3]
    assert {step.policy for story in (first, second) for step in story} == {"mine"}


async def test_a_time_limit_and_an_alternative_have_their_places():
    def other():
        raise KeyError

    @Pipeline(Fallback(other, "ready"), Timeout(0.01), name="limited")
    async def slow():
        import asyncio

        await asyncio.Event().wait()

    assert await slow() == "ready"
    assert [attempt.outcome for attempt in slow.story.attempts] == ["CallTimeoutError", "KeyError", "ok"]
    assert [attempt.alternative for attempt in slow.story.attempts] == [0, 1, 2]
    assert [attempt.model.rpartition(".")[2] for attempt in slow.story.attempts] == ["slow", "other", "a value"]
    assert [step.event for step in slow.story] == ["timeout.elapsed", "fallback.used", "fallback.used"]


def test_the_breaker_that_turns_a_call_away_is_named():
    breaker = CircuitBreaker(failure_threshold=1, name="wall")
    with pytest.warns(seawall.PipelineOrderWarning):
        call = Pipeline(Retry(3, on=ValueError, wait=seawall.wait_none()), breaker, name="mine")(flaky(5))
    with pytest.raises(ValueError) as caught:
        call()
    assert ("circuit.rejected", "wall") in [(step.event, step.policy) for step in caught.value.story]
    with pytest.raises(seawall.CircuitBreakerError):
        call()


def test_a_generators_attempts():
    @guard(retry=Retry(3, on=ValueError, wait=seawall.wait_none()), circuit=False)
    def items(fail=flaky(1)):
        fail()
        yield 1
        yield 2
        raise KeyError

    with pytest.raises(KeyError) as caught:
        list(items())
    assert [attempt.outcome for attempt in caught.value.story.attempts] == ["ValueError", "KeyError"]


def test_a_long_story_is_cut_in_the_middle():
    call = Pipeline(Retry(1000, on=ValueError, wait=seawall.wait_none()))(flaky(2000))
    with pytest.raises(ValueError) as caught:
        call()
    story = caught.value.story
    assert len(story) == len(story.attempts) == 64
    assert (story[0].number, story[-1].number) == (1, 1000)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))], ids=["deepcopy", "pickle"])
def test_a_story_goes_along_with_its_error(copied):
    call = Pipeline(Retry(2, on=ValueError, wait=seawall.wait_none()))(flaky(5))
    with pytest.raises(ValueError) as caught:
        call()
    again = copied(caught.value)
    assert tuple(again.story) == tuple(caught.value.story)
    assert again.story.attempts == caught.value.story.attempts
    assert copied(again).story.steps == again.story.steps


def test_replies_streams_and_errors_of_models(sim):
    model = Chat("m", api_key=CANARY, base_url=sim.base_url).with_retry(wait=seawall.wait_fixed(0.001))
    sim.on("m", faults.status(500), times=1)
    reply = model.invoke("x")
    assert [(step.event, step.policy, step.error) for step in reply.story] == [("retry.scheduled", "m", "InternalServerError")]
    assert pickle.loads(pickle.dumps(reply)).story == reply.story
    sim.on("m", faults.status(429), times=1)
    stream = model.stream("x")
    assert stream.story is None
    list(stream)
    assert [step.error for step in stream.story] == ["RateLimitError"]
    sim.on("m", faults.status(401))
    with pytest.raises(errors.AuthenticationError) as caught:
        model.invoke("x")
    assert [(step.event, step.reason) for step in caught.value.story] == [("retry.exhausted", "not retryable")]
