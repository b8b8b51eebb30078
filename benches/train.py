"""What an optimised wheel is guided by: `maturin build --release --pgo` runs this against a build that counts which way each branch
goes. A moment of everything that programs do most: calls that pass, fail, are tried again, turned away, stored; the client.

Nothing but seawall is there when it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import seawall
from _subjects import failing
from seawall.guardrails import MaxLength, Redact
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

CALLS = 50_000


def plain(value: Any = None) -> Any:
    return value


async def later(value: Any = None) -> Any:
    return value


def items(_: Any) -> Iterator[int]:
    yield from range(20)


async def async_items(_: Any) -> AsyncIterator[int]:
    for item in range(20):
        yield item


class Service:
    """Has a guarded method."""

    @seawall.guard(monitor=seawall.Monitor())
    def method(self, value: Any) -> Any:
        return value


def guards() -> list[Any]:
    """What people put around a function, with a breaker that counts failures in a row, and one with a rate."""
    whole = seawall.Pipeline(seawall.Retry(3, wait=0), seawall.CircuitBreaker(5), monitor=seawall.Monitor(window=100))
    kept = seawall.Pipeline(seawall.Cache(), seawall.Retry(3, wait=0))
    limit = seawall.RateLimit(requests=10**9, per=60)
    bounded = seawall.Pipeline(seawall.Timeout(30), seawall.Retry(3, wait=0), limit, seawall.Bulkhead(8))
    return [whole, kept, bounded, seawall.guard(monitor=seawall.Monitor()), seawall.retry(3, wait=0), seawall.circuit(5)]


def calls() -> None:
    for guard in guards():
        guarded = guard(plain)
        for _ in range(CALLS):
            guarded(1)
        for _ in range(CALLS // 4):
            guarded(value=1)
        for _ in range(CALLS // 100):
            list(guard(items)(1))
    method = Service().method
    for _ in range(CALLS):
        method(1)


def failures() -> None:
    for error in (ConnectionError, TimeoutError):
        whole = seawall.Pipeline(seawall.Retry(5, wait=0), seawall.CircuitBreaker(10**6), monitor=seawall.Monitor())
        for guard in (whole, seawall.retry(5, wait=0), seawall.retry(5, on=error, wait=0)):
            guarded = guard(failing(4, error))
            for _ in range(CALLS // 10):
                guarded(1)
    answered = seawall.Pipeline(seawall.Fallback(plain))(failing(10**9, ConnectionError))
    rejected = seawall.Pipeline(seawall.Retry(3, wait=0), seawall.CircuitBreaker(4, 3600))(failing(10**9, ConnectionError))
    for _ in range(CALLS // 20):
        answered(1)
        with contextlib.suppress(Exception):
            rejected(1)


async def asynchronous() -> None:
    for guard in guards():
        guarded = guard(later)
        for _ in range(CALLS // 2):
            await guarded(1)
        for _ in range(CALLS // 400):
            async for _item in guard(async_items)(1):
                pass


async def client(base_url: str) -> None:
    circuit, monitor = seawall.CircuitBreaker(100), seawall.Monitor()
    chat = Chat("trained", api_key="none", base_url=base_url, circuit=circuit, monitor=monitor)
    for round_ in range(4):
        chat.invoke(f"question {round_}")
        for _piece in chat.stream(f"question {round_}"):
            pass
        async for _piece in chat.astream(f"question {round_}"):
            pass
        await asyncio.gather(*(chat.ainvoke(f"question {round_} {number}") for number in range(40)))
        chat.batch([f"question {round_} {number}" for number in range(100)])
    rails = seawall.Guardrails(input=[Redact.secrets()], output=[MaxLength(10_000)])
    guarded = Chat("trained", api_key="none", base_url=base_url, guardrails=rails)
    for number in range(50):
        guarded.invoke(f"question {number}")
        for _piece in guarded.stream(f"question {number}"):
            pass
    kept = Chat("trained", api_key="none", base_url=base_url, cache=seawall.Cache())
    for _ in range(CALLS // 10):
        kept.invoke("the same question")


def troubled(sim: Simulator) -> None:
    chat = Chat("trained", api_key="none", base_url=sim.base_url).with_retry(stop_after_attempt=3, wait=0.001)
    for number in range(50):
        sim.on("trained", faults.status(503), times=1)
        chat.invoke(f"question {number}")


def main() -> None:
    # What it has to say is heard by nobody.
    logging.getLogger("seawall").addHandler(logging.NullHandler())
    logging.getLogger("seawall").propagate = False
    calls()
    failures()
    asyncio.run(asynchronous())
    with Simulator() as sim:
        asyncio.run(client(sim.base_url))
        troubled(sim)


if __name__ == "__main__":
    main()
