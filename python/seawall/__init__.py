"""seawall: what stands between an application and the model APIs that it calls."""

from seawall import errors, presets
from seawall._circuits import CircuitBreakerMonitor
from seawall._classify import register_classifier, transient
from seawall._decorators import circuit, guard, retry
from seawall._monitoring import Alert, MonitoringSystem
from seawall._order import PipelineOrderWarning
from seawall._prompt import Prompt
from seawall._seawall import CircuitBreaker, Fallback, Monitor, Pipeline, Retry, Timeout
from seawall.errors import CircuitBreakerError, ConfigurationError, Rejected, SeawallError

__all__ = [
    "Alert",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitBreakerMonitor",
    "ConfigurationError",
    "Fallback",
    "Monitor",
    "MonitoringSystem",
    "Pipeline",
    "PipelineOrderWarning",
    "Prompt",
    "Rejected",
    "Retry",
    "SeawallError",
    "Timeout",
    "circuit",
    "errors",
    "guard",
    "presets",
    "register_classifier",
    "retry",
    "transient",
]
