"""`ChatOpenAI`: a real langchain-core chat model on the native client."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from langchain_core.language_models import LangSmithParams
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, SkipValidation
from typing_extensions import Self

from seawall._model import OnInterrupt, retry_policy
from seawall._seawall import Bulkhead, Cache, CircuitBreaker, Guardrails, Hedge, Monitor, RateLimit, Route
from seawall.errors import ConfigurationError
from seawall.langchain._arguments import accepted, refuse_in_call, with_parameters
from seawall.langchain._bound import BoundChat, structured
from seawall.langchain._calls import Calls
from seawall.langchain._configurable import ConfigurableChat, chosen
from seawall.langchain._kept import KeptBatching
from seawall.langchain._native import OnNative
from seawall.langchain._resilient import listed, resilient_fallbacks
from seawall.llm import Chat

# What goes into the request under another name than the field's.
_SENT_AS = {"max_tokens": "max_completion_tokens"}
# What of a model's place tells its answers from another's.
_REQUEST_FIELDS = (
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "reasoning_effort",
    "seed",
    "service_tier",
    "stop",
    "temperature",
    "top_logprobs",
    "top_p",
    "verbosity",
)


class ChatOpenAI(KeptBatching, OnNative, Calls):  # type: ignore[misc]  # more said of batches
    """A chat model behind an OpenAI-compatible API, on the native client.

    Retries, waits and fallbacks are one pipeline: `with_retry` and `with_fallbacks` return chat models again, in any
    order and together with `bind_tools`, `bind` and `with_structured_output`. `response_metadata` says which model
    answered (`served_by`) after how many `attempts`.

    Args:
        model: the model's name.
        api_key: a text, or a function that gives one, called before each attempt; default: the environment's OPENAI_API_KEY.
        base_url: default: OPENAI_BASE_URL or OPENAI_API_BASE, else OpenAI's own.
        timeout: seconds for one attempt, to the last byte (60); `None` for none.
        first_token_timeout, idle_timeout: of a stream, seconds to its first content, and from one content to the next.
        on_interrupt: what follows when a stream breaks off after its first content: `"error"`, `"restart"` (pieces that are
            added up begin anew with it) or `"continue"`; the first piece of the next attempt says so in
            `response_metadata["seawall"]`.
        max_retries: attempts after the first (2), unless `with_retry` says otherwise.
        streaming: read the answer as a stream for `invoke` too.
        stream_usage: ask for token counts in streams (true).
        proxy, ca_bundle, client_cert, max_response_bytes: as `seawall.llm.Chat` has them; proxy: also OPENAI_PROXY.
        circuit: a `seawall.CircuitBreaker` to look after this model.
        rate_limit, bulkhead: a `seawall.RateLimit` that attempts wait for, a `seawall.Bulkhead` that bounds those under way; one
            object is one limit for all models that have it.
        hedge: a `seawall.Hedge`, or the seconds without content after which a second request is made.
        monitor: a `seawall.Monitor` that counts its calls: attempts, latency, first tokens, tokens, cost.
        cache: a `seawall.Cache` that gives its answers and streams again; or what langchain-core takes: a `BaseCache`, `True` for
            the global one, `False` for none.
        guardrails: `seawall.Guardrails` that look at what is asked and at what is answered.
        model_kwargs, extra_body: further parameters of every request.

    Raises:
        ConfigurationError: no key, a base URL that is none, an argument of langchain-openai's without a meaning here.
    """

    model_config = ConfigDict(
        populate_by_name=True, protected_namespaces=(), hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    model_name: str = Field(default="gpt-3.5-turbo", alias="model")
    openai_api_key: SecretStr | Path | Callable[[], Any] | None = Field(default=None, alias="api_key")
    openai_api_base: str | None = Field(default=None, alias="base_url")
    openai_organization: str | None = Field(default=None, alias="organization")
    project: str | None = None
    request_timeout: float | timedelta | None = Field(default=60.0, alias="timeout")
    first_token_timeout: float | timedelta | None = None
    idle_timeout: float | timedelta | None = None
    on_interrupt: SkipValidation[OnInterrupt | None] = None
    max_retries: int | None = None
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
    guardrails: Guardrails | None = Field(default=None, exclude=True)
    streaming: bool = False
    stream_usage: bool = True
    frequency_penalty: float | None = None
    logit_bias: dict[int, int] | None = None
    logprobs: bool | None = None
    max_tokens: int | None = Field(default=None, alias="max_completion_tokens")
    n: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    seed: int | None = None
    service_tier: str | None = None
    stop: list[str] | str | None = Field(default=None, alias="stop_sequences")
    temperature: float | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    verbosity: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    extra_body: Mapping[str, Any] | None = Field(default=None, repr=False, exclude=True)

    _own_params: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, **arguments: Any) -> None:
        arguments = with_parameters(type(self), accepted(type(self), arguments))
        version = arguments.get("output_version")
        if version not in (None, "v0", "v1"):
            raise ConfigurationError(
                f"output_version must be 'v0' or 'v1', not {version!r}: seawall speaks the chat completions API"
            )
        cache = arguments.get("cache")
        if isinstance(cache, Cache):
            # It stands on the native side; langchain-core is to ask none of its own besides.
            arguments = {**arguments, "cache": False}
        super().__init__(**arguments)
        self._cache = cache if isinstance(cache, Cache) else None
        self._built = self._made()

    # --- policies

    def with_retry(
        self,
        *,
        retry_if_exception_type: Any = (Exception,),
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: Any = None,
        stop_after_attempt: int = 3,
        wait: Any = None,
        before_sleep: Any = None,
        after: Any = None,
        **more: Any,
    ) -> Self:
        """The same chat model with other retries: they replace those it had, they never multiply.

        Args:
            retry_if_exception_type: exception classes. Errors that no retry can mend (401, 400, an exhausted quota) are
                not retried unless their own class is named.
            wait_exponential_jitter: wait 1, 2, 4 … s, at most 60, plus up to one second; else 0.5 s doubling to 8 s.
            exponential_jitter_params: `initial`, `max`, `exp_base`, `jitter` of that wait.
            stop_after_attempt: requests, all told (3).
            wait, before_sleep, after, more: what `seawall.Retry` takes.
        """
        policy = retry_policy(
            stop_after_attempt,
            wait_exponential_jitter=wait_exponential_jitter,
            exponential_jitter_params=exponential_jitter_params,
            retry_if_exception_type=retry_if_exception_type,
            wait=wait,
            before_sleep=before_sleep,
            after=after,
            **more,
        )
        return self._but(_retry=policy, _retries_off=False)

    def with_fallbacks(
        self,
        fallbacks: Sequence[Any],
        *,
        exceptions_to_handle: Any = None,
        exception_key: str | None = None,
    ) -> Any:
        """The same chat model with alternatives, tried in order, each under its own policies.

        If all are `ChatOpenAI`s of seawall (bound to tools or not), the result is one too and everything runs natively.
        Any other runnable, function, prompt or text makes it a `Resilient` around this model.

        Args:
            fallbacks: the alternatives.
            exceptions_to_handle: exception classes for which they stand in; by default all but errors that would be the
                same anywhere.
            exception_key: put the exception into the (dict) input of the alternatives under this key, as langchain-core.
        """
        if exception_key is not None:
            return resilient_fallbacks(self, fallbacks, exceptions_to_handle, exception_key)
        fallbacks = listed(fallbacks)
        natives: list[ChatOpenAI] = []
        for fallback in fallbacks:
            native = _native(fallback)
            if native is None or not native._fits(exceptions_to_handle):
                break
            natives.append(native)
        # A pipeline has one list of errors that its alternatives are for; other ones go around it.
        if natives and self._fits(exceptions_to_handle):
            flat = (each for other in natives for each in (other, *other._others))
            whole = self._but(_others=(*self._others, *flat), _handled=exceptions_to_handle)
            _ = whole._client._route  # refuses what is wrong now, not at the first call
        else:
            natives, whole = [], self
        rest = fallbacks[len(natives) :]
        return resilient_fallbacks(whole, rest, exceptions_to_handle) if rest else whole

    def _fits(self, handled: Any) -> bool:
        """Whether its alternatives, if it has any, stand in for the same errors."""
        return not _is_predicate(handled) and (not self._others or self._handled == handled)

    def without_retries(self) -> Self:
        """The same chat model with one attempt a call, for those who retry around it."""
        return self._but(_retry=None, _retries_off=True, _others=tuple(other.without_retries() for other in self._others))

    def with_own_params(self, params: Mapping[str, Any]) -> Self:
        """The same chat model with parameters of its own requests, that its alternatives do not get."""
        return self._but(_own_params={**self._own_params, **params}) if params else self

    def with_bound(self, arguments: Mapping[str, Any]) -> Self:
        """The same chat model with what was bound to its calls as its own."""
        arguments = dict(arguments)
        model = self.model_copy(update={"request_timeout": arguments.pop("timeout")}) if "timeout" in arguments else self
        return model.with_own_params(self._call_params(None, arguments))

    # --- tools and output

    def bind(self, **kwargs: Any) -> BoundChat:  # type: ignore[override]
        """The same chat model with arguments bound to each call; it keeps `with_retry` and `with_fallbacks`."""
        return BoundChat(bound=self, kwargs=kwargs)

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> BoundChat:
        """The same chat model with a config bound to each call."""
        return BoundChat(bound=self, config={**(config or {}), **kwargs})  # type: ignore[typeddict-item]

    def with_listeners(self, **listeners: Any) -> Runnable[Any, Any]:
        """The same chat model with functions that are told of its runs."""
        return self.bind().with_listeners(**listeners)

    def with_alisteners(self, **listeners: Any) -> Runnable[Any, Any]:
        """As `with_listeners`, with coroutine functions."""
        return self.bind().with_alisteners(**listeners)

    def with_types(self, **types: Any) -> Runnable[Any, Any]:
        """The same chat model with other declared types."""
        return self.bind().with_types(**types)

    def configurable_fields(self, **fields: Any) -> Any:
        """The same chat model with fields that a call's config may set; it keeps its policies."""
        return ConfigurableChat(default=self, fields=super().configurable_fields(**fields).fields)  # type: ignore[attr-defined]

    def configurable_alternatives(self, which: Any, **alternatives: Any) -> Any:
        """A choice of models, made by a call's config."""
        return chosen(super().configurable_alternatives(which, **alternatives))

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Mapping[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> BoundChat:
        """The same chat model with tools that it may call.

        Args:
            tools: functions, pydantic classes, `BaseTool`s or the API's own dicts.
            tool_choice: a tool's name, `"auto"`, `"none"`, `"any"` or `"required"`, `True` for the only tool.
            strict: have the arguments follow the schema to the letter, where the server can.
            parallel_tool_calls: whether several tools may be called at once.
        """
        wire = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        choice = _tool_choice(tool_choice, wire)
        if choice is not None:
            kwargs["tool_choice"] = choice
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(tools=wire, **kwargs)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """A runnable that answers with objects of `schema`; its `with_retry` retries answers that do not parse, too.

        Args:
            schema: a pydantic class, a TypedDict, or a JSON schema with a title.
            include_raw: answer with a dict of `raw`, `parsed` and `parsing_error`.
            method: `"function_calling"` works with most servers; `"json_schema"` and `"json_mode"` use `response_format`.
            strict: have the answer follow the schema to the letter, where the server can.
        """
        return structured(self, schema, include_raw=include_raw, method=method, strict=strict, **kwargs)

    # --- calls

    def _made(self) -> Chat:
        chat = Chat(
            self.model_name,
            **self._place(),
            first_token_timeout=self.first_token_timeout,
            idle_timeout=self.idle_timeout,
            on_interrupt=self.on_interrupt,
            **self._request_params(),
        )
        return self._with_policies(chat)

    def _route_of_call(self, arguments: dict[str, Any]) -> Route:
        """The route of a call, with the call's own `timeout`, taken out of its arguments, if they have one."""
        chat: Chat = self._client
        return chat._timed(arguments.pop("timeout")) if "timeout" in arguments else chat._route

    def _request_params(self) -> dict[str, Any]:
        set_fields = {_SENT_AS.get(name, name): getattr(self, name) for name in _REQUEST_FIELDS}
        params = {name: value for name, value in set_fields.items() if value is not None}
        if self.logit_bias is not None:
            params["logit_bias"] = {str(token): bias for token, bias in self.logit_bias.items()}
        return {**params, **self.model_kwargs, **(self.extra_body or {}), **self._own_params}

    @staticmethod
    def _call_params(stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        params = {_SENT_AS.get(name, name): value for name, value in kwargs.items() if name not in ("stream", "stream_usage")}
        params.pop("ls_structured_output_format", None)
        extra = params.pop("extra_body", None) or {}
        refuse_in_call({**params, **extra})
        return {**params, **extra, **({} if stop is None else {"stop": stop})}

    def _wants_logprobs(self, params: Mapping[str, Any]) -> bool:
        return bool(params.get("logprobs", self.logprobs))

    def _stream_params(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        params = {**self._call_params(stop, kwargs), "stream": True}
        if kwargs.get("stream_usage", self.stream_usage):
            params.setdefault("stream_options", {"include_usage": True})
        return params

    def _should_stream(self, **how: Any) -> bool:
        # A stream's pieces are those of one choice.
        return how.get("n", self.n) in (None, 1) and super()._should_stream(**how)

    # --- what langchain-core asks of a model

    @property
    def _llm_type(self) -> str:
        return "openai-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, **self._request_params()}

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Which fields are secrets, and which environment variables hold them."""
        return {"openai_api_key": "OPENAI_API_KEY"}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": "openai"}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Cached answers of another server, account or alternative are not this one's. Headers may hold secrets: hashed.
        kwargs.pop("_attempts", None)
        return f"{super()._get_llm_string(stop=stop, **kwargs)}---{hashlib.sha256(repr(self._asked()).encode()).hexdigest()}"

    def _asked(self) -> list[Any]:
        """Whom it asks, and how: all that an answer depends on, but the question and the key."""
        return [self.model_name, self._client._bare.described(), *(other._asked() for other in self._others)]

    @property
    def _shown_as(self) -> str:
        return self.model_name


def _native(fallback: Any) -> ChatOpenAI | None:
    """The fallback as a chat model of ours with its own parameters, if it is one."""
    if isinstance(fallback, BoundChat) and fallback.is_plain and isinstance(fallback.bound, ChatOpenAI):
        return fallback.bound.with_bound(fallback.kwargs)
    return fallback if isinstance(fallback, ChatOpenAI) else None


def same_place(one: Any, other: Any) -> bool:
    """Whether two chat models ask the same server with the same key; `False` where that cannot be told."""
    models = [model.bound if isinstance(model, BoundChat) else model for model in (one, other)]
    chats = [model._client for model in models if isinstance(model, ChatOpenAI)]
    return len(chats) == 2 and bool(chats[0]._is_same_place(chats[1]))


def _tool_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Any:
    """The API's form of a choice."""
    names = [tool.get("function", {}).get("name") for tool in tools]
    if choice in (None, False):
        return None
    if choice is True:
        if len(names) != 1:
            raise ValueError(f"tool_choice=True means the only tool, and there are {len(names)}: name one")
        choice = names[0]
    if choice in names:
        return {"type": "function", "function": {"name": choice}}
    if isinstance(choice, str) and choice not in ("auto", "none", "any", "required"):
        raise ValueError(f"tool_choice={choice!r} is no tool; there are {', '.join(map(repr, names))}")
    return "required" if choice == "any" else choice


def _is_predicate(handled: Any) -> bool:
    return callable(handled) and not isinstance(handled, type)
