"""`Simulator` and the requests that it saw."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seawall import _seawall
from seawall.errors import ConfigurationError
from seawall.simulator.faults import Fault, seconds

if TYPE_CHECKING:
    from typing_extensions import Self

EVERY_MODEL = "*"


@dataclass(frozen=True)
class Request:
    """A request that reached the simulator.

    Attributes:
        time: seconds since the simulator's first start.
        method, path: of the request line.
        model: the model asked for; `None` where none was.
        stream: whether a stream was asked for.
        headers: names in lower case; a key is shown as `***`.
        fault: the name of what it met: `"ok"`, `"status 500"`, …, or `"refused 401"` where the request itself was wrong.
        aborted: whether the client went away before its answer was whole.
        raw: the body's bytes.
        body: the body, parsed; `None` where it is no JSON.
    """

    time: float
    method: str
    path: str
    model: str | None
    stream: bool
    headers: dict[str, str]
    fault: str
    aborted: bool
    raw: bytes = field(repr=False)

    @cached_property
    def body(self) -> Any:
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number from {least} on, not {value!r}")
    return int(value)


def _count(name: str, value: Any) -> int:
    if _whole(name, value, 0) >= 2**64:
        raise ConfigurationError(f"{name} must be less than 2**64, not {value!r}")
    return int(value)


def _names(name: str, value: Iterable[str] | None) -> set[str] | None:
    if value is None:
        return None
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be names, not {value!r}")
    names = {value} if isinstance(value, str) else set(value)
    if not all(isinstance(each, str) for each in names):
        raise ConfigurationError(f"{name} must be names, not {value!r}")
    return names


class Simulator:
    """A server on this machine with OpenAI's API (chat, embeddings, models; Azure's paths too) and Anthropic's messages.

    Healthy answers are made from the question, the model's name and the seed, so they are the same in every run;
    embeddings of similar texts are near. What goes wrong is said by `on`.

    Args:
        seed: of answers, shares and latencies.
        models: the models there are; default every name that is asked for. Others get 404.
        api_keys: the keys that are right; default every key. A request without a key gets 401.
        require_key: whether keys are looked at (True); a server like Ollama or vLLM asks for none.
        host, port: where it listens; port 0 is any that is free.
        log_limit: requests kept in `requests` (100,000); `count` goes on counting.

    Raises:
        ConfigurationError: arguments that cannot be meant.
        OSError: when it starts, if it cannot listen there.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        models: Iterable[str] | None = None,
        api_keys: Iterable[str] | None = None,
        require_key: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
        log_limit: int = 100_000,
    ) -> None:
        if not isinstance(host, str) or not host:
            raise ConfigurationError(f"host must be a name or an address, not {host!r}")
        if _whole("port", port, 0) > 65_535:
            raise ConfigurationError(f"port must be at most 65535, not {port!r}")
        if not isinstance(require_key, bool):
            raise ConfigurationError(f"require_key must be True or False, not {require_key!r}")
        models, keys = _names("models", models), _names("api_keys", api_keys)
        self._server = _seawall.SimulatedServer(
            _count("seed", seed), models, keys, require_key, host, port, _count("log_limit", log_limit)
        )

    def start(self) -> Self:
        """Listens from now on. Nothing happens if it does already."""
        self._server.listen()
        return self

    def stop(self) -> None:
        """Resets every connection, hung ones too, and ends. Rules and log stay; it can be started again, at the same place."""
        self._server.end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, traceback: TracebackType | None = None
    ) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        """Where it is: `http://127.0.0.1:…`. The `base_url` of Anthropic's SDK, and the `azure_endpoint` of OpenAI's.

        Raises:
            RuntimeError: it is not started.
        """
        address = self._server.address
        if address is None:
            raise RuntimeError("the simulator is not started: use `with Simulator() as sim:` or `sim.start()`")
        host, port = address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def base_url(self) -> str:
        """Where clients with OpenAI's API find it: `http://127.0.0.1:…/v1`.

        Raises:
            RuntimeError: it is not started.
        """
        return f"{self.origin}/v1"

    def on(
        self,
        model: str,
        fault: Fault,
        *,
        times: int | None = None,
        probability: float = 1.0,
        path: str | None = None,
        after: int = 0,
    ) -> Self:
        """From now on requests for a model meet a fault. A later rule goes before an earlier one.

        Args:
            model: its name, or `"*"` for every model; rules of the model itself go before those for all.
            fault: one of `seawall.simulator.faults`.
            times: so many requests only, then what was there before.
            probability: the share of the requests that it hits, seeded.
            path: only requests whose path contains this, like `"embeddings"`.
            after: it begins after so many requests.

        Raises:
            TypeError, ConfigurationError: arguments that cannot be meant.
        """
        if not isinstance(model, str):
            raise TypeError(f"model must be a name or '*', not {model!r}")
        if not isinstance(fault, Fault):
            raise TypeError(f"fault must be made by seawall.simulator.faults, like faults.status(500), not {fault!r}")
        if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
            raise ConfigurationError(f"probability must be a share from 0 to 1, not {probability!r}")
        if path is not None and not isinstance(path, str):
            raise TypeError(f"path must be a part of a path, not {path!r}")
        count = None if times is None else _count("times", times)
        self._server.rule(model, fault.wire(), count, float(probability), path, _count("after", after))
        return self

    def clear(self, model: str | None = None) -> None:
        """Takes a model's rules away (those for `"*"` by that name), or all."""
        self._server.unrule(model)

    @property
    def requests(self) -> list[Request]:
        """The requests that arrived since the start or the last `forget`, in order; at most `log_limit`."""
        return [
            Request(time, method, path, model, stream, dict(headers), fault, aborted, raw)
            for time, method, path, model, stream, headers, raw, fault, aborted in self._server.rows()
        ]

    def count(self, model: str | None = None, path: str | None = None) -> int:
        """How many requests arrived: all, those for a model, those whose path contains something."""
        return self._server.tally(model, path)

    def forget(self) -> None:
        """Empties the log and the counts."""
        self._server.forget()

    def wait_for(self, count: int = 1, timeout: float | timedelta = 10) -> None:
        """Waits until so many requests have arrived.

        Raises:
            TimeoutError: fewer came within `timeout` seconds.
        """
        self._wait(_count("count", count), timeout, aborted=False)

    def wait_aborted(self, count: int = 1, timeout: float | timedelta = 10) -> None:
        """Waits until so many clients have gone away before their answer was whole.

        Raises:
            TimeoutError: fewer did within `timeout` seconds.
        """
        self._wait(_count("count", count), timeout, aborted=True)

    def _wait(self, count: int, timeout: float | timedelta, *, aborted: bool) -> None:
        limit = seconds("timeout", timeout)
        seen = self._server.wait(count, aborted, limit)
        if seen < count:
            what = "were aborted" if aborted else "arrived"
            raise TimeoutError(f"{seen} of {count} requests {what} within {limit:g} s")

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return self._server.open_connections

    def __repr__(self) -> str:
        server = self.__dict__.get("_server")
        if server is None:  # its arguments were refused
            return "<Simulator>"
        address = server.address
        return f"<Simulator {'stopped' if address is None else self.base_url}, {self.count()} requests>"


__all__ = ["EVERY_MODEL", "Request", "Simulator"]
