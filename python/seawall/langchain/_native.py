"""What `ChatOpenAI` and `OpenAIEmbeddings` share: the native model that they are made into, and how they are copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, PrivateAttr
from typing_extensions import Self

from seawall._model import Model
from seawall._seawall import Cache, Retry
from seawall.langchain import errors
from seawall.langchain._arguments import shown, without_secrets
from seawall.langchain._resilient import sharing

_M = TypeVar("_M", bound=Model)


class OnNative(BaseModel):
    """A model on the native client. Its fields say where it asks and as whom; the native model is made of them once."""

    _retry: Retry | None = PrivateAttr(default=None)
    _retries_off: bool = PrivateAttr(default=False)
    _others: tuple[Any, ...] = PrivateAttr(default=())
    _handled: Any = PrivateAttr(default=None)
    # A chat model's field of that name is langchain-core's, for caches of its own.
    _cache: Cache | None = PrivateAttr(default=None)
    _built: Any = PrivateAttr(default=None)

    def _made(self) -> Any:
        """The native model, as its fields and policies are now."""
        raise NotImplementedError  # ChatOpenAI and OpenAIEmbeddings each make their own kind

    @property
    def _client(self) -> Any:
        if self._built is None:
            self._built = self._made()
        return self._built

    def _place(self) -> dict[str, Any]:
        """The arguments that all native models take."""
        model: Any = self
        return {
            "api_key": model.openai_api_key,
            "base_url": model.openai_api_base,
            "organization": model.openai_organization,
            "project": model.project,
            "timeout": model.request_timeout,
            "max_retries": 2 if model.max_retries is None else model.max_retries,
            "default_headers": model.default_headers,
            "default_query": model.default_query,
            "circuit": model.circuit,
            "rate_limit": model.rate_limit,
            "bulkhead": model.bulkhead,
            "hedge": model.hedge,
            "monitor": model.monitor,
            "cache": self._cache or (model.cache if isinstance(model.cache, Cache) else None),
            "guardrails": getattr(model, "guardrails", None),
            "proxy": model.openai_proxy,
            "ca_bundle": model.ca_bundle,
            "client_cert": model.client_cert,
            "max_response_bytes": model.max_response_bytes,
        }

    def _with_policies(self, native: _M) -> _M:
        changes: dict[str, Any] = {
            "_table": errors,
            "_others": tuple(other._client for other in self._others),
            "_handled": self._handled,
        }
        if self._retry is not None or self._retries_off:
            changes["_retry"] = self._retry
        return native._but(**changes)

    def _but(self, **changes: Any) -> Self:
        copy = self.model_copy()
        for name, value in changes.items():
            setattr(copy, name, value)
        copy._built = None
        return copy

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        yield from shown(super().__repr_args__())
        # One whose arguments were refused has none.
        private = getattr(self, "__pydantic_private__", None) or {}
        if private.get("_retry") is not None:
            yield "retry", self._retry
        if private.get("_others"):
            yield "fallbacks", [other._shown_as for other in self._others]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_"):
            self._built = None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with fields changed as `update` says."""
        copy = super().model_copy(update=update, deep=deep)
        copy._built = None
        return copy

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        bare = super().__copy__()
        bare._built = None
        model: Any = self
        shared = (
            self._retry,
            self._cache,
            model.cache,
            model.circuit,
            model.monitor,
            getattr(model, "guardrails", None),
            model.openai_api_key,
            *(other.circuit for other in self._others),
        )
        return super(OnNative, bare).__deepcopy__(sharing(memo, *shared))

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        state["__dict__"] = without_secrets(type(self).__name__, state["__dict__"])
        private = state.get("__pydantic_private__")
        return {**state, "__pydantic_private__": {**private, "_built": None}} if private else state
