"""What calls of models and guarded functions went through, for Prometheus, OpenTelemetry and logs.

    seawall.telemetry.prometheus.serve()              # /metrics at 127.0.0.1:9464, served by the native core
    seawall.telemetry.opentelemetry.instrument()      # a span for each call and each attempt, and metrics
    seawall.telemetry.tracing()                       # what the core itself says, under the loggers seawall.core.*

Nothing of it shows what was said, or a key. Nothing is counted before it is asked for.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seawall.telemetry import opentelemetry, prometheus

_MODULES = {"opentelemetry", "prometheus"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def tracing(level: int | str | None = "DEBUG") -> None:
    """Has what the native core says about its work in the log: requests, the heads of responses, what policies do. It is said by the
    loggers `seawall.core.client`, `seawall.core.policy`, …, whose level this sets too. Names and numbers, never content or keys.

    Args:
        level: how loud something has to be: a level of `logging` or its name. `None`: nothing is said any more.

    Raises `ConfigurationError` for what is no level.
    """
    from seawall import _seawall
    from seawall._word import shown
    from seawall.errors import ConfigurationError
    from seawall.telemetry import _delivery

    number: Any = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if level is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 256):
        raise ConfigurationError(f'level must be a level of logging, like "DEBUG" or logging.INFO, or None, not {shown(level)}')
    if number is None:
        _seawall.listen_core(None)
        _delivery.end("lines")
        return
    logging.getLogger("seawall.core").setLevel(number)
    _delivery.begin("lines")
    _seawall.listen_core(number)


__all__ = ["opentelemetry", "prometheus", "tracing"]
