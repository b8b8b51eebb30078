"""The native client for OpenAI-compatible APIs. Needs no LangChain and no OpenAI SDK."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from seawall import _seawall, errors
from seawall._attempts import Attempt, Attempts
from seawall._seawall import Chunk, CircuitBreaker, Reply, Retry, Stream

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncStream", "Attempt", "Attempts", "Chat", "Chunk", "Embeddings", "EmbeddingsReply", "Reply", "Stream"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
Seconds = float | timedelta
_Self = TypeVar("_Self", bound="_Model")

# Arguments of a model that someone may look for elsewhere, and names that other clients have for them.
_ELSEWHERE = {
    **dict.fromkeys(("organization", "project", "timeout", "max_retries", "default_headers", "default_query", "circuit")),
    **dict.fromkeys(("api_key", "base_url", "max_response_bytes")),
    "openai_api_key": "api_key",
    "openai_api_base": "base_url",
    "openai_organization": "organization",
    "request_timeout": "timeout",
    "extra_headers": "default_headers",
    "extra_query": "default_query",
}
# What is said in another way than as a parameter.
_SAID = {
    "model": "the model is the first argument of {kind}(…): make one for each",
    "messages": "give the messages as the first argument",
    "input": "give the input as the first argument",
    "stream": "for an answer in pieces call stream() or astream()",
    "config": "config is LangChain's: seawall.langchain.ChatOpenAI takes it",
    "extra_body": "give its entries as parameters of their own",
    "model_kwargs": "give its entries as parameters of their own",
}


def retry_policy(
    stop_after_attempt: int = 3,
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
    if wait is None and exponential_jitter_params is not None:
        wait = _seawall.wait_exponential_jitter(**exponential_jitter_params)
    elif wait is None and wait_exponential_jitter:
        # 1, 2, 4 ... s, at most 60, plus up to one second.
        wait = _seawall.wait_exponential(multiplier=1, max=60) + _seawall.wait_random(0, 1)
    return Retry(stop_after_attempt, on=retry_if_exception_type, wait=wait, **more)


def environment(value: str | None, *names: str) -> str | None:
    """The argument, or the first of the environment variables that is set and not empty."""
    if value is not None:
        return value
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


class _Hidden:
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


def _pairs(name: str, given: _Hidden) -> list[tuple[str, str]]:
    """Headers or query parameters."""
    if given.value is None:
        return []
    if not isinstance(given.value, Mapping):
        raise errors.ConfigurationError(f"{name} must be a dict of texts, not {type(given.value).__name__}")
    pairs = _Hidden([])
    for key in given.value:
        item = _Hidden(given.value[key])
        if item.value is None:
            raise errors.ConfigurationError(f"{name}[{key!r}] must be a str, not None")
        pairs.value.append((_text(f"a name in {name}", key), _text(f"{name}[{key!r}]", item.value, secret=True)))
    made: list[tuple[str, str]] = pairs.value
    return made


class _Model:
    """What a chat model and an embeddings model share: one primary, its policies and its alternatives."""

    _kind: str
    # For the repr of one whose arguments were refused.
    model = "?"
    _others: tuple[_Model, ...] = ()

    def __init__(
        self,
        model: str,
        *,
        api_key: Any = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        timeout: Seconds | None = 60,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, str] | None = None,
        circuit: CircuitBreaker | None = None,
        max_response_bytes: int = 64 * 1024 * 1024,
        **params: Any,
    ) -> None:
        # From here on no local variable holds a secret: some tracebacks show them.
        hidden, api_key = _Hidden(api_key), None
        headers, default_headers = _Hidden(default_headers), None
        query, default_query = _Hidden(default_query), None
        place, base_url = _Hidden(environment(base_url, "OPENAI_BASE_URL", "OPENAI_API_BASE")), None
        kept, params = _Hidden(params), {}
        if not (_text("model", model) or "").strip():
            raise errors.ConfigurationError(f"model must be the name of a model, not {model!r}")
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise errors.ConfigurationError(f"max_retries must be a whole number from 0 on, not {max_retries!r}")
        if isinstance(max_response_bytes, bool) or not isinstance(max_response_bytes, int) or not 0 < max_response_bytes < 2**63:
            raise errors.ConfigurationError(f"max_response_bytes must be a whole number from 1 on, not {max_response_bytes!r}")
        if circuit is not None and not isinstance(circuit, CircuitBreaker):
            raise errors.ConfigurationError(f"circuit must be a seawall.CircuitBreaker or None, not {circuit!r}")
        self._check(list(kept.value))
        if hasattr(hidden.value, "get_secret_value"):
            hidden.value = hidden.value.get_secret_value()
        hidden.value = environment(hidden.value, "OPENAI_API_KEY")
        self.model = model
        self._table: Any = errors
        self._retry: Retry | None = Retry(max_retries + 1)
        self._handled: Any = None
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
            breaker=circuit,
            max_response_bytes=max_response_bytes,
            params=kept.value,
        )
        self._built: _seawall.Route | None = None

    @classmethod
    def _check(cls, names: Iterable[str]) -> None:
        """Refuses as parameters what is said elsewhere: a server would not know it, or take it for something else."""
        kind = cls.__name__
        for name in names:
            if name in _SAID:
                raise errors.ConfigurationError(f"{name} is no parameter of a request: {_SAID[name].format(kind=kind)}")
            if name in _ELSEWHERE:
                own = _ELSEWHERE[name] or name
                raise errors.ConfigurationError(f"{name} is no parameter of a request: give it to the model, {kind}(…, {own}=…)")

    def _is_same_place(self, other: _Model) -> bool:
        """Whether both ask the same server with the same credentials."""
        return self._bare.is_same_place(other._bare)

    @property
    def _route(self) -> _seawall.Route:
        if self._built is None:
            legs = [model._bare.with_retry(model._retry) for model in (self, *self._others)]
            self._built = _seawall.Route(legs, self._table, handled=self._handled, function=self._function())
        return self._built

    def _function(self) -> Callable[..., Any]:
        """What retry states and logs name."""
        function: Callable[..., Any] = type(self).invoke  # type: ignore[attr-defined]
        return function

    def _but(self, **changes: Any) -> Self:
        """A copy with other policies."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(changes, _built=None)
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
        if isinstance(fallbacks, (str, bytes, _Model)) or not isinstance(fallbacks, Sequence):
            raise errors.ConfigurationError(f"fallbacks must be a list of models, not {fallbacks!r}")
        others: list[_Model] = []
        for place, other in enumerate(fallbacks):
            if not isinstance(other, type(self)):
                raise errors.ConfigurationError(
                    f"fallbacks[{place}] must be a {type(self).__name__}, not {other!r}; for functions and plain values "
                    "use seawall.guard(fallback=[...])"
                )
            others += [other, *other._others]
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


_ROLES = {"human": "user", "ai": "assistant", **{name: name for name in ("user", "assistant", "system", "developer", "tool")}}


def _is_message(input: Any) -> bool:
    """Whether it is one message as a (role, content) pair."""
    return isinstance(input, tuple) and len(input) == 2 and isinstance(input[0], str) and input[0] in _ROLES


def _messages(input: Any, place: str = "input") -> list[Any]:
    """A prompt, a message, or a list of messages, as the API takes them."""
    if isinstance(input, (str, Mapping)) or _is_message(input):
        return [_message(input, place)]
    if isinstance(input, Sequence) and not isinstance(input, (bytes, bytearray, memoryview)):
        messages = [_message(message, f"{place}[{at}]") for at, message in enumerate(input)]
        if messages:
            return messages
        raise ValueError(f"{place} is an empty list of messages: give at least one")
    raise TypeError(f"{place} must be a text, a message (a dict) or a list of messages, not {_kind(input)}")


def _message(message: Any, place: str) -> Any:
    if isinstance(message, str):
        return {"role": "user", "content": message}
    if isinstance(message, tuple) and len(message) == 2 and isinstance(message[0], str):
        return {"role": _ROLES.get(message[0], message[0]), "content": message[1]}
    if not isinstance(message, Mapping):
        raise TypeError(f"{place} must be a dict, a (role, content) pair or a text, not {_kind(message)}")
    if not isinstance(message.get("role"), str):
        raise ValueError(f"{place} has no role: give a message like {{'role': 'user', 'content': '…'}}")
    return dict(message)


def _kind(value: Any) -> str:
    kind = type(value)
    foreign = kind.__module__.startswith("langchain")
    return f"{kind.__name__} (seawall.langchain.ChatOpenAI takes LangChain's messages)" if foreign else kind.__name__


def _listed(inputs: Any) -> list[Any]:
    """The inputs of a batch."""
    # A set has no order, and the answers are told apart by it.
    if isinstance(inputs, (str, bytes, bytearray, Mapping, Set)) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be a list with an input for each answer, not {type(inputs).__name__}")
    return list(inputs)


def _each(make: Callable[[Any, str], Any], inputs: Any, lenient: bool) -> list[Any]:
    """What is sent for each input of a batch; one that cannot be sent is raised, or with `lenient` its own exception."""
    made: list[Any] = []
    for at, input in enumerate(_listed(inputs)):
        try:
            made.append(make(input, f"inputs[{at}]"))
        except (TypeError, ValueError) as error:
            if not lenient:
                raise
            made.append(error)
    return made


async def _landed(flying: _seawall.Flying) -> Any:
    try:
        return await flying.future
    except asyncio.CancelledError:
        flying.abort()
        raise


class AsyncStream(_seawall.AsyncPieces):
    """A streamed answer for an event loop. Leaving it early (`aclose`, `async with`, or dropping it) cuts the request."""

    async def aclose(self) -> None:
        """Gives the rest up: the request is cut."""
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stream.close()

    @property
    def attempts(self) -> Attempts | None:
        """The attempts made, once the stream is over; `None` before."""
        return self._stream.attempts

    @property
    def alternative(self) -> int | None:
        """Which alternative answered (0 is the primary), once the stream is over."""
        return self._stream.alternative

    @property
    def seconds(self) -> float | None:
        """Seconds from the first piece asked for to the end, once the stream is over."""
        return self._stream.seconds


def _pieces(stream: Stream) -> Stream:
    return stream


def _apieces(stream: Stream) -> AsyncStream:
    return AsyncStream(stream)


def _raise_first(results: list[Any], return_exceptions: bool) -> list[Any]:
    """The results of a batch; without `return_exceptions` the first failure, carrying all results."""
    if not return_exceptions:
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            failed.results = results  # type: ignore[attr-defined]
            raise failed
    return results


def _concurrency(max_concurrency: int | None) -> int:
    if max_concurrency is None:
        return 64
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise errors.ConfigurationError(f"max_concurrency must be a whole number from 1 on, not {max_concurrency!r}")
    return min(max_concurrency, 100_000)


class Chat(_Model):
    """A chat model behind an OpenAI-compatible API.

    Args:
        model: the model's name.
        api_key: default: the environment's OPENAI_API_KEY.
        base_url: default: OPENAI_BASE_URL or OPENAI_API_BASE, else OpenAI's own.
        timeout: seconds for one attempt, to the last byte (60); `None` for none.
        max_retries: attempts after the first (2), for transient failures.
        organization, project, default_headers, default_query: sent along.
        circuit: a `CircuitBreaker` to look after this model.
        params: parameters of every request: `temperature`, `max_tokens`, `seed`, …

    Raises:
        ConfigurationError: no key, a base URL that is none.
    """

    _kind = "chat"

    def invoke(self, input: Any, **params: Any) -> Reply:
        """Asks and waits. Ctrl-C ends it at once.

        Args:
            input: a text, a message (`{"role": …, "content": …}`), or a list of messages.
            params: parameters of this request; they win over the model's.

        Raises:
            APIError: one of its classes, when the attempts are used up or the failure is not retryable.
        """
        self._check(list(params))
        reply: Reply = self._route.call(self._kind, _messages(input), params)
        return reply

    async def ainvoke(self, input: Any, **params: Any) -> Reply:
        """Asks and awaits; cancelling the task cuts the request."""
        self._check(list(params))
        reply: Reply = await _landed(self._route.start(self._kind, _messages(input), params))
        return reply

    def stream(self, input: Any, **params: Any) -> Stream:
        """The answer in pieces. Until the first content, failures are retried as for `invoke`.

        Nothing is sent before the first piece is asked for. Leaving early (`close`, `with`, or dropping it) cuts the request.
        Once it is over, `attempts`, `alternative` and `seconds` tell its story.

        Raises:
            StreamInterruptedError: the stream broke off after content was handed out; `partial` holds the text so far.
        """
        self._check(list(params))
        return _pieces(self._route.stream(_messages(input), {**params, "stream": True}))

    def astream(self, input: Any, **params: Any) -> AsyncStream:
        """As `stream`, for an event loop."""
        self._check(list(params))
        return _apieces(self._route.stream(_messages(input), {**params, "stream": True}))

    @overload
    def batch(
        self,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        **params: Any,
    ) -> list[Reply]: ...
    @overload
    def batch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool, **params: Any
    ) -> list[Reply | Exception]: ...
    def batch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> Any:
        """Asks for each input, at most `max_concurrency` (64) at a time. Result i belongs to input i.

        Raises:
            APIError: the first failure, unless `return_exceptions`; its `.results` holds every finished answer.
        """
        self._check(list(params))
        contents = _each(_messages, inputs, return_exceptions)
        results = self._route.batch(
            self._kind, contents, params, concurrency=_concurrency(max_concurrency), lenient=return_exceptions
        )
        return _raise_first(results, return_exceptions)

    async def abatch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        self._check(list(params))
        places = asyncio.Semaphore(_concurrency(max_concurrency))

        async def one(content: Any) -> Any:
            if isinstance(content, Exception):
                raise content
            async with places:
                return await _landed(self._route.start(self._kind, content, params))

        contents = _each(_messages, inputs, return_exceptions)
        results = await asyncio.gather(*(one(content) for content in contents), return_exceptions=True)
        return _raise_first(results, return_exceptions)


@dataclass(frozen=True)
class EmbeddingsReply:
    """Vectors, in the order of the inputs.

    Attributes:
        vectors: one per input.
        model: the model that answered, as the server names it.
        tokens: the input's tokens.
        attempts: the attempts made, in order.
        seconds: from the call to the answer.
    """

    vectors: list[list[float]]
    model: str | None
    tokens: int
    attempts: Attempts
    seconds: float


class Embeddings(_Model):
    """An embeddings model behind an OpenAI-compatible API. Arguments and errors as for `Chat`."""

    _kind = "embeddings"
    # The API takes no more inputs in one request.
    _largest = 2048

    def invoke(self, input: str | Sequence[str], **params: Any) -> EmbeddingsReply:
        """The vectors of one text or several."""
        self._check(list(params))
        return self._joined([self._route.call(self._kind, part, params) for part in self._parts(input)])

    async def ainvoke(self, input: str | Sequence[str], **params: Any) -> EmbeddingsReply:
        """As `invoke`, for an event loop."""
        self._check(list(params))
        return self._joined([await _landed(self._route.start(self._kind, part, params)) for part in self._parts(input)])

    def batch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """One reply per input; result i belongs to input i."""
        self._check(list(params))
        # An input that cannot be sent is one part, its exception.
        parts = [[each] if isinstance(each, Exception) else each for each in _each(self._parts, inputs, return_exceptions)]
        flat = [part for each in parts for part in each]
        limit = _concurrency(max_concurrency)
        replies = iter(self._route.batch(self._kind, flat, params, concurrency=limit, lenient=return_exceptions))
        results = [self._joined_or_failed([next(replies) for _ in each]) for each in parts]
        return _raise_first(results, return_exceptions)

    async def abatch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        self._check(list(params))
        places = asyncio.Semaphore(_concurrency(max_concurrency))

        async def one(parts: Any) -> Any:
            if isinstance(parts, Exception):
                raise parts
            async with places:
                return self._joined([await _landed(self._route.start(self._kind, part, params)) for part in parts])

        parts = _each(self._parts, inputs, return_exceptions)
        results = await asyncio.gather(*(one(each) for each in parts), return_exceptions=True)
        return _raise_first(results, return_exceptions)

    def _parts(self, input: str | Sequence[str], place: str = "input") -> list[list[str]]:
        if isinstance(input, (bytes, bytearray, Mapping, Set)) or not isinstance(input, Iterable):
            raise TypeError(f"{place} must be a text or a list of texts, not {type(input).__name__}")
        texts = [input] if isinstance(input, str) else list(input)
        for at, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{place}[{at}] must be a text, not {type(text).__name__}")
        if not texts:
            raise ValueError(f"{place} has nothing to embed: give at least one text")
        return [texts[start : start + self._largest] for start in range(0, len(texts), self._largest)]

    @classmethod
    def _joined_or_failed(cls, replies: list[Any]) -> Any:
        failed = next((reply for reply in replies if isinstance(reply, BaseException)), None)
        return cls._joined(replies) if failed is None else failed

    @staticmethod
    def _joined(replies: list[EmbeddingsReply]) -> EmbeddingsReply:
        if len(replies) == 1:
            return replies[0]
        return EmbeddingsReply(
            [vector for reply in replies for vector in reply.vectors],
            replies[0].model,
            sum(reply.tokens for reply in replies),
            Attempts(attempt for reply in replies for attempt in reply.attempts),
            sum(reply.seconds for reply in replies),
        )
