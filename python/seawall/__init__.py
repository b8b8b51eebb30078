"""seawall: what stands between an application and the model APIs that it calls."""

from typing import TYPE_CHECKING, Any

from seawall import errors, presets
from seawall._circuits import CircuitBreakerMonitor, circuits
from seawall._classify import classify, register_classifier, retry_after, transient, unregister_classifier
from seawall._decorators import circuit, guard, retry
from seawall._order import PipelineOrderWarning
from seawall._prompt import Prompt
from seawall._seawall import (
    Bulkhead,
    Cache,
    Chaos,
    CircuitBreaker,
    Fallback,
    Guardrails,
    Hedge,
    Monitor,
    Permit,
    Pipeline,
    RateLimit,
    Retry,
    Timeout,
    remaining,
    wait_chain,
    wait_combine,
    wait_decorrelated_jitter,
    wait_equal_jitter,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_full_jitter,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)
from seawall.errors import CircuitBreakerError, ConfigurationError, Rejected, SeawallError

if TYPE_CHECKING:
    from seawall import configuration, dashboard, guardrails, journal, sinks, telemetry, testing
    from seawall._cache import cache_bypass
    from seawall._circuit_reports import CircuitEvent, CircuitMetrics
    from seawall._explain import Explanation, explain
    from seawall._monitoring import Alert, MonitoringSystem, observe
    from seawall._prices import Price, prices
    from seawall._rules import Rule
    from seawall._sdk import resilient
    from seawall._waits import wait_base, wait_exception
    from seawall._words import (
        after_log,
        after_nothing,
        before_log,
        before_nothing,
        before_sleep_log,
        before_sleep_nothing,
        retry_all,
        retry_any,
        retry_if_exception,
        retry_if_exception_type,
        retry_if_not_exception_type,
        retry_if_result,
        stop_after_attempt,
        stop_after_delay,
        stop_all,
        stop_any,
        stop_before_delay,
        stop_never,
        stop_when_event_set,
    )
    from seawall.configuration import load

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "Bulkhead",
    "Cache",
    "Chaos",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitBreakerMonitor",
    "CircuitEvent",
    "CircuitMetrics",
    "ConfigurationError",
    "Explanation",
    "Fallback",
    "Guardrails",
    "Hedge",
    "Monitor",
    "MonitoringSystem",
    "Permit",
    "Pipeline",
    "PipelineOrderWarning",
    "Price",
    "Prompt",
    "RateLimit",
    "Rejected",
    "Retry",
    "Rule",
    "SeawallError",
    "Timeout",
    "after_log",
    "after_nothing",
    "before_log",
    "before_nothing",
    "before_sleep_log",
    "before_sleep_nothing",
    "cache_bypass",
    "circuit",
    "circuits",
    "classify",
    "configuration",
    "dashboard",
    "errors",
    "explain",
    "guard",
    "guardrails",
    "journal",
    "load",
    "observe",
    "presets",
    "prices",
    "register_classifier",
    "remaining",
    "resilient",
    "retry",
    "retry_after",
    "retry_all",
    "retry_any",
    "retry_if_exception",
    "retry_if_exception_type",
    "retry_if_not_exception_type",
    "retry_if_result",
    "sinks",
    "stop_after_attempt",
    "stop_after_delay",
    "stop_all",
    "stop_any",
    "stop_before_delay",
    "stop_never",
    "stop_when_event_set",
    "telemetry",
    "testing",
    "transient",
    "unregister_classifier",
    "wait_base",
    "wait_chain",
    "wait_combine",
    "wait_decorrelated_jitter",
    "wait_equal_jitter",
    "wait_exception",
    "wait_exponential",
    "wait_exponential_jitter",
    "wait_fixed",
    "wait_full_jitter",
    "wait_incrementing",
    "wait_none",
    "wait_random",
    "wait_random_exponential",
]

# Loaded when first asked for: most programs go without.
_LATER = {
    "testing": "testing",
    "configuration": "configuration",
    "load": "configuration",
    "dashboard": "dashboard",
    "journal": "journal",
    "guardrails": "guardrails",
    "telemetry": "telemetry",
    "sinks": "sinks",
    "Alert": "_monitoring",
    "MonitoringSystem": "_monitoring",
    "observe": "_monitoring",
    "CircuitEvent": "_circuit_reports",
    "CircuitMetrics": "_circuit_reports",
    "cache_bypass": "_cache",
    "Explanation": "_explain",
    "Price": "_prices",
    "explain": "_explain",
    "prices": "_prices",
    "Rule": "_rules",
    "resilient": "_sdk",
    "llm": "llm",
    "simulator": "simulator",
    **dict.fromkeys(("wait_base", "wait_exception"), "_waits"),
    **{
        name: "_words"
        for name in __all__
        if name.startswith(("after_", "before_", "retry_all", "retry_any", "retry_if_", "stop_"))
    },
}
# Names that are looked for here and are in a module of their own.
_ELSEWHERE = {
    **dict.fromkeys(("Chat", "Embeddings", "models"), "seawall.llm"),
    **dict.fromkeys(("ChatOpenAI", "OpenAIEmbeddings", "ProductionRAG", "SelfHealingAgent"), "seawall.langchain"),
    **dict.fromkeys(("RateLimitError", "APIError", "AuthenticationError", "CallTimeoutError"), "seawall.errors"),
    "Simulator": "seawall.simulator",
}


def __getattr__(name: str) -> Any:
    place = _LATER.get(name)
    if place is not None:
        import importlib  # `from seawall import testing` would ask here again

        module = importlib.import_module(f"seawall.{place}")
        found = globals()[name] = module if place == name else getattr(module, name)
        return found
    raise AttributeError(f"module 'seawall' has no attribute {name!r}{_meant(name)}")


def _meant(name: str) -> str:
    if name in _ELSEWHERE:
        return f": write from {_ELSEWHERE[name]} import {name}"
    if name in ("langchain", "compat"):
        return f": write import seawall.{name}"
    if name.startswith("_"):  # asked for by tools, which want no advice
        return ""
    from seawall._wrong_calls import near

    likely = near(name, __all__)
    return f": is {likely} meant?" if likely else ""


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"})
