"""What telemetry costs: a guarded call and the native client's `ainvoke`, with nothing on, and with each exporter. CPU of the whole process,
so that what threads do in the background counts too."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import seawall
from _harness import Loop, Rounds, arguments, measure
from _report import Report, Table
from seawall.llm import Chat
from seawall.telemetry import prometheus

OFF = "nothing on"
State = Callable[[], AbstractContextManager[None]]


@contextlib.contextmanager
def counted() -> Iterator[None]:
    from seawall import _seawall

    metrics = _seawall.Metrics(None)
    server = _seawall.MetricsServer(metrics, "127.0.0.1", 0)
    try:
        yield
    finally:
        server.close()
        metrics.close()


@contextlib.contextmanager
def observed() -> Iterator[None]:
    with seawall.observe():
        yield


def followed() -> tuple[State, Callable[[], None]]:
    """Spans by the SDK, which a processor takes and drops; and what hands them over."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from seawall.telemetry import opentelemetry

    tracers, meters = TracerProvider(), MeterProvider()
    tracers.add_span_processor(SpanProcessor())

    @contextlib.contextmanager
    def on() -> Iterator[None]:
        opentelemetry.instrument(tracers, meters)
        try:
            yield
        finally:
            opentelemetry.uninstrument()

    return on, opentelemetry.flush


def states() -> dict[str, tuple[State, Callable[[], None]]]:
    found: dict[str, tuple[State, Callable[[], None]]] = {
        OFF: (contextlib.nullcontext, lambda: None),
        "a monitor of all calls (observe)": (observed, lambda: None),
        "Prometheus exporter": (counted, lambda: None),
    }
    try:
        found["OpenTelemetry, spans and measures"] = followed()
    except ImportError as error:
        print(f"without OpenTelemetry: {error}", file=sys.stderr)
    return found


def looped(call: Callable[[int], object], state: State, flush: Callable[[], None]) -> Loop:
    def loop(count: int) -> int:
        with state():
            begun = time.process_time_ns()
            call(count)
            flush()
            return time.process_time_ns() - begun

    return loop


def sync_calls() -> Callable[[int], object]:
    guarded: Any = seawall.guard(name="bench")(lambda value: value)

    def call(count: int) -> None:
        for _ in itertools.repeat(None, count):
            guarded(1)

    return call


def by_hand() -> Loop:
    """What the SDK takes for as many spans and measures as a call that passes has: a span in a span, a duration, a count."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    tracers, meter = TracerProvider(), MeterProvider().get_meter("by hand")
    tracers.add_span_processor(SpanProcessor())
    tracer = tracers.get_tracer("by hand")
    duration, requests = meter.create_histogram("duration", "s"), meter.create_counter("requests")

    def loop(count: int) -> int:
        begun = time.process_time_ns()
        for _ in itertools.repeat(None, count):
            with tracer.start_as_current_span("call bench", attributes={"seawall.pipeline": "bench"}) as span:
                with tracer.start_as_current_span("attempt bench"):
                    pass
                span.set_attributes({"seawall.attempts": 1, "seawall.retries": 0})
            requests.add(1, {"seawall.pipeline": "bench"})
            duration.record(0.1, {"seawall.pipeline": "bench"})
        return time.process_time_ns() - begun

    return loop


def failing_calls() -> Callable[[int], object]:
    """Two attempts each, the first of which fails."""
    turns = itertools.cycle((True, False))

    @seawall.guard(name="bench-retry", retry=seawall.Retry(3, wait=seawall.wait_fixed(0), on=ValueError))
    def guarded() -> None:
        if next(turns):
            raise ValueError

    def call(count: int) -> None:
        for _ in itertools.repeat(None, count):
            guarded()

    return call


def async_calls(event_loop: asyncio.AbstractEventLoop, base_url: str) -> Callable[[int], object]:
    model = Chat("bench", api_key="k", base_url=base_url).with_retry()

    async def worker(turns: Iterator[None]) -> None:
        for _ in turns:
            await model.ainvoke("x")

    async def all_of_them(count: int) -> None:
        turns = itertools.repeat(None, count)
        await asyncio.gather(*(worker(turns) for _ in range(32)))

    return lambda count: event_loop.run_until_complete(all_of_them(count))


def main() -> None:
    given = arguments(__doc__ or "")
    logging.getLogger("seawall").setLevel(logging.CRITICAL)
    pace: dict[str, Any] = {"rounds": 5, "slice_ms": 10} if given.quick else {"rounds": 15, "slice_ms": 100}
    report = Report("telemetry", "What telemetry costs", ("opentelemetry-sdk", "prometheus-client"))
    command = [sys.executable, "-m", "seawall.simulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            base_url = next(word for line in server.stdout for word in line.split() if word.startswith("http"))
            event_loop = asyncio.new_event_loop()
            subjects = {
                "A guarded call that passes": sync_calls(),
                "A guarded call that is tried twice": failing_calls(),
                "`ainvoke` of the native client, 32 at a time": async_calls(event_loop, base_url.removesuffix("/v1") + "/v1"),
            }
            for title, call in subjects.items():
                call(2_000)  # warm, connected
                loops = {name: looped(call, state, flush) for name, (state, flush) in states().items()}
                if title == "A guarded call that passes" and len(loops) > 3:
                    loops["(the SDK alone: two spans, two measures)"] = by_hand()
                table_of(report, title, measure(loops, **pace))
            event_loop.close()
        finally:
            server.terminate()
    scraped(report)
    report.finish()


def table_of(report: Report, title: str, rounds: Rounds) -> None:
    table = Table(title, ["ns of CPU", "median", "min", "more", f"times {OFF}"], notes=[])
    for name in rounds.values:
        extra = None if name == OFF else rounds.over(name, OFF)
        table.add(name, rounds.median(name), rounds.low(name), extra, rounds.ratio(name, OFF))
    report.table(table, rounds=rounds.values)


def scraped(report: Report) -> None:
    """A scrape of 100 pipelines."""
    prometheus.start()
    for at in range(100):
        seawall.guard(name=f"pipeline {at}")(lambda: None)()

    def render(count: int) -> int:
        begun = time.process_time_ns()
        for _ in itertools.repeat(None, count):
            prometheus.render()
        return time.process_time_ns() - begun

    rounds = measure({"one page": render}, rounds=5, slice_ms=20)
    table = Table("A scrape, with 100 pipelines", ["ns of CPU", "median", "min"], notes=[])
    table.add("one page", rounds.median("one page"), rounds.low("one page"))
    report.table(table, rounds=rounds.values)


if __name__ == "__main__":
    main()
