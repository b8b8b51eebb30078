"""`Rule`: when a metric of a monitor is bad, as data; and the check of what users write for rules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, NamedTuple

from seawall import _seawall
from seawall._word import seconds, shown, whole_number
from seawall.errors import ConfigurationError, ConfigurationTypeError

LEVELS = ("warning", "critical", "emergency")


class _Metric(NamedTuple):
    unit: str
    is_low_bad: bool
    minimum: int


METRICS = {name: _Metric(unit, low, least) for name, unit, low, _, least in _seawall.METRICS}


@dataclass(frozen=True)
class Rule:
    """When a metric is bad. Rules compare, pickle and are plain data: `dataclasses.asdict(rule)` is what `Rule(**…)` takes.

    Attributes:
        metric: `error_rate`, `retry_rate`, `fallback_rate` and `success_rate` (shares from 0 to 1), `avg_latency`, `p95`, `p99` and
            `first_token`, the mean time to a stream's first content (seconds), `tokens` and `cost` of the window's calls, or
            `outage` (calls failed in a row).
        warning: the limit of this level; the metric is bad above it, `success_rate` below it, `outage` from it on. A latency may
            be a timedelta. `None` is no such level, and so is infinity.
        critical: likewise.
        emergency: likewise.
        minimum: calls that there must be before it can start an incident, no more than the window holds (10; of `p95` 20 and of
            `p99` 100, since of fewer calls they are the slowest one; of `outage`, `tokens` and `cost` 1).
        clear: a level is left when the metric is at or under this share of the limit (0.8), so that what hovers at a limit is
            not told again and again. Of `success_rate` it is the distance from 1 that counts. An outage ends with one success.
        hold: so long, in seconds or as a timedelta, it has to be bad without a break before it is said (0).
        clear_hold: so long it has to be good again before that is (as long as `hold`).

    Raises:
        ConfigurationError: for what cannot be meant; it names the attribute, what it was and what it may be.
    """

    metric: str
    warning: float | timedelta | None = None
    critical: float | timedelta | None = None
    emergency: float | timedelta | None = None
    minimum: int | None = None
    clear: float = 0.8
    hold: float | timedelta = 0.0
    clear_hold: float | timedelta | None = None

    def __post_init__(self) -> None:
        known = METRICS.get(self.metric) if isinstance(self.metric, str) else None
        if known is None:
            raise ConfigurationError(f"metric must be one of {', '.join(METRICS)}, not {shown(self.metric)}")
        limits = {level: _limit(level, value, known) for level in LEVELS if (value := getattr(self, level)) is not None}
        if not limits:
            off = "0" if known.is_low_bad else "float('inf')"
            raise ConfigurationError(f"warning, critical or emergency must be given: a rule needs a limit; {off} switches it off")
        _in_order(limits, known)
        least = known.minimum if self.minimum is None else whole_number("minimum", self.minimum, 1)
        hold = seconds("hold", self.hold, 1e9)
        clear_hold = hold if self.clear_hold is None else seconds("clear_hold", self.clear_hold, 1e9)
        clean = {**limits, "minimum": least, "clear": _share("clear", self.clear), "hold": hold, "clear_hold": clear_hold}
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    def _native(self) -> tuple[str, list[float], int, float, float, float]:
        never = -math.inf if METRICS[self.metric].is_low_bad else math.inf
        limits = [never if (limit := getattr(self, level)) is None else limit for level in LEVELS]
        plain: Any = self  # its spans are seconds by now
        return self.metric, limits, plain.minimum, self.clear, plain.hold, plain.clear_hold


def _number(name: str, value: Any, may_be: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationTypeError(f"{name} must be {may_be}, not {shown(value)}")
    if math.isnan(value):
        raise ConfigurationError(f"{name} must be {may_be}, not {shown(value)}")
    return float(value)


def _share(name: str, value: Any) -> float:
    may_be = "a share, more than 0 and at most 1"
    number = _number(name, value, may_be)
    if not 0 < number <= 1:
        raise ConfigurationError(f"{name} must be {may_be}, not {shown(value)}")
    return number


def _limit(name: str, value: Any, known: _Metric) -> float:
    if known.unit == "seconds" and isinstance(value, timedelta):
        value = value.total_seconds()
    may_be = {
        "share": "a share from 0 to 1 (0.10 is 10 %)",
        "seconds": "a number of seconds or a timedelta, zero or more",
        "calls": "a whole number from 1 on",
    }.get(known.unit, "a number, zero or more")
    number = _number(name, value, may_be)
    least, most = {"share": (0.0, 1.0), "calls": (1.0, math.inf)}.get(known.unit, (0.0, math.inf))
    is_off = number == math.inf and not known.is_low_bad
    is_whole = known.unit != "calls" or is_off or number == int(number)
    if is_off or (least <= number <= most and is_whole):
        return number
    raise ConfigurationError(f"{name} must be {may_be}, not {shown(value)}")


def _in_order(limits: dict[str, float], known: _Metric) -> None:
    given = list(limits.items())
    for (milder, limit), (worse, next_limit) in itertools.pairwise(given):
        if next_limit > limit if known.is_low_bad else next_limit < limit:
            side = "at most" if known.is_low_bad else "at least"
            raise ConfigurationError(f"{worse} must be {side} the limit of {milder} ({limit:g}), not {next_limit:g}")


def native(rules: Iterable[Rule | Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """The rules as the native side takes them; refused, with the exact place, where they cannot be meant."""
    if isinstance(rules, (str, bytes, Mapping, Rule)) or not isinstance(rules, Iterable):
        raise ConfigurationTypeError(f"rules must be a list of seawall.Rule or of dicts, not {shown(rules)}")
    names = [field.name for field in fields(Rule)]
    found: dict[str, int] = {}
    rows = []
    for at, given in enumerate(rules):
        rule = given if isinstance(given, Rule) else _from_dict(f"rules[{at}]", given, names)
        if rule.metric in found:
            raise ConfigurationError(
                f"rules[{at}].metric is {rule.metric!r}, of which rules[{found[rule.metric]}] is a rule already"
            )
        found[rule.metric] = at
        rows.append(rule._native())
    return rows


def _from_dict(place: str, given: Any, names: list[str]) -> Rule:
    if not isinstance(given, Mapping):
        raise ConfigurationTypeError(f"{place} must be a seawall.Rule or a dict, not {shown(given)}")
    for key in given:
        if key not in names:
            raise ConfigurationError(f"{place} has {key!r}, which is no part of a rule: those are {', '.join(names)}")
    if "metric" not in given:
        raise ConfigurationError(f"{place}.metric is missing: it must be one of {', '.join(METRICS)}")
    try:
        return Rule(**given)
    except ConfigurationError as refused:
        raise type(refused)(f"{place}.{refused}") from None


def shown_rules(rows: list[tuple[str, list[float], int, float, float, float]]) -> list[Rule]:
    """Native rules as `Rule`s."""
    found = []
    for metric, limits, minimum, clear, hold, clear_hold in rows:
        warning, critical, emergency = (limit if math.isfinite(limit) else None for limit in limits)
        found.append(Rule(metric, warning, critical, emergency, minimum, clear, hold, clear_hold))
    return found


__all__ = ["Rule"]
