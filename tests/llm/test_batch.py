"""Batches: whose answer is whose, and what one failure costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from seawall import errors
from seawall.llm import Chat, Embeddings, Reply
from seawall.simulator import Simulator, faults

Batch = Callable[..., list[Any]]


def with_batch(model: Chat, inputs: Any, **options: Any) -> list[Any]:
    return model.batch(inputs, **options)


def with_abatch(model: Chat, inputs: Any, **options: Any) -> list[Any]:
    return asyncio.run(model.abatch(inputs, **options))


both = pytest.mark.parametrize("batch", [with_batch, with_abatch])


def answers(results: list[Any], inputs: list[str]) -> list[bool]:
    """Whether each result is the answer to its own input."""
    return [isinstance(result, Reply) and f" {input} " in result.content for result, input in zip(results, inputs, strict=True)]


@both
def test_each_result_belongs_to_its_input_however_late_it_comes(sim, chat, batch: Batch) -> None:
    sim.on("m", faults.latency((0, 0.05)))
    sim.on("m", faults.rate_limit(retry_after_ms=40), probability=0.3)
    sim.on("m", faults.status(500), probability=0.2)
    inputs = [f"q{n}" for n in range(120)]
    results = batch(chat().with_retry(stop_after_attempt=20, wait=0.001), inputs, max_concurrency=40)
    assert all(answers(results, inputs))
    assert len({result.attempts == 1 for result in results}) == 2, "some were late and some were not"


@both
def test_the_last_to_answer_and_the_one_that_never_does_are_not_mistaken_for_each_other(sim, chat, batch: Batch) -> None:
    sim.on("m", faults.status(400), times=1, after=3)
    sim.on("m", faults.rate_limit(retry_after_ms=20), times=2)
    results = batch(chat().with_retry(), ["a", "b", "c"], max_concurrency=1, return_exceptions=True)
    assert answers(results, ["a", "b", "c"]) == [True, False, True]
    assert results[0].attempts == 3
    assert type(results[1]) is errors.BadRequestError


@both
def test_one_failure_loses_no_finished_answer(sim, chat, batch: Batch) -> None:
    sim.on("m", faults.quota(), times=1, after=1)
    sim.on("m", faults.status(401), times=1, after=3)
    inputs = [f"q{n}" for n in range(6)]
    with pytest.raises(errors.QuotaExceededError) as raised:
        batch(chat(), inputs, max_concurrency=1)
    results = raised.value.results
    assert answers(results, inputs) == [True, False, True, False, True, True]
    assert results[1] is raised.value
    assert type(results[3]) is errors.AuthenticationError
    assert sim.count() == 6


@both
def test_with_return_exceptions_an_input_that_cannot_be_sent_is_an_error_at_its_place(sim, chat, batch: Batch) -> None:
    inputs = ["a", None, [], "half \ud800", "b"]
    results = batch(chat(), inputs, return_exceptions=True)
    assert [type(result) for result in results] == [Reply, TypeError, ValueError, ValueError, Reply]
    assert "inputs[1]" in str(results[1])
    assert " a " in results[0].content
    assert " b " in results[4].content
    assert sim.count() == 2


@both
def test_without_it_that_is_raised_before_anything_is_sent(sim, chat, batch: Batch) -> None:
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a text"):
        batch(chat(), ["a", None])
    assert sim.count() == 0


@both
def test_an_empty_batch_is_an_empty_list(sim, chat, batch: Batch) -> None:
    assert batch(chat(), []) == []
    assert batch(chat(), iter(())) == []
    assert sim.count() == 0


@both
@pytest.mark.parametrize(
    "inputs", ["hello", b"hello", {"role": "user"}, {"a", "b"}, None, 5], ids=lambda value: type(value).__name__
)
def test_one_text_or_what_has_no_order_is_no_batch(sim, chat, batch: Batch, inputs) -> None:
    with pytest.raises(TypeError, match="inputs must be a list"):
        batch(chat(), inputs)
    assert sim.count() == 0


@both
def test_no_more_run_at_a_time_than_allowed(sim, chat, batch: Batch) -> None:
    sim.on("m", faults.latency(0.1))
    batch(chat(), ["x"] * 6, max_concurrency=2)
    times = [request.time for request in sim.requests]
    assert all(later - earlier >= 0.1 for earlier, later in zip(times, times[2:], strict=False)), times


@both
@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2"])
def test_a_concurrency_that_cannot_be_meant_is_refused(chat, batch: Batch, wrong) -> None:
    with pytest.raises(errors.ConfigurationError, match="max_concurrency"):
        batch(chat(), ["x"], max_concurrency=wrong)


@both
def test_a_huge_concurrency_is_as_good_as_none(chat, batch: Batch) -> None:
    assert len(batch(chat(), ["x", "y"], max_concurrency=2**70)) == 2


@both
def test_embeddings_are_batched_alike(sim: Simulator, batch: Batch) -> None:
    model = Embeddings("e", api_key="k", base_url=sim.base_url)
    assert [len(reply.vectors) for reply in batch(model, ["a", ["b", "c"]])] == [1, 2]
    sim.on("e", faults.status(400), times=1, after=1)
    with pytest.raises(errors.BadRequestError) as raised:
        batch(model, ["a", "b", "c"], max_concurrency=1)
    expected = [model.invoke(text).vectors for text in "abc"]
    assert [getattr(result, "vectors", None) for result in raised.value.results] == [expected[0], None, expected[2]]
    results = batch(model, ["a", 5, [], "b"], return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["EmbeddingsReply", "TypeError", "ValueError", "EmbeddingsReply"]
