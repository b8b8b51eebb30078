"""Guardrails around what gives its answer in items: generators, iterators, and the pieces of clients and models."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from seawall import Cache, CircuitBreaker, Guardrails, Hedge, Monitor, Pipeline, Retry, guard, resilient
from seawall.errors import (
    ConfigurationTypeError,
    InputRefusedError,
    OutputRefusedError,
    OutputShapeError,
    StreamInterruptedError,
)
from seawall.guardrails import Detector, Forbidden, MaxLength, Redact, Rule, Shape
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

RAILS = Guardrails(input=[Redact("secret", "[x]"), Forbidden("forbidden")], output=[Redact("token", "[y]"), Forbidden("bad")])


class Point(BaseModel):
    x: int


def ways(rails: Guardrails = RAILS, **more: Any) -> dict[str, Callable[[str, list[Any]], list[Any]]]:
    """Each way in which a guarded function may give items; what its caller gets."""

    @guard(guardrails=rails, **more)
    def generator(prompt: str, items: list[Any]) -> Iterator[Any]:
        yield from items

    @guard(guardrails=rails, **more)
    def given(prompt: str, items: list[Any]) -> Any:
        return (item for item in items)

    @guard(guardrails=rails, **more)
    def iterator(prompt: str, items: list[Any]) -> Any:
        return iter(items)

    @guard(guardrails=rails, **more)
    async def agenerator(prompt: str, items: list[Any]) -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def several(items: list[Any]) -> AsyncIterator[Any]:
        for item in items:
            yield item

    @guard(guardrails=rails, **more)
    def agiven(prompt: str, items: list[Any]) -> Any:
        return several(items)

    @guard(guardrails=rails, **more)
    async def awaited(prompt: str, items: list[Any]) -> Any:
        return several(items)

    def all_of(function: Any) -> Any:
        async def run(prompt: str, items: list[Any]) -> list[Any]:
            answer = function(prompt, items)
            return [item async for item in (await answer if hasattr(answer, "__await__") else answer)]

        return lambda prompt, items: asyncio.run(run(prompt, items))

    plain: dict[str, Any] = {"generator": generator, "given": given, "iterator": iterator}
    return {name: lambda prompt, items, of=of: list(of(prompt, items)) for name, of in plain.items()} | {
        "agenerator": all_of(agenerator),
        "agiven": all_of(agiven),
        "awaited": all_of(awaited),
    }


WAYS = ways()


@pytest.mark.parametrize("way", WAYS)
def test_items_pass_the_rules_across_their_borders(way: str) -> None:
    assert WAYS[way]("x", ["a to", "ke", "n, a t", "o"]) == ["a ", "[y], a ", "to"]
    assert WAYS[way]("x", ["a", None, "c", 3]) == ["a", None, "c", 3]
    with pytest.raises(OutputRefusedError) as refused:
        WAYS[way]("x", ["fine, b", "ad"])
    assert (refused.value.partial, refused.value.rule, refused.value.place) == ("fine, ", "forbidden", "content")
    with pytest.raises(ConfigurationTypeError, match="no text in an item of a stream"):
        WAYS[way]("x", [b"token"])
    with pytest.raises(InputRefusedError):
        WAYS[way]("forbidden", ["x"])


def test_what_is_asked_is_looked_at_before_the_first_item_is_asked_for() -> None:
    asked: list[str] = []

    @guard(guardrails=RAILS)
    def pieces(prompt: str) -> Iterator[str]:
        asked.append(prompt)
        yield prompt

    refused = pieces("forbidden")
    with pytest.raises(InputRefusedError):
        next(refused)
    assert list(pieces("a secret")) == ["a [x]"] and asked == ["a [x]"]


def test_a_refusal_before_the_first_item_is_for_the_alternative_and_no_evidence() -> None:
    breaker, watch = CircuitBreaker(4, name="of items"), Monitor()
    asked: list[str] = []

    def other(prompt: str) -> Iterator[str]:
        asked.append("other")
        yield "a token"

    @guard(guardrails=RAILS, circuit=breaker, retry=3, fallback=other, monitor=watch)
    def pieces(prompt: str) -> Iterator[str]:
        asked.append("first")
        yield "bad"

    assert list(pieces("x")) == ["a ", "[y]"]  # what guards a function guards what stands in for it
    assert (asked, breaker.failure_count) == (["first", "other"], 0)
    late = guard(guardrails=RAILS, circuit=breaker, retry=3, fallback=other)(lambda prompt: (text for text in ("a ", "bad")))
    given: list[str] = []
    with pytest.raises(OutputRefusedError) as refused:
        given.extend(late("x"))
    assert (given, refused.value.partial, breaker.failure_count) == (["a "], "a ", 0)
    steps = [step.event for step in refused.value.story]  # type: ignore[attr-defined]
    assert steps == ["guardrail.refused"]
    assert watch.snapshot()["fallbacks"] == 1


def test_what_was_cut_out_is_in_the_story_and_a_cache_keeps_what_is_left() -> None:
    calls: list[str] = []

    @guard(guardrails=RAILS, cache=Cache(), retry=None)
    def pieces(prompt: str) -> Iterator[str]:
        calls.append(prompt)
        yield from ("a to", "ken and a token")

    assert [list(pieces(prompt)) for prompt in ("secret", "[x]")] == [["a ", "[y] and a ", "[y]"]] * 2 and calls == ["[x]"]
    told: list[Any] = []
    watched = Pipeline(Retry(2, wait=0, on_result=lambda value: not told, before_sleep=told.append), RAILS)
    again = watched(lambda prompt: (text for text in ()))
    assert list(again("a secret")) == [] and len(told) == 1
    assert [(step.event, step.number, step.reason) for step in again.story][:1] == [("guardrail.redacted", 1, "input")]
    many = watched(lambda prompt: (text for text in ("token, token",)))
    assert list(many("x")) == ["[y], ", "[y]"]
    assert [(step.event, step.number) for step in many.story] == [("guardrail.redacted", 2)]


def test_a_generator_is_spoken_to_as_it_was() -> None:
    heard: list[Any] = []

    @guard(guardrails=RAILS)
    def talk(prompt: str) -> Any:
        try:
            heard.append((yield "one "))
            try:
                heard.append((yield "to"))
                heard.append((yield "ken "))
            except ValueError as error:
                heard.append(error)
            yield "caught "
        finally:
            heard.append("closed")
        return "the token"

    talking = talk("x")
    assert next(talking) == "one "
    assert talking.send("hello") == "[y] "  # the "to" was held back, and nobody could answer to it
    thrown = ValueError()
    assert talking.throw(thrown) == "caught "
    with pytest.raises(StopIteration) as end:
        next(talking)
    assert end.value.value == "the [y]"
    assert heard == ["hello", None, thrown, "closed"]
    heard.clear()
    early = talk("x")
    next(early)
    early.close()
    assert heard == ["closed"]
    with pytest.raises(StopIteration):
        next(early)


async def test_an_async_generator_is_spoken_to_as_it_was() -> None:
    heard: list[Any] = []

    @guard(guardrails=RAILS)
    async def talk(prompt: str) -> Any:
        try:
            heard.append((yield "one "))
            try:
                heard.append((yield "token "))
            except ValueError as error:
                heard.append(error)
            yield "caught "
        finally:
            heard.append("closed")

    talking = talk("x")
    assert await talking.__anext__() == "one "
    assert await talking.asend("hello") == "[y] "
    thrown = ValueError()
    assert await talking.athrow(thrown) == "caught "
    await talking.aclose()
    assert heard == ["hello", thrown, "closed"]
    refused = talk("x")
    with pytest.raises(ZeroDivisionError):
        await refused.__anext__()
        await refused.athrow(ZeroDivisionError())


class Source:
    """An iterator that somebody else holds, too."""

    def __init__(self) -> None:
        self.left = ["one ", "bad", "more", "and more"]
        self.is_closed = False

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> str:
        return self.left.pop(0)

    def close(self) -> None:
        self.is_closed = True


def test_what_is_refused_or_left_is_closed() -> None:
    for leave in (False, True):
        source = Source()

        with guard(guardrails=RAILS)(lambda prompt, source=source: source)("x") as items:
            assert next(items) == "one "
            if not leave:
                with pytest.raises(OutputRefusedError):
                    list(items)
                assert source.is_closed
        assert source.is_closed and source.left


def test_what_breaks_off_says_what_was_handed_out_and_no_more() -> None:
    @guard(guardrails=RAILS, retry=None)
    def pieces(prompt: str) -> Iterator[str]:
        yield "a token, a to"
        raise StreamInterruptedError("broken", partial="a token, a to")

    given: list[str] = []
    with pytest.raises(StreamInterruptedError) as broken:
        for piece in pieces("x"):
            given.append(piece)
    assert (given, broken.value.partial) == (["a [y], a "], "a [y], a ")


def test_a_failure_before_the_first_item_is_tried_again_with_filters_of_its_own() -> None:
    attempts: list[int] = []

    @guard(guardrails=RAILS, retry=Retry(2, on=OSError, wait=0))
    def pieces(prompt: str) -> Iterator[str]:
        attempts.append(1)
        yield "to"  # held back
        if len(attempts) == 1:
            raise OSError
        yield "m"

    assert list(pieces("x")) == ["tom"]


@pytest.mark.parametrize("text", ["a token", "bad"])
def test_hedged_items_are_looked_at_too(text: str) -> None:
    @guard(guardrails=RAILS, hedge=Hedge(10), retry=None, circuit=None)
    def pieces(prompt: str) -> Iterator[str]:
        yield text

    @guard(guardrails=RAILS, hedge=Hedge(10), retry=None, circuit=None)
    async def apieces(prompt: str) -> AsyncIterator[str]:
        yield text

    async def all_of() -> list[str]:
        return [piece async for piece in apieces("x")]

    for ask in (lambda: list(pieces("x")), lambda: asyncio.run(all_of())):
        if text == "bad":
            with pytest.raises(OutputRefusedError):
                ask()
        else:
            assert ask() == ["a ", "[y]"]


def test_a_shape_and_a_detector_see_the_whole_at_the_end() -> None:
    whole = Detector(lambda text: [(0, 3, "name")] if text.startswith("Jo ") else None, name="names")
    way = ways(Guardrails(output=[whole]))["generator"]
    assert way("x", ["J", "o ", "is in"]) == ["[name]is in"]
    shaped = ways(Guardrails(output=[Shape(Point)]))["generator"]
    assert "".join(shaped("x", ['{"x"', ": 1}"])) == '{"x": 1}'
    with pytest.raises(OutputShapeError) as wrong:
        shaped("x", ["{", "}"])
    assert wrong.value.partial == "{}"
    with pytest.raises(OutputShapeError, match="cannot be mended"):
        ways(Guardrails(output=[Shape(Point, repair=True)]))["generator"]("x", ["{x: 1}"])


# --- the pieces of clients and models

RULES: list[list[Rule]] = [
    [Redact("ab+", "<1>"), Redact(r"\bca\b", "<2>")],
    [Redact(["b{2,3}c", "é."], ""), Forbidden("ddd"), MaxLength(60)],
    [Redact.secrets(), Redact.personal(), Redact("<1>x", "y")],
    [
        Detector(lambda text: [(at, at + 1, "c") for at, letter in enumerate(text) if letter == "c"], name="letters"),
        Redact("a", ""),
    ],
]


def completion(texts: list[str]) -> list[Any]:
    def chunk(delta: dict[str, Any], end: str | None = None) -> dict[str, Any]:
        return {
            "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
        }  # fmt: skip

    return [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts), chunk({}, "stop")]


def message(texts: list[str]) -> list[Any]:
    return [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    ]


def response(texts: list[str]) -> list[Any]:
    place = {"item_id": "1", "output_index": 0, "content_index": 0}
    whole = {"type": "output_text", "text": "".join(texts)}
    item = {"type": "message", "content": [whole]}
    return [
        {"type": "response.created", "response": {"output": []}},
        *({"type": "response.output_text.delta", **place, "delta": text, "logprobs": []} for text in texts),
        {"type": "response.output_text.done", **place, "text": "".join(texts)},
        {"type": "response.content_part.done", **place, "part": whole},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"output": [item]}},
    ]


KINDS: dict[str, tuple[Callable[[list[str]], list[Any]], Callable[[Any], str]]] = {
    "texts": (list, lambda item: item),
    "dicts": (completion, lambda item: item["choices"][0]["delta"].get("content") or ""),
    "chunks": (
        lambda texts: [ChatCompletionChunk.model_validate(chunk) for chunk in completion(texts)],
        lambda item: item.choices[0].delta.content or "",
    ),
    "messages": (lambda texts: [AIMessageChunk(text) for text in texts], lambda item: item.content),
    "last": (
        lambda texts: [*(AIMessageChunk(text, id="1") for text in texts), AIMessageChunk("", id="1", chunk_position="last")],
        lambda item: item.content,
    ),
    "parts": (
        lambda texts: [AIMessageChunk([{"type": "text", "text": text, "index": 0}]) for text in texts],
        lambda item: "".join(part["text"] for part in item.content),
    ),
    "graph": (lambda texts: [(AIMessageChunk(text), {"node": "abc"}) for text in texts], lambda item: item[0].content),
    "message events": (message, lambda item: item["delta"]["text"] if item["type"] == "content_block_delta" else ""),
    "response events": (response, lambda item: item["delta"] if item["type"].endswith("delta") else ""),
    "own": (lambda texts: [{"message": {"role": "assistant", "content": text}} for text in texts], lambda item: item["message"]["content"]),
}  # fmt: skip


def outcome(of: Callable[[], str]) -> tuple[str, str]:
    try:
        return "given", of()
    except OutputRefusedError as error:
        return "refused", error.rule


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    text=st.text("abcdéx \n<1>", max_size=40) | st.sampled_from(["mail jane@example.org or +44 20 7946 0958, abb cab"]),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    rules=st.sampled_from(RULES),
)
def test_in_pieces_of_any_kind_it_is_what_it_is_whole(kind: str, text: str, cuts: list[int], rules: list[Rule]) -> None:
    make, read = KINDS[kind]
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in zip(places, places[1:], strict=False)]
    rails = Guardrails(output=rules)
    items = make(pieces)
    before = copy.deepcopy(items)
    whole = outcome(lambda: rails.check_output(text))
    assert outcome(lambda: "".join(map(read, rails.stream(items)))) == whole
    assert items == before  # what was given is not changed
    if kind == "response events" and whole[0] == "given":
        done, part, item, completed = list(rails.stream(items))[-4:]
        assert {done["text"], part["part"]["text"], item["item"]["content"][0]["text"]} == {whole[1]}
        assert completed["response"]["output"][0]["content"][0]["text"] == whole[1]


def test_what_is_beside_the_text_of_a_piece_stays_and_what_spells_it_goes() -> None:
    first = {
        "index": 0,
        "delta": {"content": "a to", "role": "assistant"},
        "logprobs": {"content": ["a", " to"]},
        "finish_reason": None,
    }
    second = {"index": 0, "delta": {"content": "ken"}, "logprobs": {"content": ["ken"]}, "finish_reason": "stop"}
    given_out = list(RAILS.stream([{"id": 1, "choices": [first]}, {"id": 1, "choices": [second], "usage": {"n": 3}}]))
    assert given_out == [
        {"id": 1, "choices": [{**first, "delta": {"content": "a ", "role": "assistant"}, "logprobs": None}]},
        {"id": 1, "choices": [{**second, "delta": {"content": "[y]"}, "logprobs": None}], "usage": {"n": 3}},
    ]


def test_calls_of_tools_and_reasoning_are_texts_of_their_own() -> None:
    chunks = [
        AIMessageChunk("", tool_call_chunks=[{"index": 0, "id": "1", "name": "f", "args": '{"a": "to'}], additional_kwargs={"reasoning_content": "a to"}),
        AIMessageChunk("ken", tool_call_chunks=[{"index": 0, "id": None, "name": None, "args": 'ken"}'}], additional_kwargs={"reasoning_content": "ken"}),
        AIMessageChunk("", chunk_position="last", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    ]  # fmt: skip
    first, *rest = RAILS.stream(chunks)
    for chunk in rest:
        first += chunk
    assert first.tool_calls == [{"name": "f", "args": {"a": "[y]"}, "id": "1", "type": "tool_call"}]
    assert (first.content, first.additional_kwargs, first.usage_metadata["total_tokens"]) == (
        "ken",
        {"reasoning_content": "a [y]"},
        3,
    )
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": '"to'}}
    more = {"index": 0, "function": {"arguments": 'ken"'}}
    deltas = [{"tool_calls": [call]}, {"tool_calls": [more]}, {}]
    ends = [None, None, "tool_calls"]
    items = [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in zip(deltas, ends, strict=True)]
    said = [
        call["function"]["arguments"]
        for item in RAILS.stream(items)
        for call in item["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert "".join(said) == '"[y]"'


def test_pieces_of_the_native_client_pass_too(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply("a token, and a tok"))
    model = chat()

    @guard(guardrails=RAILS)
    def generated(prompt: str) -> Iterator[Any]:
        yield from model.stream(prompt)

    @guard(guardrails=RAILS)
    def returned(prompt: str) -> Any:
        return model.stream(prompt)

    for ask in (generated, returned):
        chunks = list(ask("a secret"))
        assert "".join(chunk.content for chunk in chunks) == "a [y], and a tok"
        assert (
            "".join((chunk.raw["choices"] or [{"delta": {}}])[0]["delta"].get("content") or "" for chunk in chunks)
            == "a [y], and a tok"
        )
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert all(request.body["messages"][0]["content"] == "a [x]" for request in sim.requests)


def test_runnables_of_langchain_pass_too() -> None:
    def answer(prompts: Iterator[str]) -> Iterator[AIMessageChunk]:
        for text in ("fine" if "[x]" in next(prompts) else "bad", " to", "ken"):
            yield AIMessageChunk(text)

    async def aanswer(prompts: AsyncIterator[str]) -> AsyncIterator[AIMessageChunk]:
        for chunk in answer(iter([prompt async for prompt in prompts])):
            yield chunk

    def given_out(runnable: Any, prompt: str) -> str:
        return "".join(chunk.content for chunk in runnable.stream(prompt))

    async def agiven_out(runnable: Any, prompt: str) -> str:
        return "".join([chunk.content async for chunk in runnable.astream(prompt)])

    breaker = CircuitBreaker(9, name="around a runnable")
    guarded = resilient(RunnableGenerator(answer, aanswer), guardrails=RAILS, circuit=breaker)
    for ask in (given_out, lambda runnable, prompt: asyncio.run(agiven_out(runnable, prompt))):
        assert ask(guarded, "a secret") == "fine [y]"
        with pytest.raises(OutputRefusedError):
            ask(guarded, "x")
        other = guarded.with_fallbacks([RunnableLambda(lambda prompt: AIMessage("another token"))])
        assert ask(other, "x") == "another [y]"
    assert breaker.failure_count == 0
