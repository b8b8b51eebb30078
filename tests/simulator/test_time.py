"""What holds for a time only, what takes its time, and what is allowed in a minute."""

from __future__ import annotations

import anthropic
import openai
import pytest

from seawall.errors import ConfigurationError
from seawall.simulator import Simulator, distributions, faults


def test_a_rule_holds_from_its_start_until_its_end(seawall_clock, sim, talk):
    sim.on("m", faults.status(500), start=10, until=20)
    met = []
    for _ in range(5):
        met.append(talk().status)
        seawall_clock.advance(5)
    assert met == [200, 200, 500, 500, 200]


def test_an_outage_goes_before_every_rule_and_ends(seawall_clock, sim, talk):
    sim.outage("a", until=60, fault=faults.status(502)).outage(start=30, until=60)
    sim.on("a", faults.status(418)).on("b", faults.status(418))
    assert (talk(model="a").status, talk(model="b").status) == (502, 418)
    seawall_clock.advance(30)
    assert (talk(model="a").status, talk(model="b").status) == (502, 503)
    seawall_clock.advance(30)
    assert (talk(model="a").status, talk(model="b").status) == (418, 418)
    assert sim.requests[0].fault == "outage: status 502"


def test_requests_per_minute_are_refused_with_the_providers_headers(seawall_clock, sim, talk):
    sim.limit("m", requests_per_minute=2)
    headers = talk().headers
    told = {name.removeprefix("x-ratelimit-"): value for name, value in headers.items() if name.startswith("x-ratelimit-")}
    assert told == {"limit-requests": "2", "remaining-requests": "1", "reset-requests": "30s"}
    assert talk().headers["x-ratelimit-reset-requests"] == "1m0s"
    refused = talk()
    assert (refused.status, refused.headers["retry-after"], refused.headers["retry-after-ms"]) == (429, "30", "30000")
    assert (refused.body["error"]["code"], refused.body["error"]["type"]) == ("rate_limit_exceeded", "requests")
    assert "try again in 30s" in refused.body["error"]["message"]
    # Another model is not limited, and what is no request to a model is not counted.
    assert "x-ratelimit-limit-requests" not in talk(model="other").headers
    seawall_clock.advance(29)
    assert talk().status == 429
    seawall_clock.advance(1)
    assert talk().status == 200
    assert [request.fault for request in sim.requests if request.model == "m"] == [
        "ok",
        "ok",
        "limit requests",
        "limit requests",
        "ok",
    ]


def test_tokens_are_counted_before_the_answer_or_with_it(seawall_clock, sim, talk, send):
    sim.limit("*", tokens_per_minute=600)
    usage = talk("hello").body["usage"]
    left = int(talk("hello").headers["x-ratelimit-remaining-tokens"])
    assert left == 600 - 2 * usage["total_tokens"]
    answer = talk("hello", max_tokens=left - usage["prompt_tokens"])
    assert (answer.status, answer.headers["x-ratelimit-remaining-tokens"]) == (200, "0")
    refused = talk("hello", stream=True)
    assert (refused.status, refused.body["error"]["type"]) == (429, "tokens")
    assert refused.headers["x-ratelimit-reset-tokens"] == "1m0s"
    too_large = talk("hello", max_tokens=600)
    assert "Request too large" in too_large.body["error"]["message"] and "retry-after" not in too_large.headers
    # Each model by itself; embeddings count what they embed.
    assert send("embeddings", {"model": "e", "input": ["abcd", "efgh"]}).headers["x-ratelimit-remaining-tokens"] == "598"
    seawall_clock.advance(60)
    assert talk("hello").status == 200


def test_a_fault_takes_from_the_limit_and_a_refusal_does_not(seawall_clock, sim, talk):
    sim.limit(requests_per_minute=1).on("m", faults.status(500), times=1)
    assert (talk().status, talk().status) == (500, 429)
    seawall_clock.advance(60)
    assert talk().status == 200
    sim.clear()
    assert talk().status == 200


def test_the_sdks_wait_as_they_are_told(seawall_clock, sim):
    sim.limit("m", requests_per_minute=1)
    asked = [{"role": "user", "content": "hello"}]
    with anthropic.Anthropic(base_url=sim.origin, api_key="k", max_retries=0) as client:
        first = client.messages.with_raw_response.create(model="m", max_tokens=9, messages=asked)
        assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert first.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        with pytest.raises(anthropic.RateLimitError, match="rate_limit_error") as raised:
            client.messages.create(model="m", max_tokens=9, messages=asked)
    assert raised.value.response.headers["retry-after"] == "60"
    with openai.OpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="on requests per min"):
            client.chat.completions.create(model="m", messages=asked)


def test_a_model_has_its_pace_and_errors_come_at_once(sim, talk):
    sim.pace("m", latency=0.02, first_token=0.02, per_token=(0.001, 0.001))
    usage = talk().body["usage"]
    talk(stream=True)
    expected = 0.04 + usage["completion_tokens"] * 0.001
    assert all(request.seconds >= expected for request in sim.requests)
    sim.pace("m", latency=1000).on("m", faults.status(500))
    assert talk().status == 500


def test_ended_requests_are_told_once(sim, talk):
    assert sim.ended() == []
    talk()
    sim.on("m", faults.status(503))
    talk(model="m", stream=True)
    ended = sim.ended(timeout=10)
    ended += sim.ended(timeout=10) if len(ended) == 1 else []
    assert [(request.status, request.fault, request.seconds >= 0) for request in ended] == [
        (200, "ok", True),
        (503, "status 503", True),
    ]
    assert sim.ended() == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda sim: sim.on("m", faults.ok(), start=-1), "start must be zero seconds or more"),
        (lambda sim: sim.on("m", faults.ok(), start=5, until=5), r"until must be later than start \(5\)"),
        (lambda sim: sim.outage(until="soon"), "until must be a number of seconds"),
        (lambda sim: sim.outage("m", fault=503), "fault must be made by"),
        (lambda sim: sim.outage(5), "model must be a name"),
        (lambda sim: sim.pace(per_token="fast"), "per_token must be a number of seconds"),
        (lambda sim: sim.pace(per_token=(1, 0)), "per_token must be seconds, or a pair"),
        (lambda sim: sim.limit(requests_per_minute=0), "requests_per_minute must be a whole number from 1"),
        (lambda sim: sim.limit(tokens_per_minute=1.5), "tokens_per_minute must be a whole number"),
        (lambda sim: distributions.uniform(2, 1), "most must be at least least"),
        (lambda sim: distributions.normal(-1, 1), "mean must be"),
        (lambda sim: distributions.lognormal(1, 11), "sigma must be from 0 to 10"),
        (lambda sim: distributions.percentiles(), "one percentile at least"),
        (lambda sim: distributions.percentiles(q50=1), "q50 must be a percentile"),
        (lambda sim: distributions.percentiles(p101=1), "p101 must be a percentile"),
        (lambda sim: distributions.percentiles(p50=2, p90=1), "points must grow"),
        (lambda sim: faults.reply(5), "text must be a str"),
        (lambda sim: faults.reply(tool_calls="f"), "tool_calls must be a list"),
        (lambda sim: faults.reply(tool_calls=[("f",)]), "must be a name and a dict of arguments"),
        (lambda sim: faults.reply(tool_calls=[{"name": "f", "args": {}}]), "has a name and arguments"),
        (lambda sim: faults.reply(tool_calls=[("f", {"x": {1}})]), "must be JSON"),
        (lambda sim: faults.status(500, message=5), "message must be a str"),
        (lambda sim: faults.status(500, body=5), "body must be a str or a dict"),
        (lambda sim: faults.status(500, headers=["a"]), "headers must be a dict"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, words):
    with pytest.raises((ConfigurationError, TypeError), match=words):
        make(Simulator())
