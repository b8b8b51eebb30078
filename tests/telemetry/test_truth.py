"""Under load and faults the scrape, the spans, the monitor and the simulator's own request log tell the same numbers, by model and
by outcome: threads, tasks, batches, streams and cancellations at once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from _canary import CANARY
from opentelemetry.trace import StatusCode

import seawall
from seawall import errors
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults

from .conftest import QUICK

ROUNDS = 5


def outcomes(calls):
    """What came of calls, by whoever made them."""
    told = Counter()
    for result in calls:
        told[type(result).__name__ if isinstance(result, BaseException) else "ok"] += 1
    return told


def kept(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return error


async def test_all_tell_the_same(sim, scraper, traces):
    for fault, share in (
        (faults.status(500), 0.2),
        (faults.rate_limit(0), 0.1),
        (faults.status(401), 0.1),
        (faults.reset(), 0.1),
    ):
        sim.on("shaky", fault, probability=share)
    sim.on("broken", faults.status(503))
    sim.on("cut", faults.cut(after=2))
    sim.on("hung", faults.hang())

    def chat(model):
        return Chat(model, api_key=CANARY, base_url=sim.base_url)

    models = {
        "shaky": chat("shaky").with_retry(stop_after_attempt=3, wait=QUICK),
        "broken": chat("broken").with_retry(stop_after_attempt=2, wait=QUICK).with_fallbacks([chat("spare")]),
        "cut": chat("cut").with_retry(stop_after_attempt=2, wait=QUICK),
        "sound": chat("sound"),
    }
    vectors = Embeddings("vectors", api_key=CANARY, base_url=sim.base_url)
    results: list = []

    def read(model):
        with model.stream("one two three four five") as stream:
            return "".join(piece.content for piece in stream)

    def in_a_thread():
        for _ in range(ROUNDS):
            for model in models.values():
                results.append(kept(model.invoke, "x"))
                results.append(kept(read, model))
            results.extend(models["shaky"].batch(["a", "b", "c"], return_exceptions=True))
            results.append(kept(vectors.invoke, ["a", "b"]))

    async def aread(model):
        return [piece async for piece in model.astream("one two three four five")]

    with seawall.observe() as monitor:
        threads = [threading.Thread(target=in_a_thread) for _ in range(3)]
        [thread.start() for thread in threads]
        hung = [asyncio.create_task(chat("hung").ainvoke("x")) for _ in range(5)]
        for _ in range(ROUNDS):
            results += await asyncio.gather(
                *(model.ainvoke("x") for model in models.values()), *(aread(model) for model in models.values()),
                return_exceptions=True,
            )  # fmt: skip
            results += await models["broken"].abatch(["a", "b"], return_exceptions=True)
        while sim.count("hung") < 5:
            await asyncio.sleep(0)
        [task.cancel() for task in hung]
        assert {type(each) for each in await asyncio.gather(*hung, return_exceptions=True)} == {asyncio.CancelledError}
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        while scraper.since("seawall_calls_abandoned_total", "model") != {"hung": 5}:
            await asyncio.sleep(0)
        while len(traces.spans("chat hung")) < 5:
            await asyncio.sleep(0)
        seen = monitor.snapshot()["lifetime"]

    asked = Counter(entry.model for entry in sim.requests)
    told = outcomes(results)
    spans = traces.spans()
    calls = [span for span in spans if span.parent is None]
    attempts = [span for span in spans if span.parent is not None]
    assert len(calls) + len(attempts) == len(spans)

    # Requests: what the server saw is what the scrape and the spans tell, by model.
    assert scraper.since("seawall_requests_total", "model") == asked
    assert Counter(span.attributes["gen_ai.request.model"] for span in attempts) == asked
    # And by outcome: the scrape's are the spans'.
    by_outcome = Counter((span.attributes["gen_ai.request.model"], span.attributes.get("error.type", "ok")) for span in attempts)
    assert scraper.since("seawall_requests_total", "model", "outcome") == by_outcome
    statuses = Counter((entry.model, entry.status) for entry in sim.requests if entry.status and entry.status >= 400)
    assert Counter(
        (span.attributes["gen_ai.request.model"], span.attributes["http.response.status_code"])
        for span in attempts if span.attributes.get("http.response.status_code", 0) >= 400
    ) == statuses  # fmt: skip

    # Calls: what their callers got is what the scrape, the spans and the monitor tell.
    assert scraper.since("seawall_calls_total", "outcome") == told
    ended = [span for span in calls if span.attributes.get("error.type") != "cancelled"]
    assert Counter(span.attributes.get("error.type", "ok") for span in ended) == told
    assert Counter(span.status.status_code == StatusCode.ERROR for span in ended)[False] == told["ok"]
    assert (seen["total"], seen["errors"]) == (len(results), len(results) - told["ok"])
    assert seen["attempts"] + asked["hung"] == len(sim.requests) == sum(span.attributes["seawall.attempts"] for span in calls)
    assert (
        scraper.since("seawall_retries_total")[()] == seen["retries"] == sum(span.attributes["seawall.retries"] for span in ended)
    )
    fallbacks = scraper.since("seawall_fallbacks_total", "model")
    assert fallbacks == {"spare": seen["fallbacks"]} == {"spare": sum("seawall.fallback" in span.attributes for span in ended)}
    tokens = scraper.since("seawall_tokens_total", "type")
    assert sum(tokens.values()) == seen["tokens"]
    assert tokens["input"] == sum(span.attributes.get("gen_ai.usage.input_tokens", 0) for span in ended)
    assert scraper.since("seawall_call_duration_seconds_count")[()] == len(results)
    measured = traces.measured()
    assert sum(count for (name, _), count in measured.items() if name == "seawall.requests") == len(sim.requests)
    assert {
        error or "ok": count for (name, error), count in measured.items() if name == "gen_ai.client.operation.duration"
    } == told
    assert told["ok"] and told["AuthenticationError"] and told["StreamInterruptedError"], "there was something to tell"
    assert errors.StreamInterruptedError.__name__ in told
