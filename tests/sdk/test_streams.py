"""Streams of a guarded client, and of guarded functions that give an SDK's stream: judged at their end."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import seawall
from seawall.errors import MalformedResponseError, StreamInterruptedError
from seawall.simulator import faults

ASKED: Any = [{"role": "user", "content": "hello there"}]
PLAIN: Any = {"model": "gpt-4", "messages": ASKED}
CLAUDE: Any = {"model": "claude", "max_tokens": 100, "messages": ASKED}
Create = Callable[..., Any]


class Watched:
    """A pipeline with a breaker and a monitor, whose counts tell what the policies saw."""

    def __init__(self) -> None:
        self.breaker = seawall.CircuitBreaker(100, name="watched")
        self.monitor = seawall.Monitor()
        self.pipeline = seawall.Pipeline(seawall.Retry(3, wait=0), self.breaker, monitor=self.monitor)

    @property
    def counts(self) -> tuple[int, int]:
        """Calls that came out well, and badly."""
        told = self.monitor.snapshot()
        return told["total"] - told["errors"], told["errors"]


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture(params=["client", "function"])
def create(request, sdk, watched) -> Create:
    """`chat.completions.create`: of a guarded client, and of a plain one inside a guarded function."""
    if request.param == "client":
        return seawall.resilient(sdk, watched.pipeline).chat.completions.create
    plain = sdk.with_options(max_retries=0)

    @watched.pipeline
    def create(**asked: Any) -> Any:
        return plain.chat.completions.create(**asked)

    return create


@pytest.fixture(params=["client", "function", "plain function"])
def acreate(request, async_sdk, watched) -> Create:
    if request.param == "client":
        return seawall.resilient(async_sdk, watched.pipeline).chat.completions.create
    plain = async_sdk.with_options(max_retries=0)
    if request.param == "plain function":

        @watched.pipeline
        def create(**asked: Any) -> Any:
            return plain.chat.completions.create(**asked)

        return create

    @watched.pipeline
    async def acreate(**asked: Any) -> Any:
        return await plain.chat.completions.create(**asked)

    return acreate


def text(pieces: Any) -> str:
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


async def atext(pieces: Any) -> str:
    return "".join([piece.choices[0].delta.content or "" async for piece in pieces if piece.choices])


BEFORE = [
    faults.status(500), faults.reset(), faults.html(), faults.empty_body(), faults.empty_choices(), faults.cut(0), faults.cut(0, "reset"),
    faults.cut(0, "error"), faults.cut(0, "json"),
]  # fmt: skip
AFTER = [faults.cut(3), faults.cut(3, "reset"), faults.cut(3, "error"), faults.cut(3, "json")]


def named(fault: Any) -> str:
    return f"{fault.name} {fault.details.get('after', '')}"


@pytest.mark.parametrize("fault", BEFORE, ids=named)
def test_before_the_first_content_a_stream_is_tried_again(sim, create, watched, fault):
    sim.on("gpt-4", fault, times=2)
    whole = text(create(**PLAIN, stream=True))
    assert "hello there" in whole and sim.count() == 3
    assert watched.counts == (1, 0) and watched.breaker.failure_count == 0


@pytest.mark.parametrize("fault", BEFORE, ids=named)
async def test_before_the_first_content_an_asynchronous_stream_is_tried_again(sim, acreate, watched, fault):
    sim.on("gpt-4", fault, times=2)
    assert "hello there" in await atext(await acreate(**PLAIN, stream=True)) and sim.count() == 3
    assert watched.counts == (1, 0)


@pytest.mark.parametrize("fault", AFTER, ids=named)
def test_after_it_a_stream_breaks_off_aloud(sim, create, watched, fault):
    sim.on("gpt-4", fault)
    seen: list[Any] = []
    with pytest.raises(StreamInterruptedError) as caught:
        seen.extend(create(**PLAIN, stream=True))
    assert caught.value.partial == text(seen) != "" and sim.count() == 1
    assert isinstance(caught.value, openai.APIError) and isinstance(caught.value.__cause__, openai.APIError)
    assert watched.counts == (0, 1) and watched.breaker.failure_count == 1


@pytest.mark.parametrize("fault", AFTER, ids=named)
async def test_after_it_an_asynchronous_stream_breaks_off_aloud(sim, acreate, watched, fault):
    sim.on("gpt-4", fault)
    seen: list[Any] = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in await acreate(**PLAIN, stream=True):
            seen.append(piece)
    assert caught.value.partial == text(seen) != "" and sim.count() == 1
    assert watched.counts == (0, 1) and watched.breaker.failure_count == 1


@pytest.mark.parametrize("fault", [faults.no_done(), faults.done_only()], ids=named)
def test_either_word_for_the_end_will_do(sim, create, watched, fault):
    sim.on("gpt-4", fault)
    assert text(create(**PLAIN, stream=True)) and sim.count() == 1 and watched.counts == (1, 0)


@pytest.mark.parametrize("fault", [faults.no_done(), faults.done_only()], ids=named)
async def test_either_word_for_the_end_will_do_in_tasks(sim, acreate, watched, fault):
    sim.on("gpt-4", fault)
    assert await atext(await acreate(**PLAIN, stream=True)) and sim.count() == 1 and watched.counts == (1, 0)


def test_the_last_error_before_content_is_the_sdks_own(sim, create):
    sim.on("gpt-4", faults.cut(0, "error"))
    with pytest.raises(openai.APIError) as caught:
        text(create(**PLAIN, stream=True))
    assert type(caught.value) is openai.APIError and "3 attempts" in caught.value.__notes__[0] and sim.count() == 3


def test_a_stream_keeps_the_sdks_interface(sim, create):
    stream = create(**PLAIN, stream=True)
    assert isinstance(stream, openai.Stream)
    assert isinstance(stream.response, httpx2.Response) and stream.response.status_code == 200
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    with stream as same:
        assert same is stream and next(stream).choices[0].delta.role == "assistant"
        assert "hello there" in text(stream)
    with pytest.raises(StopIteration):
        next(stream)
    with pytest.raises(AttributeError):
        stream.nothing_of_that_name  # noqa: B018


async def test_an_asynchronous_stream_keeps_the_sdks_interface(sim, acreate):
    stream = await acreate(**PLAIN, stream=True)
    assert isinstance(stream, openai.AsyncStream) and stream.response.status_code == 200
    async with stream as same:
        assert same is stream and (await stream.__anext__()).choices[0].delta.role == "assistant"
        assert "hello there" in await atext(stream)


def test_closing_early_ends_the_request_and_counts_for_nothing(sim, create, watched):
    sim.on("gpt-4", faults.stall(2))
    for close in (lambda s: s.close(), lambda s: s.__exit__(None, None, None), lambda s: s.response.close()):
        stream = create(**PLAIN, stream=True)
        next(stream)
        close(stream)
        with pytest.raises(StopIteration):
            next(stream)
    unread = create(**PLAIN, stream=True)
    unread.close()
    sim.wait_aborted(4)
    assert watched.counts == (0, 0) and watched.breaker.failure_count == 0 and sim.count() == 4


async def test_closing_an_asynchronous_one_early_does_too(sim, acreate, watched):
    sim.on("gpt-4", faults.stall(2))
    for close in (
        lambda s: s.close(),
        lambda s: s.aclose(),
        lambda s: s.__aexit__(None, None, None),
        lambda s: s.response.aclose(),
    ):
        stream = await acreate(**PLAIN, stream=True)
        await stream.__anext__()
        await close(stream)
        with pytest.raises(StopAsyncIteration):
            await stream.__anext__()
    await (await acreate(**PLAIN, stream=True)).close()
    await asyncio.to_thread(sim.wait_aborted, 5)
    assert watched.counts == (0, 0) and sim.count() == 5


async def test_cancelling_the_reader_counts_for_nothing(sim, acreate, watched):
    sim.on("gpt-4", faults.stall(2))
    stream = await acreate(**PLAIN, stream=True)
    seen: list[Any] = []
    got = asyncio.Event()

    async def read() -> None:
        async for piece in stream:
            seen.append(piece)
            if len(seen) == 3:
                got.set()

    task = asyncio.create_task(read())
    await got.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stream.close()
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert watched.counts == (0, 0) and watched.breaker.failure_count == 0


async def test_an_attempts_limit_is_one_for_its_stream_too(sim, async_sdk):
    sim.on("gpt-4", faults.stall(0), times=1)
    client = seawall.resilient(async_sdk, retry=seawall.Retry(2, wait=0), attempt_timeout=0.3)
    assert "hello there" in await atext(await client.chat.completions.create(**PLAIN, stream=True))
    assert sim.count() == 2
    sim.on("gpt-4", faults.stall(2))
    with pytest.raises(StreamInterruptedError) as caught:
        await atext(await client.chat.completions.create(**PLAIN, stream=True))
    assert isinstance(caught.value.__cause__, (TimeoutError, openai.APITimeoutError)) and caught.value.partial


def test_helpers_read_through_the_guard(sim, sdk, claude, watched):
    client = seawall.resilient(sdk, watched.pipeline)
    sim.on("gpt-4", faults.cut(0), times=1)
    with client.chat.completions.stream(**PLAIN) as stream:
        assert "hello there" in (stream.get_final_completion().choices[0].message.content or "")
    assert sim.count() == 2 and watched.counts == (1, 0)
    sim.on("gpt-4", faults.stall(2))
    with client.chat.completions.stream(**PLAIN) as stream:
        next(iter(stream))
    sim.wait_aborted(1)
    assert watched.counts == (1, 0)
    messages = seawall.resilient(claude, watched.pipeline).messages
    sim.on("claude", faults.cut(0, "error"), times=1)
    with messages.stream(**CLAUDE) as pieces:
        assert "hello there" in "".join(pieces.text_stream) and pieces.get_final_message().stop_reason == "end_turn"
    assert watched.counts == (2, 0)


async def test_asynchronous_helpers_do_too(sim, async_sdk, opened, watched):
    client = seawall.resilient(async_sdk, watched.pipeline)
    sim.on("gpt-4", faults.cut(0), times=1)
    async with client.chat.completions.stream(**PLAIN) as stream:
        assert "hello there" in ((await stream.get_final_completion()).choices[0].message.content or "")
    messages = seawall.resilient(opened(anthropic.AsyncAnthropic(api_key="k", base_url=sim.origin)), watched.pipeline).messages
    sim.on("claude", faults.cut(0), times=1)
    async with messages.stream(**CLAUDE) as pieces:
        assert "hello there" in await pieces.get_final_text()
    assert sim.count() == 4 and watched.counts == (2, 0)


@pytest.mark.parametrize("fault", [faults.status(529), faults.cut(0), faults.cut(0, "error")], ids=named)
def test_messages_are_tried_again_before_their_first_content(sim, claude, watched, fault):
    client = seawall.resilient(claude, watched.pipeline)
    sim.on("claude", fault, times=2)
    stream = client.messages.create(**CLAUDE, stream=True)
    assert isinstance(stream, anthropic.Stream)
    names = [event.type for event in stream]
    assert (names[0], names[-1], names.count("message_start"), sim.count()) == ("message_start", "message_stop", 1, 3)
    assert watched.counts == (1, 0)


@pytest.mark.parametrize("fault", [faults.cut(3), faults.cut(3, "reset"), faults.cut(3, "error")], ids=named)
def test_messages_break_off_aloud(sim, claude, watched, fault):
    sim.on("claude", fault)
    with pytest.raises(StreamInterruptedError) as caught:
        list(seawall.resilient(claude, watched.pipeline).messages.create(**CLAUDE, stream=True))
    assert caught.value.partial and isinstance(caught.value, anthropic.APIError) and sim.count() == 1
    assert watched.counts == (0, 1)


def events(*kinds: tuple[str, Any]) -> str:
    return "".join(f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n" for kind, more in kinds)


RESPONSE: Any = {
    "id": "r", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": [], "tools": [],
    "parallel_tool_calls": True, "tool_choice": "auto",
}  # fmt: skip
BEGUN = ("response.created", {"response": RESPONSE, "sequence_number": 0})
DELTA = (
    "response.output_text.delta",
    {"delta": "hi", "item_id": "i", "output_index": 0, "content_index": 0, "logprobs": [], "sequence_number": 1},
)
COMPLETED = ("response.completed", {"response": {**RESPONSE, "status": "completed"}, "sequence_number": 2})
FAILED = (
    "response.failed",
    {
        "response": {**RESPONSE, "status": "failed", "error": {"code": "server_error", "message": "it broke"}},
        "sequence_number": 2,
    },
)
ERROR = ("error", {"code": "rate_limit_exceeded", "message": "slower", "param": None, "sequence_number": 2})


@pytest.mark.parametrize("last", [None, FAILED, ERROR], ids=["cut", "failed", "error"])
def test_responses_are_tried_again_before_their_first_content_only(raw, last):
    end = () if last is None else (last,)
    server = raw(events(BEGUN, *end), events(BEGUN, DELTA, COMPLETED))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    names = [event.type for event in client.responses.create(model="m", input="hi", stream=True)]
    assert names == ["response.created", "response.output_text.delta", "response.completed"] and len(server.requests) == 2
    server = raw(events(BEGUN, DELTA, *end))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    with pytest.raises(StreamInterruptedError) as caught:
        list(client.responses.create(model="m", input="hi", stream=True))
    assert caught.value.partial == "hi" and len(server.requests) == 1


def test_a_tool_call_is_content_and_a_role_is_none(raw):
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    call = {
        "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}}]
    }
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    for content in (call, thought):
        server = raw(lines(role), lines(role, content))
        client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
        with pytest.raises(StreamInterruptedError):
            list(client.chat.completions.create(**PLAIN, stream=True))
        assert len(server.requests) == 2
    # One choice of two has no end; then an answer that is empty, and whole.
    two = {"choices": [{"index": 1, "delta": {"content": ""}}]}
    server = raw(lines(role, two, end), lines(role, end))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    assert len(list(client.chat.completions.create(**PLAIN, stream=True))) == 2 and len(server.requests) == 2


def lines(*chunks: Any) -> str:
    whole = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **chunk} for chunk in chunks]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in whole)


def test_what_is_held_back_is_bounded(raw):
    role = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    content = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    server = raw(lines(*[role] * 63), lines(content))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    assert text(client.chat.completions.create(**PLAIN, stream=True)) == "hi" and len(server.requests) == 2
    server = raw(lines(*[role] * 64))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    seen: list[Any] = []
    with pytest.raises(StreamInterruptedError) as caught:
        seen.extend(client.chat.completions.create(**PLAIN, stream=True))
    assert len(server.requests) == 1 and caught.value.partial == "" and isinstance(caught.value.__cause__, MalformedResponseError)


def test_the_text_so_far_is_the_first_choices(raw):
    said = [{"choices": [{"index": index, "delta": {"content": f"{index}"}}]} for index in (0, 1, 0)]
    server = raw(lines(*said))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    with pytest.raises(StreamInterruptedError) as caught:
        list(client.chat.completions.create(**PLAIN, n=2, stream=True))
    assert caught.value.partial == "00"


def test_of_messages_a_tools_block_is_content_and_an_empty_one_of_text_is_none(raw):
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
    begun, end = ("message_start", {"message": message}), ("message_stop", {})
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    for block, requests in (
        ({"type": "text", "text": ""}, 2),
        ({"type": "thinking", "thinking": "", "signature": ""}, 2),
        (tool, 1),
    ):
        server = raw(events(begun, ("content_block_start", {"index": 0, "content_block": block})), events(begun, end))
        client = seawall.resilient(anthropic.Anthropic(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
        if requests == 1:
            with pytest.raises(StreamInterruptedError):
                list(client.messages.create(**CLAUDE, stream=True))
        else:
            assert [event.type for event in client.messages.create(**CLAUDE, stream=True)] == ["message_start", "message_stop"]
        assert len(server.requests) == requests, block


def test_an_attempt_that_is_given_up_gives_its_connection_back(raw):
    # Of these failures the SDK knows nothing: it would read on.
    server = raw(events(BEGUN, FAILED), events(BEGUN, DELTA, COMPLETED))
    plain = openai.OpenAI(api_key="k", base_url=server.base_url)
    responses: list[Any] = []
    plain._client.event_hooks["response"].append(responses.append)
    stream = seawall.resilient(plain, retry=seawall.Retry(3, wait=0)).responses.create(model="m", input="hi", stream=True)
    assert next(stream).type == "response.created"
    assert [response.is_closed for response in responses] == [True, False]
    stream.close()
    assert responses[1].is_closed


async def test_nor_does_an_asynchronous_one_keep_it(raw, opened):
    server = raw(events(BEGUN, FAILED), events(BEGUN, DELTA, COMPLETED))
    plain = opened(openai.AsyncOpenAI(api_key="k", base_url=server.base_url))
    responses: list[Any] = []

    async def heard(response: Any) -> None:
        responses.append(response)

    plain._client.event_hooks["response"].append(heard)
    stream = await seawall.resilient(plain, retry=seawall.Retry(3, wait=0)).responses.create(model="m", input="hi", stream=True)
    assert (await stream.__anext__()).type == "response.created"
    assert [response.is_closed for response in responses] == [True, False]
    await stream.close()
    assert responses[1].is_closed


def test_broken_json_in_a_stream_is_malformed(raw):
    server = raw("data: {oops\n\n", lines({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}))
    client = seawall.resilient(openai.OpenAI(api_key="k", base_url=server.base_url), retry=seawall.Retry(3, wait=0))
    assert text(client.chat.completions.create(**PLAIN, stream=True)) == "hi" and len(server.requests) == 2


def test_guards_may_be_nested(sim, sdk, watched):
    client = seawall.resilient(sdk, retry=seawall.Retry(2, wait=0), circuit=None)

    @watched.pipeline
    def ask() -> Any:
        return client.chat.completions.create(**PLAIN, stream=True)

    sim.on("gpt-4", faults.cut(0), times=3)
    assert "hello there" in text(ask()) and sim.count() == 4 and watched.counts == (1, 0)
    sim.on("gpt-4", faults.done_only())
    assert text(ask())
    sim.on("gpt-4", faults.cut(2))
    with pytest.raises(StreamInterruptedError):
        text(ask())
    assert watched.counts == (2, 1)


def test_errors_about_streams_travel(sim, create):
    sim.on("gpt-4", faults.cut(3))
    with pytest.raises(StreamInterruptedError) as caught:
        text(create(**PLAIN, stream=True))
    loaded = pickle.loads(pickle.dumps(caught.value))
    assert (type(loaded), loaded.partial, str(loaded)) == (StreamInterruptedError, caught.value.partial, str(caught.value))
    assert caught.value.request_id and "hello there" not in str(caught.value)


def test_what_is_no_stream_of_an_sdk_is_handed_on_as_it_is():
    class Rows:
        """An iterator that can be closed, as cursors and files are."""

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> int:
            return 1

        def __enter__(self) -> Any:
            return self

        def close(self) -> None: ...

    rows = Rows()
    assert seawall.retry(lambda: rows)() is rows

    class Reader(Rows):
        response = "of HTTP"

        def until_done(self) -> None: ...

    reader = Reader()
    assert seawall.retry(lambda: reader)() is reader
