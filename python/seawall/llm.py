"""The native client for OpenAI-compatible APIs. Needs no LangChain and no OpenAI SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from seawall import _seawall, errors
from seawall._attempts import Attempt, Attempts
from seawall._model import Model
from seawall._seawall import Chunk, Reply, Stream

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncStream", "Attempt", "Attempts", "Chat", "Chunk", "Embeddings", "EmbeddingsReply", "Reply", "Stream"]

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
    finally:
        # Whoever is cancelled, by whatever its loop raises, gives the call up.
        flying.abort()


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


def _raise_first(results: list[Any], return_exceptions: bool) -> list[Any]:
    """The results of a batch; without `return_exceptions` the first failure, carrying all results."""
    if not return_exceptions:
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            failed.results = results  # type: ignore[attr-defined]
            raise failed
    return results


def _flat(parts: list[list[Any]]) -> list[Any]:
    return [part for each in parts for part in each]


def _concurrency(max_concurrency: int | None) -> int:
    if max_concurrency is None:
        return 64
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise errors.ConfigurationError(f"max_concurrency must be a whole number from 1 on, not {max_concurrency!r}")
    return min(max_concurrency, 100_000)


class Chat(Model):
    """A chat model behind an OpenAI-compatible API.

    Args:
        model: the model's name.
        api_key: default: the environment's OPENAI_API_KEY.
        base_url: default: OPENAI_BASE_URL or OPENAI_API_BASE, else OpenAI's own.
        timeout: seconds for one attempt, to the last byte (60); `None` for none.
        first_token_timeout: of a stream, seconds for one attempt to its first content; role and keep-alive are none.
        idle_timeout: of a stream, seconds from one content to the next; `None`, as above: only `timeout` bounds it.
        max_retries: attempts after the first (2), for transient failures.
        organization, project, default_headers, default_query: sent along.
        circuit: a `CircuitBreaker` to look after this model.
        params: parameters of every request: `temperature`, `max_tokens`, `seed`, …

    Raises:
        ConfigurationError: no key, a base URL that is none.
    """

    _kind = "chat"
    _streams = True

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
        return self._route.stream(_messages(input), {**params, "stream": True})

    def astream(self, input: Any, **params: Any) -> AsyncStream:
        """As `stream`, for an event loop."""
        self._check(list(params))
        return AsyncStream(self._route.stream(_messages(input), {**params, "stream": True}))

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
        contents = _each(_messages, inputs, return_exceptions)
        flying = self._route.start_batch(
            self._kind, contents, params, concurrency=_concurrency(max_concurrency), lenient=return_exceptions
        )
        return _raise_first(await _landed(flying), return_exceptions)


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


class Embeddings(Model):
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
        parts, limit = self._all_parts(inputs, return_exceptions), _concurrency(max_concurrency)
        replies = self._route.batch(self._kind, _flat(parts), params, concurrency=limit, lenient=return_exceptions)
        return _raise_first(self._by_input(parts, replies), return_exceptions)

    async def abatch(
        self, inputs: Sequence[Any], *, max_concurrency: int | None = None, return_exceptions: bool = False, **params: Any
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        self._check(list(params))
        parts, limit = self._all_parts(inputs, return_exceptions), _concurrency(max_concurrency)
        flying = self._route.start_batch(self._kind, _flat(parts), params, concurrency=limit, lenient=return_exceptions)
        return _raise_first(self._by_input(parts, await _landed(flying)), return_exceptions)

    def _all_parts(self, inputs: Any, lenient: bool) -> list[list[Any]]:
        # An input that cannot be sent is one part, its exception.
        return [[each] if isinstance(each, Exception) else each for each in _each(self._parts, inputs, lenient)]

    @classmethod
    def _by_input(cls, parts: list[list[Any]], replies: list[Any]) -> list[Any]:
        each = iter(replies)
        return [cls._joined_or_failed([next(each) for _ in one]) for one in parts]

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
