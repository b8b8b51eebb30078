"""Batches: result i belongs to input i, and no failure loses a finished answer."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from seawall import Retry, errors
from seawall.langchain import resilient
from seawall.simulator import faults

TWICE = {"stop_after_attempt": 2, "wait": 0.001}
INPUTS = ["a", "b", "c", "d", "e"]


def kinds(llm):
    """What can be batched, with two attempts each."""
    foreign = RunnableLambda(lambda prompt: llm(max_retries=0).invoke(prompt))
    return {
        "model": lambda: llm().with_retry(**TWICE),
        "bound": lambda: llm().bind(seed=1).with_retry(**TWICE),
        "configured": lambda: llm().with_retry(**TWICE).with_config(tags=["x"]),
        "fallbacks": lambda: llm().with_retry(**TWICE).with_fallbacks([lambda prompt: 1 / 0], exceptions_to_handle=KeyError),
        "foreign": lambda: resilient(foreign, retry=Retry(2, on=Exception, wait=0.001), circuit=None),
        "chain": lambda: ChatPromptTemplate.from_template("{x}") | llm().with_retry(**TWICE) | StrOutputParser(),
    }


KINDS = list(kinds(None))


async def done(way, runnable, inputs, **how):
    """The results in the order of the inputs, however the batch is asked for."""
    if way == "batch":
        return await asyncio.to_thread(runnable.batch, inputs, **how)
    if way == "abatch":
        return await runnable.abatch(inputs, **how)
    if way == "batch_as_completed":
        pairs = await asyncio.to_thread(lambda: list(runnable.batch_as_completed(inputs, **how)))
    else:
        pairs = [pair async for pair in runnable.abatch_as_completed(inputs, **how)]
    assert sorted(place for place, _ in pairs) == list(range(len(pairs)))
    return [result for _, result in sorted(pairs, key=lambda pair: pair[0])]


WAYS = ["batch", "abatch", "batch_as_completed", "abatch_as_completed"]


def said(result):
    """`[gpt-4] a` of an answer, the class of an error."""
    if isinstance(result, BaseException):
        return type(result).__name__
    return str(result.content if isinstance(result, BaseMessage) else result)[8:9]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_each_input_gets_its_own_result(sim, llm, kind, way):
    inputs = [chr(ord("a") + number) for number in range(20)]
    results = await done(way, kinds(llm)[kind](), inputs)
    assert [said(result) for result in results] == inputs
    assert sim.count() == 20


# What the requests meet, one at a time: a late success, a permanent error, a failure to the end, and good ones between.
MIXED = ["ok", 500, "ok", 400, 500, 500, "ok"]
ENDS = ["a", "b", "BadRequestError", "InternalServerError", "e"]


def misbehave(sim):
    for place, met in enumerate(MIXED):
        if met != "ok":
            sim.on("gpt-4", faults.status(met), times=1, after=place)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "chain"])
@pytest.mark.parametrize("way", WAYS)
async def test_late_successes_failures_and_permanent_errors_stay_with_their_inputs(sim, llm, kind, way):
    misbehave(sim)
    results = await done(way, kinds(llm)[kind](), INPUTS, config={"max_concurrency": 1}, return_exceptions=True)
    assert [said(result) for result in results] == ENDS
    assert sim.count() == len(MIXED)


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_and_in_a_chain_too(sim, llm, way):
    misbehave(sim)
    results = await done(way, kinds(llm)["chain"](), INPUTS, config={"max_concurrency": 1}, return_exceptions=True)
    assert [said(result) for result in results] == ENDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "chain"])
@pytest.mark.parametrize("way", WAYS)
async def test_the_error_raised_carries_every_finished_answer(sim, llm, kind, way):
    misbehave(sim)
    with pytest.raises(errors.BadRequestError) as raised:
        await done(way, kinds(llm)[kind](), INPUTS, config={"max_concurrency": 1})
    assert [said(result) for result in raised.value.results] == ENDS
    assert raised.value.results[2] is raised.value


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_a_chains_error_carries_the_models_answers(sim, llm, way):
    misbehave(sim)
    with pytest.raises(errors.BadRequestError) as raised:
        await done(way, kinds(llm)["chain"](), INPUTS, config={"max_concurrency": 1})
    # A sequence goes step by step: the inputs of the failing step are all that it holds.
    assert [said(result) for result in raised.value.results] == ENDS


@pytest.mark.parametrize("way", ["batch_as_completed", "abatch_as_completed"])
async def test_every_answer_is_handed_out_before_the_error(sim, llm, way):
    sim.on("gpt-4", faults.status(400), times=1)
    model = llm().with_retry(**TWICE)
    seen = []
    with pytest.raises(errors.BadRequestError):
        if way == "batch_as_completed":
            for _, answer in model.batch_as_completed(INPUTS, {"max_concurrency": 1}):
                seen.append(said(answer))
        else:
            async for _, answer in model.abatch_as_completed(INPUTS, {"max_concurrency": 1}):
                seen.append(said(answer))
    assert seen == INPUTS[1:]


def test_that_error_pickles_with_the_answers(sim, llm):
    sim.on("gpt-4", faults.status(400), times=1)
    with pytest.raises(errors.BadRequestError) as raised:
        llm().batch(INPUTS, {"max_concurrency": 1})
    again = pickle.loads(pickle.dumps(raised.value))
    assert [said(result) for result in again.results] == ["BadRequestError", *INPUTS[1:]]


@pytest.mark.parametrize("limit", [1, 3])
async def test_max_concurrency_is_kept(sim, llm, limit):
    sim.on("gpt-4", faults.hang())
    task = asyncio.create_task(llm(max_retries=0).abatch(INPUTS, {"max_concurrency": limit}))
    await asyncio.to_thread(sim.wait_for, limit)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(sim.wait_aborted, limit)
    assert sim.count() == limit


@pytest.mark.parametrize("limit", [1, 3])
def test_max_concurrency_is_reached_and_kept_in_threads(limit):
    together, lock, running, most = threading.Barrier(limit), threading.Lock(), 0, 0

    def watched(prompt):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(20)
        with lock:
            running -= 1
        return prompt

    inputs = list(range(limit * 3))
    assert resilient(watched, retry=None, circuit=None).batch(inputs, {"max_concurrency": limit}) == inputs
    assert most == limit


async def test_leaving_a_batch_early_cuts_the_rest(sim, llm):
    sim.on("gpt-4", faults.hang(), after=1)
    async for _, answer in llm().abatch_as_completed(["a", "b", "c"], {"max_concurrency": 2}):
        assert said(answer) in ("a", "b")  # whichever came first
        break
    await asyncio.to_thread(sim.wait_aborted, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_no_inputs_give_no_results(llm, way):
    assert await done(way, llm(), []) == []
    assert await done(way, resilient(llm()), []) == []


def test_each_input_may_have_its_config(llm):
    tags = []
    model = llm().with_listeners(
        on_start=lambda run: tags.append((run.inputs["messages"][0][0]["kwargs"]["content"], run.tags[0]))
    )
    model.batch(["a", "b"], [{"tags": ["one"]}, {"tags": ["two"]}])
    assert sorted(tags) == [("a", "one"), ("b", "two")]


@pytest.mark.parametrize("argument", ["journal", "progress", "patience", "retry_failures"])
def test_what_batches_take_is_sent_to_no_server(sim, llm, argument):
    with pytest.raises(errors.ConfigurationError, match="the batch methods take it"):
        llm().invoke("a", **{argument: "run.db"})
    assert sim.count() == 0
