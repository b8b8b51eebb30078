"""What goes wrong on command: each fault as it looks on the wire, and to whom it happens."""

from __future__ import annotations

import email.utils
import http.client
import json
from datetime import timedelta

import pytest

from seawall.errors import ConfigurationError, Timeout
from seawall.llm import Chat
from seawall.simulator import Simulator, faults


@pytest.mark.parametrize("code", [200, 301, 400, 401, 402, 403, 404, 408, 409, 418, 422, 429, 500, 502, 503, 529, 599])
def test_any_status_with_any_headers_and_body(sim, talk, code) -> None:
    sim.on("m", faults.status(code, headers={"x-a": "b"}, body={"any": "thing"}))
    answer = talk()
    assert (answer.status, answer.headers["x-a"], answer.body) == (code, "b", {"any": "thing"})
    sim.on("m", faults.status(code, "words", error_code="c"))
    assert {name: talk().body["error"][name] for name in ("message", "code")} == {"message": "words", "code": "c"}


def test_quota_context_and_filter_have_the_providers_codes(sim, talk) -> None:
    for fault, status, code in (
        (faults.quota(), 429, "insufficient_quota"),
        (faults.context_window(), 400, "context_length_exceeded"),
        (faults.content_filter(), 400, "content_filter"),
        (faults.unknown_model(), 404, "model_not_found"),
        (faults.rate_limit(), 429, "rate_limit_exceeded"),
    ):
        sim.on("m", fault)
        answer = talk()
        assert (answer.status, answer.body["error"]["code"]) == (status, code)


def test_retry_after_has_three_forms(sim, talk) -> None:
    sim.on("m", faults.rate_limit(timedelta(seconds=3), retry_after_ms=250))
    headers = talk().headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("3", "250")
    sim.on("m", faults.rate_limit(100, date=True))
    headers = talk().headers
    ahead = email.utils.parsedate_to_datetime(headers["retry-after"]) - email.utils.parsedate_to_datetime(headers["date"])
    assert 100 <= ahead.total_seconds() <= 102


def test_so_many_requests_fail_and_then_none(sim, talk) -> None:
    sim.on("m", faults.status(500), times=2)
    assert [talk().status for _ in range(4)] == [500, 500, 200, 200]
    sim.on("m", faults.status(503), times=1, after=2)
    assert [talk().status for _ in range(4)] == [200, 200, 503, 200]


def test_a_share_of_the_requests_fails_the_same_in_every_run(sim) -> None:
    def fates(seed: int) -> list[str]:
        with Simulator(seed) as other:
            other.on("m", faults.status(400), probability=0.3)
            Chat("m", api_key="k", base_url=other.base_url).batch(["x"] * 200, max_concurrency=1, return_exceptions=True)
            return [request.fault for request in other.requests]

    assert fates(1) == fates(1) != fates(2)
    assert 30 < fates(1).count("status 400") < 90


def test_rules_are_for_a_model_or_all_or_a_path_and_can_be_taken_away(sim, talk, send) -> None:
    sim.on("*", faults.status(500)).on("b", faults.status(503)).on("*", faults.status(418), path="embeddings")
    assert (talk(model="a").status, talk(model="b").status) == (500, 503)
    assert send("embeddings", {"model": "a", "input": "x"}).status == 418
    sim.clear("b")
    assert talk(model="b").status == 500
    sim.clear()
    assert talk(model="a").status == 200


def test_latency_goes_before_the_answer(sim, talk) -> None:
    for fault in (faults.latency(0.1), faults.latency((0.1, 0.15)), faults.status(500, latency=0.1)):
        sim.on("m", fault)
        results = Chat("m", api_key="k", base_url=sim.base_url, max_retries=0).batch(["x"], return_exceptions=True)
        assert results[0].attempts[0].seconds >= 0.1


def test_bodies_that_are_no_answer(sim, talk) -> None:
    sim.on("m", faults.broken_json())
    with pytest.raises(json.JSONDecodeError):
        _ = talk().body
    sim.on("m", faults.html())
    answer = talk()
    assert (answer.status, answer.headers["content-type"], answer.raw[:9]) == (200, "text/html", b"<!DOCTYPE")
    sim.on("m", faults.empty_choices())
    assert talk().body["choices"] == []
    sim.on("m", faults.empty_body())
    assert talk().raw == b""
    sim.on("m", faults.reply("just so"))
    assert talk().body["choices"][0]["message"]["content"] == "just so"


def test_a_reset_is_a_reset_before_any_byte(sim, talk) -> None:
    sim.on("m", faults.reset())
    with pytest.raises(ConnectionResetError):
        talk()
    assert (sim.requests[0].fault, sim.requests[0].aborted) == ("reset", False)


def test_a_stream_is_cut_after_so_many_pieces_in_four_ways(sim, talk) -> None:
    whole = talk(stream=True).events
    sim.on("m", faults.cut(3, "clean"))
    assert [json.loads(event)["choices"] for event in talk(stream=True).events] == [
        json.loads(event)["choices"] for event in whole[:4]
    ]
    sim.on("m", faults.cut(3, "reset"))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        talk(stream=True)
    sim.on("m", faults.cut(3, "error"))
    events = talk(stream=True).events
    assert "overloaded" in json.loads(events[4])["error"]["message"]
    sim.on("m", faults.cut(3, "json"))
    answer = talk(stream=True)
    assert len(answer.events) == 5
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.events[4])


def test_a_plain_body_is_cut_before_its_announced_length(sim, talk) -> None:
    sim.on("m", faults.cut(how="clean"))
    with pytest.raises(http.client.IncompleteRead):
        talk()


def test_a_stream_may_lack_either_sign_of_its_end(sim, talk) -> None:
    sim.on("m", faults.no_done())
    events = talk(stream=True).events
    assert json.loads(events[-1])["choices"][0]["finish_reason"] == "stop"
    sim.on("m", faults.done_only())
    events = talk(stream=True).events
    assert events[-1] == "[DONE]"
    assert not any(json.loads(event)["choices"][0]["finish_reason"] for event in events[:-1])


def test_a_drip_comes_whole_in_the_end(sim, talk) -> None:
    expected = talk("hello").body["choices"]
    sim.on("m", faults.drip(0.01, 4))
    assert talk("hello").body["choices"] == expected
    assert talk("hello", stream=True).events[-1] == "[DONE]"


@pytest.mark.parametrize(
    "fault", [faults.hang(), faults.stall(1), faults.drip(20), faults.latency(60)], ids=lambda fault: fault.name
)
def test_a_client_that_leaves_is_in_the_log_and_its_connection_gone(sim, talk, fault) -> None:
    sim.on("m", fault)
    with pytest.raises(Timeout):
        Chat("m", api_key="k", base_url=sim.base_url, max_retries=0, timeout=0.1).invoke("x")
    sim.wait_aborted(1)
    assert [request.aborted for request in sim.requests] == [True]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: faults.status(99), "code must be an HTTP status"),
        (lambda: faults.status(True), "code must be an HTTP status"),
        (lambda: faults.status(500, headers={"content-length": "1"}), "server's own"),
        (lambda: faults.status(500, headers={"a b": "1"}), "no header's name"),
        (lambda: faults.status(500, headers={"a": "é"}), "cannot be the value"),
        (lambda: faults.latency(-1), "time must be"),
        (lambda: faults.latency((2, 1)), "time must be"),
        (lambda: faults.status(500, latency=(1, 2, 3)), "latency must be"),
        (lambda: faults.rate_limit(retry_after_ms=-1), "retry_after_ms must be"),
        (lambda: faults.rate_limit(retry_after_ms=timedelta(seconds=3)), "retry_after_ms must be a number"),
        (lambda: faults.cut(-1), "after must be"),
        (lambda: faults.cut(1, "badly"), "how must be one of"),
        (lambda: faults.drip(float("nan")), "interval must be"),
    ],
)
def test_a_fault_that_cannot_be_meant_is_refused(make, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": 5}, TypeError),
        ({"fault": 500}, TypeError),
        ({"fault": faults.status}, TypeError),
        ({"times": -1}, ConfigurationError),
        ({"after": 1.5}, ConfigurationError),
        ({"probability": 1.1}, ConfigurationError),
        ({"path": 5}, TypeError),
    ],
    ids=str,
)
def test_a_rule_that_cannot_be_meant_is_refused(sim, options, error) -> None:
    with pytest.raises(error, match=next(iter(options))):
        sim.on(**{"model": "m", "fault": faults.ok(), **options})
