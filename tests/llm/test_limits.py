"""Models under a RateLimit and a Bulkhead: what the server's own limits see of them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from seawall import Bulkhead, Monitor, RateLimit, Timeout, testing
from seawall.errors import BulkheadFullError, ConfigurationError, ConfigurationTypeError, RateLimitError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults

WORKERS = 4


def met(sim: Simulator) -> Counter[str]:
    return Counter(request.fault for request in sim.requests)


def by_threads(llm: Chat, questions: list[str]) -> None:
    def work(worker: int) -> None:
        for question in questions[worker::WORKERS]:
            llm.invoke(question)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_tasks(llm: Chat, questions: list[str]) -> None:
    async def work(worker: int) -> None:
        for question in questions[worker::WORKERS]:
            await llm.ainvoke(question)

    async def main() -> None:
        await asyncio.gather(*map(work, range(WORKERS)))

    asyncio.run(main())


def by_streams(llm: Chat, questions: list[str]) -> None:
    def work(worker: int) -> None:
        for question in questions[worker::WORKERS]:
            for _ in llm.stream(question):
                pass

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("ask", [by_threads, by_tasks, by_streams])
@pytest.mark.parametrize(
    ("requests", "tokens", "calls", "most"),
    [
        pytest.param(600, 1_000_000, 600, None, id="requests"),
        pytest.param(3, 1_000_000, 30, 50, id="few requests"),
        pytest.param(100_000, 20_000, 400, 400, id="tokens that are reserved"),
        pytest.param(100_000, 20_000, 400, None, id="tokens of answers"),
        pytest.param(120, 12_000, 300, 150, id="both"),
    ],
)
def test_four_workers_use_the_limit_and_never_meet_it(
    seawall_clock: testing.clock,
    sim: Simulator,
    chat: Callable[..., Chat],
    ask: Callable[[Chat, list[str]], None],
    requests: int,
    tokens: int,
    calls: int,
    most: int | None,
) -> None:
    sim.limit("m", requests_per_minute=requests, tokens_per_minute=tokens)
    llm = chat(rate_limit=RateLimit(requests, tokens), max_retries=0, **({} if most is None else {"max_tokens": most}))
    questions = ["word " * (20 + (37 * n) % 50) for n in range(calls)]
    before = seawall_clock.now
    ask(llm, questions)
    minutes = (seawall_clock.now - before) / 60
    assert met(sim) == {"ok": calls}
    # As this server counts: with all that an answer may have or, where nothing is said, with what it has.
    usage = [chat_usage(sim, request) for request in sim.requests]
    taken = sum(prompt + (answer if most is None else most) for prompt, answer in usage)
    # What goes at once at the beginning is no part of the pace.
    paced = max((calls - 1) / requests, (taken - taken / calls) / tokens)
    assert paced / minutes >= 0.95


def chat_usage(sim: Simulator, request: Any) -> tuple[int, int]:
    """The tokens of a question and of its answer, by asking a server without limits."""
    question = request.body["messages"][0]["content"]
    if question not in _usage:
        with Simulator() as other:
            llm = Chat("m", api_key="sk-a-test-key", base_url=other.base_url)
            usage = llm.invoke(question).usage
            assert usage is not None
            _usage[question] = (usage["prompt_tokens"], usage["completion_tokens"])
    return _usage[question]


_usage: dict[str, tuple[int, int]] = {}


def test_a_server_that_allows_less_is_believed(seawall_clock: testing.clock, sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.limit("m", requests_per_minute=100_000, tokens_per_minute=20_000)
    llm = chat(rate_limit=RateLimit(tokens=60_000), max_retries=0, max_tokens=400)
    by_threads(llm, ["word"] * 200)
    assert met(sim) == {"ok": 200}


def test_a_429_pauses_all_models_that_share_the_limit(
    seawall_clock: testing.clock, sim: Simulator, chat: Callable[..., Chat]
) -> None:
    limit = RateLimit(600)
    sim.on("m", faults.rate_limit(retry_after=7), times=1)
    with pytest.raises(RateLimitError):
        chat(rate_limit=limit, max_retries=0).invoke("hello")
    assert limit.paused == pytest.approx(7)
    before = seawall_clock.now
    chat("other", rate_limit=limit).invoke("hello")
    assert seawall_clock.now - before == pytest.approx(7)


def test_a_wait_for_a_limit_that_turned_the_call_away_is_no_retry(
    seawall_clock: testing.clock, sim: Simulator, chat: Callable[..., Chat]
) -> None:
    monitor = Monitor()
    llm = chat(rate_limit=RateLimit(1, per=10, max_queue=0), monitor=monitor).with_retry(stop_after_attempt=3, wait=2)
    llm.invoke("hello")
    llm.invoke("hello")  # waits, and is sent once
    assert (monitor.snapshot()["attempts"], monitor.retry_rate) == (2, 0)
    sim.on("m", faults.status(500), times=1)
    first, second = llm.invoke("hello").attempts
    assert first.waited == pytest.approx(10.204, abs=0.05) and second.waited is None, (
        "2 s, and the rest of what the limit asks for"
    )
    assert monitor.snapshot()["retries"] == 1


def test_the_limit_counts_attempts_and_what_was_not_sent_counts_nothing(sim: Simulator, chat: Callable[..., Chat]) -> None:
    limit, bulkhead = RateLimit(100, burst=10), Bulkhead(1)
    sim.on("m", faults.status(500), times=2)
    chat(rate_limit=limit, bulkhead=bulkhead, max_retries=2).with_retry(wait=0).invoke("hello")
    assert limit.available[0] in (7, 8)
    sim.on("m", faults.stall())
    stream = chat(rate_limit=RateLimit(100), bulkhead=bulkhead).stream("hello")
    next(stream)
    for full in (
        chat(rate_limit=limit, bulkhead=bulkhead),
        Embeddings("e", api_key="sk-x", base_url=sim.base_url, bulkhead=bulkhead),
    ):
        with pytest.raises(BulkheadFullError, match=r'Bulkhead "(m|e)" is full'):
            full.invoke("hello")
    stream.close()
    assert limit.available[0] in (7, 8)


def test_a_bulkhead_holds_down_what_is_under_way(sim: Simulator, chat: Callable[..., Chat]) -> None:
    bulkhead = Bulkhead(3, max_queue=100)
    sim.pace("m", latency=0.01)
    replies = chat(bulkhead=bulkhead).batch(["hello"] * 30)
    assert len(replies) == 30 and (bulkhead.active, bulkhead.queued) == (0, 0)
    spans = [(request.time, request.time + (request.seconds or 0)) for request in sim.requests]
    assert len(spans) == 30
    assert max(sum(begun <= at < end for begun, end in spans) for at, _ in spans) <= 3


def test_an_alternative_serves_where_a_model_has_no_room(sim: Simulator, chat: Callable[..., Chat]) -> None:
    bulkhead = Bulkhead(1)
    busy = chat(bulkhead=bulkhead)
    sim.on("m", faults.stall())
    stream = busy.stream("hello")
    next(stream)
    reply = busy.with_fallbacks([chat("other")]).invoke("hello")
    assert reply.model == "other" and met(sim) == {"stall": 1, "ok": 1}
    stream.close()


def test_the_users_own_estimate(sim: Simulator, chat: Callable[..., Chat]) -> None:
    asked = []

    def estimate(messages: Any, **params: Any) -> int:
        asked.append((messages, params))
        return 300

    limit = RateLimit(tokens=60_000, burst=1000, estimate=estimate)
    sim.on("m", faults.status(500))
    with pytest.raises(Exception, match="500"):
        chat(rate_limit=limit, max_retries=0).invoke("hello", temperature=0)
    assert asked == [([{"role": "user", "content": "hello"}], {"temperature": 0})]
    # Nobody says what a failure has used: the estimate holds.
    assert limit.available[1] in range(700, 760)

    def broken(*_: Any, **__: Any) -> int:
        raise LookupError("no tokeniser")

    with pytest.raises(LookupError, match="no tokeniser"):
        chat(rate_limit=RateLimit(tokens=5, estimate=broken)).invoke("hello")


def test_what_is_no_limit_is_refused(chat: Callable[..., Chat]) -> None:
    for name, kind in (("rate_limit", "RateLimit"), ("bulkhead", "Bulkhead")):
        with pytest.raises(ConfigurationTypeError, match=rf"{name} must be a seawall.{kind} or None, not 5 \(int\)"):
            chat(**{name: 5})
        with pytest.raises(ConfigurationError, match=f"{name} is no parameter of a request"):
            chat().invoke("hello", **{name: Timeout(1)})
