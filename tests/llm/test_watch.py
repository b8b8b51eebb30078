"""A watched call is a stream that tells of the attempts between its pieces."""

from __future__ import annotations

import pytest

from seawall import CircuitBreaker, errors
from seawall._seawall import AttemptEvent, Reply
from seawall.llm import AsyncStream
from seawall.simulator import faults

MESSAGES = [{"role": "user", "content": "hello"}]


async def watched(chat, kind, way, **how):
    """What came, attempts as short texts, and what ended it."""
    params = {"stream": True} if kind == "stream" else {}
    stream = chat._route.watch(kind, MESSAGES, params, **how)
    came, error = [], None
    try:
        if way == "thread":
            for piece in stream:
                came.append(piece)
        else:
            async for piece in AsyncStream(stream):
                came.append(piece)
    except errors.APIError as failed:
        error = failed
    return came, error


def told(came):
    return [f"{piece.kind} {piece.model} {piece.number}" for piece in came if isinstance(piece, AttemptEvent)]


BOTH = ["thread", "loop"]
KINDS = ["chat", "stream"]


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("kind", KINDS)
async def test_attempts_come_in_order_and_the_answer_after_them(sim, chat, kind, way):
    sim.on("m", faults.status(500), times=2)
    sim.on("b", faults.status(429), times=1)
    primary = chat().with_retry(stop_after_attempt=2, wait=0.002)
    came, error = await watched(primary.with_fallbacks([chat("b").with_retry(wait=0.001)]), kind, way)
    assert error is None
    assert told(came) == [
        *("begun m 1", "ended m 1", "begun m 2", "ended m 2"),
        *("begun b 1", "ended b 1", "begun b 2", "ended b 2"),
    ]
    ended = [piece for piece in came if isinstance(piece, AttemptEvent) and piece.kind == "ended"]
    assert [(each.alternative, each.status, each.waited) for each in ended] == [
        (0, 500, 0.002),
        (0, 500, None),
        (1, 429, 0.001),
        (1, None, None),
    ]
    assert [type(each.error) for each in ended] == [
        errors.InternalServerError,
        errors.InternalServerError,
        errors.RateLimitError,
        type(None),
    ]
    assert all(each.request_id and each.seconds > 0 for each in ended)
    if kind == "chat":
        assert isinstance(came[-1], Reply)
        assert len(came[-1].attempts) == 4
    else:
        contents = [piece.content for piece in came if not isinstance(piece, AttemptEvent)]
        assert "".join(contents).startswith("[b] hello")
        assert isinstance(came[6], AttemptEvent), "pieces come after the attempt has begun"
        assert isinstance(came[-1], AttemptEvent), "and before it has ended"


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("kind", KINDS)
async def test_of_one_attempt_nothing_is_told_unless_every_one_is_wanted(sim, chat, kind, way):
    came, _ = await watched(chat(), kind, way, every=False)
    assert told(came) == []
    came, _ = await watched(chat(), kind, way, every=True)
    assert told(came) == ["begun m 1", "ended m 1"]
    sim.on("m", faults.status(401), times=1)
    came, error = await watched(chat(), kind, way, every=False)
    assert (came, type(error)) == ([], errors.AuthenticationError)


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("kind", KINDS)
async def test_of_several_attempts_all_are_told(sim, chat, kind, way):
    sim.on("m", faults.status(500))
    came, error = await watched(chat().with_retry(stop_after_attempt=2, wait=0.001), kind, way, every=False)
    assert told(came) == ["begun m 1", "ended m 1", "begun m 2", "ended m 2"]
    assert error.attempts == 2


@pytest.mark.parametrize("way", BOTH)
async def test_a_time_limit_is_why_an_attempt_ended(sim, chat, way):
    sim.on("m", faults.hang(), times=1)
    came, _ = await watched(chat(timeout=0.05).with_retry(wait=0.001), "chat", way)
    assert told(came)[:2] == ["begun m 1", "ended m 1"]
    assert isinstance(came[1].error, errors.APITimeoutError)
    sim.on("m", faults.hang())
    came, error = await watched(chat(timeout=0.05, max_retries=0), "chat", way)
    assert isinstance(came[-1].error, errors.APITimeoutError)
    assert isinstance(error, errors.APITimeoutError)


@pytest.mark.parametrize("way", BOTH)
async def test_a_stream_that_breaks_off_is_why_too(sim, chat, way):
    sim.on("m", faults.cut(after=3))
    came, error = await watched(chat(), "stream", way)
    assert isinstance(came[-1].error, errors.StreamInterruptedError)
    assert came[-1].error.partial == error.partial != ""


@pytest.mark.parametrize("way", BOTH)
async def test_an_open_breaker_makes_no_attempt(sim, chat, way):
    sim.on("m", faults.status(500), times=1)
    guarded = chat(circuit=CircuitBreaker(1, name="primary"), max_retries=0).with_fallbacks([chat("b")])
    guarded.invoke("hello")
    came, _ = await watched(guarded, "chat", way)
    assert told(came) == ["refused primary 0", "begun b 1", "ended b 1"]


def test_leaving_it_cuts_the_request(sim, chat):
    sim.on("m", faults.hang())
    stream = chat()._route.watch("chat", MESSAGES)
    assert next(stream).kind == "begun"
    sim.wait_for(1)
    stream.close()
    sim.wait_aborted(1)


@pytest.mark.parametrize("kind", KINDS)
def test_it_sends_what_a_call_sends_beside_its_body(sim, chat, kind):
    extras = [("x-trace", "t1")], [("trace", "t 1")], "a-key", None
    params = {"stream": True} if kind == "stream" else {}
    assert list(chat()._route.watch(kind, MESSAGES, params, extras))
    (request,) = sim.requests
    assert (request.headers["x-trace"], request.headers["idempotency-key"]) == ("t1", "a-key")
