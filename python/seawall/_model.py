"""What a chat model and an embeddings model share: where they ask, as whom, and their policies."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from seawall import _keys, _seawall, errors
from seawall._hedges import Hedging, hedge_of
from seawall._seawall import Bulkhead, Cache, CircuitBreaker, Guardrails, Monitor, RateLimit, Retry
from seawall._word import shown, whole_number
from seawall._wrong_calls import near, not_one, unexpected

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_BASE_URL = "https://api.openai.com/v1"
Seconds = float | timedelta
OnInterrupt = Literal["error", "restart", "continue"]

# Arguments of a model that someone may look for elsewhere, and names that other clients have for them.
_ELSEWHERE = {
    **dict.fromkeys(("organization", "project", "timeout", "max_retries", "default_headers", "default_query")),
    **dict.fromkeys(("circuit", "rate_limit", "bulkhead", "hedge", "monitor", "cache", "guardrails")),
    **dict.fromkeys(("api_key", "base_url", "max_response_bytes", "first_token_timeout", "idle_timeout", "on_interrupt")),
    **dict.fromkeys(("ca_bundle", "client_cert", "proxy")),
    "verify": "ca_bundle",
    "cert": "client_cert",
    "http_proxy": "proxy",
    "openai_proxy": "proxy",
    "openai_api_key": "api_key",
    "openai_api_base": "base_url",
    "openai_organization": "organization",
    "request_timeout": "timeout",
    "max_retry": "max_retries",
    "retries": "max_retries",
    "circuit_breaker": "circuit",
    "extra_headers": "default_headers",
    "extra_query": "default_query",
}
# Arguments of the batch methods of a chat model.
OF_A_BATCH = ("journal", "progress", "patience", "retry_failures")
# What is said in another way than as a parameter.
_SAID = {
    "model": "the model is the first argument of {kind}(…): make one for each",
    "messages": "give the messages as the first argument",
    "input": "give the input as the first argument",
    **dict.fromkeys(("stream", "streaming"), "for an answer in pieces call stream() or astream()"),
    "model_name": "the model is the first argument of {kind}(…)",
    "config": "config is LangChain's: seawall.langchain.ChatOpenAI takes it",
    "model_kwargs": "give its entries as parameters of their own",
    **dict.fromkeys(OF_A_BATCH, "it is an argument of the batch methods"),
    "http_client": "the client has a transport of its own; ca_bundle=, client_cert= and proxy= of {kind}(…) are about it",
}
# Parameters of the API's requests, those that options stand for excepted. A server may take others, which are sent as they are.
PARAMETERS = frozenset(
    (
        *("audio", "dimensions", "encoding_format", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort"),
        *("response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream_options", "temperature"),
        *("tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
    )
)
# As like a known word as this, and none itself: misspelt. What servers are known to have beside it is less like any, but for these.
_LIKENESS = 0.85
_OF_OTHER_SERVERS = frozenset(("reasoning_format", "search_options", "speed"))
# Arguments of a call that are no parameters of its request.
_OF_A_CALL = frozenset(("timeout", "extra_headers", "extra_query", "extra_body", "idempotency_key", "cache"))
# Arguments of `with_retry`, and what it hands on to `Retry`.
_WITH_RETRY = ("stop_after_attempt", "wait_exponential_jitter", "retry_if_exception_type", "wait", "before_sleep", "after")
_MORE_OF_RETRY = ("stop", "timeout", "max_retry_after", "budget", "on_result", "giveup", "before")


def retry_policy(
    stop_after_attempt: int | None = 3,
    *,
    wait_exponential_jitter: bool = True,
    exponential_jitter_params: Mapping[str, float] | None = None,
    retry_if_exception_type: Any = (Exception,),
    wait: Any = None,
    **more: Any,
) -> Retry:
    """The `Retry` that `with_retry`'s arguments describe.

    `wait` wins where it is given; without jitter the waits are the SDK's: 0.5 s doubling to 8 s, times 0.75 to 1.
    """
    if stop_after_attempt is not None:  # as for a `Retry`: `stop=` alone decides
        whole_number("stop_after_attempt", stop_after_attempt, 1, 2**32 - 1)
    for name in more:
        if name not in _WITH_RETRY and name not in _MORE_OF_RETRY:
            raise unexpected("with_retry", name, [*_WITH_RETRY, *_MORE_OF_RETRY])
    if wait is None and exponential_jitter_params is not None:
        wait = _seawall.wait_exponential_jitter(**exponential_jitter_params)
    elif wait is None and wait_exponential_jitter:
        # 1, 2, 4 ... s, at most 60, plus up to one second.
        wait = _seawall.wait_exponential(multiplier=1, max=60) + _seawall.wait_random(0, 1)
    try:
        return Retry(stop_after_attempt, on=retry_if_exception_type, wait=wait, **more)
    except errors.ConfigurationError as error:
        if not str(error).startswith("on must"):
            raise
        # It has another name here.
        raise type(error)(f"retry_if_exception_type{str(error).removeprefix('on')}") from None


def environment(value: str | None, *names: str) -> str | None:
    """The argument, or the first of the environment variables that is set and not empty."""
    if value is not None:
        return value
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


class Hidden:
    """Keeps a value out of tracebacks that show local variables."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


def _text(name: str, value: Any, *, secret: bool = False) -> str | None:
    """An argument that has to be a text that can be sent, or `None`."""
    if value is None:
        return None
    if not isinstance(value, str):
        # A key may have been put here by mistake: only the type is shown, and tracebacks show no value either.
        kind, value = type(value).__name__, None
        raise errors.ConfigurationError(f"{name} must be a str, not {kind}")
    try:
        value.encode()
    except UnicodeEncodeError:
        pass  # that error holds the whole text
    else:
        return value
    shown, value = "" if secret else f" {value!r}", None
    raise errors.ConfigurationError(f"{name}{shown} holds a lone surrogate (half a character), which cannot be sent")


def _pairs(name: str, given: Hidden) -> list[tuple[str, str]]:
    """Headers or query parameters."""
    if given.value is None:
        return []
    if not isinstance(given.value, Mapping):
        raise errors.ConfigurationError(f"{name} must be a dict of texts, not {type(given.value).__name__}")
    pairs = Hidden([])
    for key in given.value:
        item = Hidden(given.value[key])
        if item.value is None:
            raise errors.ConfigurationError(f"{name}[{key!r}] must be a str, not None")
        pairs.value.append((_text(f"a name in {name}", key), _text(f"{name}[{key!r}]", item.value, secret=True)))
    made: list[tuple[str, str]] = pairs.value
    return made


def _body(given: Any) -> Mapping[str, Any]:
    """An `extra_body` argument: entries of the body that are sent whatever they are called."""
    if given is not None and not isinstance(given, Mapping):
        raise errors.ConfigurationError(f"extra_body must be a dict, not {type(given).__name__}")
    return given or {}


def _file(name: str, path: Any) -> bytes:
    """What is in a file that an argument names."""
    if not isinstance(path, (str, os.PathLike)):
        raise errors.ConfigurationError(f"{name} must be the path of a PEM file, not {type(path).__name__}")
    from pathlib import Path  # few models need it

    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise errors.ConfigurationError(f"{name} {os.fspath(path)!r} cannot be read: {error.strerror}") from error


def _identity(client_cert: Any) -> bytes | None:
    """The certificate and the key in one PEM text."""
    if client_cert is None:
        return None
    paths = client_cert if isinstance(client_cert, tuple) else (client_cert,)
    if len(paths) not in (1, 2):
        raise errors.ConfigurationError("client_cert must be the path of a PEM file, or the paths (certificate, key)")
    return b"\n".join(_file("client_cert", path) for path in paths)


def _proxy(given: Any) -> str | None:
    """The proxy's address; empty for none."""
    if given is False:
        return ""
    if given is not None and not given:
        raise errors.ConfigurationError("proxy is empty: give its address, False for none, or None for the environment's")
    return _text("proxy", given, secret=True)


def _key_sent(given: Any) -> str | None:
    """An `idempotency_key` argument: empty for a new key in each call."""
    if given is None or given is False:
        return None
    if given is True:
        return ""
    if isinstance(given, str) and given.strip():
        return given
    raise errors.ConfigurationError(f"idempotency_key must be True, False or a text that is not empty, not {given!r}")


def _anew(given: Any) -> bool | None:
    """What a call's `cache` argument says: past the cache (`False`), or the answer anew (`True`)."""
    if given is None or given is True:
        return None
    if given is False:
        return False
    if isinstance(given, str) and given == "refresh":
        return True
    raise errors.ConfigurationError(
        f"cache of a call must be True, False or 'refresh', not {shown(given)}; a Cache: give it to the model"
    )


class Model:
    """What a chat model and an embeddings model share: one primary, its policies and its alternatives."""

    _kind: str
    _streams = False
    # For the repr of one whose arguments were refused.
    model = "?"
    # What counts its calls, those that its alternatives answer included.
    monitor: Monitor | None = None
    # What gives its answers again.
    cache: Cache | None = None
    # What its questions and answers have to pass, those of its alternatives included.
    guardrails: Guardrails | None = None
    _others: tuple[Model, ...] = ()

    def __init__(
        self,
        model: str,
        *,
        api_key: Any = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        timeout: Seconds | None = 60,
        first_token_timeout: Seconds | None = None,
        idle_timeout: Seconds | None = None,
        on_interrupt: OnInterrupt | None = None,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, str] | None = None,
        circuit: CircuitBreaker | None = None,
        rate_limit: RateLimit | None = None,
        bulkhead: Bulkhead | None = None,
        hedge: Hedging = None,
        monitor: Monitor | None = None,
        cache: Cache | None = None,
        guardrails: Guardrails | None = None,
        max_response_bytes: int = 64 * 1024 * 1024,
        ca_bundle: str | os.PathLike[str] | None = None,
        client_cert: Any = None,
        proxy: str | bool | None = None,
        idempotency_key: bool = False,
        **params: Any,
    ) -> None:
        # From here on no local variable holds a secret: some tracebacks show them.
        hidden, api_key = Hidden(api_key), None
        headers, default_headers = Hidden(default_headers), None
        query, default_query = Hidden(default_query), None
        place, base_url = Hidden(environment(base_url, "OPENAI_BASE_URL", "OPENAI_API_BASE")), None
        kept, params = Hidden(params), {}
        way, proxy = Hidden(proxy), None
        if not (_text("model", model) or "").strip():
            raise errors.ConfigurationError(f"model must be the name of a model, not {model!r}")
        whole_number("max_retries", max_retries, 0)
        whole_number("max_response_bytes", max_response_bytes, 1, 2**63 - 1)
        if circuit is not None and not isinstance(circuit, CircuitBreaker):
            raise errors.ConfigurationError(f"circuit must be a seawall.CircuitBreaker or None, not {circuit!r}")
        shared = {
            "rate_limit": (rate_limit, RateLimit),
            "bulkhead": (bulkhead, Bulkhead),
            "monitor": (monitor, Monitor),
            "cache": (cache, Cache),
            "guardrails": (guardrails, Guardrails),
        }
        for argument, (given, kind) in shared.items():
            if given is not None and not isinstance(given, kind):
                raise not_one(argument, kind, given)
        streams = {"first_token_timeout": first_token_timeout, "idle_timeout": idle_timeout, "on_interrupt": on_interrupt}
        for name, said in streams.items():
            if said is not None and not self._streams:
                raise errors.ConfigurationError(f"{name} is about streams, which {type(self).__name__} has none of")
        if not isinstance(idempotency_key, bool):
            raise errors.ConfigurationError("idempotency_key of a model must be True or False; a key itself is a call's argument")
        body = Hidden(_body(kept.value.pop("extra_body", None)))
        self._check(list(kept.value))
        self._check(body.value, as_they_are=True)
        kept.value.update(body.value)
        if hasattr(hidden.value, "get_secret_value"):
            hidden.value = hidden.value.get_secret_value()
        source: Any = None
        file: Any = None
        if hidden.value is None:
            hidden.value = environment(None, "OPENAI_API_KEY")
            file = None if hidden.value else environment(None, "OPENAI_API_KEY_FILE")
        elif isinstance(hidden.value, os.PathLike):
            file, hidden.value = hidden.value, None
        elif callable(hidden.value):
            source, hidden.value = hidden.value, None
        if file is not None:
            _keys.look_at(file)
        self.model = model
        self._table: Any = errors
        self._retry: Retry | None = Retry(max_retries + 1)
        self._handled: Any = None
        self._on_interrupt = on_interrupt
        self.monitor = monitor
        self.cache = cache
        if guardrails is not None and guardrails.output and not self._streams:
            raise errors.ConfigurationError(
                f"guardrails of {type(self).__name__} can have rules for the input only: its answers are no texts"
            )
        self.guardrails = guardrails
        # It holds the key, and shows it nowhere.
        self._bare = _seawall.Leg(
            model,
            base_url=DEFAULT_BASE_URL if place.value is None else _text("base_url", place.value, secret=True) or "",
            api_key=_text("api_key", hidden.value, secret=True),
            organization=_text("organization", environment(organization, "OPENAI_ORG_ID", "OPENAI_ORGANIZATION")),
            project=_text("project", environment(project, "OPENAI_PROJECT_ID")),
            headers=_pairs("default_headers", headers),
            query=_pairs("default_query", query),
            timeout=timeout,
            first_token_timeout=first_token_timeout,
            idle_timeout=idle_timeout,
            breaker=circuit,
            rate_limit=rate_limit,
            bulkhead=bulkhead,
            hedge=hedge_of(hedge),
            max_response_bytes=max_response_bytes,
            params=kept.value,
            key_source=source,
            key_file=file,
            proxy=_proxy(way.value),
            authorities=None if ca_bundle is None else _file("ca_bundle", ca_bundle),
            identity=_identity(client_cert),
        )
        # What a call sends beside its body: headers, query parameters, the idempotency key ("" for a new one).
        self._extras = Hidden(([], [], "", None) if idempotency_key else None)
        self._built: _seawall.Route | None = None
        self._by_timeout: dict[Any, _seawall.Route] = {}
        if on_interrupt is not None:
            _ = self._route  # refuses what is wrong now, not at the first call

    def _asked(self, arguments: dict[str, Any]) -> tuple[_seawall.Route, dict[str, Any], Hidden]:
        """The route, the parameters and what is sent beside the body, for a call with these arguments."""
        if not arguments:  # as most calls have none
            return self._built or self._route, arguments, self._extras
        if _OF_A_CALL.isdisjoint(arguments):
            self._check(arguments)
            return self._route, arguments, self._extras
        # Taken out, so that no local variable of the caller's holds a secret either.
        headers, query = Hidden(arguments.pop("extra_headers", None)), Hidden(arguments.pop("extra_query", None))
        params = {name: value for name, value in arguments.items() if name not in _OF_A_CALL}
        body = _body(arguments.get("extra_body"))
        self._check(params)
        self._check(body, as_they_are=True)
        params.update(body)
        key = _key_sent(arguments.get("idempotency_key", self._extras.value is not None))
        anew = _anew(arguments.get("cache"))
        extras = Hidden((_pairs("extra_headers", headers), _pairs("extra_query", query), key, anew))
        if extras.value == ([], [], None, None):
            extras.value = None
        route = self._timed(arguments["timeout"]) if "timeout" in arguments else self._route
        return route, params, extras

    def _timed(self, timeout: Any) -> _seawall.Route:
        """The route with another time limit of an attempt."""
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float, timedelta, type(None))):
            return self._route_within(timeout)  # refuses it
        route = self._by_timeout.get(timeout)
        if route is None:
            route = self._route_within(timeout)
            if len(self._by_timeout) >= 16:  # a limit computed for each call
                self._by_timeout.clear()
            self._by_timeout[timeout] = route
        return route

    def _route_within(self, timeout: Any) -> _seawall.Route:
        return self._route_of(model._bare.with_retry(model._retry).with_timeout(timeout) for model in (self, *self._others))

    def _patient_route(self, patience: float | None, arguments: Mapping[str, Any]) -> _seawall.Route:
        """The route of a batch that waits together: its own retries take the place of the model's, but before an alternative."""
        legs = [model._bare.with_retry(model._retry if self._others else None) for model in (self, *self._others)]
        if "timeout" in arguments:
            legs = [leg.with_timeout(arguments["timeout"]) for leg in legs]
        return self._route_of(legs, patience=(self._retry or Retry(1), patience))

    def _route_of(self, legs: Iterable[_seawall.Leg], *, patience: tuple[Retry, float | None] | None = None) -> _seawall.Route:
        return _seawall.Route(
            list(legs),
            self._table,
            handled=self._handled,
            function=self._function(),
            on_interrupt=self._on_interrupt,
            monitor=self.monitor,
            cache=self.cache,
            patience=patience,
            guardrails=self.guardrails,
        )

    @classmethod
    def _check(cls, names: Iterable[str], *, as_they_are: bool = False) -> None:
        """Refuses as parameters what is said elsewhere, a server would not know it, or take it for something else; and what is
        probably misspelt, but `as_they_are`."""
        kind = cls.__name__
        for name in names:
            if name in _SAID:
                raise errors.ConfigurationError(f"{name} is no parameter of a request: {_SAID[name].format(kind=kind)}")
            if name in _ELSEWHERE:
                own = _ELSEWHERE[name] or name
                raise errors.ConfigurationError(f"{name} is no parameter of a request: give it to the model, {kind}(…, {own}=…)")
            if not as_they_are and name not in PARAMETERS and (likely := cls._misspelt(name)):
                raise errors.ConfigurationTypeError(
                    f"{name} is neither an argument of {kind} nor a parameter that the API is known to have: is {likely}= meant? "
                    f"If the server does have it, write extra_body={{{name!r}: …}}"
                )

    @classmethod
    @functools.cache
    def _misspelt(cls, name: str) -> str | None:
        """The argument or parameter that is probably meant by the name of none."""
        if name in _OF_OTHER_SERVERS:
            return None
        options = {*inspect.signature(Model).parameters, *inspect.signature(cls).parameters, *_OF_A_CALL, *OF_A_BATCH}
        options = options | PARAMETERS | {"return_exceptions", "max_concurrency"}
        return near(name, options - {"model", "params", "options"}, _LIKENESS)

    def _is_same_place(self, other: Model) -> bool:
        """Whether both ask the same server with the same credentials."""
        return self._bare.is_same_place(other._bare)

    @property
    def _route(self) -> _seawall.Route:
        if self._built is None:
            self._built = self._route_of(model._bare.with_retry(model._retry) for model in (self, *self._others))
        return self._built

    def _function(self) -> Callable[..., Any]:
        """What retry states and logs name."""
        function: Callable[..., Any] = type(self).invoke  # type: ignore[attr-defined]
        return function

    def _but(self, **changes: Any) -> Self:
        """A copy with other policies."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(changes, _built=None, _by_timeout={})
        _ = copy._route  # refuses what is wrong now, not at the first call
        return copy

    def with_retry(
        self,
        *,
        stop_after_attempt: int = 3,
        wait_exponential_jitter: bool = True,
        retry_if_exception_type: Any = (Exception,),
        wait: Any = None,
        before_sleep: Any = None,
        after: Any = None,
        **more: Any,
    ) -> Self:
        """The same model with other retries: they replace those it had, they never multiply.

        Args:
            stop_after_attempt: requests, all told.
            wait_exponential_jitter: wait 1, 2, 4 … s, at most 60, plus up to one second; else 0.5 s doubling to 8 s.
            retry_if_exception_type: exception classes. Errors that no retry can mend (401, 400, an exhausted quota) are
                not retried unless their own class is named.
            wait, before_sleep, after, more: what `Retry` takes.
        """
        policy = retry_policy(
            stop_after_attempt,
            wait_exponential_jitter=wait_exponential_jitter,
            retry_if_exception_type=retry_if_exception_type,
            wait=wait,
            before_sleep=before_sleep,
            after=after,
            **more,
        )
        return self._but(_retry=policy)

    def with_fallbacks(self, fallbacks: Sequence[Self], *, exceptions_to_handle: Any = None) -> Self:
        """The same model with alternatives, tried in order, each under its own policies.

        Args:
            fallbacks: models of the same kind; their own alternatives are tried after them.
            exceptions_to_handle: the exception classes for which they stand in; by default all but errors that would
                be the same anywhere.
        """
        if isinstance(fallbacks, (str, bytes, Model)) or not isinstance(fallbacks, Sequence):
            raise errors.ConfigurationError(f"fallbacks must be a list of models, not {fallbacks!r}")
        others: list[Model] = []
        for place, other in enumerate(fallbacks):
            if not isinstance(other, type(self)):
                raise errors.ConfigurationError(
                    f"fallbacks[{place}] must be a {type(self).__name__}, not {other!r}; for functions and plain values "
                    "use seawall.guard(fallback=[...])"
                )
            others += [other, *other._others]
        for each in others:
            if each.guardrails is not None and each.guardrails is not self.guardrails:
                raise errors.ConfigurationError(
                    f"the alternative {each.model} has guardrails of its own: those of the first model hold for all of its alternatives; "
                    "give them to that one, or the same object to both"
                )
        return self._but(_others=(*self._others, *others), _handled=exceptions_to_handle)

    def __repr__(self) -> str:
        others = "".join(f", then {other.model}" for other in self._others)
        return f"<{type(self).__name__} {self.model}{others}>"

    def __copy__(self) -> Self:
        return self._but()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._but()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{type(self).__name__} holds an API key and is not pickled; make it where it is used")
