"""Fallback: alternatives in order."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from seawall import CircuitBreaker, Fallback, Pipeline, Prompt, errors, guard
from seawall.errors import ConfigurationError


def fails(question: str = "") -> str:
    raise ConnectionError("primary")


def test_functions_are_called_with_the_calls_own_arguments() -> None:
    assert Pipeline(Fallback(lambda question: f"second: {question}")).call(fails, "why") == "second: why"


def test_values_are_given_as_they_are() -> None:
    answer = ["ready"]
    assert Pipeline(Fallback(answer)).call(fails) is answer


def test_runnables_are_invoked() -> None:
    class Runnable:
        def invoke(self, question: str) -> str:
            return f"invoked: {question}"

        async def ainvoke(self, question: str) -> str:
            return f"awaited: {question}"

    assert Pipeline(Fallback(Runnable())).call(fails, "why") == "invoked: why"


async def test_runnables_are_awaited_in_coroutines_and_plain_functions_serve_too() -> None:
    class Runnable:
        def invoke(self, question: str) -> str:
            raise AssertionError

        async def ainvoke(self, question: str) -> str:
            return f"awaited: {question}"

    async def primary(question: str) -> str:
        raise ConnectionError

    assert await Pipeline(Fallback(Runnable())).acall(primary, "why") == "awaited: why"
    assert await Pipeline(Fallback(lambda question: "plain")).acall(primary, "why") == "plain"


def test_a_prompt_asks_the_primary_again_differently() -> None:
    asked = []

    def primary(question: str) -> str:
        asked.append(question)
        if len(asked) == 1:
            raise errors.ContextWindowExceededError("too long")
        return "short answer"

    assert Pipeline(Fallback(Prompt("briefly: {}"))).call(primary, "why") == "short answer"
    assert asked == ["why", "briefly: why"]


def test_if_all_fail_the_first_error_is_raised_with_the_others() -> None:
    def second(question: str = "") -> str:
        raise KeyError("second")

    with pytest.raises(ConnectionError, match="primary") as raised:
        Pipeline(Fallback(second)).call(fails)
    assert [type(other) for other in raised.value.alternatives] == [KeyError]  # type: ignore[attr-defined]
    assert "KeyError" in raised.value.__notes__[0]


def test_a_request_that_fails_anywhere_needs_no_alternative() -> None:
    def bad(question: str = "") -> str:
        raise errors.BadRequestError("wrong", status_code=400)

    with pytest.raises(errors.BadRequestError):
        Pipeline(Fallback("instead")).call(bad)
    assert Pipeline(Fallback("instead", on=errors.BadRequestError)).call(bad) == "instead"


def test_only_for_the_listed_failures() -> None:
    with pytest.raises(ConnectionError):
        Pipeline(Fallback("instead", on=KeyError)).call(fails)
    assert Pipeline(Fallback("instead", on=lambda error: "primary" in str(error))).call(fails) == "instead"


def test_a_bad_result_counts_as_a_failure_where_asked() -> None:
    pipeline = Pipeline(Fallback("better", on_result=lambda text: not text))
    assert (pipeline.call(lambda: ""), pipeline.call(lambda: "good")) == ("better", "good")


def test_an_open_circuit_is_skipped_without_a_call() -> None:
    breaker = CircuitBreaker(1, 60)
    breaker.force("open")
    calls: list[Any] = []
    assert Pipeline(Fallback("instead"), breaker).call(calls.append, 1) == "instead"
    assert calls == []


def test_using_an_alternative_is_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seawall")
    guard(name="chat", retry=None, circuit=None, fallback="instead")(fails)()
    assert [(r.levelname, r.seawall_event) for r in caplog.records] == [("WARNING", "fallback.used")]  # type: ignore[attr-defined]


def test_bad_configuration_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Fallback()
    with pytest.raises(ConfigurationError, match="on"):
        Fallback("x", on=(int,))
    with pytest.raises(ValueError, match="{}"):
        Prompt("no place for the input")


@pytest.mark.parametrize("listed", [[len, str], (len,), ["a", len]])
def test_alternatives_in_a_list_are_no_answer(listed: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"one by one, as in Fallback\(a, b\)"):
        Fallback(listed)


@pytest.mark.parametrize("answer", [[], [1, 2], ("a", "b")])
def test_other_lists_are_answers(answer: Any) -> None:
    assert Pipeline(Fallback(answer)).call(fails) is answer
