"""What tests of telemetry use: scrapes as differences, since the core counts for the whole process."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

import seawall
from seawall.telemetry import opentelemetry, prometheus


def fetched(url: str, accept: str = "") -> tuple[str, str]:
    """The page as a scraper gets it, and its content type."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})) as response:
        return response.read().decode(), response.headers["content-type"]


def parsed(text: str) -> Counter:
    """`{(name, ((label, value), …)): value}` by the parser of prometheus_client that fits."""
    families = list((openmetrics if text.endswith("# EOF\n") else prometheus_text)(text))
    samples = Counter()
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} comes twice"
            samples[key] = sample.value
    return samples


class Scraper:
    """What was counted since it was made."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.before = self.now()

    def now(self, accept: str = "") -> Counter:
        return parsed(fetched(self.url, accept)[0])

    def since(self, name: str, *by: str, **only: str) -> dict:
        """The growth of one metric, added up by these labels, of the series with those labels."""
        grown: Counter = Counter()
        for (metric, labels), value in self.now().items():
            told = dict(labels)
            if metric == name and all(told.get(label) == wanted for label, wanted in only.items()):
                growth = value - self.before[metric, labels]
                assert growth >= 0 or "state" in told, f"{metric} {told} went back"
                grown[tuple(told[label] for label in by)] += growth
        return {key[0] if len(key) == 1 else key: value for key, value in grown.items() if value}


@pytest.fixture
def exporter() -> Iterator[prometheus.Exporter]:
    with prometheus.serve(0) as serving:
        yield serving


@pytest.fixture
def scraper(exporter: prometheus.Exporter) -> Scraper:
    return Scraper(exporter.url)


QUICK = seawall.wait_fixed(0)


@pytest.fixture
def endpoint_seen() -> Iterator[tuple[list, str]]:
    """A server that answers, and the headers that it has seen."""
    seen: list = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(dict(self.headers))
            self.rfile.read(int(self.headers["content-length"]))
            body = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield seen, f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


class Traces:
    """Spans and measures as the SDK's own exporters in memory have them."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def spans(self, *names):
        """Those of these names, or all, in the order in which they began."""
        opentelemetry.flush()
        spans = [span for span in self.exporter.get_finished_spans() if not names or span.name in names]
        return sorted(spans, key=lambda span: span.start_time)

    def one(self, name):
        (span,) = self.spans(name)
        return span

    def measured(self):
        """`{(name, error): count}`"""
        opentelemetry.flush()
        found = Counter()
        for resource in self.reader.get_metrics_data().resource_metrics:
            for metric in resource.scope_metrics[0].metrics:
                for point in metric.data.data_points:
                    count = getattr(point, "count", None) or getattr(point, "value", 0)
                    found[metric.name, point.attributes.get("error.type")] += count
        return found


@pytest.fixture
def traces():
    traces = Traces()
    opentelemetry.instrument(traces.provider, traces.meters)
    yield traces
    opentelemetry.uninstrument()
