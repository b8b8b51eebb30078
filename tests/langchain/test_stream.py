"""Streams: retried until the first content, never restarted silently after it, never cut off unnoticed."""

from __future__ import annotations

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from seawall import Retry, errors
from seawall.langchain import resilient
from seawall.simulator import faults

TWICE = {"stop_after_attempt": 2, "wait": 0.001}


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


async def pieces_of(way, runnable, question="hello"):
    if way == "stream":
        return list(runnable.stream(question))
    return [piece async for piece in runnable.astream(question)]


both = pytest.mark.parametrize("way", ["stream", "astream"])


@both
async def test_the_pieces_add_up_to_the_answer_and_its_story(llm, way):
    pieces = await pieces_of(way, llm())
    whole = sum(pieces[1:], pieces[0])
    assert whole.content == llm().invoke("hello").content
    assert whole.usage_metadata == llm().invoke("hello").usage_metadata
    told = whole.response_metadata
    assert (told["finish_reason"], told["model_name"], told["served_by"], told["attempts"]) == ("stop", "gpt-4", "gpt-4", 1)
    assert [piece.chunk_position for piece in pieces].count("last") == 1
    assert len(pieces) > 10


@both
async def test_no_usage_is_asked_for_where_none_is_wanted(sim, llm, way):
    pieces = await pieces_of(way, llm(stream_usage=False))
    assert all(piece.usage_metadata is None for piece in pieces)
    assert "stream_options" not in sim.requests[0].body


@both
@pytest.mark.parametrize(
    "fault",
    [faults.status(500), faults.rate_limit(retry_after_ms=1), faults.reset(), faults.broken_json(), faults.empty_body()]
    + [faults.cut(0, how) for how in ("clean", "reset", "error", "json")],
    ids=lambda fault: fault.name,
)
async def test_until_the_first_content_it_is_retried(sim, llm, way, fault):
    sim.on("gpt-4", fault, times=1)
    pieces = await pieces_of(way, llm().with_retry(**TWICE))
    whole = sum(pieces[1:], pieces[0])
    assert whole.content.startswith("[gpt-4] hello")
    assert whole.response_metadata["attempts"] == 2
    assert sim.count() == 2


@both
@pytest.mark.parametrize("alternative", ["native", "mixed", "resilient"])
async def test_and_then_the_alternative_answers(sim, llm, way, alternative):
    sim.on("gpt-4", faults.cut(0, "error"))
    chain = {
        "native": lambda: llm().with_retry(**TWICE).with_fallbacks([llm("b")]),
        "mixed": lambda: llm().with_retry(**TWICE).with_fallbacks([llm("b"), "sorry"]),
        "resilient": lambda: resilient(llm(), retry=Retry(2, wait=0.001), circuit=None, fallback=[llm("b")]),
    }[alternative]()
    text = "".join(piece.content for piece in await pieces_of(way, chain))
    assert text.startswith("[b] hello")
    assert (sim.count("gpt-4"), sim.count("b")) == (2, 1)


@both
@pytest.mark.parametrize("how", ["clean", "reset", "error", "json"])
@pytest.mark.parametrize("kind", ["native", "mixed", "parsed"])
async def test_after_it_nothing_restarts_and_the_error_carries_the_text(sim, llm, way, how, kind):
    sim.on("gpt-4", faults.cut(3, how))
    model = llm().with_retry(**TWICE).with_fallbacks([llm("b")])
    chain = {
        "native": lambda: model,
        "mixed": lambda: model.with_fallbacks(["sorry"]),
        "parsed": lambda: resilient(llm() | StrOutputParser(), retry=Retry(3, on=Exception, wait=0), circuit=None, fallback="no"),
    }[kind]()
    seen = []
    with pytest.raises(errors.StreamInterruptedError) as raised:
        if way == "stream":
            for piece in chain.stream("hello"):
                seen.append(piece)
        else:
            async for piece in chain.astream("hello"):
                seen.append(piece)
    text = "".join(piece if isinstance(piece, str) else piece.content for piece in seen)
    assert text.startswith("[gpt-4]")
    assert raised.value.partial == text
    assert isinstance(raised.value, ModelError)
    assert sim.count() == 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_invoke_reads_a_stream_to_its_end_and_never_takes_a_cut_one(sim, llm, streaming):
    model = llm(streaming=True) if streaming else llm()
    sim.on("gpt-4", faults.cut(3, "clean"))
    with pytest.raises(errors.APIError):
        model.with_retry(**TWICE).invoke("hello")
    with pytest.raises(errors.APIError):
        await model.with_retry(**TWICE).ainvoke("hello")
    sim.clear()
    answer = model.invoke("hello")
    assert answer.content.startswith("[gpt-4] hello")
    assert answer.usage_metadata["total_tokens"] > 0
    assert sim.requests[-1].stream == streaming


@both
@pytest.mark.parametrize("fault", [faults.no_done(), faults.done_only()], ids=lambda fault: fault.name)
async def test_either_end_is_an_end(sim, llm, way, fault):
    sim.on("gpt-4", fault)
    assert (await pieces_of(way, llm()))[-1].response_metadata["served_by"] == "gpt-4"


@both
async def test_tool_calls_come_in_pieces(llm, way):
    pieces = await pieces_of(way, llm().bind_tools([add], tool_choice="any"))
    whole = sum(pieces[1:], pieces[0])
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("add", {"a": 1, "b": 1})]
    assert len([piece for piece in pieces if piece.tool_call_chunks]) > 1


@both
async def test_a_chain_streams_through(llm, way):
    chain = ChatPromptTemplate.from_template("{x}") | llm().with_retry().with_fallbacks([llm("b")]) | StrOutputParser()
    pieces = await pieces_of(way, chain, {"x": "hello"})
    assert len(pieces) > 10
    assert "".join(pieces).startswith("[gpt-4] hello")


@both
async def test_closing_a_stream_early_cuts_the_request(sim, llm, way):
    sim.on("gpt-4", faults.stall(2))
    if way == "stream":
        stream = llm().stream("hello")
        next(stream)
        stream.close()
    else:
        stream = llm().astream("hello")
        await anext(stream)
        await stream.aclose()
    sim.wait_aborted(1)


@both
async def test_an_answer_that_was_too_long_is_flagged_and_no_error(llm, way):
    pieces = await pieces_of(way, llm(max_tokens=2))
    assert sum(pieces[1:], pieces[0]).response_metadata["finish_reason"] == "length"


@both
async def test_a_plain_value_that_is_a_pair_is_one_piece(sim, llm, way):
    def fails(question):
        raise ConnectionError

    chain = resilient(RunnableLambda(fails), retry=None, circuit=None, fallback=[("a", "pair")])
    assert await pieces_of(way, chain) == [("a", "pair")]
