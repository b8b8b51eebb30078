"""How long things take in the simulator: each function makes a `Distribution`. A number is `fixed`, a pair is `uniform`.

All are seeded. Whatever takes a latency takes one of them: `faults.status(503, latency=lognormal(0.3, 0.6))`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from seawall import _word
from seawall.errors import ConfigurationError, ConfigurationTypeError

Seconds = float | timedelta
_LONGEST = 1e9


@dataclass(frozen=True)
class Distribution:
    """Seconds by chance. Made by the functions of this module.

    Attributes:
        name: of the function that made it.
        details: what it was made of.
    """

    name: str
    details: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash((self.name, str(self.details)))

    def wire(self) -> dict[str, Any]:
        """As the native server reads it."""
        return {"distribution": self.name, **self.details}


Latency = Seconds | tuple[Seconds, Seconds] | Distribution


def seconds(name: str, value: Any) -> float:
    """Seconds as a number or a timedelta.

    Raises:
        TypeError, ConfigurationError: it is neither, negative, or more than a billion.
    """
    return _word.seconds(name, value, _LONGEST)


def number(name: str, value: Any, most: float) -> float:
    """A number from zero on that is no time.

    Raises:
        TypeError, ConfigurationError: it is none, or not from 0 to `most`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationTypeError(f"{name} must be a number, not {_word.shown(value)}")
    if not 0 <= value <= most:
        raise ConfigurationError(f"{name} must be from 0 to {most:g}, not {_word.shown(value)}")
    return float(value)


def distribution(name: str, value: Any) -> Distribution:
    """What a latency means: a distribution, seconds, or a pair of the least and the most.

    Raises:
        TypeError, ConfigurationError: it is none of them.
    """
    if isinstance(value, Distribution):
        return value
    if not isinstance(value, tuple):
        return Distribution("fixed", {"seconds": seconds(name, value)})
    least, most = (seconds(name, each) for each in value) if len(value) == 2 else (1.0, 0.0)
    if least > most:
        raise ConfigurationError(f"{name} must be seconds, or a pair of the least and the most, not {value!r}")
    return Distribution("uniform", {"least": least, "most": most})


def fixed(time: Seconds) -> Distribution:
    """Always so many seconds."""
    return Distribution("fixed", {"seconds": seconds("time", time)})


def uniform(least: Seconds, most: Seconds) -> Distribution:
    """Anything from the least to the most, all the same likely."""
    begins, ends = seconds("least", least), seconds("most", most)
    if begins > ends:
        raise ConfigurationError(f"most must be at least least ({begins:g}), not {most!r}")
    return distribution("uniform", (begins, ends))


def normal(mean: Seconds, deviation: Seconds) -> Distribution:
    """The normal distribution with this mean and standard deviation; what would be below zero is zero."""
    return Distribution("normal", {"mean": seconds("mean", mean), "deviation": seconds("deviation", deviation)})


def lognormal(median: Seconds, sigma: float) -> Distribution:
    """What latencies mostly look like: half are below the median, few are far above it.

    Args:
        median: half are below.
        sigma: standard deviation of the logarithm: with 0.5, one in six is above 1.65 medians, with 1 above 2.7. From 0 to 10.
    """
    return Distribution("lognormal", {"median": seconds("median", median), "sigma": number("sigma", sigma, 10)})


def percentiles(**points: Seconds) -> Distribution:
    """By measured percentiles: `percentiles(p50=0.3, p90=0.8, p99=2.5)`.

    Between two of them it is straight; below the first it goes down to zero, unless `p0` is given; nothing is above the last.

    Raises:
        ConfigurationError: a name is no percentile from p0 to p100, or the seconds do not grow.
    """
    shares: dict[float, float] = {}
    for name, value in points.items():
        try:
            share = float(name.removeprefix("p").replace("_", ".")) if name.startswith("p") else math.nan
        except ValueError:
            share = math.nan
        if not 0 <= share <= 100:
            raise ConfigurationError(f"{name} must be a percentile from p0 to p100, like p50 or p99_9")
        shares[share / 100] = seconds(name, value)
    if not shares:
        raise ConfigurationError("points must have one percentile at least, like p50=0.3")
    ordered = sorted(shares.items())
    if any(before[1] > after[1] for before, after in itertools.pairwise(ordered)):
        raise ConfigurationError(f"points must grow from one percentile to the next, not {points!r}")
    return Distribution("percentiles", {"points": ordered})


__all__ = ["Distribution", "fixed", "lognormal", "normal", "percentiles", "uniform"]
