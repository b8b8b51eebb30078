"""Streams that break off after content: begun anew or gone on from, and added up to one answer."""

from __future__ import annotations

import json
import pickle

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.runnables import RunnableLambda

from seawall import errors
from seawall.simulator import faults

ONCE = {"stop_after_attempt": 2, "wait": 0.001}


class Ends(BaseCallbackHandler):
    """Keeps the texts that runs ended with, and why they ended."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasons: list[str] = []

    def on_llm_end(self, response, **kwargs) -> None:
        self.texts.append(response.generations[0][0].message.content)
        self.reasons.append(response.generations[0][0].generation_info["finish_reason"])


async def pieces_of(way, runnable, question="hello", **config):
    if way == "stream":
        return list(runnable.stream(question, **config))
    return [piece async for piece in runnable.astream(question, **config)]


async def answer_of(way, runnable, **config):
    if way == "stream":
        return runnable.invoke("hello", **config)
    return await runnable.ainvoke("hello", **config)


both = pytest.mark.parametrize("way", ["stream", "astream"])


@both
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_the_pieces_of_one_that_began_anew_add_up_to_the_last_answer(sim, llm, way, version):
    whole = llm(output_version=version).invoke("hello")
    sim.on("gpt-4", faults.cut(3, "reset"), times=1)
    told = Ends()
    model = llm(on_interrupt="restart", output_version=version).with_retry(**ONCE)
    pieces = await pieces_of(way, model, config={"callbacks": [told]})
    marked = [piece for piece in pieces if piece.response_metadata.get("seawall", {}).get("restarted")]
    assert len(marked) == 1
    texts = [piece.text for piece in pieces]
    assert "".join(texts).startswith("".join(texts[: pieces.index(marked[0])])) and "".join(texts) != whole.text
    by_one = pieces[0]
    for piece in pieces[1:]:
        by_one = by_one + piece
    assert by_one.text == whole.text
    assert type(by_one) is AIMessageChunk
    assert by_one.usage_metadata == whole.usage_metadata
    assert (by_one.response_metadata["attempts"], by_one.response_metadata["seawall"]["restarted"]) == (2, True)
    assert [text if isinstance(text, str) else "".join(block["text"] for block in text) for text in told.texts] == [whole.text]


@both
@pytest.mark.parametrize("streaming", [{"streaming": True}, {}])
async def test_invoke_gives_the_last_attempts_text_and_no_other(sim, llm, way, streaming):
    whole = llm().invoke("hello").content
    sim.on("gpt-4", faults.cut(3, "error"), times=1)
    model = llm(on_interrupt="restart", **streaming).with_retry(**ONCE)
    answer = await answer_of(way, model)
    assert (type(answer), answer.content) == (AIMessage, whole)
    sim.on("gpt-4", faults.cut(3, "error"), times=1)
    config = {} if streaming else {"config": {"callbacks": []}}
    assert (await answer_of(way, model, **config)).content == whole


@both
async def test_nothing_of_the_attempt_before_is_left(sim, llm, way):
    begun = [{"delta": {"content": "a"}}, {"delta": {}, "finish_reason": "length"}]
    events = [json.dumps({"choices": [{"index": 0, **choice}]}) for choice in begun]
    body = "".join(f"data: {event}\n\n" for event in [*events, '{"error": {"message": "no"}}'])
    sim.on("gpt-4", faults.status(200, body=body, content_type="text/event-stream"), times=1)
    told = Ends()
    pieces = await pieces_of(way, llm(on_interrupt="restart").with_retry(**ONCE), config={"callbacks": [told]})
    whole = sum(pieces[1:], pieces[0])
    assert (whole.response_metadata["finish_reason"], told.reasons) == ("stop", ["stop"])
    assert whole.content == told.texts[0] == llm().invoke("hello").content


async def test_what_reads_pieces_on_the_way_gets_the_last_answer(sim, llm):
    whole = llm().invoke("hello").content
    sim.on("gpt-4", faults.cut(3), times=1)
    chain = llm(on_interrupt="restart").with_retry(**ONCE) | RunnableLambda(lambda message: message.content)
    assert list(chain.stream("hello")) == [whole]
    sim.on("gpt-4", faults.reply('{"a": 1}'))
    model = llm(on_interrupt="restart").with_retry(**ONCE)
    sim.on("gpt-4", faults.cut(1), times=1)
    assert list((model | JsonOutputParser()).stream("hello"))[-1] == {"a": 1}
    sim.on("gpt-4", faults.cut(3), times=1)
    events = [event async for event in model.astream_events("hello", version="v2")]
    assert events[-1]["data"]["output"].content == '{"a": 1}'


@both
async def test_one_that_is_gone_on_from_adds_up_as_it_comes(sim, llm, way):
    sim.on("gpt-4", faults.reply(" and the rest"))
    sim.on("gpt-4", faults.cut(3), times=1)
    pieces = await pieces_of(way, llm(on_interrupt="continue").with_retry(**ONCE))
    whole = sum(pieces[1:], pieces[0])
    assert whole.content.startswith("[gpt-4] hel") and whole.content.endswith(" and the rest")
    assert whole.response_metadata["seawall"]["continued"] is True
    sim.on("gpt-4", faults.cut(3), times=1)
    model = llm(on_interrupt="continue", streaming=True).with_retry(**ONCE)
    assert (await answer_of(way, model)).content == whole.content


@both
@pytest.mark.parametrize("how", ["restart", "continue"])
async def test_its_pieces_have_the_id_of_the_attempt_that_gave_the_first(sim, llm, runs, way, how):
    sim.on("gpt-4", faults.cut(5), times=1)
    pieces = await pieces_of(way, llm(on_interrupt=how).with_retry(**ONCE), config={"callbacks": [runs]})
    first, second = runs.root.child_runs
    assert {piece.id for piece in pieces} == {f"lc_run--{first.id}"}
    assert (first.error is None, second.error) == (False, None)
    answer = pieces[0]
    for piece in pieces[1:]:
        answer = answer + piece
    assert runs.root.outputs["output"].content == answer.content == llm().invoke("hello").content


@both
async def test_where_nothing_is_said_it_is_an_error(sim, llm, way):
    sim.on("gpt-4", faults.cut(3))
    with pytest.raises(errors.StreamInterruptedError):
        await pieces_of(way, llm().with_retry(**ONCE))
    assert sim.count() == 1


def test_a_marked_piece_is_a_piece_like_any_other(sim, llm):
    sim.on("gpt-4", faults.cut(3), times=1)
    pieces = list(llm(on_interrupt="restart").with_retry(**ONCE).stream("hello"))
    marked = next(piece for piece in pieces if piece.response_metadata.get("seawall"))
    assert isinstance(marked, AIMessageChunk)
    assert dumpd(marked)["id"][-1] == "AIMessageChunk"
    copy = pickle.loads(pickle.dumps(marked))
    assert (copy, (pieces[0] + copy).content) == (marked, marked.content)
    assert type(next(llm().stream("hello"))) is AIMessageChunk, "who asks for nothing gets nothing else"


def test_words_that_are_none_are_refused(llm):
    with pytest.raises(errors.ConfigurationError, match="on_interrupt must be"):
        llm(on_interrupt="again")
    with pytest.raises(errors.ConfigurationError, match="on_interrupt is no parameter of a request"):
        llm().invoke("hello", on_interrupt="restart")
    with pytest.raises(errors.ConfigurationError, match="on_interrupt is no parameter of a request"):
        llm(model_kwargs={"on_interrupt": "restart"})
