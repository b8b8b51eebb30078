"""Retries: how many requests reach the server, and when."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from seawall import errors, retry, wait_fixed
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

POLICIES: list[dict[str, Any]] = [
    {},
    {"stop_after_attempt": 5, "wait": 0},
    {"retry_if_exception_type": (Exception,)},
    {"retry_if_exception_type": (BaseException,), "wait": wait_fixed(0)},
    {"retry_if_exception_type": (errors.APIError,)},
    {"retry_if_exception_type": (errors.APIStatusError, errors.RateLimitError, ConnectionError)},
    {"wait_exponential_jitter": False},
]


def ask(model: Chat, way: str) -> Any:
    return {
        "invoke": lambda: model.invoke("x"),
        "stream": lambda: list(model.stream("x")),
        "ainvoke": lambda: asyncio.run(model.ainvoke("x")),
        "batch": lambda: model.batch(["x"]),
    }[way]()


WAYS = ("invoke", "stream", "ainvoke", "batch")


def gaps(sim: Simulator) -> list[float]:
    """Seconds between the requests that the simulator saw."""
    times = [request.time for request in sim.requests]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize(
    "fault",
    [faults.status(401), faults.status(400), faults.quota(), faults.status(403), faults.status(404), faults.status(422)],
    ids=lambda f: f.name,
)
def test_what_no_retry_can_mend_costs_one_request(sim, chat, fault, policy) -> None:
    sim.on("m", fault)
    model = chat().with_retry(**policy)
    for way in WAYS:
        with pytest.raises(errors.APIStatusError) as raised:
            ask(model, way)
        assert raised.value.attempts == 1
    assert sim.count() == len(WAYS)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (faults.status(401), errors.AuthenticationError),
        (faults.status(400), errors.BadRequestError),
        (faults.quota(), errors.QuotaExceededError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or value.name,
)
def test_naming_that_very_error_retries_it(sim, chat, fault, named) -> None:
    sim.on("m", fault)
    with pytest.raises(named):
        chat().with_retry(retry_if_exception_type=(named,), wait=0).invoke("x")
    assert sim.count() == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.status(429),
        faults.status(408),
        faults.status(409),
        faults.reset(),
        faults.html(),
        faults.empty_choices(),
        faults.cut(0),
    ],
    ids=lambda f: f.name,
)
def test_what_may_pass_is_tried_as_often_as_asked_and_not_once_more(sim, chat, fault, way) -> None:
    sim.on("m", fault)
    with pytest.raises(errors.APIError) as raised:
        ask(chat(max_retries=9).with_retry(stop_after_attempt=7).with_retry(stop_after_attempt=3, wait=0), way)
    assert sim.count() == 3
    assert raised.value.attempts == 3
    assert "3 attempts" in raised.value.__notes__[0]


def test_unwrapped_it_asks_three_times_and_max_retries_says_otherwise(sim, chat) -> None:
    sim.on("m", faults.rate_limit(retry_after_ms=1))
    for options, requests in (({}, 3), ({"max_retries": 0}, 1), ({"max_retries": 1}, 2)):
        sim.forget()
        with pytest.raises(errors.RateLimitError):
            chat(**options).invoke("x")
        assert sim.count() == requests


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (faults.rate_limit(retry_after_ms=300), 0.3),
        (faults.rate_limit(retry_after=0.3), 0.3),
        (faults.rate_limit(retry_after=60, retry_after_ms=300), 0.3),
        (faults.status(503, headers={"retry-after": "0.3"}), 0.3),
    ],
    ids=["milliseconds", "seconds", "milliseconds first", "of a 503"],
)
def test_the_time_that_the_server_asks_for_is_waited_out_and_nothing_is_sent_earlier(sim, chat, fault, least) -> None:
    sim.on("m", fault, times=2)
    reply = chat().with_retry(wait=0).invoke("x")
    assert reply.attempts == 3
    assert all(least <= gap < 10 for gap in gaps(sim)), gaps(sim)
    assert [attempt.waited for attempt in reply.attempts] == [pytest.approx(least), pytest.approx(least), None]


def test_a_date_is_waited_for(sim, chat) -> None:
    sim.on("m", faults.rate_limit(0.001, date=True), times=1)
    reply = asyncio.run(chat().with_retry(wait=0).ainvoke("x"))
    assert reply.attempts[0].waited >= 1  # dates have whole seconds
    assert gaps(sim)[0] >= 1


def test_a_wait_longer_than_allowed_means_giving_up_now(sim, chat) -> None:
    sim.on("m", faults.rate_limit(3600))
    with pytest.raises(errors.RateLimitError) as raised:
        chat().with_retry().invoke("x")
    assert sim.count() == 1
    assert raised.value.headers["retry-after"] == "3600"


def test_the_server_may_say_whether_to_retry(sim, chat) -> None:
    sim.on("yes", faults.status(400, headers={"x-should-retry": "true"}), times=1)
    sim.on("no", faults.status(500, headers={"x-should-retry": "false"}))
    assert chat("yes").with_retry(wait=0).invoke("x").attempts == 2
    with pytest.raises(errors.InternalServerError):
        chat("no").with_retry(wait=0).invoke("x")
    assert sim.count("no") == 1


def test_a_predicate_and_a_listed_class_decide_what_is_retried(sim, chat) -> None:
    sim.on("m", faults.status(500))
    for listed, requests in (
        ((errors.RateLimitError,), 1),
        ((errors.InternalServerError,), 3),
        (lambda error: error.status_code == 500, 3),
        (lambda error: False, 1),
    ):
        sim.forget()
        with pytest.raises(errors.InternalServerError):
            chat().with_retry(retry_if_exception_type=listed, wait=0).invoke("x")
        assert sim.count() == requests


def test_hooks_are_told_before_each_wait_and_one_that_raises_is_only_logged(sim, chat, caplog) -> None:
    sim.on("m", faults.status(503), times=2)
    told: list[Any] = []

    def before_sleep(state: Any) -> None:
        told.append((state.attempt_number, type(state.outcome.exception())))
        raise KeyError("the hook's own mistake")

    assert chat().with_retry(wait=0, before_sleep=before_sleep).invoke("x").attempts == 3
    assert told == [(1, errors.ServiceUnavailable), (2, errors.ServiceUnavailable)]
    assert "a hook raised and was ignored" in caplog.text


def test_retries_are_logged_at_info_and_without_content(sim, chat, caplog) -> None:
    caplog.set_level(logging.DEBUG, "seawall")
    sim.on("m", faults.status(500, "the server's words"), times=1)
    chat().with_retry(wait=0).invoke("the user's words")
    records = [record for record in caplog.records if record.name == "seawall"]
    assert [record.levelname for record in records if "retry of 'm'" in record.getMessage()] == ["INFO"]
    assert "words" not in caplog.text


def test_a_function_around_it_has_retries_of_its_own_and_then_the_models_are_switched_off(sim, chat) -> None:
    sim.on("m", faults.status(500))
    model = chat(max_retries=0)
    with pytest.raises(errors.InternalServerError):
        retry(3, wait=0)(model.invoke)("x")
    assert sim.count() == 3


@pytest.mark.parametrize(
    "policy", [{"stop_after_attempt": 0}, {"wait": -1}, {"retry_if_exception_type": 5}, {"stop_after": 3}], ids=str
)
def test_words_that_cannot_be_meant_are_refused(chat, policy) -> None:
    with pytest.raises((errors.ConfigurationError, TypeError)):
        chat().with_retry(**policy)
