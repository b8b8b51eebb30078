"""Streams: retried until the first content, and never cut short in silence."""

from __future__ import annotations

import asyncio
import gc
import select
import threading
from collections.abc import Callable
from datetime import timedelta
from socket import create_server
from typing import Any

import pytest
from _canary import CANARY

from seawall import errors
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults


def with_stream(model: Chat, take: int | None = None) -> tuple[list[str], Any]:
    """The pieces with content, and the stream; after `take` pieces it is closed."""
    stream, pieces = model.stream("hello there"), []
    for piece in stream:
        pieces.append(piece.content)
        if len(pieces) == take:
            stream.close()
    return [piece for piece in pieces if piece], stream


def with_astream(model: Chat, take: int | None = None) -> tuple[list[str], Any]:
    async def read() -> tuple[list[str], Any]:
        stream, pieces = model.astream("hello there"), []
        async for piece in stream:
            pieces.append(piece.content)
            if len(pieces) == take:
                await stream.aclose()
        return [piece for piece in pieces if piece], stream

    return asyncio.run(read())


both = pytest.mark.parametrize("read", [with_stream, with_astream])
Read = Callable[..., tuple[list[str], Any]]


@both
def test_a_stream_knows_its_story_once_it_is_over(sim, chat, read: Read) -> None:
    sim.on("m", faults.status(500), times=1)
    pieces, stream = read(chat().with_retry(wait=0))
    assert "".join(pieces) == chat().invoke("hello there").content
    assert (stream.attempts, stream.alternative) == (2, 0)
    assert stream.seconds > 0
    assert chat().stream("x").attempts is None


def test_the_last_pieces_say_how_it_ended_and_what_it_cost(chat) -> None:
    pieces = list(chat(max_tokens=5).stream("x", stream_options={"include_usage": True}))
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["length"]
    assert [piece.usage["completion_tokens"] for piece in pieces if piece.usage] == [5]
    assert (pieces[0].role, pieces[1].model) == ("assistant", "m")


@both
@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.rate_limit(retry_after_ms=1),
        faults.reset(),
        faults.html(),
        faults.broken_json(),
        faults.empty_choices(),
        faults.empty_body(),
        faults.cut(0, "clean"),
        faults.cut(0, "reset"),
        faults.cut(0, "error"),
        faults.cut(0, "json"),
    ],
    ids=lambda fault: fault.name,
)
def test_until_the_first_content_a_failure_is_retried_and_nothing_of_it_is_seen(sim, chat, fault, read: Read) -> None:
    expected = chat().invoke("hello there").content
    sim.on("m", fault, times=2)
    pieces, stream = read(chat().with_retry(wait=0))
    assert "".join(pieces) == expected
    assert stream.attempts == 3


@both
def test_until_the_first_content_an_alternative_stands_in(sim, chat, read: Read) -> None:
    sim.on("m", faults.cut(0, "reset"))
    pieces, stream = read(chat(max_retries=0).with_fallbacks([chat("other")]))
    assert pieces[0].startswith("[other")
    assert stream.alternative == 1


@both
@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("clean", None),
        ("json", None),
        ("reset", errors.APIConnectionError),
        ("error", errors.InternalServerError),
    ],
)
def test_after_the_first_content_a_broken_stream_is_an_error_with_the_text_so_far(sim, chat, how, cause, read: Read) -> None:
    whole = chat().invoke("hello there").content
    sim.forget()
    sim.on("m", faults.cut(3, how))
    with pytest.raises(errors.StreamInterruptedError) as raised:
        read(chat().with_retry(wait=0).with_fallbacks([chat("other")]))
    error = raised.value
    assert len(error.partial) > 10
    assert whole.startswith(error.partial)
    assert type(error.__cause__) is (type(None) if cause is None else cause)
    assert (error.request_id, error.headers["x-request-id"]) == ("req_2", "req_2")
    assert error.attempts == 1
    assert sim.count("m") == 1, "nothing restarts in silence"
    assert sim.count("other") == 0


def test_the_pieces_before_the_break_are_handed_out_first(sim, chat) -> None:
    sim.on("m", faults.cut(4, "error"))
    pieces: list[str] = []
    with pytest.raises(errors.StreamInterruptedError) as raised:
        for piece in chat().stream("hello there"):
            pieces.append(piece.content)  # noqa: PERF401
    assert "".join(pieces) == raised.value.partial


@both
def test_an_end_with_either_sign_is_an_end(sim, chat, read: Read) -> None:
    expected = read(chat())[0]
    for fault in (faults.no_done(), faults.done_only()):
        sim.on("m", fault, times=1)
        assert read(chat(max_retries=0))[0] == expected


@both
@pytest.mark.parametrize("keepalive", [None, 0.02])
def test_a_stream_that_falls_silent_is_interrupted_by_the_timeout(sim, chat, keepalive, read: Read) -> None:
    sim.on("m", faults.stall(3, keepalive))
    with pytest.raises(errors.StreamInterruptedError) as raised:
        read(chat(timeout=1))
    assert isinstance(raised.value.__cause__, errors.Timeout)
    assert raised.value.partial
    sim.wait_aborted(1)
    assert sim.count() == 1


@both
def test_a_stream_that_never_begins_is_tried_again_after_the_timeout(sim, chat, read: Read) -> None:
    sim.on("m", faults.stall(0), times=1)
    pieces, stream = read(chat(timeout=1).with_retry(wait=0))
    assert pieces
    assert [attempt.outcome for attempt in stream.attempts] == ["APITimeoutError", "ok"]


@both
@pytest.mark.parametrize("fault", [faults.stall(0), faults.stall(0, 0.02), faults.hang()], ids=["role", "keepalive", "nothing"])
def test_until_the_first_content_a_time_limit_of_its_own_is_kept_and_the_next_attempt_answers(
    sim, chat, fault, read: Read
) -> None:
    sim.on("m", fault, times=1)
    pieces, stream = read(chat(timeout=None, first_token_timeout=1).with_retry(wait=0))
    assert pieces
    assert [attempt.outcome for attempt in stream.attempts] == ["APITimeoutError", "ok"]
    sim.on("m", fault)
    with pytest.raises(errors.Timeout, match="no content from 127.*within 0.2 s .first_token_timeout"):
        read(chat(first_token_timeout=timedelta(seconds=0.2), max_retries=0))
    pieces, stream = read(chat(first_token_timeout=0.2, max_retries=0).with_fallbacks([chat("other")]))
    assert stream.alternative == 1
    sim.wait_aborted(3)


@both
@pytest.mark.parametrize("keepalive", [None, 0.02])
def test_a_stream_without_content_for_too_long_is_interrupted(sim, chat, keepalive, read: Read) -> None:
    sim.on("m", faults.stall(3, keepalive))
    with pytest.raises(errors.StreamInterruptedError) as raised:
        read(chat(timeout=None, idle_timeout=0.5))
    assert isinstance(raised.value.__cause__, errors.Timeout)
    assert "0.5 s (idle_timeout)" in str(raised.value)
    assert raised.value.partial
    assert (raised.value.request_id, raised.value.attempts) == ("req_1", 1)
    sim.wait_aborted(1)
    assert sim.count() == 1


def test_the_limits_of_a_stream_leave_its_slow_reader_and_other_calls_alone(sim, chat) -> None:
    event = 'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    sim.on("m", faults.status(200, body=event * 10_000 + "data: [DONE]\n\n", content_type="text/event-stream"), times=1)
    model = chat(first_token_timeout=1, idle_timeout=1, max_retries=0)
    stream = model.stream("x")
    text = next(stream).content
    with pytest.raises(TimeoutError):
        sim.wait_for(2, timeout=1.2)
    assert text + "".join(piece.content for piece in stream) == "x" * 10_000
    sim.on("m", faults.latency(1.2))
    assert model.invoke("x").content


@pytest.mark.parametrize("name", ["first_token_timeout", "idle_timeout"])
def test_embeddings_have_no_limits_of_streams(name) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"{name} is about streams"):
        Embeddings("m", api_key=CANARY, **{name: 1})


@both
def test_leaving_early_cuts_the_request(sim, chat, read: Read) -> None:
    sim.on("m", faults.stall(3))
    pieces, stream = read(chat(), take=2)
    assert pieces
    sim.wait_aborted(1)
    assert stream.attempts is None


def test_a_stream_that_is_dropped_or_left_by_with_is_cut_too(sim, chat) -> None:
    sim.on("m", faults.stall(3))
    stream = chat().stream("x")
    next(stream)
    del stream
    gc.collect()
    sim.wait_aborted(1)
    with chat().stream("x") as stream:
        next(stream)
    sim.wait_aborted(2)
    assert list(stream) == []

    async def left() -> None:
        async with chat().astream("x") as stream:
            await anext(stream)
        assert [piece async for piece in stream] == []

    asyncio.run(left())
    sim.wait_aborted(3)


def test_nothing_is_sent_before_the_first_piece_is_asked_for(sim, chat) -> None:
    stream = chat().stream("x")
    stream.close()
    assert list(stream) == []
    assert sim.count() == 0


def test_after_its_end_or_its_error_a_stream_stays_over(sim, chat) -> None:
    stream = chat().stream("x")
    assert list(stream)
    assert list(stream) == []
    sim.on("m", faults.cut(2))
    stream = chat().stream("x")
    with pytest.raises(errors.StreamInterruptedError):
        list(stream)
    assert list(stream) == []
    assert stream.attempts == 1


def test_one_stream_is_read_by_one_thread_or_task_and_closed_by_any(sim, chat) -> None:
    sim.on("m", faults.stall(1))
    stream, done = chat().stream("x"), []
    thread = threading.Thread(target=lambda: done.append(list(stream)))
    thread.start()
    sim.wait_for(1)
    with pytest.raises(RuntimeError, match="another thread"):
        next(stream)
    stream.close()
    thread.join(30)
    assert done, "closing it ends the reader's wait"

    async def two() -> None:
        stream = chat().astream("x")
        await anext(stream)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting

    asyncio.run(two())


@both
def test_a_tool_call_is_content(sim, chat, read: Read) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    sim.on("m", faults.cut(2, "reset"))
    with pytest.raises(errors.StreamInterruptedError) as raised:
        read(chat(tools=[tool], tool_choice="required").with_retry(wait=0))
    assert raised.value.partial == ""
    assert sim.count() == 1


def test_a_reader_that_is_slow_does_not_use_up_the_servers_time(sim, chat) -> None:
    event = 'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    sim.on("m", faults.status(200, body=event * 1000 + "data: [DONE]\n\n", content_type="text/event-stream"))
    stream = chat(timeout=2, max_retries=0).stream("x")
    text = next(stream).content
    with pytest.raises(TimeoutError):
        sim.wait_for(2, timeout=2.1)
    assert text + "".join(piece.content for piece in stream) == "x" * 1000


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_reader_that_stops_stops_the_server_too(chat, way) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"obfuscation":"%s"}\n\n' % (b"y" * 400)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    sent, whole = [0], 100_000_000

    def serve() -> None:
        with server.accept()[0] as socket:
            socket.recv(65536)
            socket.sendall(head)
            socket.setblocking(False)
            # It has stopped when nothing more fits for a while.
            while sent[0] < whole and select.select([], [socket], [], 1)[1]:
                sent[0] += socket.send(event * 100)
            stopped.set()

    with create_server(("127.0.0.1", 0)) as server:
        stopped = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        model = chat(base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1")

        async def read() -> None:
            async with model.astream("x") as stream:
                await anext(stream)
                assert await asyncio.to_thread(stopped.wait, 30)

        if way == "astream":
            asyncio.run(read())
        else:
            with model.stream("x") as stream:
                next(stream)
                assert stopped.wait(30)
        thread.join(30)
    assert 0 < sent[0] < whole / 4


async def test_asyncio_takes_an_awaited_piece_for_a_coroutine(sim, chat) -> None:
    whole = chat().invoke("hello there").content
    stream = chat().astream("hello there")
    given_up = asyncio.create_task(anext(stream))
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    pieces = [await asyncio.create_task(anext(stream)), await asyncio.wait_for(anext(stream), 30)]
    pieces += await asyncio.gather(anext(stream))
    once = anext(stream)
    pieces.append(await once)
    with pytest.raises(RuntimeError, match="already awaited"):
        await once
    pieces += [piece async for piece in stream]
    assert "".join(piece.content for piece in pieces) == whole
    sim.on("m", faults.stall(1))
    stream = chat().astream("x")
    assert [(await anext(stream)).content for _ in range(2)][0] == ""
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert [piece async for piece in stream] == []


async def test_a_piece_that_is_awaited_by_hand_is_left_by_closing_it(sim, chat) -> None:
    sim.on("m", faults.stall(0))
    stream = chat().astream("x")
    piece = stream.__anext__()
    future = piece.send(None)
    assert asyncio.isfuture(future)
    await asyncio.to_thread(sim.wait_for, 1)
    piece.close()
    await asyncio.to_thread(sim.wait_aborted, 1)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


def body_of(*events: str) -> str:
    return "".join(event if event.startswith("event:") else f"data: {event}\n\n" for event in events)


CONTENT = '{"choices":[{"index":0,"delta":{"role":"assistant","content":"so far"}}]}'


@both
@pytest.mark.parametrize("content", [True, False], ids=["after content", "before content"])
@pytest.mark.parametrize(
    ("event", "kind", "status"),
    [
        ('{"error":{"message":"m","type":"server_error"}}', errors.InternalServerError, None),
        ('{"error":{"message":"m","code":400,"type":"BadRequestError"}}', errors.BadRequestError, 400),
        ('{"error":{"message":"m","code":"insufficient_quota"}}', errors.QuotaExceededError, None),
        ('{"error":{"message":"m","code":"context_length_exceeded"}}', errors.ContextWindowExceededError, None),
        ('{"error":"m"}', errors.APIError, None),
        ('{"choices":[{"index":0,"delta":{},"error":{"code":502,"message":"m"},"finish_reason":"error"}]}', errors.APIError, 502),
        ('{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}', errors.APIError, None),
        ('event: error\ndata: {"message":"m","code":503}\n\n', errors.ServiceUnavailable, 503),
    ],
)
def test_an_error_inside_a_success_is_that_error(sim, chat, read: Read, event, kind, status, content) -> None:
    body = body_of(*([CONTENT] if content else []), event, "[DONE]")
    sim.on("m", faults.status(200, body=body, content_type="text/event-stream"))
    with pytest.raises(errors.APIError) as raised:
        read(chat(max_retries=0))
    error = raised.value
    if content:
        assert (type(error), error.partial) == (errors.StreamInterruptedError, "so far")
        assert error.__cause__ is not None
        error = error.__cause__
    assert isinstance(error, kind)
    assert status is None or error.status_code == status
    assert error.request_id == "req_1"


@both
def test_the_pieces_of_several_choices_come_as_they_were_sent(sim, chat, read: Read) -> None:
    def piece(*choices: str) -> str:
        return f'{{"choices":[{",".join(choices)}]}}'

    both_choices = piece('{"index":1,"delta":{"content":"b1"}}', '{"index":0,"delta":{"content":"a1"}}')
    ends = [piece(f'{{"index":{index},"delta":{{}},"finish_reason":"stop"}}') for index in (0, 1)]
    later = [piece('{"index":1,"delta":{"content":"b2"}}'), piece('{"index":0,"delta":{"content":"a2"}}')]
    usage = '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":4}}'
    sim.on("m", faults.status(200, body=body_of(both_choices, *later, *ends, usage), content_type="text/event-stream"))
    pieces = list(chat().stream("x", n=2))
    assert [(p.index, p.content) for p in pieces if p.content] == [(1, "b1"), (0, "a1"), (1, "b2"), (0, "a2")]
    assert [p.index for p in pieces if p.finish_reason] == [0, 1]
    assert sum(p.usage["completion_tokens"] for p in pieces if p.usage) == 4
    # With one of them unfinished it is cut.
    sim.on("m", faults.status(200, body=body_of(both_choices, *later, ends[0], usage), content_type="text/event-stream"))
    with pytest.raises(errors.StreamInterruptedError) as raised:
        read(chat(n=2))
    assert raised.value.partial == "a1a2"
    # And from a server that does not stream at all.
    whole = piece('{"index":0,"message":{"content":"a"}}', '{"index":1,"message":{"content":"b"}}')
    sim.on("m", faults.status(200, body=whole))
    assert [(p.index, p.content) for p in chat(n=2).stream("x")] == [(0, "a"), (1, "b")]
