"""The native client for OpenAI-compatible APIs. Needs no LangChain and no OpenAI SDK."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from seawall import _seawall, errors
from seawall._attempts import Attempt, Attempts
from seawall._seawall import Chunk, CircuitBreaker, Reply, Retry

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Attempt", "Attempts", "Chat", "Chunk", "Embeddings", "EmbeddingsReply", "Reply"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
Seconds = float | timedelta
_Self = TypeVar("_Self", bound="_Model")


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


class _Model:
    """What a chat model and an embeddings model share: one primary, its policies and its alternatives."""

    _kind: str

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
        if not isinstance(model, str) or not model:
            raise errors.ConfigurationError(f"model must be the name of a model, not {model!r}")
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise errors.ConfigurationError(f"max_retries must be a whole number from 0 on, not {max_retries!r}")
        self.model = model
        self._table: Any = errors
        self._retry: Retry | None = Retry(max_retries + 1)
        self._others: tuple[_Model, ...] = ()
        self._handled: Any = None
        if hasattr(api_key, "get_secret_value"):
            api_key = api_key.get_secret_value()
        self._place: dict[str, Any] = {
            "base_url": environment(base_url, "OPENAI_BASE_URL", "OPENAI_API_BASE") or DEFAULT_BASE_URL,
            "api_key": environment(api_key, "OPENAI_API_KEY"),
            "organization": environment(organization, "OPENAI_ORG_ID", "OPENAI_ORGANIZATION"),
            "project": environment(project, "OPENAI_PROJECT_ID"),
            "headers": list((default_headers or {}).items()),
            "query": list((default_query or {}).items()),
            "timeout": timeout,
            "breaker": circuit,
            "max_response_bytes": max_response_bytes,
            "params": params,
        }
        self._leg()  # refuses what is wrong now, not at the first call
        self._built: _seawall.Route | None = None

    @property
    def _where(self) -> tuple[Any, ...]:
        """What another model has to share to be at the same place: the server and the credentials."""
        return tuple(self._place[name] for name in ("base_url", "api_key", "organization", "project"))

    def _leg(self) -> _seawall.Leg:
        return _seawall.Leg(self.model, retry=self._retry, **self._place)

    @property
    def _route(self) -> _seawall.Route:
        if self._built is None:
            legs = [self._leg(), *(other._leg() for other in self._others)]
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

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{type(self).__name__} holds an API key and is not pickled; make it where it is used")


def _messages(input: Any) -> list[Any]:
    """A prompt, a message, or a list of messages, as the API takes them."""
    if isinstance(input, str):
        return [{"role": "user", "content": input}]
    if isinstance(input, Mapping):
        return [dict(input)]
    if isinstance(input, Sequence):
        messages = [_message(message, place) for place, message in enumerate(input)]
        if messages:
            return messages
        raise ValueError("the list of messages is empty: give at least one")
    raise TypeError(f"input must be a text, a message (a dict) or a list of messages, not {type(input).__name__}")


def _message(message: Any, place: int) -> Any:
    if isinstance(message, Mapping):
        return dict(message)
    if isinstance(message, str):
        return {"role": "user", "content": message}
    if isinstance(message, tuple) and len(message) == 2:
        role, content = message
        return {"role": {"human": "user", "ai": "assistant"}.get(role, role), "content": content}
    raise TypeError(f"messages[{place}] must be a dict, a (role, content) pair or a text, not {type(message).__name__}")


async def _landed(flying: _seawall.Flying) -> Any:
    try:
        return await flying.future
    except asyncio.CancelledError:
        flying.abort()
        raise


def _pieces(stream: _seawall.Stream) -> Iterator[Chunk]:
    try:
        yield from stream
    finally:
        stream.close()


async def _apieces(stream: _seawall.Stream) -> AsyncIterator[Chunk]:
    try:
        while True:
            try:
                chunk, ready = stream.next_or_future()
            except StopIteration:
                return
            if chunk is not None:
                yield chunk
            elif ready is not None:
                await ready
    finally:
        stream.close()


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
    return max_concurrency


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
        reply: Reply = self._route.call(self._kind, _messages(input), params)
        return reply

    async def ainvoke(self, input: Any, **params: Any) -> Reply:
        """Asks and awaits; cancelling the task cuts the request."""
        reply: Reply = await _landed(self._route.start(self._kind, _messages(input), params))
        return reply

    def stream(self, input: Any, **params: Any) -> Iterator[Chunk]:
        """The answer in pieces. Until the first content, failures are retried as for `invoke`.

        Raises:
            StreamInterruptedError: the stream broke off after content was handed out; `partial` holds the text so far.
        """
        return _pieces(self._route.stream(_messages(input), {**params, "stream": True}))

    def astream(self, input: Any, **params: Any) -> AsyncIterator[Chunk]:
        """As `stream`, for an event loop."""
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
        contents = [_messages(input) for input in inputs]
        results = self._route.batch(self._kind, contents, params, concurrency=_concurrency(max_concurrency))
        return _raise_first(results, return_exceptions)

    async def abatch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        places = asyncio.Semaphore(_concurrency(max_concurrency))

        async def one(content: list[Any]) -> Any:
            async with places:
                return await _landed(self._route.start(self._kind, content, params))

        contents = [_messages(input) for input in inputs]
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
        replies = [self._route.call(self._kind, part, params) for part in self._parts(input)]
        return self._joined(replies)

    async def ainvoke(self, input: str | Sequence[str], **params: Any) -> EmbeddingsReply:
        """As `invoke`, for an event loop."""
        return self._joined([await _landed(self._route.start(self._kind, part, params)) for part in self._parts(input)])

    def batch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """One reply per input; result i belongs to input i."""
        parts = [self._parts(input) for input in inputs]
        flat = [part for each in parts for part in each]
        replies = iter(self._route.batch(self._kind, flat, params, concurrency=_concurrency(max_concurrency)))
        results = [self._joined_or_failed([next(replies) for _ in each]) for each in parts]
        return _raise_first(results, return_exceptions)

    async def abatch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        places = asyncio.Semaphore(_concurrency(max_concurrency))

        async def one(input: Any) -> Any:
            async with places:
                return await self.ainvoke(input, **params)

        results = await asyncio.gather(*(one(input) for input in inputs), return_exceptions=True)
        return _raise_first(results, return_exceptions)

    def _parts(self, input: str | Sequence[str]) -> list[list[str]]:
        texts = [input] if isinstance(input, str) else list(input)
        if not texts:
            raise ValueError("there is nothing to embed: give at least one text")
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
