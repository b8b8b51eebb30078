"""Batches of chat models with a journal: the native client's, with messages in and out, seen by those who listen."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _canary import CANARY
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from pydantic import BaseModel, field_validator

from seawall import errors, journal
from seawall.langchain import errors as ours
from seawall.langchain import resilient
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

INPUTS = [f"q{n}" for n in range(12)]


@pytest.fixture
def db(tmp_path) -> str:
    return str(tmp_path / "run.db")


async def done(way: str, runnable: Any, inputs: Any, *args: Any, **how: Any) -> list[Any]:
    """The results in the order of the inputs, however the batch is asked for."""
    if way == "batch":
        return await asyncio.to_thread(runnable.batch, inputs, *args, **how)
    if way == "abatch":
        return await runnable.abatch(inputs, *args, **how)
    if way == "batch_as_completed":
        pairs = await asyncio.to_thread(lambda: list(runnable.batch_as_completed(inputs, *args, **how)))
    else:
        pairs = [pair async for pair in runnable.abatch_as_completed(inputs, *args, **how)]
    return [result for _, result in sorted(pairs, key=lambda pair: pair[0])]


every_way = pytest.mark.parametrize("way", ["batch", "abatch", "batch_as_completed", "abatch_as_completed"])


def kinds(llm: Any) -> dict[str, Any]:
    return {
        "model": llm(),
        "bound": llm().bind(seed=1),
        "configured": llm().with_retry(stop_after_attempt=2).with_config(tags=["x"]),
        "fallbacks": llm().with_fallbacks([llm("gpt-4o")]),
    }


@every_way
@pytest.mark.parametrize("kind", ["model", "bound", "configured", "fallbacks"])
async def test_what_is_finished_is_never_asked_again(sim: Simulator, llm, db: str, way: str, kind: str) -> None:
    runnable = kinds(llm)[kind]
    first = await done(way, runnable, INPUTS, {"max_concurrency": 3}, journal=db)
    assert sim.count() == 12
    again = await done(way, runnable, [[HumanMessage(text)] for text in INPUTS], journal=db)
    assert sim.count() == 12
    for text, message, kept in zip(INPUTS, first, again, strict=True):
        assert type(kept) is AIMessage and f" {text} " in kept.content
        assert kept.model_dump(exclude={"id"}) == message.model_dump(exclude={"id"})
    with journal.open(db) as written:
        assert written.counts == (12, 0)


async def test_messages_are_those_of_other_calls(sim: Simulator, llm, db: str) -> None:
    (kept,) = llm().batch(["hello"], journal=db)
    asked = llm().invoke("hello")
    assert set(kept.response_metadata) == set(asked.response_metadata)
    assert kept.response_metadata["served_by"] == "gpt-4" and kept.usage_metadata["input_tokens"] > 0
    assert kept.id.startswith("lc_run--")
    blocks = llm(output_version="v1").batch(["hello"], progress=lambda *_: None)[0].content
    assert blocks == llm(output_version="v1").invoke("hello").content


@every_way
async def test_failures_are_errors_of_the_layer_and_asked_for_again_alone(sim: Simulator, llm, db: str, way: str) -> None:
    sim.on("gpt-4", faults.content_filter(), times=2)
    results = await done(way, llm(), INPUTS, journal=db, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    assert [type(error) for error in failed] == [ours.ContentFilterError] * 2
    kept = await done(way, llm(), INPUTS, journal=db, return_exceptions=True, retry_failures=False)
    assert sorted(type(result).__name__ for result in kept) == sorted(type(result).__name__ for result in results)
    with pytest.raises(ours.ContentFilterError) as raised:
        await done(way, llm(), INPUTS, journal=db, retry_failures=False)
    assert len(raised.value.results) == 12
    assert all(isinstance(each, AIMessage) for each in await done(way, llm(), INPUTS, journal=db))
    assert sim.count() == 14


@every_way
async def test_an_input_that_cannot_be_sent_is_an_error_at_its_place(sim: Simulator, llm, db: str, way: str) -> None:
    results = await done(way, llm(), ["a", 5, "b"], journal=db, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["AIMessage", "ValueError", "AIMessage"]
    with pytest.raises(ValueError, match="Invalid input type"):
        await done(way, llm(), ["a", 5, "b"], journal=db)
    assert sim.count() == 2


async def test_another_question_model_or_parameter_is_told(sim: Simulator, llm, db: str) -> None:
    llm().batch(["a", "b"], journal=db)
    for ask, what in (
        (lambda: llm().batch(["a", "c"], journal=db), r"another question at inputs\[1\]"),
        (lambda: llm().batch(["a", "b"], journal=db, stop=["x"]), "was begun with no stop"),
        (lambda: llm().bind_tools([int_of]).batch(["a", "b"], journal=db), "was begun with no tools"),
        (lambda: llm("gpt-4o").batch(["a", "b"], journal=db), 'the model "gpt-4", not "gpt-4o"'),
    ):
        with pytest.raises(errors.JournalError, match=what):
            ask()
    assert sim.count() == 2


def int_of(text: str) -> int:
    """The number in a text."""
    return int(text)


async def test_an_outage_is_waited_for_and_told(sim: Simulator, llm, db: str) -> None:
    sim.on("gpt-4", faults.status(503), times=8)
    told: list[Any] = []
    model = llm().with_retry(stop_after_attempt=2, wait=0.001)
    assert len(await model.abatch(INPUTS, journal=db, progress=lambda *far: told.append(far))) == 12
    assert told[-1] == (12, 12, 0)


class Told(BaseCallbackHandler):
    """Notes what it is told, of which run."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_chain_start(self, *_: Any, **__: Any) -> None:
        self.names.append("call")

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.names.append("model")

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.names.append("answer")

    def on_llm_error(self, *_: Any, **__: Any) -> None:
        self.names.append("error")


class AsyncTold(AsyncCallbackHandler):
    """The same, awaited."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        self.names.append("model")

    async def on_llm_end(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        self.names.append("answer")


@every_way
async def test_those_who_listen_are_told_of_each_input(sim: Simulator, llm, db: str, way: str, runs) -> None:
    sim.on("gpt-4", faults.status(400), times=1)
    told = Told()
    configs = [{"callbacks": [told, runs], "tags": [text], "run_name": f"ask {text}"} for text in INPUTS]
    await done(way, llm(), INPUTS, configs, journal=db, return_exceptions=True)
    assert sorted(told.names) == sorted(["call", "model"] * 12 + ["answer"] * 11 + ["error"])
    assert {run.name for run in runs.roots} == {f"ask {text}" for text in INPUTS}
    good = next(run for run in runs.roots if run.error is None)
    (below,) = good.child_runs
    assert below.run_type == "llm" and good.tags == [good.name[4:]] and good.extra["metadata"]["seawall_attempts"] == 1
    assert below.outputs["generations"][0][0]["message"]["kwargs"]["usage_metadata"]["total_tokens"] > 0
    # What the journal has is told of, too, as an answer out of a cache.
    told.names.clear()
    await done(way, llm(), INPUTS, configs, journal=db)
    assert (told.names.count("answer"), sim.count()) == (12, 13)


@pytest.mark.parametrize("way", ["abatch", "abatch_as_completed"])
async def test_those_who_are_to_be_awaited_are(sim: Simulator, llm, db: str, way: str) -> None:
    told = AsyncTold()
    await done(way, llm(), INPUTS, {"callbacks": [told]}, journal=db)
    assert sorted(told.names) == ["answer"] * 12 + ["model"] * 12


async def test_cancelled_it_tells_of_the_end_and_keeps_what_was_finished(sim: Simulator, llm, db: str, runs) -> None:
    sim.on("gpt-4", faults.hang(), after=4)
    told = Told()
    config = {"callbacks": [runs, told], "max_concurrency": 2}
    asking = asyncio.create_task(llm().abatch(INPUTS, config, journal=db))
    await asyncio.to_thread(sim.wait_for, 6, 60)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with journal.open(db) as written:
        assert written.counts == (4, 0)
    # Each that was begun has ended: with its answer, or with what ended the batch.
    assert len(runs.roots) == told.names.count("call") >= 6
    sim.clear()
    assert len(await llm().abatch(INPUTS, journal=db)) == 12


def test_an_interrupt_by_one_who_listens_is_told_as_any_other(sim: Simulator, llm, db: str) -> None:
    class Interrupts(Told):
        def on_llm_end(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        llm().batch(INPUTS, {"callbacks": [Interrupts()], "max_concurrency": 1}, journal=db)
    assert "of 12 inputs are answered and in" in raised.value.__notes__[-1]


def test_interrupted_it_tells_of_the_end_and_how_far_it_came(sim: Simulator, llm, db: str, runs) -> None:
    def interrupts(done: int, *_: Any) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    told = Told()
    config = {"callbacks": [runs, told], "max_concurrency": 1}
    with pytest.raises(KeyboardInterrupt) as raised:
        llm().batch(INPUTS, config, journal=db, progress=interrupts)
    assert "inputs are answered and in" in raised.value.__notes__[-1]
    assert len(runs.roots) == told.names.count("call") >= 4
    assert any(run.error is not None for run in runs.roots)


class Number(BaseModel):
    """A number."""

    x: int


@every_way
async def test_a_schema_keeps_the_models_answers_and_parses_them_again(sim: Simulator, llm, db: str, way: str) -> None:
    model = llm().with_structured_output(Number)
    first = await done(way, model, INPUTS, journal=db)
    assert [type(each) for each in first] == [Number] * 12
    assert await done(way, model, INPUTS, journal=db) == first
    # The whole answers are what is kept.
    raw = await done(way, llm().with_structured_output(Number, include_raw=True), INPUTS, journal=db)
    assert [each["parsed"] for each in raw] == first and type(raw[0]["raw"]) is AIMessage
    assert sim.count() == 12


async def test_an_answer_that_does_not_parse_is_an_error_at_its_place(sim: Simulator, llm, db: str) -> None:
    class Odd(BaseModel):
        """What no answer is."""

        x: int

        @field_validator("x")
        def odd(cls, x: int) -> int:
            raise ValueError(f"{x} is not odd enough")

    model = llm().with_structured_output(Odd)
    for way in ("batch", "abatch"):
        results = await done(way, model, ["a", "b"], journal=db, return_exceptions=True)
        assert [type(each).__name__ for each in results] == ["ValidationError"] * 2
    with journal.open(db) as written:
        assert written.counts == (2, 0)


@every_way
async def test_what_is_no_model_refuses_a_journal_and_shows_progress(sim: Simulator, llm, db: str, way: str) -> None:
    foreign = resilient(llm() | StrOutputParser())
    for how in ({"journal": db}, {"patience": 5}):
        with pytest.raises(errors.ConfigurationError, match="is for the batch of a model .*not of Resilient"):
            await done(way, foreign, INPUTS, **how)
    assert not Path(db).exists() and sim.count() == 0
    told: list[Any] = []
    assert len(await done(way, foreign, INPUTS, progress=lambda *far: told.append(far))) == 12
    assert told[-1] == (12, 12, 0)
    with pytest.raises(errors.ConfigurationTypeError, match="progress must be"):
        await done(way, foreign, INPUTS, progress="loud")
    with pytest.raises(errors.ConfigurationError, match=r"rate_limit=seawall\.RateLimit"):
        await done(way, llm(rate_limiter=InMemoryRateLimiter()), INPUTS, journal=db)


def test_the_native_client_goes_on_with_it(sim: Simulator, llm, db: str) -> None:
    first = llm().batch(INPUTS[:6], journal=db)
    replies = Chat("gpt-4", api_key=CANARY, base_url=sim.base_url).batch(INPUTS, journal=db)
    assert [reply.content for reply in replies[:6]] == [message.content for message in first]
    assert len(llm().batch(INPUTS, journal=db)) == 12 == sim.count()


def test_the_steps_of_a_chain_around_its_model(sim: Simulator, llm, db: str) -> None:
    prompts = ChatPromptTemplate.from_template("{x}").batch([{"x": text} for text in INPUTS])
    for _ in range(2):
        texts = StrOutputParser().batch(llm().batch(prompts, journal=db))
        assert all(f" {text} " in said for text, said in zip(INPUTS, texts, strict=True))
    assert sim.count() == 12


async def test_documents_are_embedded_once(sim: Simulator, embeddings, db: str) -> None:
    texts = [f"text {n}" for n in range(10)]
    model = embeddings(chunk_size=3)
    vectors = model.embed_documents(texts, journal=db)
    assert await model.aembed_documents(texts, journal=db) == vectors == embeddings().embed_documents(texts)
    assert sim.count() == 4 + 1


KILLED = """
import sys
from pathlib import Path
from seawall.langchain import ChatOpenAI
llm = ChatOpenAI(model="gpt-4", api_key="k", base_url=base_url)
for at, _ in llm.batch_as_completed(["q%d" % n for n in range(12)], {"max_concurrency": 2}, journal=sys.argv[1]):
    print(at, flush=True)
"""


def test_killed_and_begun_again_it_redoes_nothing_that_was_finished(sim: Simulator, llm, db: str) -> None:
    sim.on("gpt-4", faults.hang(), after=7)
    process = subprocess.Popen(
        [sys.executable, "-c", f"base_url = {sim.base_url!r}\n{KILLED}", db], stdout=subprocess.PIPE, text=True
    )
    sim.wait_for(9, 60)
    process.send_signal(signal.SIGKILL)
    reported, _ = process.communicate()
    with journal.open(db) as written:
        assert written.counts == (7, 0)
    assert len(reported.split()) <= 7
    sim.clear()
    sim.forget()
    assert all(f" {text} " in message.content for text, message in zip(INPUTS, llm().batch(INPUTS, journal=db), strict=True))
    assert sim.count() == 5
