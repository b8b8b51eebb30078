"""One object of every kind that draws itself: as it is made, in trouble, and with names and texts that are up to no good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _canary import CANARY

import seawall
from seawall import (
    Bulkhead,
    Cache,
    CircuitBreaker,
    Fallback,
    Hedge,
    Monitor,
    MonitoringSystem,
    Pipeline,
    RateLimit,
    Retry,
    Timeout,
    circuits,
    explain,
    guard,
    retry,
)
from seawall.llm import Attempts, Chat, Embeddings
from seawall.simulator import Simulator, faults

KEY = CANARY
HOSTILE = "<script>alert(1)</script>\"'>&<img src=x onerror=alert(2)>\x1b[2J\u202eabc"
SECRET = "the customer's own words"


class Odd(Exception):
    """A failure whose text nobody should see."""


Hostile = type(HOSTILE, (Exception,), {})


def raised(call: Callable[..., Any], *args: Any) -> BaseException:
    try:
        call(*args)
    except BaseException as error:
        return error
    raise AssertionError("it was to fail")


def breaker(name: str | None = None, **settings: Any) -> CircuitBreaker:
    return CircuitBreaker(name=name, **settings)


def opened(name: str, failure: BaseException) -> CircuitBreaker:
    made = CircuitBreaker(1, name=name)
    made.record_failure(failure)
    return made


def watched(name: str | None, *, calls: int = 0, failing: int = 0) -> Monitor:
    made = Monitor(window=50, name=name)
    for number in range(calls):
        made.record(True, retries=int(number % 7 == 0), latency=0.1 + number / 100, tokens=10, fallback=number % 5 == 0)
    for _ in range(failing):
        made.record(False, latency=1)
    return made


def chat(sim: Simulator, model: str, **more: Any) -> Chat:
    return Chat(model, api_key=KEY, base_url=sim.base_url, **more).with_retry(wait=0, stop_after_attempt=3)


def fails(name: str, *policies: Any, failure: BaseException, monitor: Monitor | None = None) -> Any:
    def call(*args: Any) -> Any:
        raise failure

    call.__qualname__ = name
    return Pipeline(*policies, name=name, monitor=monitor)(call)


def read_out(stream: Any) -> Any:
    try:
        for _ in stream:
            pass
    except seawall.SeawallError:
        pass
    return stream


def everything(sim: Simulator) -> dict[str, Any]:
    """All of it, by what it is."""
    sim.on("shaky", faults.status(500), times=2)
    sim.on("down", faults.status(503))
    sim.on("cut", faults.cut(3, "reset"))
    sim.on("short", faults.reply(SECRET, finish_reason="length"))
    sim.on("tools", faults.reply(tool_calls=[(HOSTILE, {"city": HOSTILE})], reasoning=HOSTILE))
    sim.on(HOSTILE, faults.reply(HOSTILE))
    guarded = fails("ask", Retry(2, wait=0), opened("used", Odd(SECRET)), failure=Odd(SECRET))
    worked = guard(lambda: 1)
    worked()
    rescued = fails("rescued", Fallback("a plain answer"), Retry(2, wait=0), failure=ConnectionError(SECRET))
    rescued()
    alarmed = MonitoringSystem()
    for _ in range(6):
        alarmed.record_request(False, True, 0.4)
    told: list[Any] = []
    loud = CircuitBreaker(1, name="loud", listeners=[told.append])
    loud.record_failure(Odd(SECRET))
    half = CircuitBreaker(1, recovery_timeout=0, name="half")
    half.record_failure(Odd(SECRET))
    forced = CircuitBreaker(name="forced")
    forced.force("forced_open")
    slow = CircuitBreaker(name="rates", failure_rate=0.5, slow_call_duration=1, window=10, minimum_calls=5)
    for _ in range(4):
        slow.record_success()
    things = {
        "breaker, new": breaker(),
        "breaker, rates": slow,
        "breaker, open": opened("payments", Odd(SECRET)),
        "breaker, half open": half,
        "breaker, forced": forced,
        "breaker, hostile": opened(HOSTILE, Hostile(SECRET)),
        "metrics, new": breaker("quiet").metrics(),
        "metrics, hostile": opened(HOSTILE, Hostile(SECRET)).metrics(),
        "event": told[0],
        "circuits": circuits,
        "rate limit": RateLimit(500, 200_000, name="shared"),
        "cache": Cache(60, stale_if_error=3600, name="answers"),
        "bulkhead": Bulkhead(8, max_queue=100, name=HOSTILE),
        "hedge": Hedge(percentile=0.95, name=HOSTILE),
        "pipeline, empty": Pipeline(),
        "pipeline, wrong": Pipeline(CircuitBreaker(2), Retry(3), Fallback(HOSTILE, print), name=HOSTILE),
        "pipeline, whole": guard("prod", fallback=[print, 3], name="ask", deadline=5)(print).pipeline,
        "description": Pipeline(Timeout(3), Retry(stop=lambda state: True), name=HOSTILE).describe(),
        "guarded, new": retry(print),
        "guarded, worked": worked,
        "guarded, rescued": rescued,
        "guarded, hostile": fails(HOSTILE, Retry(1), failure=Odd(SECRET)),
        "monitor, new": watched(None),
        "monitor, busy": watched("answers", calls=90),
        "monitor, in trouble": watched("answers", calls=20, failing=10),
        "monitor, hostile": watched(HOSTILE, failing=12),
        "monitoring system": alarmed,
        "alert": alarmed.alerts[0],
        "alert, hostile": watched(HOSTILE, failing=12).alerts[0],
        "reply": chat(sim, "shaky").invoke(SECRET),
        "reply, other": chat(sim, "down").with_fallbacks([chat(sim, HOSTILE)]).invoke("x"),
        "reply, short": chat(sim, "short").invoke("x"),
        "reply, tools": chat(sim, "tools").invoke("x", tools=[{"type": "function", "function": {"name": "t"}}]),
        "attempts": chat(sim, "down").with_fallbacks([chat(sim, "well")]).invoke("x").attempts,
        "attempts, none": Attempts(),
        "embeddings": Embeddings("e", api_key=KEY, base_url=sim.base_url).invoke(["a", "b"]),
    }
    failures = {
        "error": raised(chat(sim, "down").invoke, SECRET),
        "error of all": raised(chat(sim, "down").with_fallbacks([chat(sim, "down")]).invoke, SECRET),
        "refusal": raised(opened(HOSTILE, Hostile(SECRET)).call, print),
        "guarded": raised(guarded),
        "foreign": ValueError(SECRET),
        "hostile": Hostile(SECRET),
    }
    things |= {f"explanation of {name}": explain(error) for name, error in failures.items()}
    for name in (
        "breaker, open",
        "breaker, hostile",
        "guarded, rescued",
        "alert, hostile",
        "reply",
        "reply, other",
        "embeddings",
    ):
        things[f"explanation of {name}"] = explain(things[name])
    things["explanation of a stream"] = explain(read_out(chat(sim, "cut").stream(SECRET)))
    return things
