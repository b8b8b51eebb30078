"""Every wait of tenacity under its own name, alone, added and mixed with tenacity's own objects."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

import seawall
from seawall import Pipeline, Retry, testing
from seawall.errors import ConfigurationError


def fails() -> None:
    raise ConnectionError("7")


def waits(wait: Any, attempts: int = 4) -> list[float]:
    with testing.seed(1), testing.record() as events, testing.no_waits(), pytest.raises(ConnectionError):
        Pipeline(Retry(attempts, wait=wait)).call(fails)
    return [event.span for event in events.named("retry.scheduled")]


# Words whose waits have no chance in them, with their arguments.
CERTAIN: list[tuple[str, dict[str, Any]]] = [
    ("wait_fixed", {"wait": 3}),
    ("wait_none", {}),
    ("wait_incrementing", {"start": 1, "increment": 2, "max": 4}),
    ("wait_exponential", {"multiplier": 0.5, "max": 3, "exp_base": 3, "min": 1}),
    ("wait_exponential_jitter", {"initial": 2, "max": 5, "exp_base": 2, "jitter": 0}),
    ("wait_random", {"min": 2, "max": 2}),
    ("wait_random_exponential", {"multiplier": 0, "min": 0}),
    ("wait_full_jitter", {"multiplier": 0}),
]


@pytest.mark.parametrize(("word", "arguments"), CERTAIN)
def test_a_word_waits_what_tenacitys_waits(word: str, arguments: dict[str, Any]) -> None:
    ours, theirs = getattr(seawall, word)(**arguments), getattr(tenacity, word)(**arguments)
    assert waits(ours) == pytest.approx(waits(theirs))


def test_no_wait_of_tenacitys_is_missing() -> None:
    # `wait_exception` came with a later 9.x.
    words = [name for name in dir(tenacity) if name.startswith("wait_")]
    assert len(words) >= 11
    assert [name for name in words if not hasattr(seawall, name)] == []


FIXED: list[Callable[[int], Any]] = [seawall.wait_fixed, tenacity.wait_fixed, lambda n: lambda retry_state: float(n)]


@pytest.mark.parametrize("first", FIXED)
@pytest.mark.parametrize("second", FIXED[:2])
def test_waits_of_all_kinds_add_up(first: Callable[[int], Any], second: Callable[[int], Any]) -> None:
    assert waits(first(1) + second(2)) == [3, 3, 3]
    assert waits(sum([second(1), first(2), second(4)])) == [7, 7, 7]
    assert waits(seawall.wait_combine(first(1), second(2))) == [3, 3, 3]
    assert waits(seawall.wait_chain(first(1), second(2))) == [1, 2, 2]


def test_only_ours_stays_native() -> None:
    kind = type(seawall.wait_fixed(1))
    assert type(seawall.wait_fixed(1) + seawall.wait_random()) is kind
    assert type(seawall.wait_chain(seawall.wait_fixed(1))) is kind
    assert type(sum([seawall.wait_fixed(1), seawall.wait_none()])) is kind
    mixed = seawall.wait_chain(seawall.wait_fixed(1), tenacity.wait_none())
    assert repr(mixed).startswith("wait_chain(wait_fixed(wait=1.0)") or "wait_fixed" in repr(mixed)


def test_an_exception_may_say_how_long() -> None:
    wait = seawall.wait_exception(lambda error: float(str(error)))
    assert waits(wait) == [7, 7, 7]
    assert waits(wait + seawall.wait_fixed(1)) == [8, 8, 8]
    with pytest.raises(ConfigurationError, match="predicate"):
        seawall.wait_exception(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="answer"):
        waits(seawall.wait_exception(lambda error: -1))
    bad = Pipeline(Retry(2, wait=seawall.wait_exception(lambda error: 1 / 0), on_result=lambda value: True))
    assert bad.call(lambda: 5) == 5


def test_ones_own_waits_may_inherit() -> None:
    class wait_twice(seawall.wait_base):
        def __call__(self, retry_state: Any) -> float:
            return 2.0 * float(retry_state.attempt_number)

    assert waits(wait_twice()) == [2, 4, 6]
    assert waits(wait_twice() + seawall.wait_fixed(1)) == waits(seawall.wait_fixed(1) + wait_twice()) == [3, 5, 7]
    assert waits(wait_twice() + tenacity.wait_fixed(1)) == [3, 5, 7]
    with pytest.raises(TypeError):
        wait_twice() + 5  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [5, "x", None])
def test_what_is_no_wait_is_refused(wrong: Any) -> None:
    for combine in (seawall.wait_chain, seawall.wait_combine):
        with pytest.raises(ConfigurationError, match="wait 2 must be"):
            combine(seawall.wait_fixed(1), wrong)
    with pytest.raises(TypeError):
        seawall.wait_fixed(1) + wrong


def test_mixed_waits_are_compared_pickled_and_copied_by_what_they_are_made_of() -> None:
    made = seawall.wait_fixed(1) + seawall.wait_exception(abs)  # type: ignore[arg-type]
    assert made == seawall.wait_fixed(1) + seawall.wait_exception(abs)  # type: ignore[arg-type]
    assert made != seawall.wait_fixed(2) + seawall.wait_exception(abs)  # type: ignore[arg-type]
    for twin in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert twin == made
        assert repr(twin) == repr(made)
