"""The waits: tenacity's numbers, and objects that behave wherever a wait is expected."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
import tenacity

from seawall import _seawall as ours
from seawall._words import RetryState
from seawall.errors import ConfigurationError

ATTEMPTS = [*range(1, 80), 500, 1025, 2001, 100_000]


def state(attempt: int, upcoming_sleep: float = 0.0) -> RetryState:
    return RetryState(attempt_number=attempt, upcoming_sleep=upcoming_sleep)


def waits(wait: Callable[[Any], float], attempts: list[int] = ATTEMPTS) -> list[float]:
    random.seed(7)
    return [wait(state(attempt)) for attempt in attempts]


# The same words in both packages.
SAME: list[Callable[[Any], Any]] = [
    lambda words: words.wait_none(),
    lambda words: words.wait_fixed(1.5),
    lambda words: words.wait_fixed(timedelta(minutes=1)),
    lambda words: words.wait_random(),
    lambda words: words.wait_random(min=3, max=7.5),
    lambda words: words.wait_random(1, 1),
    lambda words: words.wait_incrementing(),
    lambda words: words.wait_incrementing(start=2, increment=0.5, max=9),
    lambda words: words.wait_incrementing(start=100, increment=-7, max=90),
    lambda words: words.wait_incrementing(timedelta(seconds=3), timedelta(seconds=1), timedelta(minutes=1)),
    lambda words: words.wait_exponential(),
    lambda words: words.wait_exponential(multiplier=1, min=1, max=60),
    lambda words: words.wait_exponential(0.5, 10, 3, 0.25),
    lambda words: words.wait_exponential(multiplier=0),
    lambda words: words.wait_exponential(exp_base=1.1, max=40),
    lambda words: words.wait_exponential(exp_base=0.5, multiplier=64, min=1),
    lambda words: words.wait_exponential(multiplier=0.001, max=timedelta(minutes=2)),
    lambda words: words.wait_random_exponential(),
    lambda words: words.wait_random_exponential(multiplier=0.5, max=60, min=2),
    lambda words: words.wait_full_jitter(multiplier=1, max=10),
    lambda words: words.wait_exponential_jitter(),
    lambda words: words.wait_exponential_jitter(initial=0.5, max=20, exp_base=3, jitter=2),
    lambda words: words.wait_exponential_jitter(2, 30, 2, 0),
    lambda words: words.wait_chain(words.wait_fixed(1)),
    lambda words: words.wait_chain(*[words.wait_fixed(1)] * 3, words.wait_random(2, 3), words.wait_exponential(max=100)),
    lambda words: words.wait_combine(words.wait_fixed(1), words.wait_random(0, 2)),
    lambda words: words.wait_fixed(3) + words.wait_random(0, 2) + words.wait_exponential(max=5),
    lambda words: sum([words.wait_fixed(1), words.wait_random(), words.wait_fixed(0.5)]),
]


@pytest.mark.parametrize("make", SAME, ids=lambda make: repr(make(ours)))
def test_the_numbers_are_tenacitys(make: Callable[[Any], Any]) -> None:
    expected = waits(make(tenacity))
    got = waits(make(ours))
    assert got == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("make", SAME, ids=lambda make: repr(make(ours)))
def test_a_wait_is_a_value(make: Callable[[Any], Any]) -> None:
    wait = make(ours)
    twins = [make(ours), copy.copy(wait), copy.deepcopy(wait), *(pickle.loads(pickle.dumps(wait, p)) for p in range(2, 6))]
    for twin in twins:
        assert twin == wait and hash(twin) == hash(wait) and repr(twin) == repr(wait)
        assert waits(twin, [1, 2, 5]) == waits(wait, [1, 2, 5])
    assert wait != ours.wait_fixed(123) and wait != 0 and wait is not None
    # repr gives it back.
    assert eval(repr(wait), {name: getattr(ours, name) for name in dir(ours)}) == wait


def test_reprs() -> None:
    assert repr(ours.wait_exponential(multiplier=1, min=1, max=60)) == "wait_exponential(multiplier=1, min=1, max=60)"
    assert repr(ours.wait_exponential()) == "wait_exponential(multiplier=1)"
    assert repr(ours.wait_fixed(1.5) + ours.wait_none()) == "wait_combine(wait_fixed(wait=1.5), wait_none())"
    assert repr(ours.wait_sdk()) == "wait_sdk()"


@pytest.mark.parametrize("name", [name for name in dir(tenacity) if name.startswith("wait_") and hasattr(ours, name)])
def test_arguments_and_defaults_are_tenacitys(name: str) -> None:
    def said(fn: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(fn).parameters.values()]

    assert said(getattr(ours, name)) == said(getattr(tenacity, name))


def test_every_word_of_the_contract_is_there() -> None:
    words = "fixed none random incrementing exponential random_exponential full_jitter exponential_jitter chain combine"
    for word in [*words.split(), "decorrelated_jitter", "equal_jitter", "sdk"]:
        assert callable(getattr(ours, f"wait_{word}")) and getattr(ours, f"wait_{word}").__doc__


def test_the_sdks_wait() -> None:
    for attempt, longest in enumerate([0.5, 1, 2, 4, 8, 8, 8], 1):
        got = {ours.wait_sdk()(state(attempt)) for _ in range(50)}
        assert all(0.75 * longest <= wait <= longest for wait in got) and len(got) > 1


def test_equal_and_decorrelated_jitter() -> None:
    for attempt, plain in enumerate([1, 2, 4, 8, 10, 10], 1):
        assert plain / 2 <= ours.wait_equal_jitter(max=10)(state(attempt)) <= plain
    rule = ours.wait_decorrelated_jitter(initial=1, max=50)
    before = 0.0
    for attempt in range(1, 40):
        wait = rule(state(attempt, before))
        assert 1 <= wait <= min(50, 3 * max(before, 1))
        before = wait


def test_ours_work_in_tenacity_and_theirs_beside_ours() -> None:
    slept: list[float] = []
    both = ours.wait_fixed(1) + tenacity.wait_fixed(2)
    other = tenacity.wait_fixed(2) + ours.wait_fixed(1)
    for wait in (ours.wait_exponential(min=2, max=4), both, other, tenacity.wait_chain(ours.wait_fixed(5), ours.wait_fixed(6))):
        retrying = tenacity.Retrying(wait=wait, stop=tenacity.stop_after_attempt(4), sleep=slept.append, reraise=True)
        with pytest.raises(KeyError):
            retrying({}.__getitem__, "missing")
    assert slept == [2, 2, 4, 3, 3, 3, 3, 3, 3, 5, 6, 6]


def test_called_by_keyword_and_with_odd_states() -> None:
    assert ours.wait_exponential()(retry_state=state(3)) == 4
    assert ours.wait_exponential()(state(0)) == 1
    assert ours.wait_fixed(1)(tenacity.RetryCallState(None, None, (), {})) == 1  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        ours.wait_fixed(1)(object())


def test_a_failing_random_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise RuntimeError("no entropy")

    monkeypatch.setattr(random, "random", broken)
    with pytest.raises(RuntimeError, match="no entropy"):
        ours.wait_random()(state(1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ours.wait_fixed("3"), "wait_fixed: wait must be a number of seconds or a timedelta, not '3'"),
        (lambda: ours.wait_fixed(None), "wait_fixed: wait must be .* not None"),
        (lambda: ours.wait_fixed(True), "wait_fixed: wait must be .* not True"),
        (lambda: ours.wait_fixed(-1), "wait_fixed: wait must be a number of at least 0, not -1"),
        (lambda: ours.wait_fixed(timedelta(seconds=-1)), "wait_fixed: wait must be .* not -1"),
        (lambda: ours.wait_fixed(float("nan")), "wait_fixed: wait must be .* not NaN"),
        (lambda: ours.wait_fixed(float("inf")), "wait_fixed: wait must be .* not inf"),
        (lambda: ours.wait_random(min=3), r"wait_random: max must be at least min \(3\), not 1"),
        (lambda: ours.wait_exponential(multiplier=-1), "wait_exponential: multiplier must be"),
        (lambda: ours.wait_exponential(exp_base=-2), "wait_exponential: exp_base must be"),
        (lambda: ours.wait_exponential(max=float("nan")), "wait_exponential: max must be"),
        (lambda: ours.wait_exponential_jitter(jitter="x"), "wait_exponential_jitter: jitter must be .* not 'x'"),
        (lambda: ours.wait_incrementing(increment=float("inf")), "wait_incrementing: increment must be a finite number"),
        (lambda: ours.wait_decorrelated_jitter(initial=-1), "wait_decorrelated_jitter: initial must be"),
        (lambda: ours.wait_chain(), "wait_chain: at least one wait is needed"),
        (lambda: ours.wait_combine(), "wait_combine: at least one wait is needed"),
        (lambda: ours.wait_chain(ours.wait_none(), 3), "wait_chain: wait 2 must be one of seawall's own .* not 3"),
        (lambda: ours.Wait("wait_nonsense", 1), "wait_nonsense with 1 numbers is no wait"),
    ],
)
def test_what_is_no_wait_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()


def test_numbers_of_any_kind_are_numbers() -> None:
    assert ours.wait_fixed(Fraction(1, 2)) == ours.wait_fixed(0.5)
    assert ours.wait_exponential(max=float("inf")) == ours.wait_exponential()
    with pytest.raises(TypeError):
        ours.wait_fixed(1) + 1
    with pytest.raises(AttributeError):
        ours.wait_fixed(1).rule = 2
