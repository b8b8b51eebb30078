"""Spans and metrics of all calls of the process, for OpenTelemetry: `seawall.telemetry.opentelemetry.instrument()`.

They follow OpenTelemetry's conventions for generative AI. A span is begun where a call begins, in the caller's context, and is the current
one while a guarded function runs; what became of the call is added when it is over, by a thread of this module's, so that nobody waits
for it. Every name is in `docs/monitor/telemetry.md`. What was said, and keys, are in none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seawall import _seawall
from seawall._word import shown
from seawall.errors import ConfigurationTypeError
from seawall.telemetry import _delivery

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImportError("opentelemetry-api is not installed: pip install 'seawall[opentelemetry]'") from missing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

# What providers are called in the conventions, by the ends of their hosts' names.
_PROVIDERS = {
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "anthropic.com": "anthropic",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.cn": "moonshot_ai",
    "moonshot.ai": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
_TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
_SUPPRESSED = "suppress_instrumentation"
_INHERITS = TraceContextTextMapPropagator()


def _provider(host: str) -> str:
    for end, name in _PROVIDERS.items():
        if host == end or host.endswith("." + end):
            return name
    return "openai"


def _server(endpoint: str) -> dict[str, Any]:
    """`host:port` as attributes."""
    host, _, port = endpoint.rpartition(":")
    if not host:
        return {"server.address": endpoint} if endpoint else {}
    return {"server.address": host.strip("[]"), "server.port": int(port)} if port.isdecimal() else {"server.address": endpoint}


def _named(operation: str, model: str, pipeline: str) -> str:
    return f"{operation} {model}" if model else f"{operation} {pipeline}" if pipeline else operation


class _Followed:
    """The span of one call."""

    __slots__ = ("_maker", "_outer", "_own", "_span", "headers")

    def __init__(self, maker: _Maker, span: Span, own: Context) -> None:
        self._maker, self._span, self._own, self._outer = maker, span, own, own
        self.headers: dict[str, str] = {}

    def enter(self) -> None:
        """A frame of the function's runs: the span, or what the function has put in its place, is the current one."""
        self._outer = context.get_current()
        context.attach(self._own)

    def leave(self) -> None:
        """It has run; whoever awaits or iterates has what was current for them."""
        self._own = context.get_current()
        context.attach(self._outer)

    def tell(self, told: _seawall.Told) -> None:
        """The call is over."""
        span = self._span
        inside = trace.set_span_in_context(span)
        try:
            if span.is_recording():
                for at, request in enumerate(told.requests):
                    self._maker.attempt(inside, at, told, *request)
                for note in told.notes:
                    _event(span, *note)
                span.set_attributes(_outcome(told))
                if told.ok is False:
                    span.set_status(Status(StatusCode.ERROR, told.error))
        finally:
            span.end(told.ended)
        self._maker.measure(inside, told)


def _event(span: Span, at: int, name: str, place: str, number: int, seconds: float, reason: str, error: str) -> None:
    attributes: dict[str, Any] = {"seawall.place": place, "seawall.number": number}
    if seconds:
        attributes["seawall.seconds"] = seconds
    if reason:
        attributes["seawall.reason"] = reason
    if error:
        attributes["error.type"] = error
    span.add_event(f"seawall.{name}", attributes, at)


def _outcome(told: _seawall.Told) -> dict[str, Any]:
    attributes: dict[str, Any] = {"seawall.attempts": told.attempts, "seawall.retries": told.retries}
    if told.model:
        attributes["gen_ai.request.stream"] = told.is_stream
    if told.answered_by:
        attributes["gen_ai.response.model"] = told.answered_by
    if told.tokens:
        attributes["gen_ai.usage.input_tokens"] = told.prompt_tokens
        attributes["gen_ai.usage.output_tokens"] = max(told.tokens - told.prompt_tokens, 0)
    if told.first_token and told.model:
        attributes["gen_ai.response.time_to_first_chunk"] = told.first_token
    if told.cost:
        attributes["seawall.cost"] = told.cost
    if told.fallback:
        attributes["seawall.fallback"] = True
    if told.ok is None:
        attributes["error.type"] = "cancelled"
    elif told.error:
        attributes["error.type"] = told.error
    return attributes


class _Maker:
    """Makes spans and measures with providers."""

    def __init__(self, tracers: TracerProvider | None, meters: MeterProvider | None, propagates: bool) -> None:
        from seawall import __version__

        self._tracer = trace.get_tracer("seawall", __version__, tracers)
        self._propagates = propagates
        meter = metrics.get_meter("seawall", __version__, meters)
        made: dict[str, Any] = {}
        for name, kind, unit, meaning in _seawall.span_names()[1]:
            if kind == "counter":
                made[name] = meter.create_counter(name, unit, meaning)
            else:
                limits = _TOKENS if unit == "{token}" else _SECONDS
                made[name] = meter.create_histogram(name, unit, meaning, explicit_bucket_boundaries_advisory=limits)
        self._made = made

    def begin(self, operation: str, pipeline: str, model: str, endpoint: str, begun: int) -> _Followed | None:
        """A call begins, in the caller's context."""
        here = context.get_current()
        if context.get_value(_SUPPRESSED, here):
            return None
        attributes: dict[str, Any] = {}
        kind = SpanKind.INTERNAL
        if model:
            server = _server(endpoint)
            provider = _provider(server.get("server.address", ""))
            attributes = {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                **server,
            }
            kind = SpanKind.CLIENT
        if pipeline:
            attributes["seawall.pipeline"] = pipeline
        span = self._tracer.start_span(_named(operation, model, pipeline), here, kind, attributes, start_time=begun)
        followed = _Followed(self, span, trace.set_span_in_context(span, here))
        if self._propagates and model:
            _INHERITS.inject(followed.headers, trace.set_span_in_context(span))
        return followed

    def attempt(
        self,
        inside: Context,
        at: int,
        told: _seawall.Told,
        model: str,
        endpoint: str,
        began: int,
        ended: int | None,
        error: str,
        status: int | None,
        request_id: str | None,
    ) -> None:
        """One attempt, as a child of its call."""
        attributes: dict[str, Any] = {}
        if model:
            attributes = {"gen_ai.request.model": model, **_server(endpoint)}
        if at:
            attributes["http.request.resend_count"] = at
        if status is not None:
            attributes["http.response.status_code"] = status
        if error:
            attributes["error.type"] = error
        if request_id:
            attributes["seawall.request_id"] = request_id
        kind = SpanKind.CLIENT if model else SpanKind.INTERNAL
        span = self._tracer.start_span(_named("attempt", model, told.pipeline), inside, kind, attributes, start_time=began)
        if error and ended is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(told.ended if ended is None else ended)

    def measure(self, inside: Context, told: _seawall.Told) -> None:
        """Adds a call to the metrics."""
        for model, endpoint, _, _, error, _, _ in told.requests:
            attributes: dict[str, Any] = {"gen_ai.request.model": model, **_server(endpoint)} if model else {}
            if told.pipeline:
                attributes["seawall.pipeline"] = told.pipeline
            if error:
                attributes["error.type"] = error
            self._made["seawall.requests"].add(1, attributes, inside)
        if told.ok is None:
            return
        if told.model:
            server = _server(told.endpoint)
            attributes = {
                "gen_ai.operation.name": told.operation,
                "gen_ai.provider.name": _provider(server.get("server.address", "")),
                "gen_ai.request.model": told.model,
                **server,
            }
            if told.answered_by:
                attributes["gen_ai.response.model"] = told.answered_by
            if told.tokens:
                usage = self._made["gen_ai.client.token.usage"]
                usage.record(told.prompt_tokens, {**attributes, "gen_ai.token.type": "input"}, inside)
                if told.operation == "chat":
                    usage.record(max(told.tokens - told.prompt_tokens, 0), {**attributes, "gen_ai.token.type": "output"}, inside)
            if told.first_token:
                self._made["gen_ai.client.operation.time_to_first_chunk"].record(told.first_token, attributes, inside)
            duration = self._made["gen_ai.client.operation.duration"]
        else:
            attributes = {"seawall.pipeline": told.pipeline}
            duration = self._made["seawall.call.duration"]
        if told.error:
            attributes["error.type"] = told.error
        duration.record(told.seconds, attributes, inside)


def instrument(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None, *, propagate: bool = False
) -> None:
    """Makes a span for each call of a guarded function or model that begins from now on, with a child for each attempt and events for what
    policies did; and measures them. Called again, it goes on with other providers.

    Args:
        tracer_provider: whose tracer makes the spans; default the process's.
        meter_provider: whose meter measures; default the process's.
        propagate: sends `traceparent` (and `tracestate`) with the requests of native models, so that a server of your own can go on with
            the trace. Off by default: most servers are others'.
    """
    for name, given, wanted in (
        ("tracer_provider", tracer_provider, "get_tracer"),
        ("meter_provider", meter_provider, "get_meter"),
    ):
        if given is not None and not hasattr(given, wanted):
            raise ConfigurationTypeError(f"{name} must be a provider of OpenTelemetry's or None, not {shown(given)}")
    if not isinstance(propagate, bool):
        raise ConfigurationTypeError(f"propagate must be True or False, not {shown(propagate)}")
    made = _Maker(tracer_provider, meter_provider, propagate)
    _delivery.begin("spans")
    _seawall.set_tracer(made)


def uninstrument() -> None:
    """Makes no more spans. Those of calls that are over are handed to their provider before this returns."""
    _seawall.set_tracer(None)
    _delivery.end("spans")


def flush() -> None:
    """Hands the spans and measures of all calls that are over to the providers, before it returns. A program does this before it asks a
    provider to flush; at its end it happens by itself."""
    _delivery.tell()


__all__ = ["flush", "instrument", "uninstrument"]
