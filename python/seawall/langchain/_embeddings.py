"""`OpenAIEmbeddings`: real langchain-core embeddings on the native client."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings as BaseEmbeddings
from pydantic import ConfigDict, Field, SecretStr, SkipValidation
from typing_extensions import Self

from seawall._model import retry_policy
from seawall._progress import Progress
from seawall._seawall import Bulkhead, Cache, CircuitBreaker, Hedge, Monitor, RateLimit
from seawall.errors import ConfigurationError
from seawall.langchain._arguments import accepted
from seawall.langchain._native import OnNative
from seawall.llm import MOST_INPUTS, Embeddings


class OpenAIEmbeddings(OnNative, BaseEmbeddings):
    """Embeddings from an OpenAI-compatible API, on the native client, with `with_retry` and `with_fallbacks`.

    Args:
        model: the model's name.
        dimensions: the vectors' length, where the model leaves a choice.
        api_key: a text, or a function that gives one, called before each attempt; default: the environment's OPENAI_API_KEY.
        base_url: default: OPENAI_BASE_URL or OPENAI_API_BASE, else OpenAI's own.
        timeout: seconds for one attempt (60); `None` for none.
        max_retries: attempts after the first (2), unless `with_retry` says otherwise.
        chunk_size: texts per request, 2048 at most (1000).
        proxy, ca_bundle, client_cert, max_response_bytes: as `seawall.llm.Chat` has them; proxy: also OPENAI_PROXY.

    Raises:
        ConfigurationError: no key, a base URL that is none.
    """

    model_config = ConfigDict(
        populate_by_name=True, protected_namespaces=(), hide_input_in_errors=True, arbitrary_types_allowed=True, extra="forbid"
    )

    model: str = "text-embedding-ada-002"
    dimensions: int | None = None
    openai_api_key: SecretStr | Path | Callable[[], Any] | None = Field(default=None, alias="api_key")
    openai_api_base: str | None = Field(default=None, alias="base_url")
    openai_organization: str | None = Field(default=None, alias="organization")
    project: str | None = None
    request_timeout: float | timedelta | None = Field(default=60.0, alias="timeout")
    max_retries: int | None = None
    chunk_size: int = Field(default=1000, ge=1, le=MOST_INPUTS)
    default_headers: Mapping[str, str] | None = Field(default=None, repr=False, exclude=True)
    default_query: Mapping[str, str] | None = Field(default=None, repr=False, exclude=True)
    openai_proxy: str | bool | None = Field(default=None, alias="proxy", repr=False, exclude=True)
    ca_bundle: SkipValidation[str | os.PathLike[str] | None] = None
    client_cert: SkipValidation[Any] = Field(default=None, exclude=True)
    max_response_bytes: SkipValidation[int] = 64 * 1024 * 1024
    circuit: CircuitBreaker | None = Field(default=None, exclude=True)
    rate_limit: RateLimit | None = Field(default=None, exclude=True)
    bulkhead: Bulkhead | None = Field(default=None, exclude=True)
    hedge: Hedge | None = Field(default=None, exclude=True)
    monitor: Monitor | None = Field(default=None, exclude=True)
    cache: Cache | None = Field(default=None, exclude=True)
    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**accepted(type(self), arguments))
        self._built = self._made()

    def with_retry(self, *, stop_after_attempt: int = 3, **policy: Any) -> Self:
        """The same embeddings with other retries: they replace those they had. Arguments as for `ChatOpenAI.with_retry`."""
        return self._but(_retry=retry_policy(stop_after_attempt, **policy))

    def with_fallbacks(self, fallbacks: Sequence[OpenAIEmbeddings], *, exceptions_to_handle: Any = None) -> Self:
        """The same embeddings with alternatives, tried in order, each under its own policies.

        Vectors of different models do not compare: give the same model at another place.

        Raises:
            ConfigurationError: an alternative of another model, or of another length.
        """
        for place, other in enumerate(fallbacks):
            if not isinstance(other, OpenAIEmbeddings):
                raise ConfigurationError(f"fallbacks[{place}] must be OpenAIEmbeddings, not {other!r}")
            if (other.model, other.dimensions) != (self.model, self.dimensions):
                raise ConfigurationError(
                    f"fallbacks[{place}] makes vectors of {other.model!r}, which do not compare with those of {self.model!r}: "
                    "give the same model and dimensions, at another base_url or with another key"
                )
        models: list[OpenAIEmbeddings] = [self, *fallbacks]
        for each in models:
            if each._others and each._handled != exceptions_to_handle:
                raise ConfigurationError("all alternatives have one exceptions_to_handle: give them in one with_fallbacks")
        others = tuple(each for other in fallbacks for each in (other, *other._others))
        return self._but(_others=(*self._others, *others), _handled=exceptions_to_handle)

    def embed_documents(
        self,
        texts: list[str],
        chunk_size: int | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> list[list[float]]:
        """One vector per text, in their order.

        Args:
            texts: what to embed.
            chunk_size: texts per request, if not the model's.
            journal: a file in which the vectors of each request are before the next is made; begun again, it asks only for the others.
            progress: as for the batches of `ChatOpenAI`, counted in chunks.
        """
        parts = self._parts(texts, chunk_size)
        how: dict[str, Any] = {"journal": journal, "progress": progress}
        return [vector for reply in self._embedder.batch(parts, **how) for vector in reply.vectors] if parts else []

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text."""
        return self._embedder.invoke(text).vectors[0]

    async def aembed_documents(
        self,
        texts: list[str],
        chunk_size: int | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> list[list[float]]:
        """As `embed_documents`, for an event loop."""
        parts = self._parts(texts, chunk_size)
        how: dict[str, Any] = {"journal": journal, "progress": progress}
        return [vector for reply in await self._embedder.abatch(parts, **how) for vector in reply.vectors] if parts else []

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, for an event loop."""
        return (await self._embedder.ainvoke(text)).vectors[0]

    def _parts(self, texts: Sequence[str], chunk_size: int | None) -> list[list[str]]:
        size = self.chunk_size if chunk_size is None else chunk_size
        if not 1 <= size <= MOST_INPUTS:
            raise ConfigurationError(f"chunk_size must be from 1 to {MOST_INPUTS}, not {size!r}")
        return [list(texts[start : start + size]) for start in range(0, len(texts), size)]

    @property
    def _embedder(self) -> Embeddings:
        embedder: Embeddings = self._client
        return embedder

    def _made(self) -> Embeddings:
        params = {**self.model_kwargs, **({} if self.dimensions is None else {"dimensions": self.dimensions})}
        return self._with_policies(Embeddings(self.model, **self._place(), **params))

    @property
    def _shown_as(self) -> str | None:
        return self.openai_api_base
