"""What calls of models and guarded functions went through, for Prometheus, OpenTelemetry and logs.

    seawall.telemetry.prometheus.serve()              # /metrics at 127.0.0.1:9464, served by the native core
    seawall.telemetry.opentelemetry.instrument()      # a span for each call and each attempt, and metrics
    seawall.telemetry.tracing()                       # what the core itself says, under the loggers seawall.core.*

Nothing of it shows what was said, or a key. Nothing is counted before it is asked for.
"""

from __future__ import annotations

import importlib
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


__all__ = ["opentelemetry", "prometheus"]
