"""Metrics of all calls of the process, for Prometheus: `seawall.telemetry.prometheus.serve()`.

The numbers are kept by the native core and served by it, on a thread that never waits for the interpreter. What each metric means is in
`docs/monitor/telemetry.md`, and in the page itself.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from seawall import _seawall
from seawall._served import Served
from seawall._word import shown, whole_number
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import CollectorRegistry

_logger = logging.getLogger("seawall.telemetry")
# Where several processes share their numbers, if nothing is said: what prometheus_client reads too.
_SHARED = "PROMETHEUS_MULTIPROC_DIR"

_beginning = threading.Lock()
_metrics: _seawall.Metrics | None = None
_directory: str | None = None
# Whoever does not keep what `serve` gives has an exporter all the same.
_open: set[Exporter] = set()


def start(directory: str | os.PathLike[str] | None = None) -> None:
    """Counts calls from now on, until the process ends. `serve`, `register` and `collector` do this by themselves.

    Args:
        directory: where the processes of one service (gunicorn's workers, say) share their numbers: each of them counts, and
            whichever is scraped tells the numbers of all. Counters of those that are gone are kept. It must be on a local file
            system, and emptied before the service begins. Default: what the environment's `PROMETHEUS_MULTIPROC_DIR` says; without
            that a process speaks for itself alone. A forked process takes part by itself, and counts from zero.

    Raises:
        ConfigurationError: it counts already, in another directory.
        OSError: the directory cannot be used.
    """
    _begun(directory)


def _begun(directory: str | os.PathLike[str] | None) -> _seawall.Metrics:
    global _metrics, _directory
    if directory is not None and not isinstance(directory, (str, os.PathLike)):
        raise ConfigurationTypeError(f"directory must be a path, not {shown(directory)}")
    if directory is not None and not os.fspath(directory):
        raise ConfigurationError("directory must be a path, not ''")
    given = directory if directory is not None else os.environ.get(_SHARED) or None
    wanted = None if given is None else os.path.abspath(given)  # noqa: PTH100  a path that need not be there yet
    with _beginning:
        if _metrics is None:
            _metrics, _directory = _seawall.Metrics(wanted), wanted
            _see_ends()
        elif directory is not None and wanted != _directory:
            here = "by itself" if _directory is None else f"in {_directory!r}"
            raise ConfigurationError(f"directory is {wanted!r}, but this process counts {here} since an earlier call")
        return _metrics


_sees_ends = False


def _see_ends() -> None:
    """What was counted last is written down, however a process ends that ends by itself."""
    global _sees_ends
    if _sees_ends:
        return
    _sees_ends = True
    atexit.register(_end)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    if _directory is not None:
        # Its children end without what atexit has.
        from multiprocessing import util

        util.register_after_fork(_open, lambda _: util.Finalize(None, _end, exitpriority=0))


def _end() -> None:
    if _metrics is not None:
        _metrics.close()


def _forked() -> None:
    global _metrics, _beginning
    _beginning = threading.Lock()
    _open.clear()
    if _metrics is None:
        return
    _metrics.close()  # here: lets go of the parent's place
    _seawall.forget_numbers()
    try:
        _metrics = _seawall.Metrics(_directory)
    except OSError as error:
        _metrics = None
        _logger.error("a forked process's metrics are not counted: %s", error)


class Exporter(Served):
    """Where metrics are served: what `serve` gives. As a context manager it is closed at the end of the block; what is counted
    is counted on."""

    @property
    def url(self) -> str:
        """What Prometheus, on this machine, is to scrape."""
        return f"{super().url}/metrics"

    def __repr__(self) -> str:
        return f"<Exporter {self.url}{', closed' if self.closed else ''}>"


def serve(port: int = 9464, host: str = "127.0.0.1", *, directory: str | os.PathLike[str] | None = None) -> Exporter:
    """Serves `/metrics` from the native core, and counts all calls of the process from now on.

    It gives Prometheus' text format 0.0.4, and OpenMetrics 1.0 to whoever asks for that. It shows numbers, and names of pipelines,
    models, endpoints and breakers; never content and never keys.

    Args:
        port: where it listens; 0 is any that is free.
        host: an address of this machine, or its name. Whoever reaches it can read the numbers: `"0.0.0.0"` is for a network that
            only Prometheus and friends can enter.
        directory: as `start` says. One of the processes serves: with gunicorn the master, from its hook `when_ready`.

    Raises:
        ConfigurationError: arguments that cannot be meant.
        OSError: it cannot listen there; the message says why and what to do.
    """
    whole_number("port", port, 0, 65_535)
    if not isinstance(host, str):
        raise ConfigurationTypeError(f"host must be a name or an address, not {shown(host)}")
    if not host:
        raise ConfigurationError("host must be a name or an address, not ''; \"0.0.0.0\" is every address of this machine")
    exporter = Exporter(_seawall.MetricsServer(_begun(directory), host, port), _open)
    _logger.info("metrics at %s", exporter.url)
    return exporter


def render(accept: str | None = None) -> tuple[bytes, str]:
    """The page and its content type, for a web framework of your own. Call `start()` when the program begins: calls are counted from
    then, or else from the first page, on.

    Args:
        accept: what the request's header `Accept` says, if it has one.
    """
    if accept is not None and not isinstance(accept, str):
        raise ConfigurationTypeError(f"accept must be a text or None, not {shown(accept)}")
    text, kind = _begun(None).page(accept or "")
    return text.encode(), kind


class Collector:
    """The same numbers as a collector of prometheus_client's."""

    def describe(self) -> Iterator[Metric]:
        """What `collect` will give, without numbers."""
        from prometheus_client import Metric

        for name, kind, unit, _labels, text in _seawall.metric_names():
            yield Metric(name.removesuffix("_total") if kind == "counter" else name, text, kind, unit)

    def collect(self) -> Iterator[Metric]:
        """All metrics now."""
        families = dict(_begun(None).families())
        names = {name: labels for name, _, _, labels, _ in _seawall.metric_names()}
        for family, (name, samples) in zip(self.describe(), families.items(), strict=True):
            for suffix, values, limit, value in samples:
                labels = dict(zip(names[name], values, strict=True))
                if limit is not None:
                    labels["le"] = _limit(limit)
                family.add_sample(name + suffix, labels, value)
            yield family


def _limit(limit: float) -> str:
    return "+Inf" if limit == math.inf else repr(limit)


def _has_client() -> None:
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "prometheus_client is not installed: pip install 'seawall[prometheus]'. seawall.telemetry.prometheus.serve() and render() go "
            "without it"
        ) from error


def collector(*, directory: str | os.PathLike[str] | None = None) -> Collector:
    """A collector for prometheus_client, and counts all calls of the process from now on.

    Args:
        directory: as `start` says.

    Raises `ImportError` where prometheus_client is not installed.
    """
    _has_client()
    _begun(directory)
    return Collector()


def register(registry: CollectorRegistry | None = None, *, directory: str | os.PathLike[str] | None = None) -> Collector:
    """Adds the metrics to a registry of prometheus_client's, by default its usual one: they are shown beside the program's own.

    Args:
        registry: which one.
        directory: as `start` says.

    Raises `ImportError` where prometheus_client is not installed, `ValueError` (prometheus_client's) if they are in it already.
    """
    made: Any = collector(directory=directory)
    from prometheus_client import REGISTRY

    (REGISTRY if registry is None else registry).register(made)
    return made  # type: ignore[no-any-return]


__all__ = ["Collector", "Exporter", "collector", "register", "render", "serve", "start"]
