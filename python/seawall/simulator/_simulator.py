"""`Simulator` and the requests that it saw."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seawall import _seawall
from seawall._word import whole_number
from seawall.errors import ConfigurationError
from seawall.simulator import _script, faults
from seawall.simulator.distributions import Latency, Seconds, distribution, seconds
from seawall.simulator.faults import Fault

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
        status: of the answer; `None` while there is none, and where the connection was reset before.
        seconds: from its arrival to the end of its answer, however that ended; `None` before.
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
    status: int | None
    seconds: float | None
    raw: bytes = field(repr=False)

    @cached_property
    def body(self) -> Any:
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


def _request(row: tuple[Any, ...]) -> Request:
    time, method, path, model, stream, headers, *rest = row
    return Request(time, method, path, model, stream, dict(headers), *rest)


def _count(name: str, value: Any, least: int = 0) -> int:
    return whole_number(name, value, least, 2**64 - 1)


def _names(name: str, value: Iterable[str] | None) -> set[str] | None:
    if value is None:
        return None
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be names, not {value!r}")
    names = {value} if isinstance(value, str) else set(value)
    if not all(isinstance(each, str) for each in names):
        raise ConfigurationError(f"{name} must be names, not {value!r}")
    return names


def _model(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"model must be a name or '*', not {value!r}")
    return value


def _fault(value: Any) -> Fault:
    if not isinstance(value, Fault):
        name = value if isinstance(value, str) else getattr(value, "__name__", "")
        hint = f": call it, faults.{name}(…)" if hasattr(faults, name) else ""
        raise TypeError(f"fault must be made by seawall.simulator.faults, like faults.status(500), not {value!r}{hint}")
    return value


def _span(start: Any, until: Any) -> tuple[float, float | None]:
    begins = seconds("start", start)
    ends = None if until is None else seconds("until", until)
    if ends is not None and ends <= begins:
        raise ConfigurationError(f"until must be later than start ({begins:g}), not {until!r}")
    return begins, ends


class Simulator:
    """A server on this machine with OpenAI's API (chat, embeddings, models; Azure's paths too) and Anthropic's messages.

    Healthy answers are made from the question, the model's name and the seed, so they are the same in every run;
    embeddings of similar texts are near. What goes wrong is said by `on`, `outage` and `limit`, how fast it is by `pace`; or all
    of it by a script, see `load`.

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
        whole_number("port", port, 0, 65_535)
        if not isinstance(require_key, bool):
            raise ConfigurationError(f"require_key must be True or False, not {require_key!r}")
        models, keys = _names("models", models), _names("api_keys", api_keys)
        self._server = _seawall.SimulatedServer(
            _count("seed", seed), models, keys, require_key, host, port, _count("log_limit", log_limit)
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], **settings: Any) -> Self:
        """A simulator with what a script says: TOML, as docs/simulator.md describes it.

        Args:
            path: of the file.
            settings: arguments of `Simulator`; they go before the script's.

        Raises:
            ConfigurationError: the script is wrong; the message says in which line, what it was and what it may be.
            OSError: it cannot be read.
        """
        return cls._made(_script.read(Path(path)), settings)

    @classmethod
    def loads(cls, script: str, **settings: Any) -> Self:
        """As `load`, from the script's text."""
        return cls._made(_script.parsed(script, "script"), settings)

    @classmethod
    def _made(cls, script: _script.Script, settings: dict[str, Any]) -> Self:
        made = script.made(lambda own: cls(**{**own, **settings}))
        script.tell(made)
        return made

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
        start: Seconds = 0,
        until: Seconds | None = None,
    ) -> Self:
        """From now on requests for a model meet a fault. A later rule goes before an earlier one.

        Args:
            model: its name, or `"*"` for every model; rules of the model itself go before those for all.
            fault: one of `seawall.simulator.faults`.
            times: so many requests only, then what was there before.
            probability: the share of the requests that it hits, seeded.
            path: only requests whose path contains this, like `"embeddings"`.
            after: it begins after so many requests that it is for.
            start, until: only so many seconds after the simulator's first start, and before so many. While `seawall.testing.clock`
                stops the time in this process, it is that time.

        Raises:
            TypeError, ConfigurationError: arguments that cannot be meant.
        """
        fault = _fault(fault)
        if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
            raise ConfigurationError(f"probability must be a share from 0 to 1, not {probability!r}")
        if path is not None and not isinstance(path, str):
            raise TypeError(f"path must be a part of a path, not {path!r}")
        count = None if times is None else _count("times", times)
        self._server.rule(
            _model(model), fault.wire(), count, float(probability), path, _count("after", after), *_span(start, until), False
        )
        return self

    def outage(
        self, model: str = EVERY_MODEL, *, start: Seconds = 0, until: Seconds | None = None, fault: Fault | None = None
    ) -> Self:
        """A model, or every one, fails for a time; this goes before all rules.

        Args:
            model: its name, or `"*"`.
            start, until: seconds after the simulator's first start, as in `on`.
            fault: what its requests meet; default `faults.status(503)`.

        Raises:
            TypeError, ConfigurationError: arguments that cannot be meant.
        """
        fault = faults.status(503) if fault is None else _fault(fault)
        named = replace(fault, name=f"outage: {fault.name}")
        self._server.rule(_model(model), named.wire(), None, 1.0, None, 0, *_span(start, until), True)
        return self

    def pace(
        self,
        model: str = EVERY_MODEL,
        *,
        latency: Latency = 0,
        first_token: Latency = 0,
        per_token: Latency = 0,
        start: Seconds = 0,
        until: Seconds | None = None,
    ) -> Self:
        """How fast a model answers; errors come at once. What is said later goes before.

        A whole answer takes as long as its stream would. Each of the three is seconds, a pair of the least and the most, or one
        of `seawall.simulator.distributions`.

        Args:
            model: its name, or `"*"`.
            latency: before anything is answered.
            first_token: from the answer's head to its first piece of content.
            per_token: for each token, of four characters.
            start, until: seconds after the simulator's first start, as in `on`.

        Raises:
            TypeError, ConfigurationError: arguments that cannot be meant.
        """
        given = {"latency": latency, "first_token": first_token, "per_token": per_token}
        wire = {name: distribution(name, value).wire() for name, value in given.items()}
        self._server.pace(_model(model), json.dumps(wire), *_span(start, until))
        return self

    def limit(
        self, model: str = EVERY_MODEL, *, requests_per_minute: int | None = None, tokens_per_minute: int | None = None
    ) -> Self:
        """What a model allows in a minute; beyond that its answer is 429 with `Retry-After` and the `x-ratelimit-*` headers.

        Both are buckets that are full at first and fill evenly. A request counts with the tokens of its messages and its
        `max_tokens`; without `max_tokens`, with those of its answer, once there is one. One that is turned away counts nothing
        and meets no rule. What is said again of a model replaces what was.

        Args:
            model: its name, or `"*"`: every model without limits of its own, each by itself.
            requests_per_minute, tokens_per_minute: `None` is any number.

        Raises:
            TypeError, ConfigurationError: arguments that cannot be meant.
        """
        given = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, value in given.items():
            if value is not None:
                _count(name, value, 1)
        self._server.limit(_model(model), requests_per_minute, tokens_per_minute)
        return self

    def clear(self, model: str | None = None) -> None:
        """Takes a model's rules, outages, pace and limits away (those for `"*"` by that name), or all."""
        self._server.unrule(model)

    @property
    def requests(self) -> list[Request]:
        """The requests that arrived since the start or the last `forget`, in order; at most `log_limit`."""
        return [_request(row) for row in self._server.rows()]

    def ended(self, timeout: float | timedelta = 0) -> list[Request]:
        """The requests whose answers have ended since the last call, at most `log_limit`; waits for one up to `timeout` seconds.

        The first call begins to look: what ended before is only in `requests`.
        """
        limit = seconds("timeout", timeout)
        return [_request(row) for row in self._server.ended(limit)]

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
