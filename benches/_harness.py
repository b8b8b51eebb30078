"""Rounds in which all subjects take turns, thread CPU time, medians: how everything here is measured."""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Loop = Callable[[int], int]


def arguments(description: str) -> argparse.Namespace:
    """What every bench takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a result")
    return parser.parse_args()


def _compiled(body: str, target: Any, *, asynchronous: bool = False) -> Any:
    """A loop of its own for one subject: in a shared one the interpreter's inline caches would serve nobody."""
    lines = [
        "def make(target, repeat, clock):",
        f"    {'async ' if asynchronous else ''}def loop(count):",
        "        turns = repeat(None, count)",
        "        begun = clock()",
        "        for _ in turns:",
        *(f"            {line}" for line in body.splitlines()),
        "        return clock() - begun",
        "    return loop",
    ]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    return names["make"](target, itertools.repeat, time.thread_time_ns)


def called(body: str, target: Any) -> Loop:
    """A loop over statements that name `target`."""
    loop: Loop = _compiled(body, target)
    return loop


def awaited(body: str, target: Any, event_loop: asyncio.AbstractEventLoop) -> Loop:
    """The same with `await`, in one task of an event loop."""
    inner = _compiled(body, target, asynchronous=True)
    return lambda count: event_loop.run_until_complete(inner(count))


@dataclass
class Rounds:
    """What each subject took in each round, in nanoseconds (or what else its loop gives) per operation."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def low(self, name: str) -> float:
        return min(self.values[name])

    def over(self, name: str, base: str) -> float:
        """The median of the differences within each round: what is common to a round cancels out."""
        return statistics.median(a - b for a, b in zip(self.values[name], self.values[base], strict=True))

    def ratio(self, name: str, base: str) -> float:
        """The median of the quotients within each round."""
        return statistics.median(a / b for a, b in zip(self.values[name], self.values[base], strict=True))

    def without(self, base: str) -> Rounds:
        """The same without the cost of an empty loop."""
        empty = self.values[base]
        rest = {name: [a - b for a, b in zip(values, empty, strict=True)] for name, values in self.values.items()}
        return Rounds({name: values for name, values in rest.items() if name != base})


def _enough(loop: Loop, slice_ns: float) -> int:
    """How many turns take about a slice of time. Asked twice: what happens once (an import, an alert that is told) is none of it."""
    return max(_counted(loop, slice_ns) for _ in range(2))


def _counted(loop: Loop, slice_ns: float) -> int:
    count = 1
    while True:
        spent = loop(count)
        if spent * 4 >= slice_ns or count >= 10_000_000:
            return max(1, int(count * slice_ns / max(spent, 1)))
        count *= 8 if spent * 32 < slice_ns else 2


def in_turn(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Every name once in each round, in an order that turns; garbage is collected between and never meanwhile."""
    order = list(names)
    for turn in range(rounds):
        start = turn % len(order)
        for name in order[start:] + order[:start]:
            gc.collect()
            gc.disable()
            try:
                yield name
            finally:
                gc.enable()


def measure(subjects: dict[str, Loop], *, rounds: int, slice_ms: float, per_turn: int = 1) -> Rounds:
    """Runs every subject once in each round, as `in_turn` says."""
    counts = {name: _enough(loop, slice_ms * 1e6) for name, loop in subjects.items()}
    taken = Rounds({name: [] for name in subjects})
    for name in in_turn(subjects, rounds):
        taken.values[name].append(subjects[name](counts[name]) / counts[name] / per_turn)
    return taken


def tried(makers: Iterable[tuple[str, Callable[[], Any]]]) -> tuple[dict[str, Any], list[str]]:
    """What can be made here, and a line for each thing that cannot."""
    made: dict[str, Any] = {}
    skipped: list[str] = []
    for name, maker in makers:
        try:
            made[name] = maker()
        except Exception as error:
            skipped.append(f"skipped {name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return made, skipped
