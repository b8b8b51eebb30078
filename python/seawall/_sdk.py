"""`resilient`: a client of an SDK, or a LangChain Runnable, behind a pipeline."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast, overload

from seawall import _sdk_fallback
from seawall._decorators import guard
from seawall._sdk_request import Guard, guarded_class, is_async, is_client
from seawall._seawall import Fallback, Pipeline
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError


class _Client(Protocol):
    """What clients of the SDKs have in common."""

    max_retries: int

    @property
    def with_options(self) -> Callable[..., Any]: ...

    @property
    def with_raw_response(self) -> Any: ...


_C = TypeVar("_C", bound=_Client)


@overload
def resilient(client: _C, pipeline: Pipeline | None = None, **guard_arguments: Any) -> _C: ...
@overload
def resilient(client: Any, pipeline: Pipeline | None = None, **guard_arguments: Any) -> Any: ...
def resilient(client: Any, pipeline: Pipeline | None = None, **guard_arguments: Any) -> Any:
    """A client of the openai or anthropic SDK (or of another made like them) with every request behind a pipeline.

    It is of the same class and shares the connections. All resources are guarded: chat, responses, embeddings, messages,
    files, `.parse()`, `.stream()`, `with_raw_response`, pages, and what `with_options` makes of it. The SDK's own retries
    are off; the client given is not changed. A LangChain Runnable is handed to `seawall.langchain.resilient`.

    Args:
        client: `openai.OpenAI`, `AsyncOpenAI`, `AzureOpenAI`, `anthropic.Anthropic`, `AsyncAnthropic`, …, or a Runnable.
        pipeline: the policies; by default what `seawall.guard(**guard_arguments)` makes: retry 3, a breaker.
        guard_arguments: those of `seawall.guard`; a first one is `preset=`. For `fallback=`: other clients of the same SDK
            (the same request elsewhere), functions (called with the request's body as keyword arguments), answers as the
            SDK gives them, texts.

    Raises:
        ConfigurationError: both a pipeline and arguments, wrong ones, a client that is guarded already, or what is none.

    Errors of the SDK stay the SDK's. A good status without a usable answer is a `MalformedResponseError`, a stream that
    breaks off after its first content a `StreamInterruptedError`; both are the SDK's `APIError` too.
    """
    if not is_client(client):
        return _runnable(client)(client, pipeline, **guard_arguments)
    if hasattr(client, "_seawall_guard"):
        raise ConfigurationError("this client is guarded already: two guards would multiply their attempts")
    cls: Any = type(client)
    if pipeline is None:
        guard_arguments.setdefault("name", cls.__name__)
    whole = pipeline_of(pipeline, guard_arguments, lambda given: _alternatives(given, client))
    if whole is pipeline:
        whole = _for_client(whole, client)
    return guarded_class(cls).made_of(client, Guard(whole, cls.__name__, is_async(client)))


def pipeline_of(pipeline: Pipeline | None, guard_arguments: dict[str, Any], alternatives: Callable[[Any], list[Any]]) -> Pipeline:
    """The pipeline given, or the one that the arguments of `guard` make, with `alternatives` of its `fallback`.

    Raises:
        ConfigurationError: both were given, or no pipeline.
    """
    if pipeline is None:
        if guard_arguments.get("fallback") is not None:
            guard_arguments["fallback"] = alternatives(guard_arguments["fallback"])
        made: Any = guard(guard_arguments.pop("preset", None), **guard_arguments)
        return cast("Pipeline", made)
    if guard_arguments:
        raise ConfigurationError("resilient takes a pipeline or the arguments of guard, not both")
    if not isinstance(pipeline, Pipeline):
        raise ConfigurationTypeError(f"pipeline must be a seawall.Pipeline, not {shown(pipeline)}")
    return pipeline


def _alternatives(given: Any, client: Any) -> list[Any]:
    given = given if isinstance(given, (list, tuple)) else [given]
    return [_sdk_fallback.alternative(place, each, client) for place, each in enumerate(given, 1)]


def _for_client(pipeline: Pipeline, client: Any) -> Pipeline:
    """The pipeline with its policies, that is with their state, and with alternatives that take a client's requests."""
    policies = [
        each.replaced(_alternatives(each.alternatives, client)) if isinstance(each, Fallback) else each
        for each in pipeline.policies
    ]
    return Pipeline(*policies, name=pipeline.name, monitor=pipeline.monitor)


def _runnable(given: Any) -> Any:
    """What guards a Runnable."""
    core = sys.modules.get("langchain_core.runnables")
    if core is not None and isinstance(given, core.Runnable):
        from seawall.langchain import resilient as of_runnable  # only where LangChain is loaded already

        return of_runnable
    hint = ""
    if isinstance(given, type):
        hint = f"; make a client of it: {given.__name__}(…)"
    elif callable(given):
        hint = "; a function is guarded by seawall.guard"
    elif type(given).__name__ == "module":
        hint = f"; make a client of it: {given.__name__}.…()"
    raise ConfigurationTypeError(
        f"resilient guards a client of the openai or anthropic SDK or a LangChain Runnable, not {shown(given)}{hint}"
    )
