"""`on_interrupt`: what follows when a stream breaks off after content was handed out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Pipeline, Timeout, errors
from seawall.llm import Chat, Chunk, Embeddings
from seawall.simulator import faults

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
}


class Seen:
    """What a reader got: its pieces, the stream, and the error that ended it, if one did."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.pieces: list[Chunk] = []
        self.error: Any = None

    @property
    def text(self) -> str:
        """What a reader has who heeds the marks."""
        text = ""
        for piece in self.pieces:
            text = piece.content if piece.restarted else text + piece.content
        return text

    @property
    def marks(self) -> list[tuple[str, int]]:
        """The marks, each with the attempt of its piece."""
        marked = [(piece.restarted, piece.continued, piece.attempt) for piece in self.pieces]
        assert not any(restarted and continued for restarted, continued, _ in marked)
        return [("restarted" if restarted else "continued", at) for restarted, continued, at in marked if restarted or continued]

    @property
    def outcomes(self) -> list[str]:
        attempts = self.stream.attempts if self.error is None else self.error.attempts
        return [attempt.outcome for attempt in attempts]


def with_stream(model: Chat, input: Any = "hello there", **options: Any) -> Seen:
    seen = Seen(model.stream(input, **options))
    try:
        for piece in seen.stream:
            seen.pieces.append(piece)  # noqa: PERF402
    except errors.SeawallError as error:
        seen.error = error
    return seen


def with_astream(model: Chat, input: Any = "hello there", **options: Any) -> Seen:
    async def read() -> Seen:
        seen = Seen(model.astream(input, **options))
        try:
            async for piece in seen.stream:
                seen.pieces.append(piece)
        except errors.SeawallError as error:
            seen.error = error
        return seen

    return asyncio.run(read())


both = pytest.mark.parametrize("read", [with_stream, with_astream])
Read = Callable[..., Seen]
BREAKS = [
    *(faults.cut(3, how) for how in ("clean", "reset", "error", "json")),
    faults.stall(3),
    faults.stall(3, 0.02),
]  # fmt: skip
breaks = pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: f"{fault.name}{fault.details.get('keepalive') or ''}")


def events(*deltas: dict[str, Any], end: str = "") -> str:
    """The body of a stream with these deltas of one choice."""
    chunks = [json.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    return "".join(f"data: {chunk}\n\n" for chunk in chunks) + end


def streams(body: str, headers: dict[str, str] | None = None) -> faults.Fault:
    return faults.status(200, body=body, content_type="text/event-stream", headers=headers)


def failing(code: Any, text: str = "so far", headers: dict[str, str] | None = None) -> faults.Fault:
    """A stream with some text and then an error object with that code."""
    error = json.dumps({"error": {"message": "no", "code": code}})
    return streams(events({"role": "assistant", "content": text}, end=f"data: {error}\n\n"), headers)


# --- restart


@both
@breaks
def test_a_broken_stream_begins_anew_and_says_so(sim, chat, fault, read: Read) -> None:
    whole = chat().invoke("hello there").content
    sim.forget()
    sim.on("m", fault, times=1)
    seen = read(chat(timeout=None, idle_timeout=0.5, on_interrupt="restart").with_retry(wait=0))
    assert (seen.text, seen.error) == (whole, None)
    assert seen.marks == [("restarted", 2)]
    first = next(at for at, piece in enumerate(seen.pieces) if piece.restarted)
    assert whole.startswith("".join(piece.content for piece in seen.pieces[:first])) and first > 1
    assert [piece.attempt for piece in seen.pieces] == [1] * first + [2] * (len(seen.pieces) - first)
    assert seen.outcomes == ["StreamInterruptedError", "ok"]
    bodies = [request.body for request in sim.requests]
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


@both
def test_the_timeout_of_an_attempt_is_an_interruption_too(sim, chat, read: Read) -> None:
    sim.on("m", faults.stall(3, 0.02), times=1)
    seen = read(chat(timeout=1.5, on_interrupt="restart").with_retry(wait=0))
    assert seen.text == chat().invoke("hello there").content
    assert (seen.marks, seen.outcomes) == ([("restarted", 2)], ["APITimeoutError", "ok"])
    sim.wait_aborted(1)


@both
def test_it_can_be_said_for_one_stream(sim, chat, read: Read) -> None:
    model = chat().with_retry(wait=0)
    sim.on("m", faults.cut(3), times=1)
    assert read(model, on_interrupt="restart").marks == [("restarted", 2)]
    restarting = chat(on_interrupt="restart").with_retry(wait=0)
    sim.on("m", faults.cut(3), times=1)
    seen = read(restarting, on_interrupt="error")
    assert (type(seen.error), seen.marks) == (errors.StreamInterruptedError, [])


@both
def test_before_the_first_content_there_is_nothing_to_mark(sim, chat, read: Read) -> None:
    sim.on("m", faults.cut(0, "reset"), times=1)
    seen = read(chat(on_interrupt="restart").with_retry(wait=0))
    assert (seen.marks, {piece.attempt for piece in seen.pieces}, seen.outcomes) == ([], {2}, ["APIConnectionError", "ok"])


@both
def test_the_attempts_are_those_of_one_call_however_each_fails(sim, chat, read: Read) -> None:
    for fault in (faults.cut(5, "reset"), faults.status(500), faults.cut(2, "error")):
        sim.on("m", fault, times=1)
    seen = read(chat(max_retries=2, on_interrupt="restart").with_retry(stop_after_attempt=3, wait=0))
    assert sim.count() == 3
    assert type(seen.error) is errors.StreamInterruptedError
    assert seen.outcomes == ["StreamInterruptedError", "InternalServerError", "StreamInterruptedError"]
    assert seen.error.partial == seen.text != ""
    assert type(seen.error.__cause__) is errors.APIConnectionError
    assert (seen.marks, seen.pieces[0].attempt) == ([("restarted", 3)], 1)
    assert "3 attempts in " in seen.error.__notes__[0]


@both
def test_the_text_of_the_error_is_what_the_reader_has(sim, chat, read: Read) -> None:
    sim.on("m", faults.status(500))
    sim.on("m", faults.cut(3), times=1)
    seen = read(chat(on_interrupt="restart").with_retry(wait=0))
    assert (type(seen.error), seen.outcomes) == (
        errors.StreamInterruptedError,
        ["StreamInterruptedError", "InternalServerError", "InternalServerError"],
    )
    assert seen.error.partial == seen.text != ""
    assert type(seen.error.__cause__) is errors.InternalServerError


@both
def test_an_alternative_begins_anew(sim, chat, read: Read) -> None:
    sim.on("m", faults.cut(3, "reset"))
    seen = read(chat(max_retries=0, on_interrupt="restart").with_fallbacks([chat("other", max_retries=0)]))
    assert seen.text == chat("other").invoke("hello there").content
    assert (seen.marks, seen.stream.alternative) == ([("restarted", 2)], 1)
    sim.on("other", faults.cut(2, "error"))
    seen = read(chat(max_retries=0, on_interrupt="restart").with_fallbacks([chat("other", max_retries=0)]))
    assert type(seen.error) is errors.StreamInterruptedError
    assert seen.error.partial == seen.text
    assert [type(other) for other in seen.error.alternatives] == [errors.StreamInterruptedError]


@both
def test_what_broke_it_decides_as_for_any_call(sim, chat, read: Read) -> None:
    restarting = chat(on_interrupt="restart").with_retry(wait=0)
    sim.on("m", failing("insufficient_quota"))
    seen = read(restarting.with_fallbacks([chat("other")]))
    assert (sim.count("m"), seen.stream.alternative, seen.marks) == (1, 1, [("restarted", 2)])
    sim.forget()
    sim.on("m", failing(400))
    seen = read(restarting.with_fallbacks([chat("other")]))
    assert (sim.count(), type(seen.error), type(seen.error.__cause__)) == (
        1,
        errors.StreamInterruptedError,
        errors.BadRequestError,
    )


@both
def test_a_server_says_when(sim, chat, read: Read) -> None:
    sim.on("m", failing("rate_limit_exceeded", headers={"retry-after-ms": "1"}), times=1)
    seen = read(chat(on_interrupt="restart").with_retry(wait=20))
    assert (seen.marks, [attempt.waited for attempt in seen.stream.attempts]) == ([("restarted", 2)], [0.001, None])
    sim.on("m", failing("rate_limit_exceeded", headers={"retry-after": "121"}))
    seen = read(chat(on_interrupt="restart").with_retry(wait=0))
    assert (type(seen.error), seen.error.attempts) == (errors.StreamInterruptedError, 1)
    assert "longer wait than allowed" in seen.error.__notes__[0]


@pytest.mark.parametrize(
    ("listed", "attempts"),
    [
        (errors.StreamInterruptedError, 2),
        (errors.APIConnectionError, 2),
        (errors.APIError, 2),
        (errors.RateLimitError, 1),
        (lambda error: type(error) is errors.StreamInterruptedError and bool(error.partial), 2),
        (lambda error: type(error.__cause__) is errors.APIConnectionError, 2),
        (lambda error: False, 1),
    ],
)
def test_a_list_of_errors_may_name_the_interruption_or_what_it_was(sim, chat, listed, attempts) -> None:
    sim.on("m", faults.cut(3, "reset"))
    model = chat(on_interrupt="restart").with_retry(stop_after_attempt=2, wait=0, retry_if_exception_type=listed)
    assert with_stream(model).error.attempts == attempts
    sim.forget()
    if isinstance(listed, type):
        handled = chat(max_retries=0, on_interrupt="restart").with_fallbacks([chat("other")], exceptions_to_handle=(listed,))
        seen = with_stream(handled)
        assert (seen.error is None) == (attempts == 2)


def test_hooks_are_told_of_the_interruption(sim, chat) -> None:
    told: list[Any] = []
    sim.on("m", faults.cut(3, "reset"), times=1)
    model = chat(on_interrupt="restart").with_retry(wait=0, before_sleep=lambda state: told.append(state.outcome.exception()))
    assert with_stream(model).error is None
    assert [(type(error), type(error.__cause__)) for error in told] == [
        (errors.StreamInterruptedError, errors.APIConnectionError)
    ]
    assert told[0].partial


def test_no_wait_is_begun_that_the_deadline_around_has_no_time_for(sim, chat) -> None:
    sim.on("m", faults.cut(3))
    model = chat(on_interrupt="restart").with_retry(wait=600)
    seen = Pipeline(Timeout(60)).call(lambda: with_stream(model))
    assert (type(seen.error), seen.error.attempts) == (errors.StreamInterruptedError, 1)
    assert "no time left" in seen.error.__notes__[0]


def test_a_spent_budget_ends_it(sim, chat) -> None:
    sim.on("m", faults.cut(3))
    model = chat(on_interrupt="restart").with_retry(stop_after_attempt=50, wait=0, budget=0.001)
    seen = with_stream(model)
    assert "budget is spent" in seen.error.__notes__[0]
    assert sim.count() < 20


@both
def test_each_interrupted_attempt_is_a_failure_of_the_breaker(sim, chat, read: Read) -> None:
    circuit = CircuitBreaker(failure_threshold=2, recovery_timeout=600)
    model = chat(circuit=circuit, on_interrupt="restart").with_retry(stop_after_attempt=5, wait=0)
    sim.on("m", faults.cut(3), times=1)
    assert read(model).error is None
    assert (circuit.state, circuit.failure_count) == ("closed", 0), "it is judged when it ends, and the last one was whole"
    sim.on("m", faults.cut(3))
    seen = read(model)
    assert circuit.state == "open"
    assert (type(seen.error), seen.error.attempts) == (errors.StreamInterruptedError, 2)
    assert "the circuit opened" in seen.error.__notes__[0]
    assert type(read(model).error) is CircuitBreakerError


def test_an_open_circuit_after_the_break_does_not_hide_it(sim, chat) -> None:
    circuit = CircuitBreaker(failure_threshold=1, recovery_timeout=600)
    model = chat(circuit=circuit, on_interrupt="restart").with_retry(wait=0)
    sim.on("m", faults.cut(3))
    sim.on("other", faults.cut(4))
    other = chat("other", max_retries=0)
    assert type(with_stream(model.with_fallbacks([other])).error) is errors.StreamInterruptedError
    seen = with_stream(model.with_fallbacks([other]))
    assert (type(seen.error), seen.error.partial) == (errors.StreamInterruptedError, seen.text)
    assert [type(error) for error in seen.error.alternatives] == [CircuitBreakerError]


def test_the_pieces_before_the_break_are_not_held_back_by_the_wait(sim, chat) -> None:
    whole = chat().invoke("hello there").content
    waiting = threading.Event()
    sim.on("m", faults.cut(3))
    stream = chat(on_interrupt="restart").with_retry(wait=600, before_sleep=lambda state: waiting.set()).stream("hello there")
    pieces = [next(stream).content for _ in range(4)]
    assert whole.startswith("".join(pieces)) and pieces[-1]
    assert waiting.wait(30)
    stream.close()
    assert list(stream) == []
    assert sim.count() == 2


async def test_a_task_that_is_cancelled_in_the_wait_sends_nothing_more(sim, chat) -> None:
    sim.on("m", faults.cut(3))
    waiting, loop = asyncio.Event(), asyncio.get_running_loop()
    model = chat(on_interrupt="restart").with_retry(wait=600, before_sleep=lambda state: loop.call_soon_threadsafe(waiting.set))

    async def read() -> None:
        async for _ in model.astream("x"):
            pass

    task = asyncio.create_task(read())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sim.count() == 1


@both
def test_tool_calls_and_several_choices_begin_anew_too(sim, chat, read: Read) -> None:
    tools = {"tools": [TOOL], "tool_choice": "required"}
    sim.on("m", faults.cut(2, "reset"), times=1)
    seen = read(chat(on_interrupt="restart", **tools).with_retry(wait=0))
    again = [piece for piece in seen.pieces if piece.attempt == 2]
    assert seen.marks == [("restarted", 2)]
    assert again[0].tool_calls[0][2] == "f"
    assert json.loads("".join(call[3] for piece in again for call in piece.tool_calls)) == {"a": "text"}
    two = 'data: {"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}\n\n'
    sim.on("m", streams(two + "data: [DONE]\n\n"))
    sim.on("m", streams(two), times=1)
    seen = read(chat(on_interrupt="restart", n=2).with_retry(wait=0))
    assert [(piece.index, piece.content, piece.restarted) for piece in seen.pieces] == [
        (0, "a", False),
        (1, "b", False),
        (0, "a", True),
        (1, "b", False),
    ]


# --- continue


@both
@breaks
def test_a_broken_stream_is_gone_on_from(sim, chat, fault, read: Read) -> None:
    sim.on("m", faults.reply(" and this is the rest."))
    sim.on("m", fault, times=1)
    seen = read(chat(timeout=None, idle_timeout=0.5, on_interrupt="continue").with_retry(wait=0))
    before = "".join(piece.content for piece in seen.pieces if piece.attempt == 1)
    assert (seen.text, seen.error) == (before + " and this is the rest.", None)
    assert (seen.marks, seen.outcomes) == ([("continued", 2)], ["StreamInterruptedError", "ok"])
    bodies = [request.body for request in sim.requests]
    assert bodies[1].pop("messages") == [*bodies[0].pop("messages"), {"role": "assistant", "content": before}]
    assert bodies[0] == bodies[1]


@both
def test_it_goes_on_as_often_as_it_breaks_also_elsewhere(sim, chat, read: Read) -> None:
    sim.on("m", faults.status(500))
    sim.on("m", streams(events({"content": ", there"})), times=1)
    sim.on("m", streams(events({"content": "Hello"})), times=1)
    sim.on("other", faults.reply(", world."))
    model = chat(on_interrupt="continue").with_retry(wait=0).with_fallbacks([chat("other")])
    seen = read(model)
    assert (seen.text, seen.error) == ("Hello, there, world.", None)
    assert seen.marks == [("continued", 2), ("continued", 4)]
    assert sim.requests[-1].body["messages"][-1] == {"role": "assistant", "content": "Hello, there"}
    sim.on("other", faults.status(500))
    sim.on("m", streams(events({"content": ", there"})), times=1)
    sim.on("m", streams(events({"content": "Hello"})), times=1)
    assert (read(model).error.partial, sim.count("other")) == ("Hello, there", 4)


@both
def test_what_the_user_had_it_begin_with_stays_one_message(sim, chat, read: Read) -> None:
    sim.on("m", faults.reply("three."))
    sim.on("m", streams(events({"content": "one, two, "})), times=1)
    question = [{"role": "user", "content": "Count!"}, {"role": "assistant", "content": "I count: "}]
    assert read(chat(on_interrupt="continue").with_retry(wait=0), question).text == "one, two, three."
    assert sim.requests[-1].body["messages"] == [question[0], {"role": "assistant", "content": "I count: one, two, "}]


@both
def test_a_text_that_the_server_repeats_is_not_handed_out_twice(sim, chat, read: Read) -> None:
    whole = chat().invoke("hello there").content
    sim.forget()
    sim.on("m", faults.cut(5), times=1)
    # The simulator answers the same question alike, from the beginning.
    seen = read(chat(on_interrupt="continue").with_retry(wait=0))
    assert (seen.text, seen.marks, sim.count()) == (whole, [("continued", 2)], 2)
    said = "".join(piece.content for piece in seen.pieces if piece.attempt == 1)
    assert len(said) > 16
    sim.on("m", streams(json.dumps({"choices": [{"message": {"content": whole}, "finish_reason": "stop"}]})))
    sim.on("m", faults.cut(5), times=1)
    assert read(chat(on_interrupt="continue").with_retry(wait=0)).text == whole


@both
def test_one_that_begins_anew_is_not_taken_for_the_rest(sim, chat, read: Read) -> None:
    said = "This is how the answer begins, "
    sim.on("m", streams(events({"content": "This is how the answer begins"}, {"content": ". Or not."}, end="data: [DONE]\n\n")))
    sim.on("m", streams(events({"content": said})), times=1)
    seen = read(chat(on_interrupt="continue").with_retry(wait=0))
    assert (seen.text, type(seen.error), type(seen.error.__cause__)) == (
        said,
        errors.StreamInterruptedError,
        errors.MalformedResponseError,
    )
    assert "began to repeat it" in str(seen.error)
    assert sim.count() == 2, "another try there would do the same"


@both
def test_a_short_text_that_comes_again_is_no_answer(sim, chat, read: Read) -> None:
    sim.on("m", faults.reply("ha ha"))
    sim.on("m", streams(events({"content": "ha"})), times=1)
    assert "began to repeat it" in str(read(chat(on_interrupt="continue").with_retry(wait=0)).error)
    sim.on("m", streams(events({"content": "h"}, {"content": "o"}, end="data: [DONE]\n\n")))
    sim.on("m", streams(events({"content": "ha"})), times=1)
    assert read(chat(on_interrupt="continue").with_retry(wait=0)).text == "haho"
    sim.on("m", streams(events({"content": "h"}, end="data: [DONE]\n\n")))
    sim.on("m", streams(events({"content": "ha"})), times=1)
    assert read(chat(on_interrupt="continue").with_retry(wait=0)).text == "hah"


@both
@pytest.mark.parametrize(
    ("options", "deltas", "why"),
    [
        ({"n": 2}, [{"content": "text"}], "several choices"),
        ({"response_format": {"type": "json_object"}}, [{"content": "{"}], "a response_format"),
        ({}, [{"reasoning_content": "hm"}, {"content": "text"}], "more than text"),
        ({}, [{"content": "text", "refusal": "no"}], "more than text"),
        ({}, [{"content": "text"}, {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]}], "more than text"),
    ],
)
def test_only_plain_text_of_one_choice_is_gone_on_from(sim, chat, options, deltas, why, read: Read) -> None:
    sim.on("m", streams(events(*deltas)))
    seen = read(chat(on_interrupt="continue", **options).with_retry(wait=0).with_fallbacks([chat("other")]))
    assert (type(seen.error), sim.count()) == (errors.StreamInterruptedError, 1)
    assert "it was not continued" in str(seen.error) and why in str(seen.error)
    assert seen.error.partial == seen.text


def test_an_alternatives_own_parameters_may_forbid_it(sim, chat) -> None:
    sim.on("m", faults.cut(3))
    other = chat("other", response_format={"type": "json_object"})
    seen = with_stream(chat(max_retries=0, on_interrupt="continue").with_fallbacks([other]))
    assert (type(seen.error), sim.count()) == (errors.StreamInterruptedError, 1)


def test_what_is_asked_as_one_text_may_be_said_so(sim, chat) -> None:
    sim.on("m", faults.cut(3), times=1)
    model = chat(on_interrupt="continue", n=1, response_format={"type": "text"}).with_retry(wait=0)
    assert with_stream(model).error is None


# --- the words


@pytest.mark.parametrize("word", ["again", "", None.__class__, 1, True])
def test_unknown_words_are_refused_when_written(chat, word) -> None:
    for say in (lambda: chat(on_interrupt=word), lambda: chat().stream("x", on_interrupt=word)):
        with pytest.raises(errors.ConfigurationError, match='on_interrupt must be "error" or "restart" or "continue", not'):
            say()
    with pytest.raises(errors.ConfigurationError, match="on_interrupt"):
        chat().astream("x", on_interrupt=word)


def test_it_is_about_streams_alone(chat) -> None:
    with pytest.raises(errors.ConfigurationError, match="on_interrupt is about streams"):
        Embeddings("m", api_key="sk-a-test-key", on_interrupt="restart")  # type: ignore[call-arg]
    with pytest.raises(errors.ConfigurationError, match=r"on_interrupt is no parameter of a request: give it to the model"):
        chat().invoke("x", on_interrupt="restart")
    assert chat(on_interrupt="restart").invoke("x").content
