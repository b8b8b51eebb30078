"""The native client for OpenAI-compatible APIs. Needs no LangChain and no OpenAI SDK."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from seawall import _seawall, errors
from seawall._attempts import Attempt, Attempts
from seawall._chat_batch import Batches, landed, messages, raise_first
from seawall._model import Hidden, Model, OnInterrupt
from seawall._seawall import Choice, Chunk, Reply, Stream
from seawall._story import Step
from seawall._word import whole_number
from seawall._wrong_calls import unexpected

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "AsyncStream",
    "Attempt",
    "Attempts",
    "Chat",
    "Choice",
    "Chunk",
    "Embeddings",
    "EmbeddingsReply",
    "ModelInfo",
    "Reply",
    "Stream",
    "amodels",
    "models",
]


def __dir__() -> list[str]:
    return sorted(__all__)


class AsyncStream(_seawall.AsyncPieces):
    """A streamed answer for an event loop. Leaving it early (`aclose`, `async with`, or dropping it) cuts the request."""

    def __repr__(self) -> str:
        return repr(self._stream).replace("<Stream", "<AsyncStream", 1)

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
    def story(self) -> tuple[Step, ...] | None:
        """What policies did in its course, in order, once the stream is over; `None` before."""
        return self._stream.story

    @property
    def cached(self) -> bool | None:
        """Whether it came from a cache, once the stream is over."""
        return self._stream.cached

    @property
    def alternative(self) -> int | None:
        """Which alternative answered (0 is the primary), once the stream is over."""
        return self._stream.alternative

    @property
    def seconds(self) -> float | None:
        """Seconds from the first piece asked for to the end, once the stream is over."""
        return self._stream.seconds


class Chat(Batches[Reply]):
    """A chat model behind an OpenAI-compatible API.

    ```python
    chat = Chat("gpt-4").with_retry(stop_after_attempt=5).with_fallbacks([Chat("gpt-4o-mini")])
    answer = chat.invoke("What is a circuit breaker?").content
    ```

    Args:
        model: the model's name.
        api_key: a text, or a function that gives one: it is called before each attempt, on a thread of its own. Default: the
            environment's OPENAI_API_KEY.
        base_url: default: OPENAI_BASE_URL or OPENAI_API_BASE, else OpenAI's own.
        timeout: seconds for one attempt, to the last byte (60); `None` for none.
        first_token_timeout: of a stream, seconds for one attempt to its first content; role and keep-alive are none.
        idle_timeout: of a stream, seconds from one content to the next; `None`, as above: only `timeout` bounds it.
        on_interrupt: what follows when a stream breaks off after its first content: `"error"` (where nothing is said);
            `"restart"`: the next attempt begins from nothing, its first piece is `restarted`; `"continue"`: it goes on
            from the text so far, its first piece is `continued`. Attempts, waits and alternatives are those of a call.
        max_retries: attempts after the first (2), for transient failures.
        organization, project, default_headers, default_query: sent along.
        circuit: a `CircuitBreaker` to look after this model.
        rate_limit: a `RateLimit` that each attempt waits for; one object is one limit for all models that have it.
        bulkhead: a `Bulkhead` that bounds the attempts under way; shared likewise.
        hedge: a `Hedge`, or the seconds without an answer (of a stream, without content) after which a second request is made;
            whichever answers first is the answer, and the other one's connection is cut.
        cache: a `Cache` that gives its answers again, those of its alternatives but while they are under way excepted.
        guardrails: `Guardrails` that look at what is asked, before anything else, and at what is answered, by whichever alternative.
        monitor: a `Monitor` that counts its calls: attempts, latency, first tokens, tokens, cost.
        max_response_bytes: a reply or a stream of more, decompressed, is refused (64 MiB).
        ca_bundle: a PEM file of the authorities to trust, in place of the system's (or SSL_CERT_FILE's).
        client_cert: our own certificate: a PEM file that holds its key too, or the files (certificate, key).
        proxy: a proxy's URL, `False` for none; default: the environment's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY.
        idempotency_key: whether each call sends an `Idempotency-Key`, the same in all its attempts.
        params: parameters of every request: `temperature`, `max_tokens`, `seed`, …; those of a server of its own too, but what looks
            like a known one misspelt is refused. `extra_body`: more entries, whatever they are called.

    Every call takes parameters of its request, which win over the model's, and beside them `timeout`, `extra_headers`,
    `extra_query`, `extra_body` (as the SDK names them) and `idempotency_key` (a text, `True` or `False`) of this call.

    Raises:
        ConfigurationError: no key, a base URL that is none, a file that cannot be read.
    """

    _kind = "chat"
    _streams = True

    def _contents(self, input: Any, place: str) -> list[Any]:
        return [messages(input, place)]

    def invoke(self, input: Any, **params: Any) -> Reply:
        """Asks and waits. Ctrl-C ends it at once.

        Args:
            input: a text, a message (`{"role": …, "content": …}`), or a list of messages.
            params: parameters of this request; they win over the model's.

        Raises:
            APIError: one of its classes, when the attempts are used up or the failure is not retryable.
        """
        route, params, extras = self._asked(params)
        reply: Reply = route.call(self._kind, messages(input), params, extras.value)
        return reply

    async def ainvoke(self, input: Any, **params: Any) -> Reply:
        """Asks and awaits; cancelling the task cuts the request."""
        route, params, extras = self._asked(params)
        reply: Reply = await landed(route.start(self._kind, messages(input), params, extras.value))
        return reply

    def stream(self, input: Any, *, on_interrupt: OnInterrupt | None = None, **params: Any) -> Stream:
        """The answer in pieces. Until the first content, failures are retried as for `invoke`; after it, where
        `on_interrupt` (default: the model's) says so.

        Nothing is sent before the first piece is asked for. Leaving early (`close`, `with`, or dropping it) cuts the request.
        Once it is over, `attempts`, `alternative` and `seconds` tell its story.

        Raises:
            StreamInterruptedError: the stream broke off after content was handed out, and `on_interrupt` did not help;
                `partial` holds the text so far.
            ConfigurationError: `on_interrupt` is no word that it knows.
        """
        route, params, extras = self._asked(params)
        return route.stream(messages(input), {**params, "stream": True}, extras.value, on_interrupt)

    def astream(self, input: Any, *, on_interrupt: OnInterrupt | None = None, **params: Any) -> AsyncStream:
        """As `stream`, for an event loop."""
        route, params, extras = self._asked(params)
        return AsyncStream(route.stream(messages(input), {**params, "stream": True}, extras.value, on_interrupt))


@dataclass(frozen=True, repr=False)
class EmbeddingsReply:
    """Vectors, in the order of the inputs.

    Attributes:
        vectors: one per input.
        model: the model that answered, as the server names it.
        tokens: the input's tokens.
        attempts: the attempts made, in order.
        seconds: from the call to the answer.
        request_id: the provider's id of the (first) request; `attempts` has those of all.
        story: what policies did in the call's course, in order.
        cached: whether it came from a cache: no request was made for it.
    """

    vectors: list[list[float]]
    model: str | None
    tokens: int
    attempts: Attempts
    seconds: float
    request_id: str | None = None
    story: tuple[Step, ...] = ()
    cached: bool = False

    def __repr__(self) -> str:
        # Not the vectors: thousands of numbers say nothing.
        many = "s" if len(self.attempts) > 1 else ""
        what = f"{len(self.vectors)} vectors of {len(self.vectors[0]) if self.vectors else 0} numbers"
        return f"<EmbeddingsReply {what} from {self.model} in {self.seconds:.2f} s, {len(self.attempts)} attempt{many}>"

    def _repr_html_(self) -> str:
        from seawall._pictures import embeddings  # what few programs show

        return embeddings(self)


# OpenAI takes no more inputs, and no more tokens, in one request.
MOST_INPUTS = 2048
_MOST_TOKENS = 300_000
# How many requests of one `invoke` are under way at a time.
_AT_ONCE = 8


class Embeddings(Batches[EmbeddingsReply]):
    """An embeddings model behind an OpenAI-compatible API. Arguments and errors as for `Chat`, and:

    Args:
        max_batch_inputs: texts in one request (2048, the most that OpenAI takes); more are sent in several.
        max_batch_tokens: tokens in one request (300,000, OpenAI's limit); `None` for no limit. A text is taken to have as
            many tokens as bytes, which no tokenizer exceeds. A text that is longer alone goes alone.
        params: parameters of every request: `dimensions`, `user`, … `encoding_format` is "base64", as the SDK has it, which
            is read faster; give "float" for a server that refuses it.
    """

    _kind = "embeddings"

    def __init__(
        self, model: str, *, max_batch_inputs: int = MOST_INPUTS, max_batch_tokens: int | None = _MOST_TOKENS, **options: Any
    ) -> None:
        # As in Model's: some tracebacks show local variables.
        hidden, options = Hidden({"encoding_format": "base64", **options}), {}
        self._most_inputs = whole_number("max_batch_inputs", max_batch_inputs, 1)
        self._most_tokens = None if max_batch_tokens is None else whole_number("max_batch_tokens", max_batch_tokens, 1)
        super().__init__(model, **hidden.value)

    def invoke(self, input: str | Sequence[str], **params: Any) -> EmbeddingsReply:
        """The vectors of one text or several."""
        route, params, extras = self._asked(params)
        parts = self._parts(input)
        if len(parts) == 1:
            reply: EmbeddingsReply = route.call(self._kind, parts[0], params, extras.value)
            return reply
        began = time.perf_counter()
        replies = route.batch(self._kind, parts, params, extras.value, concurrency=_AT_ONCE)
        return _joined(raise_first(replies, return_exceptions=False), time.perf_counter() - began)

    async def ainvoke(self, input: str | Sequence[str], **params: Any) -> EmbeddingsReply:
        """As `invoke`, for an event loop."""
        route, params, extras = self._asked(params)
        parts = self._parts(input)
        if len(parts) == 1:
            reply: EmbeddingsReply = await landed(route.start(self._kind, parts[0], params, extras.value))
            return reply
        began = time.perf_counter()
        replies = await landed(route.start_batch(self._kind, parts, params, extras.value, concurrency=_AT_ONCE))
        return _joined(raise_first(replies, return_exceptions=False), time.perf_counter() - began)

    def _contents(self, input: Any, place: str) -> list[Any]:
        return self._parts(input, place)

    def _joined(self, results: list[Any]) -> Any:
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        try:
            return _joined(results, max(result.seconds for result in results)) if failed is None else failed
        except errors.MalformedResponseError as error:
            return error

    def _parts(self, input: str | Sequence[str], place: str = "input") -> list[list[str]]:
        """The texts, as many to a request as it may hold."""
        if isinstance(input, (bytes, bytearray, Mapping, Set)) or not isinstance(input, Iterable):
            raise TypeError(f"{place} must be a text or a list of texts, not {type(input).__name__}")
        texts = [input] if isinstance(input, str) else list(input)
        parts: list[list[str]] = [[]]
        room = 0
        for at, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{place}[{at}] must be a text, not {type(text).__name__}")
            # Two more for what some models put around each text.
            tokens = 2 + (len(text) if text.isascii() else len(text.encode(errors="surrogatepass")))
            room += tokens
            if parts[-1] and (
                len(parts[-1]) == self._most_inputs or (self._most_tokens is not None and room > self._most_tokens)
            ):
                parts.append([])
                room = tokens
            parts[-1].append(text)
        if not texts:
            raise ValueError(f"{place} has nothing to embed: give at least one text")
        return parts


def _alternative(reply: EmbeddingsReply) -> int:
    # Without attempts it is the cache's.
    return reply.attempts[-1].alternative if reply.attempts else 0


def _joined(replies: list[EmbeddingsReply], seconds: float) -> EmbeddingsReply:
    """One reply of several requests' replies."""
    first = replies[0]
    if len(replies) == 1:
        return first
    attempts = Attempts(attempt for reply in replies for attempt in reply.attempts)
    for other in replies[1:]:
        lengths = len(first.vectors[0]), len(other.vectors[0])
        alternatives = _alternative(first), _alternative(other)
        if lengths[0] != lengths[1] or (first.model != other.model and alternatives[0] != alternatives[1]):
            error = errors.MalformedResponseError(
                f"the texts took {len(replies)} requests, and vectors of {first.model!r} ({lengths[0]} numbers) and of "
                f"{other.model!r} ({lengths[1]} numbers) do not compare: give alternatives of one model, or fewer texts"
            )
            error.attempts = attempts  # type: ignore[assignment]
            raise error
    return EmbeddingsReply(
        [vector for reply in replies for vector in reply.vectors],
        first.model,
        sum(reply.tokens for reply in replies),
        attempts,
        seconds,
        first.request_id,
        tuple(step for reply in replies for step in reply.story),
        all(reply.cached for reply in replies),
    )


@dataclass(frozen=True)
class ModelInfo:
    """A model that a service offers.

    Attributes:
        id: its name, as `Chat` and `Embeddings` take it.
        created: when, in seconds since 1970, if the service says.
        owned_by: whose it is, if the service says.
        raw: all that the service says of it; some tell context lengths and prices.
    """

    id: str
    created: int | None
    owned_by: str | None
    raw: dict[str, Any]


# Arguments of a model that say where to ask, and as whom.
_OF_MODELS = tuple(name for name in signature(Model).parameters if name not in ("model", "params"))


class _Models(Model):
    """The list of a service's models."""

    _kind = "models"

    @classmethod
    def _check(cls, names: Iterable[str], *, as_they_are: bool = False) -> None:
        for name in names:
            raise unexpected("models", name, _OF_MODELS)

    def invoke(self) -> list[ModelInfo]:
        return self._infos(self._route.call(self._kind, None))

    async def ainvoke(self) -> list[ModelInfo]:
        return self._infos(await landed(self._route.start(self._kind, None)))

    @staticmethod
    def _infos(listed: list[dict[str, Any]]) -> list[ModelInfo]:
        return [ModelInfo(each["id"], each.get("created"), each.get("owned_by"), each) for each in listed]


def models(*, api_key: Any = None, base_url: str | None = None, **options: Any) -> list[ModelInfo]:
    """The models that a service offers, in its order. Retried as a call of `Chat` is.

    Args:
        api_key, base_url, options: where to ask, and as whom: arguments of `Chat`.

    Raises:
        ConfigurationError: no key, a base URL that is none, an argument that is none.
        APIError: one of its classes, when the attempts are used up or the failure is not retryable.
    """
    place, api_key, base_url, options = Hidden({"api_key": api_key, "base_url": base_url, **options}), None, None, {}
    return _Models("models", **place.value).invoke()


async def amodels(*, api_key: Any = None, base_url: str | None = None, **options: Any) -> list[ModelInfo]:
    """As `models` (`api_key`, `base_url`, `options`), for an event loop."""
    place, api_key, base_url, options = Hidden({"api_key": api_key, "base_url": base_url, **options}), None, None, {}
    return await _Models("models", **place.value).ainvoke()
