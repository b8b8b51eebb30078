"""Programs as users write them: type checkers accept all of it, and see the types that are asserted here. Nothing of it is run."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

from typing_extensions import assert_type

import seawall
from seawall import (
    Bulkhead,
    Cache,
    Chaos,
    CircuitBreaker,
    Fallback,
    Monitor,
    Pipeline,
    RateLimit,
    Retry,
    Timeout,
    circuit,
    errors,
    guard,
    retry,
    wait_exponential,
    wait_fixed,
    wait_random,
)
from seawall.llm import Chat, Chunk, Embeddings, EmbeddingsReply, Reply
from seawall.simulator import Simulator, faults


@circuit
def bare(question: str, *, times: int = 1) -> str:
    return question * times


@circuit(failure_threshold=5, recovery_timeout=timedelta(seconds=30), expected_exception=(ConnectionError, TimeoutError))
def called(question: str) -> int:
    return len(question)


@retry(3, wait=wait_exponential(min=1, max=8) + wait_random(0, 1), on=ConnectionError)
async def asynchronous(question: str, /, limit: float) -> list[str]:
    return [question] * int(limit)


@guard("prod", fallback=["no answer today"], deadline=30, monitor=True)
def items(first: int) -> Iterator[int]:
    yield first


@guard(retry=Retry(4), circuit=CircuitBreaker(name="shared"), rate_limit=RateLimit(60), bulkhead=Bulkhead(8), cache=Cache())
async def pieces(first: str) -> AsyncIterator[bytes]:
    yield first.encode()


class Service:
    @retry
    def method(self, city: str) -> float:
        return float(len(city))

    @staticmethod
    @guard
    def static(city: str) -> str:
        return city

    @classmethod
    @circuit(name="of the class")
    def of_class(cls, city: str) -> "Service":
        return cls()


async def decorated() -> None:
    assert_type(bare("why?", times=2), str)
    assert_type(called("why?"), int)
    assert_type(await asynchronous("why?", limit=2), list[str])
    assert_type(items(1), Iterator[int])
    assert_type(pieces("x"), AsyncIterator[bytes])
    assert_type(Service().method("Trondheim"), float)
    assert_type(Service.static("Trondheim"), str)
    assert_type(Service.of_class("Trondheim"), Service)


async def pipelines(ask: Callable[[str, int], str]) -> None:
    pipeline = Pipeline(
        Fallback("none"), Timeout(10), Retry(3, wait=wait_fixed(1)), CircuitBreaker(), Chaos(), name="ask", monitor=Monitor()
    )
    assert_type(pipeline.call(ask, "why?", 3), str)
    assert_type(await pipeline.acall(asynchronous, "why?", limit=3), list[str])
    guarded = pipeline(ask)
    assert_type(guarded("why?", 3), str)
    for policy in pipeline.policies:
        print(policy)


def breakers(breaker: CircuitBreaker) -> float:
    with breaker:
        pass
    try:
        permit = breaker.try_acquire()
    except seawall.CircuitBreakerError as error:
        assert_type(error.name, str | None)
        return error.retry_after or 0.0
    if permit is not None:
        permit.on_success()
    for one in seawall.circuits:
        print(one.name, one.state)
    return 0.0


async def models(chat: Chat) -> None:
    sturdy = chat.with_retry(stop_after_attempt=3).with_fallbacks([Chat("gpt-4o-mini")])
    assert_type(sturdy, Chat)
    assert_type(sturdy.invoke("why?"), Reply)
    assert_type(await sturdy.ainvoke("why?", temperature=0), Reply)
    assert_type(sturdy.batch(["a", "b"]), list[Reply])
    for result in sturdy.batch(["a", "b"], max_concurrency=2, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
        assert_type(result, Reply)
    for chunk in sturdy.stream("why?"):
        assert_type(chunk, Chunk)
    async for chunk in sturdy.astream("why?"):
        assert_type(chunk, Chunk)
    reply = sturdy.invoke("why?")
    assert_type(reply.content, str)
    for attempt in reply.attempts:
        assert_type(attempt.model, str | None)
        assert_type(attempt.status, int | None)
    assert_type(Embeddings("text-embedding-3-small").invoke(["a"]), EmbeddingsReply)


def failures(chat: Chat) -> int | None:
    try:
        chat.invoke("why?")
    except errors.RateLimitError as error:
        return error.status_code
    except (errors.Timeout, errors.APIConnectionError) as error:
        print(error.__cause__)
    except seawall.Rejected as error:
        print(error.retry_after)
    return None


def watched(monitor: Monitor) -> float:
    with Simulator() as api:
        api.on("gpt-4", faults.status(500), times=2)
        assert_type(api.base_url, str)
        assert_type(api.count(), int)
    return monitor.error_rate or 0.0
