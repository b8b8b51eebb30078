"""`MonitoringSystem`, the class of the production-practices document, on the native monitor; and where alerts go."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from seawall import _seawall
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from datetime import timedelta

    from seawall._rules import Rule

logger = logging.getLogger("seawall.monitor")

LOG_LEVELS = {"normal": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR, "emergency": logging.ERROR}


class Alert(NamedTuple):
    """One moment of an incident: it was raised, its level changed, it lasts, or it is resolved."""

    kind: str
    """`raised`, `escalated`, `deescalated`, `reminder` or `resolved`."""
    level: str
    """How bad it is now: `normal`, `warning`, `critical` or `emergency`."""
    previous: str
    """The level that the alert before told."""
    peak: str
    """The worst level of the incident so far."""
    metrics: dict[str, float]
    """What is over its limit (of a resolved incident: what was), with its value: rates as shares from 0 to 1, latencies in
    seconds, `outage` as failures in a row."""
    limits: dict[str, float]
    """The limit of each of those metrics."""
    calls: int
    """Calls in the window."""
    incident: int
    """Number of the incident, from 1."""
    since: float
    """Unix time at which the incident began."""
    timestamp: float
    """Unix time of this alert."""
    name: str | None
    """The monitor's name."""
    message: str
    """All this as one line of text."""
    silenced: bool = False
    """Whether it came while alerts were silenced: it was told to nobody."""

    def _line(self) -> str:
        return self.message if self.name is None else f"[{self.name}] {self.message}"

    def _fields_for_logs(self) -> dict[str, Any]:
        return {f"alert_{name}": value for name, value in zip(self._fields, self, strict=True) if name != "message"}

    def __str__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        from seawall._pictures import alert  # what few programs show

        return alert(self)


def publish(alert: Alert, callbacks: Iterable[Callable[[Alert], object]]) -> None:
    """Log an alert and hand it to the callbacks, which for sinks put it into queues; unless it is silenced.

    What a callback raises is logged and goes no further. The one door for alerts, from whatever thread.
    """
    if alert.silenced:
        return
    logger.log(LOG_LEVELS[alert.level], "%s", alert._line(), extra=alert._fields_for_logs())
    for callback in callbacks:
        try:
            callback(alert)
        except Exception:
            logger.exception("An alert callback failed: %r", callback)


class Thresholds(dict[str, float]):
    """The limits of a `MonitoringSystem`: a dict of fixed keys whose values are checked and take effect at once."""

    def __init__(self, values: Mapping[str, float], changed: Callable[[str, float], None]) -> None:
        super().__init__(values)
        self._changed = changed

    def __setitem__(self, metric: str, limit: float) -> None:
        self.update({metric: limit})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Change several limits: all of them, or none if one is refused."""
        wanted = dict(*args, **kwargs)
        for metric, limit in wanted.items():
            self._check(metric, limit)
        for metric, limit in wanted.items():
            super().__setitem__(metric, limit)
            self._changed(metric, limit)

    def __ior__(self, other: Any) -> Thresholds:  # type: ignore[override,misc]
        self.update(other)
        return self

    def setdefault(self, metric: str, default: float | None = None) -> float:
        """Return the limit; every metric has one, so a default is never used."""
        if metric not in self:
            self._check(metric, default)
        return self[metric]

    def _check(self, metric: object, limit: object) -> None:
        if metric not in self:
            raise ConfigurationError(f"there is no threshold {metric!r}: the thresholds are {', '.join(self)}")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)):
            raise ConfigurationTypeError(f"thresholds[{metric!r}] must be a number, not {shown(limit)}")
        most, unit = (math.inf, "seconds") if metric == "avg_latency" else (1, "a share from 0 to 1: 0.10 is 10 %")
        if not (0 <= limit <= most or limit == math.inf):
            raise ConfigurationError(
                f"thresholds[{metric!r}] must be at least 0 ({unit}), not {limit!r}; float('inf') switches the alert off"
            )

    def _keep(self, *args: object) -> Any:
        raise TypeError("a threshold cannot be removed; float('inf') as its value switches the alert off")

    __delitem__ = pop = popitem = clear = _keep

    def __reduce__(self) -> tuple[type[dict[str, float]], tuple[dict[str, float]]]:
        return dict, (dict(self),)  # a copy is tied to no monitor


def observe(monitor: _seawall.Monitor | None = None) -> _seawall.Observation:
    """Has a monitor told of every call of the process: of guarded functions, pipelines and native models, wherever they are.

        with seawall.observe() as monitor:      # or: observation = seawall.observe(monitor); …; observation.close()
            work()
        print(monitor.by("model"))

    A call within a guarded call (a guard around a function that asks a model) is a call of its own, under its own name:
    `monitor.by("pipeline")` tells them apart. Calls that are cancelled or closed early count nowhere.

    Args:
        monitor: the `Monitor` that is told; by default a new one over the last 1,000 calls.
    """
    if monitor is None:
        monitor = _seawall.Monitor(1000, "all calls")
    if not isinstance(monitor, _seawall.Monitor):
        raise ConfigurationTypeError(f"monitor must be a seawall.Monitor or None, not {shown(monitor)}")
    return _seawall.Observation(monitor)


USUAL_THRESHOLDS = {"error_rate": 0.10, "retry_rate": 0.05, "avg_latency": 5.0}


class MonitoringSystem(_seawall.MonitoringSystem):
    """The monitor of the document: counts requests, says how things are, and alerts in Chinese.

    Args:
        window_size: how many of the last requests count, 1 to 10,000,000 (default 100).
        rules: as for `Monitor`: `seawall.Rule`s or dicts; each takes the place of the default of its metric (default: none).
            One of a metric that has a threshold is that threshold: `thresholds` shows its `critical`.
        remind_every: seconds or timedelta; while an incident lasts, it is told again so often (default: never).
        sinks: where alerts go, besides the log; see `add_sink` (default: nowhere).

    `thresholds` is a dict that may be changed at any time: `error_rate` and `retry_rate` (shares, defaults 0.10 and
    0.05) and `avg_latency` (seconds, default 5.0). Above its threshold a metric is critical. At the default values the
    document's table of levels also gives an earlier warning (5 %, 3 %, 2 s); a threshold of your own stands alone.
    Rates are judged from 10 requests on; five failures in a row are an emergency at once.

    One incident gives one alert when it starts, one when it becomes worse and one when it is over, whatever the number
    of metrics: lines of the logger `seawall.monitor` (WARNING, ERROR from critical on, INFO when resolved), entries of
    `alerts`, and calls of the callbacks given to `on_alert`.

    Recording costs the same at every window size and is safe from any thread. A copy (pickle, deepcopy) has the same
    window size, thresholds and callbacks, and starts empty.

    Raises `ConfigurationError` (a `ValueError`, for a wrong type a `TypeError` too) that names the argument, what it was and
    what it may be.
    """

    _thresholds: Thresholds

    def __init__(
        self,
        window_size: int = 100,
        *,
        rules: Iterable[Rule | Mapping[str, Any]] | None = None,
        remind_every: float | timedelta | None = None,
        sinks: Iterable[Callable[[Alert], object]] | None = None,
    ) -> None:
        self._begin(window_size, rules, remind_every, sinks)
        self._thresholds = self._limits()

    def _limits(self) -> Thresholds:
        return Thresholds({metric: self._limit(metric) for metric in USUAL_THRESHOLDS}, self._set_limit)

    @property
    def window_size(self) -> int:
        """How many of the last requests count."""
        return int(self.window)

    @property
    def thresholds(self) -> Thresholds:
        """The limits; change one with `thresholds["error_rate"] = 0.2`. Assigning a dict sets what it names, all else
        goes back to the default."""
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Mapping[str, float]) -> None:
        self._thresholds.update(USUAL_THRESHOLDS | dict(values))

    def get_metrics(self) -> dict[str, int | str]:
        """The numbers as text, as the document prints them; `{}` before the first request. `snapshot()` has numbers."""
        now = self.snapshot()
        if not now["total"]:
            return {}
        return {
            "total_requests": now["total"],
            "error_rate": f"{now['error_rate']:.2%}",
            "retry_rate": f"{now['retry_rate']:.2%}",
            "avg_latency": f"{now['avg_latency']:.2f}s",
            "success_rate": f"{now['success_rate']:.2%}",
        }

    def __getnewargs__(self) -> tuple[()]:
        return ()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        attributes = {key: value for key, value in state["attributes"].items() if key != "_thresholds"}
        return {**state, "attributes": attributes, "window_size": self.window_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state["window_size"])
        super().__setstate__(state)
        self._thresholds = self._limits()
