"""Stops, predicates and log hooks, side by side with tenacity's."""

from __future__ import annotations

import copy
import functools
import logging
import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import tenacity

from seawall import _words as ours
from seawall import wait_base
from seawall._words import NextAction, Outcome, RetryState
from seawall.errors import ConfigurationError

LOGGER = logging.getLogger("tests.words")


def work(prompt: str = "") -> None:
    """A function with a name."""


def state(**given: Any) -> RetryState:
    return RetryState(**{"fn": work, **given})


def failed(exc: BaseException | None = None, **given: Any) -> RetryState:
    return state(outcome=Outcome(1, exception=exc or ValueError("no")), **given)


def returned(result: Any, **given: Any) -> RetryState:
    return state(outcome=Outcome(1, result=result), **given)


def theirs(ours_: RetryState) -> tenacity.RetryCallState:
    """The same state as tenacity has it."""
    twin = tenacity.RetryCallState(None, ours_.fn, ours_.args, dict(ours_.kwargs))  # type: ignore[arg-type]
    for name in ("attempt_number", "start_time", "outcome_timestamp", "idle_for", "upcoming_sleep"):
        setattr(twin, name, getattr(ours_, name))
    if ours_.outcome is not None:
        exc = ours_.outcome.exception()
        value = ours_.outcome.result() if exc is None else exc
        twin.outcome = tenacity.Future.construct(ours_.attempt_number, value, exc is not None)
    if ours_.next_action is not None:
        twin.next_action = tenacity.RetryAction(ours_.next_action.sleep)
    return twin


EVENT = threading.Event()
STOPS: list[Callable[[Any], Any]] = [
    lambda words: words.stop_never,
    lambda words: words.stop_after_attempt(3),
    lambda words: words.stop_after_delay(10),
    lambda words: words.stop_after_delay(timedelta(seconds=4)),
    lambda words: words.stop_before_delay(10),
    lambda words: words.stop_when_event_set(EVENT),
    lambda words: words.stop_after_attempt(3) | words.stop_after_delay(4),
    lambda words: words.stop_after_attempt(3) & words.stop_after_delay(4),
    lambda words: words.stop_any(words.stop_never, words.stop_after_attempt(2)),
    lambda words: words.stop_all(words.stop_after_attempt(2), words.stop_before_delay(9)),
]


@pytest.mark.parametrize("make", STOPS)
def test_stops_stop_where_tenacitys_do(make: Callable[[Any], Any]) -> None:
    for attempt in range(1, 6):
        for elapsed in (0.0, 3.9, 4.0, 7.0, 10.0, 11.0):
            at = failed(attempt_number=attempt, start_time=100.0, outcome_timestamp=100.0 + elapsed, upcoming_sleep=2.5)
            for is_set in (False, True):
                (EVENT.set if is_set else EVENT.clear)()
                assert make(ours)(at) is make(tenacity)(theirs(at)) is make(ours)(theirs(at))


RETRIES: list[Callable[[Any], Any]] = [
    lambda words: words.retry_if_exception(lambda exc: "no" in str(exc)),
    lambda words: words.retry_if_exception_type(),
    lambda words: words.retry_if_exception_type((KeyError, ValueError)),
    lambda words: words.retry_if_not_exception_type(KeyError),
    lambda words: words.retry_if_result(lambda result: result is None),
    lambda words: words.retry_if_exception_type(KeyError) | words.retry_if_result(lambda result: not result),
    lambda words: words.retry_if_exception_type() & words.retry_if_not_exception_type(ValueError),
    lambda words: words.retry_any(words.retry_if_exception_type(OSError), words.retry_if_result(bool)),
    lambda words: words.retry_all(words.retry_if_exception_type(OSError), words.retry_if_exception(bool)),
]


@pytest.mark.parametrize("make", RETRIES)
def test_predicates_say_what_tenacitys_say(make: Callable[[Any], Any]) -> None:
    for at in (
        failed(ValueError("no")),
        failed(KeyError("yes")),
        failed(OSError("no")),
        returned(None),
        returned("text"),
        returned(0),
    ):
        assert make(ours)(at) is make(tenacity)(theirs(at)) is make(ours)(theirs(at))


def test_ours_and_tenacitys_mix() -> None:
    at = failed(attempt_number=3)
    for stop in (
        ours.stop_after_attempt(3) & tenacity.stop_after_attempt(2),
        tenacity.stop_after_attempt(3) & ours.stop_after_attempt(2),
    ):
        assert stop(at) is True
    for stop in (ours.stop_never | tenacity.stop_after_attempt(3), tenacity.stop_never | ours.stop_after_attempt(3)):
        assert stop(at) is True
    assert (tenacity.retry_if_exception_type(KeyError) | ours.retry_if_exception_type(ValueError))(at) is True
    assert (ours.retry_if_exception_type(KeyError) | tenacity.retry_if_exception_type(ValueError))(at) is True
    assert (ours.stop_never | (lambda retry_state: True))(at) is True
    assert ((lambda retry_state: True) | ours.stop_never)(at) is True
    with pytest.raises(TypeError):
        ours.stop_never | 3  # type: ignore[operator]


def test_ours_work_in_tenacity(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    slept: list[float] = []
    retrying = tenacity.Retrying(
        sleep=slept.append,
        stop=ours.stop_after_attempt(3) | ours.stop_after_delay(60),
        retry=ours.retry_if_exception_type(KeyError),
        before=ours.before_log(LOGGER, logging.DEBUG),
        after=ours.after_log(LOGGER, logging.INFO),
        before_sleep=ours.before_sleep_log(LOGGER, logging.WARNING),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )
    with pytest.raises(KeyError):
        retrying({}.__getitem__, "missing")
    assert slept == [1, 1]
    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO", "WARNING"] * 2 + ["DEBUG", "INFO"]


VALUES: list[Any] = [
    ours.stop_never,
    ours.stop_after_attempt(3),
    ours.stop_after_delay(1.5) | ours.stop_before_delay(2),
    ours.retry_if_exception_type((KeyError, ValueError)) & ours.retry_if_exception(callable),
    ours.retry_if_not_exception_type(KeyError),
    ours.retry_if_result(callable),
    ours.before_log(LOGGER, logging.INFO),
    ours.after_log(LOGGER, logging.INFO, "%.1f"),
    ours.before_sleep_log(LOGGER, logging.INFO, exc_info=True),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_words_are_values(value: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert twin == value and hash(twin) == hash(value) and repr(twin) == repr(value)
    assert value != ours.stop_after_attempt(99) and value != 3


@pytest.mark.parametrize("word", [ours.retry_if_exception_type, ours.retry_if_not_exception_type])
def test_a_predicate_of_a_type_keeps_it(word: Any) -> None:
    value = word(KeyError)
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert twin.exception_types is KeyError
    assert value != word(OSError) and repr(value) == f"{word.__name__}(<class 'KeyError'>)"


def test_other_words_are_other_values() -> None:
    assert ours.stop_after_delay(3) != ours.stop_before_delay(3)
    assert copy.copy(ours.stop_never) is pickle.loads(pickle.dumps(ours.stop_never)) is ours.stop_never


def test_reprs() -> None:
    assert repr(ours.stop_after_attempt(3) | ours.stop_never) == "stop_any(stop_after_attempt(3), stop_never)"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ours.retry_if_exception_type((KeyError, str)), r"<class 'str'> \(type\) is none"),  # type: ignore[arg-type]
        (
            lambda: ours.stop_any(ours.stop_after_attempt),
            r"stop_any: each stop must be made by a call, as in stop_after_attempt\(…\)",
        ),
        (lambda: ours.before_log("x", 20), "before_log: logger must have log"),  # type: ignore[arg-type]
        (lambda: ours.after_log(LOGGER, 20, "nothing"), "sec_format must be a %-format"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()


class Recorder:
    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.extra: list[dict[str, Any]] = []

    def log(self, level: int, msg: str, /, *args: Any, **kwargs: Any) -> None:
        self.lines.append((level, msg))
        self.extra.append(kwargs)


def logged(make: Callable[[Any, Any], Any], at: RetryState) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """What ours and what tenacity's hook logs."""
    mine, other = Recorder(), Recorder()
    make(ours, mine)(at)
    make(tenacity, other)(theirs(at))
    return mine.lines, other.lines


@pytest.mark.parametrize("attempt", [1, 2, 3, 4, 11, 12, 13, 20, 21, 22, 33, 100, 101])
def test_the_lines_are_tenacitys(attempt: int) -> None:
    given = {"attempt_number": attempt, "start_time": 5.0, "outcome_timestamp": 6.23456, "next_action": NextAction(1.23456)}
    makes: list[Callable[[Any, Any], Any]] = [
        lambda words, logger: words.before_log(logger, 10),
        lambda words, logger: words.after_log(logger, 20),
        lambda words, logger: words.after_log(logger, 20, "%.1f"),
        lambda words, logger: words.before_sleep_log(logger, 30),
        lambda words, logger: words.before_sleep_log(logger, 30, sec_format="%.2f"),
    ]
    for make in makes:
        for at in (failed(ValueError("no such thing"), **given), returned(None, **given), returned(3, **given)):
            mine, other = logged(make, at)
            assert mine == other and len(mine) == 1


def test_what_was_returned_or_sent_is_not_logged() -> None:
    recorder = Recorder()
    hook = ours.before_sleep_log(recorder, 30)
    secret = "the user's prompt"
    hook(returned(secret, next_action=NextAction(1)))
    assert recorder.lines == [(30, f"Retrying {__name__}.work in 1 seconds as it returned <str>.")]
    partial = failed(fn=functools.partial(work, secret), args=(secret,), kwargs={"prompt": secret}, next_action=NextAction(1))
    hook(partial)
    ours.after_log(recorder, 30)(partial)
    ours.before_log(recorder, 30)(partial)
    assert f"{__name__}.work" in recorder.lines[-1][1]
    assert secret not in repr(recorder.lines) + repr(partial)


@pytest.mark.parametrize(
    "key", ["sk-proj-abcdef123456", "gsk_abcdef123456", "AIzaSyA1234567890abcdefghij", "AKIAIOSFODNN7EXAMPLE"]
)
def test_keys_in_an_errors_text_are_left_out(key: str) -> None:
    recorder = Recorder()
    error = ValueError(f"Incorrect API key provided: {key}. You sent 'Bearer {key[::-1]}'")
    ours.before_sleep_log(recorder, 30)(failed(error, next_action=NextAction(1)))
    line = recorder.lines[0][1]
    assert key not in line and key[::-1] not in line and "Incorrect API key provided: ***" in line


def test_long_errors_are_cut() -> None:
    recorder = Recorder()
    ours.before_sleep_log(recorder, 30)(failed(ValueError("x" * 100_000), next_action=NextAction(1)))
    assert len(recorder.lines[0][1]) < 700


def test_the_traceback_only_where_it_is_asked_for() -> None:
    recorder = Recorder()
    at = failed(next_action=NextAction(1))
    ours.before_sleep_log(recorder, 30)(at)
    ours.before_sleep_log(recorder, 30, exc_info=True)(at)
    ours.before_sleep_log(recorder, 30, exc_info=True)(returned(None, next_action=NextAction(1)))
    assert at.outcome is not None
    assert recorder.extra == [{}, {"exc_info": at.outcome.exception()}, {}]


def test_hooks_and_stops_before_anything_ended() -> None:
    for ask in (ours.before_sleep_log(LOGGER, 30), ours.retry_if_exception_type(), ours.stop_after_delay(1)):
        with pytest.raises(RuntimeError, match="retry state has no"):
            ask(state())
    with pytest.raises(RuntimeError, match="no next_action"):
        ours.before_sleep_log(LOGGER, 30)(failed())
    assert ours.before_nothing(state()) is ours.after_nothing(state()) is ours.before_sleep_nothing(state()) is None


def test_names_of_what_has_none() -> None:
    recorder = Recorder()
    hook = ours.before_log(recorder, 10)
    for fn in (None, Recorder(), [].append):
        hook(state(fn=fn))
    names = [line.split("'")[1] for _, line in recorder.lines]
    assert names == ["<unknown>", f"{__name__}.Recorder", "list.append"]


def test_the_state_reads_like_tenacitys() -> None:
    at = failed(attempt_number=2, args=(1,), kwargs={"a": 2}, start_time=1.0, outcome_timestamp=3.5, idle_for=1.234)
    other = theirs(at)
    for name in (
        "fn",
        "args",
        "kwargs",
        "attempt_number",
        "seconds_since_start",
        "idle_for",
        "upcoming_sleep",
        "start_time",
        "next_action",
    ):
        assert getattr(at, name) == getattr(other, name), name
    assert at.outcome is not None
    assert at.outcome.failed and at.outcome.done() and not at.outcome.cancelled() and not at.outcome.running()
    with pytest.raises(ValueError, match="no"):
        at.outcome.result()
    assert returned(3).outcome.result(timeout=1) == 3  # type: ignore[union-attr]
    assert state().seconds_since_start is None
    assert repr(at) == "<RetryState: attempt #2; slept for 1.23; last result: failed (ValueError)>"
    assert "returned>" in repr(returned("secret")) and "none yet" in repr(state())
    with pytest.raises(TypeError):
        RetryState(work)  # type: ignore[misc]


def test_a_wait_of_ones_own_that_does_not_say_how_long_cannot_be_made() -> None:
    class Mine(wait_base):
        pass

    with pytest.raises(TypeError, match="Mine.*__call__"):
        Mine()  # type: ignore[abstract]
