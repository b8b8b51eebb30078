"""Cache of the native client: equal requests cost one, streams are played again, and nothing is served that was not said."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _canary import CANARY

from seawall import Cache, Monitor, explain, testing
from seawall.errors import APIError, ConfigurationError, StreamInterruptedError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults


def requests(sim: Simulator) -> int:
    return sim.count()


def test_an_answer_is_given_again_and_says_so(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache, monitor = Cache(ttl=300), Monitor()
    model = chat(cache=cache, monitor=monitor)
    first, second = model.invoke("why?"), model.invoke([{"role": "user", "content": "why?"}])
    assert (first.cached, second.cached) == (False, True)
    assert (first.content, first.id, first.usage) == (second.content, second.id, second.usage)
    assert (first.attempts, second.attempts, second.alternative) == (1, 0, 0)
    assert [step.event for step in first.story] == ["cache.miss"]
    assert [step.event for step in second.story] == ["cache.hit"]
    assert "from the cache" in repr(second) and "from the cache" not in repr(first)
    assert pickle.loads(pickle.dumps(second)).cached is True
    assert requests(sim) == 1
    seen = monitor.snapshot()
    assert (seen["total"], seen["tokens"]) == (2, first.usage["total_tokens"])
    assert asyncio.run(model.ainvoke("why?")).cached is True
    assert [reply.cached for reply in model.batch(["why?", "how?"])] == [True, False]
    assert [reply.cached for reply in asyncio.run(model.abatch(["why?", "how?"]))] == [True, True]
    assert requests(sim) == 2


def test_whoever_listens_is_told_the_same_as_nobody(sim: Simulator, chat: Callable[..., Chat]) -> None:
    def story(model: Chat) -> list[Any]:
        replies = [model.invoke("why?"), model.invoke("why?"), model.invoke("why?", seed=1)]
        return [
            (len(r.attempts), r.cached, r.alternative, r.asked_model, [(s.event, s.policy) for s in r.story]) for r in replies
        ]

    caches = Cache(name="answers"), Cache(name="answers")
    assert story(chat(cache=caches[0])) == story(chat(cache=caches[1], monitor=Monitor()))
    assert caches[0].stats[:5] == caches[1].stats[:5] == (1, 2, 0, 0, 2)


def test_all_that_changes_the_answer_counts_and_nothing_else(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache = Cache()
    model = chat(cache=cache, temperature=0.5, seed=1)
    model.invoke("x")
    same = [
        chat(cache=cache, seed=1, temperature=0.5),
        chat(cache=cache, seed=1, temperature=0.5, api_key="sk-another", timeout=5, max_retries=0, idempotency_key=True),
        chat(cache=cache, seed=1, temperature=0.5, default_headers={"Authorization": "Bearer else"}),
        model.with_retry(stop_after_attempt=5),
    ]
    assert all(other.invoke("x").cached for other in same)
    assert chat(cache=cache).invoke("x", temperature=0.5, seed=1).cached
    assert model.invoke("x", timeout=9, extra_headers={"X-Api-Key": "secret"}, idempotency_key="k").cached
    different: list[Any] = [
        lambda: chat("m2", cache=cache, temperature=0.5, seed=1).invoke("x"),
        lambda: model.invoke("x", seed=2),
        lambda: model.invoke("x", n=2),
        lambda: model.invoke("x", extra_headers={"X-Variant": "b"}),
        lambda: model.invoke("x", extra_query={"variant": "b"}),
        lambda: model.invoke([{"role": "system", "content": "x"}]),
        lambda: chat(cache=cache, temperature=0.5, seed=1, base_url=f"{sim.base_url}/").invoke("y"),
    ]
    assert not any(ask().cached for ask in different)
    assert all(ask().cached for ask in different)
    assert cache.forget("x") == 6
    assert cache.forget([{"role": "system", "content": "x"}]) == 1
    assert not model.invoke("x").cached


def test_a_hundred_equal_prompts_cost_one_request(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache = Cache()
    model = chat(cache=cache)
    sim.on("m", faults.drip(0.05, 5), times=1)
    replies = model.batch(["x"] * 100, max_concurrency=100)
    assert len({reply.id for reply in replies}) == 1
    assert sorted(reply.cached for reply in replies) == [False] + [True] * 99
    assert requests(sim) == 1
    assert cache.stats.hits + cache.stats.joined == 99

    async def many() -> list[Any]:
        return await asyncio.gather(*(model.ainvoke("y") for _ in range(100)))

    assert len({reply.id for reply in asyncio.run(many())}) == 1
    with ThreadPoolExecutor(20) as pool:
        assert len({reply.id for reply in pool.map(model.invoke, ["z"] * 20)}) == 1
    assert requests(sim) == 3


def test_whoever_is_cancelled_hands_on_what_others_wait_for(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache = Cache()
    model = chat(cache=cache)
    sim.on("m", faults.hang(), times=1)

    async def main() -> Any:
        tasks = [asyncio.create_task(model.ainvoke("x")) for _ in range(3)]
        while cache.waiting < 2:
            await asyncio.sleep(0)
        assert cache.stats.misses == 1
        # The request that hangs is the first to come there.
        await asyncio.to_thread(sim.wait_for, 1, 60)
        tasks[0].cancel()
        return await asyncio.gather(*tasks[1:])

    first, second = asyncio.run(main())
    assert first.id == second.id


def test_errors_are_not_kept_and_an_older_answer_stands_in(
    sim: Simulator, chat: Callable[..., Chat], seawall_clock: testing.clock
) -> None:
    cache = Cache(10, stale_if_error=100)
    model = chat(cache=cache, max_retries=0)
    sim.on("m", faults.status(500), times=1)
    with pytest.raises(APIError):
        model.invoke("x")
    first = model.invoke("x")
    seawall_clock.advance(10)
    sim.on("m", faults.status(500), times=1)
    stale = model.invoke("x")
    assert (stale.id, stale.cached, stale.attempts) == (first.id, True, 1)
    assert [step.event for step in stale.story] == ["cache.miss", "retry.exhausted", "cache.stale"]
    sim.on("m", faults.status(401), times=1)
    with pytest.raises(APIError):
        model.invoke("x")
    assert not model.invoke("x").cached


def test_an_alternatives_answer_is_not_kept_in_the_primarys_name(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache = Cache()
    model = chat(cache=cache, max_retries=0).with_fallbacks([chat("other")])
    sim.on("m", faults.status(500), times=1)
    assert model.invoke("x").alternative == 1
    second, third = model.invoke("x"), model.invoke("x")
    assert (second.alternative, second.cached, third.cached) == (0, False, True)


def test_a_stream_is_played_again_piece_by_piece(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache, monitor = Cache(), Monitor()
    model = chat(cache=cache, monitor=monitor)

    def told(stream: Any) -> list[Any]:
        return [(piece.content, piece.role, piece.finish_reason, piece.usage, piece.raw) for piece in stream]

    first, second = model.stream("hello there"), model.stream("hello there")
    pieces = told(first)
    tokens = monitor.snapshot()["tokens"]
    assert told(second) == pieces
    assert len(pieces) > 2
    assert (first.cached, second.cached, first.attempts, second.attempts) == (False, True, 1, 0)
    assert monitor.snapshot()["tokens"] == tokens

    async def read() -> list[Any]:
        return [
            (piece.content, piece.role, piece.finish_reason, piece.usage, piece.raw)
            async for piece in model.astream("hello there")
        ]

    assert asyncio.run(read()) == pieces
    assert requests(sim) == 1
    assert not model.invoke("hello there").cached, "a whole answer is another one"


def test_a_stream_that_is_closed_or_breaks_off_is_not_kept(sim: Simulator, chat: Callable[..., Chat]) -> None:
    cache = Cache()
    model = chat(cache=cache, max_retries=0)
    sim.on("m", faults.stall(2), times=1)
    with model.stream("hello there") as stream:
        next(stream)
    assert cache.stats.items == 0
    sim.on("m", faults.cut(2), times=1)
    with pytest.raises(StreamInterruptedError):
        list(model.stream("hello there"))
    assert cache.stats.items == 0
    one, other = model.stream("hello there"), model.stream("hello there")
    assert [a.content for a, _ in zip(one, other, strict=True)], "nobody waits for his own other hand"


def test_embeddings_are_kept_too(sim: Simulator) -> None:
    cache = Cache()
    model = Embeddings("e", api_key=CANARY, base_url=sim.base_url, cache=cache, max_batch_inputs=2)
    first, second = model.invoke(["a", "b", "c"]), model.invoke(["a", "b", "c"])
    assert (first.cached, second.cached) == (False, True)
    assert first.vectors == second.vectors
    assert (len(first.attempts), len(second.attempts)) == (2, 0)
    assert cache.forget(["a", "b"]) == 1


def test_a_hit_is_explained_as_one(chat: Callable[..., Chat]) -> None:
    model = chat(cache=Cache())
    told = [explain(model.invoke("x"), lang).headline for lang in ("en", "en", "zh")]
    assert told[0].startswith("m answered at the first attempt")
    assert told[1].startswith("A cache had m's answer: nothing was asked")
    assert told[2].startswith("缓存中已有 m 的回答")


def test_it_is_shared_by_models_and_refused_if_it_is_none(chat: Callable[..., Chat]) -> None:
    with pytest.raises(ConfigurationError, match=r"cache must be a seawall.Cache or None, not True"):
        chat(cache=True)
    with pytest.raises(ConfigurationError, match="give it to the model"):
        chat().invoke("x", cache=Cache())
