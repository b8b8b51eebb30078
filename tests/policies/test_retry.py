"""Retry through its Python names."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import logging
import os
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import tenacity

import seawall
from seawall import Pipeline, Retry, errors, retry, testing, wait_exponential, wait_fixed
from seawall.errors import ConfigurationError


def failing(*results: Any) -> Callable[..., Any]:
    """A function that raises or returns these in turn, the last one for ever; `.calls` counts."""

    def function(*args: Any, **kwargs: Any) -> Any:
        function.calls += 1  # type: ignore[attr-defined]
        result = results[min(function.calls, len(results)) - 1]  # type: ignore[attr-defined]
        if isinstance(result, BaseException):
            raise result
        return result

    function.calls = 0  # type: ignore[attr-defined]
    return function


def test_attempts_are_calls_all_told() -> None:
    function = failing(ConnectionError("x"))
    with pytest.raises(ConnectionError) as raised:
        retry(3, wait=0)(function)()
    assert function.calls == 3
    assert [note for note in raised.value.__notes__ if "3 attempts" in note and "function" in note]


def test_notes_do_not_pile_up_on_one_exception_object() -> None:
    error = ConnectionError("the same each time")
    guarded = retry(2, wait=0)(failing(error))
    for _ in range(3):
        with pytest.raises(ConnectionError):
            guarded()
    assert len(error.__notes__) == 1


def test_only_what_is_transient_is_retried_by_default() -> None:
    for error, calls in (
        (ValueError("x"), 1),
        (TimeoutError(), 3),
        (errors.AuthenticationError("x"), 1),
        (errors.RateLimitError("x"), 3),
    ):
        function = failing(error)
        with pytest.raises(type(error)):
            retry(3, wait=0)(function)()
        assert function.calls == calls, error


def test_a_broad_class_does_not_retry_what_cannot_be_mended_and_its_own_class_does() -> None:
    quota = errors.QuotaExceededError("x", status_code=429, code="insufficient_quota")
    for listed, calls in ((Exception, 1), (errors.APIError, 1), (errors.RateLimitError, 1), (errors.QuotaExceededError, 2)):
        function = failing(quota)
        with pytest.raises(errors.QuotaExceededError):
            retry(2, on=listed, wait=0)(function)()
        assert function.calls == calls, listed


def test_a_predicate_says_whether_and_how_long() -> None:
    function = failing(KeyError("a"), KeyError("b"), 5)
    assert retry(5, on=lambda error: 0.0 if isinstance(error, KeyError) else False)(function)() == 5
    function = failing(KeyError("a"), 5)
    with pytest.raises(KeyError):
        retry(5, on=lambda error: False)(function)()


def test_bad_results_are_retried_where_asked() -> None:
    assert retry(3, wait=0, on_result=lambda value: value is None)(failing(None, None, 4))() == 4
    assert retry(2, wait=0, on_result=lambda value: value is None)(failing(None))() is None


def test_methods_keep_their_instance_and_arguments_arrive() -> None:
    class Client:
        tries = 0

        @retry(2, wait=0)
        def ask(self, a: int, *, b: int) -> tuple[int, int]:
            self.tries += 1
            if self.tries == 1:
                raise ConnectionError
            return a, b

    assert Client().ask(1, b=2) == (1, 2)


async def test_coroutines_are_retried_in_their_own_task() -> None:
    tasks = []

    @retry(3, wait=0.001)
    async def ask() -> str:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        if len(tasks) < 3:
            raise ConnectionError
        return "there"

    assert await ask() == "there"
    assert set(tasks) == {asyncio.current_task()}


class _Response:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.status_code = 429


class _Limited(Exception):
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("slow down")
        self.response = _Response(headers)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"retry-after-ms": "150"}, 0.15),
        ({"Retry-After": "15"}, 15),
        ({"retry-after": email.utils.formatdate(90, usegmt=True), "date": email.utils.formatdate(60, usegmt=True)}, 30),
    ],
)
def test_retry_after_on_any_exception_with_a_response_is_waited_out(
    headers: dict[str, str], wanted: float, seawall_clock: testing.clock
) -> None:
    times: list[float] = []

    @retry(2, on=_Limited, wait=0)
    def ask() -> None:
        times.append(seawall_clock.now)
        raise _Limited(headers)

    with pytest.raises(_Limited):
        ask()
    assert times == [0, wanted]


def test_a_retry_after_that_is_too_long_ends_the_retries_at_once() -> None:
    function = failing(_Limited({"retry-after": "121"}))
    with pytest.raises(_Limited) as raised:
        retry(3, on=_Limited)(function)()
    assert function.calls == 1
    assert "longer wait" in raised.value.__notes__[0]


def test_one_limit_over_all_attempts_and_waits() -> None:
    function = failing(ConnectionError("x"))
    with pytest.raises(ConnectionError) as raised:
        retry(10, wait=60, timeout=timedelta(seconds=30))(function)()
    assert function.calls == 1
    assert "no time left" in raised.value.__notes__[0]


def test_hooks_see_what_tenacitys_see(caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    policy = Retry(
        3,
        wait=wait_fixed(0.001),
        before=lambda state: seen.append(("before", state.attempt_number)),
        after=lambda state: seen.append(("after", state.attempt_number, state.outcome.failed)),
        before_sleep=lambda state: seen.append(
            ("sleep", state.attempt_number, state.next_action.sleep, state.fn.__name__, state.args)
        ),
    )
    with pytest.raises(ConnectionError):
        Pipeline(policy).call(failing(ConnectionError("x")), 7)
    assert seen == [
        ("before", 1),
        ("after", 1, True),
        ("sleep", 1, 0.001, "function", (7,)),
        ("before", 2),
        ("after", 2, True),
        ("sleep", 2, 0.001, "function", (7,)),
        ("before", 3),
        ("after", 3, True),
    ]


def test_a_hook_that_raises_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    policy = Retry(2, wait=0, before_sleep=lambda state: 1 / 0)
    assert Pipeline(policy).call(failing(ConnectionError("x"), 3)) == 3
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


def test_tenacitys_own_objects_are_taken() -> None:
    function = failing(KeyError("x"))
    guarded = retry(
        stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_fixed(0), on=tenacity.retry_if_exception_type(KeyError)
    )(function)
    with pytest.raises(KeyError):
        guarded()
    assert function.calls == 4
    function = failing(None, None, 1)
    assert retry(5, wait=0, on=tenacity.retry_if_result(lambda value: value is None))(function)() == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"retry": tenacity.retry_if_exception_type(KeyError)}, "retry= is called on= here"),
        ({"reraise": True}, "reraise= is not needed: the last exception"),
        ({"retry_error_cls": KeyError}, "retry_error_cls= is not needed"),
        ({"retry_error_callback": print}, "retry_error_callback= is a fallback here: guard"),
        ({"sleep": print}, r"sleep= is not needed: seawall.testing.clock\(\)"),
    ],
)
def test_tenacitys_arguments_are_told_what_they_are_called_here(given: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"^retry: {says}") as refused:
        retry(**given)
    assert isinstance(refused.value, TypeError)


def test_ours_mean_the_same() -> None:
    function = failing(None, KeyError("x"), 1)
    condition = seawall.retry_if_result(lambda value: value is None) | seawall.retry_if_exception_type(KeyError)
    assert retry(5, wait=wait_exponential(multiplier=0), on=condition)(function)() == 1


def test_what_is_logged_names_the_kind_and_never_the_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seawall")
    with pytest.raises(errors.RateLimitError):
        retry(2, wait=0, name="chat")(failing(errors.RateLimitError("the prompt was: secret", status_code=429)))()
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "RateLimitError (429)" in text
    assert "chat" in text
    assert "secret" not in text
    assert [record.seawall_event for record in caplog.records] == ["retry.scheduled", "retry.exhausted"]  # type: ignore[attr-defined]


def test_a_clients_timeout_setting_is_no_exception_class_and_the_error_says_what_is() -> None:
    class Timeout:
        """Like the setting of that name in HTTP clients."""

    with pytest.raises(ConfigurationError, match=r"seawall\.errors\.Timeout"):
        retry(on=(errors.APIError, Timeout))


@pytest.mark.filterwarnings("ignore:2 Retry policies:seawall.PipelineOrderWarning")
async def test_a_call_that_goes_on_for_long_keeps_its_last_failure_only(hooks: dict[str, Any]) -> None:
    alive: weakref.WeakSet[Exception] = weakref.WeakSet()
    most: list[int] = []

    class Failure(Exception):
        pass

    def failure():
        most.append(len(alive))
        error = Failure()
        alive.add(error)
        return error

    def plain():
        raise failure()

    async def coroutine():
        raise failure()

    def items():
        raise failure()
        yield

    pipeline = Pipeline(Retry(50, wait=0, on=Failure, **hooks), Retry(2, wait=0, on=Failure))
    for call in (pipeline(plain), pipeline(coroutine), lambda: list(pipeline(items)())):
        with pytest.raises(Failure):
            given = call()
            await given
        gc.collect()
    assert len(most) == 300
    # The last one of the inner retry, and the last one of the outer.
    assert max(most) == 2


@pytest.mark.parametrize(
    ("function", "argument", "error"),
    [
        (int, "x", ValueError),
        ({}.__getitem__, "x", KeyError),
        (b"\xff".decode, "ascii", UnicodeDecodeError),
        (os.stat, "/nowhere at all", FileNotFoundError),
    ],
)
def test_what_a_builtin_raises_comes_whole(function: Callable[[str], Any], argument: str, error: type[Exception]) -> None:
    # In C an exception may be a class and what it is to be made of, until somebody looks at it.
    seen: list[BaseException] = []
    attempts = seawall.Retry(2, wait=0, on=lambda raised: bool(seen.append(raised)) or True)
    with pytest.raises(error) as raised:
        function(argument)
    expected = raised.value
    with pytest.raises(error) as raised:
        seawall.Pipeline(attempts)(function)(argument)
    assert [type(each) for each in seen] == [error, error]
    assert {each.args for each in (expected, raised.value, *seen)} == {expected.args}
