"""`resilient`: any Runnable behind a pipeline."""

from __future__ import annotations

import copy
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBinding, RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.branch import RunnableBranch
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from langchain_core.runnables.passthrough import RunnableAssign
from typing_extensions import Self

from seawall import _screen, _sdk
from seawall._classify import is_control_flow
from seawall._model import retry_policy
from seawall._prompt import Prompt
from seawall._sdk_request import is_client
from seawall._seawall import Fallback, Guardrails, Pipeline, Retry
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError, OutputRefusedError, StreamInterruptedError
from seawall.langchain import _batch, errors
from seawall.langchain._tracing import attempt_child

_END: Any = object()


def without_retries(runnable: Any) -> Any:
    """A copy whose clients retry nothing by themselves; the caller's object is not changed.

    Clients' own `max_retries` are meant, at any depth of a sequence, binding, map or fallback. Retries that somebody wrote
    down (`with_retry` of langchain-core) stay.
    """
    if hasattr(runnable, "without_retries"):
        return runnable.without_retries()
    if isinstance(runnable, RunnableSequence):
        return type(runnable)(*(without_retries(step) for step in runnable.steps), name=runnable.name)
    if isinstance(runnable, RunnableParallel):
        return RunnableParallel({name: without_retries(step) for name, step in runnable.steps__.items()})
    if isinstance(runnable, RunnableWithFallbacks):
        others = [without_retries(other) for other in runnable.fallbacks]
        return runnable.model_copy(update={"runnable": without_retries(runnable.runnable), "fallbacks": others})
    if isinstance(runnable, RunnableAssign):
        return runnable.model_copy(update={"mapper": without_retries(runnable.mapper)})
    if isinstance(runnable, RunnableBranch):
        branches = [(condition, without_retries(branch)) for condition, branch in runnable.branches]
        return runnable.model_copy(update={"branches": branches, "default": without_retries(runnable.default)})
    if isinstance(runnable, DynamicRunnable):
        changes: dict[str, Any] = {"default": without_retries(runnable.default)}
        if isinstance(runnable, RunnableConfigurableAlternatives):
            changes["alternatives"] = {name: _later(other) for name, other in runnable.alternatives.items()}
        return runnable.model_copy(update=changes)
    if isinstance(runnable, (RunnableBindingBase, RunnableEachBase)):
        return runnable.model_copy(update={"bound": without_retries(runnable.bound)})
    if "max_retries" in getattr(type(runnable), "model_fields", {}):
        return _once(runnable)
    return runnable


def _later(alternative: Any) -> Any:
    return without_retries(alternative) if isinstance(alternative, Runnable) else lambda: without_retries(alternative())


def _once(client: Any) -> Any:
    """A copy of a foreign client that tries once."""
    copy = client.model_copy(update={"max_retries": 0})
    # Clients that were made with the old number: the OpenAI SDK makes others from them, with the same connections.
    for root, part, path in (
        ("root_client", "client", ("chat", "completions")),
        ("root_async_client", "async_client", ("chat", "completions")),
    ):
        made = getattr(client, root, None)
        if made is None or not hasattr(made, "with_options"):
            continue
        made = made.with_options(max_retries=0)
        object.__setattr__(copy, root, made)
        for name in path:
            made = getattr(made, name)
        object.__setattr__(copy, part, made)
    for name in ("_client", "_async_client"):
        # A cached client is made anew, with the new number.
        copy.__dict__.pop(name, None)
    return copy


def _is_chat(runnable: Any) -> bool:
    while True:
        if isinstance(runnable, RunnableBindingBase):
            runnable = runnable.bound
        elif isinstance(runnable, DynamicRunnable):
            runnable = runnable.default
        elif isinstance(runnable, Resilient):
            runnable = runnable.runnable
        else:
            return isinstance(runnable, BaseChatModel)


def _alternative(alternative: Any, chat: bool) -> Any:
    """An alternative that can be invoked with an input and a config; a plain value stays one."""
    if isinstance(alternative, (Runnable, Prompt)):
        return alternative
    if callable(alternative):
        return RunnableLambda(alternative)
    if chat and isinstance(alternative, str):
        # Who asks a chat model reads `.content`.
        return AIMessage(content=alternative, response_metadata={"served_by": None})
    return alternative


def _several(fallbacks: Any) -> list[Any]:
    return [fallbacks] if isinstance(fallbacks, (str, bytes)) or not isinstance(fallbacks, Sequence) else list(fallbacks)


def listed(fallbacks: Any) -> list[Any]:
    """The alternatives of `with_fallbacks`: one, or a sequence.

    Raises:
        ConfigurationError: `None` among them.
    """
    several = _several(fallbacks)
    for place, each in enumerate(several):
        if each is None:
            raise ConfigurationError(f"fallbacks[{place}] is None: leave it out, or give a model, a function, a prompt or a text")
    return several


def alternatives(fallbacks: Any, runnable: Any) -> list[Any]:
    """The alternatives as a `Fallback` around `runnable` takes them."""
    return [_alternative(each, _is_chat(runnable)) for each in _several(fallbacks)]


def pipeline_name(runnable: Any) -> str:
    """What logs call a pipeline around it."""
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    return str(getattr(runnable, "model_name", None) or runnable.get_name())


def resilient_fallbacks(runnable: Any, fallbacks: Any, handled: Any, exception_key: str | None = None) -> Any:
    """A runnable with alternatives of any kind; with an `exception_key`, langchain-core's own."""
    if exception_key is not None:
        handled = (Exception,) if handled is None else handled
        return Runnable.with_fallbacks(runnable, fallbacks, exceptions_to_handle=handled, exception_key=exception_key)
    fallback = Fallback(*alternatives(listed(fallbacks), runnable), on=handled)
    return Resilient(runnable, Pipeline(fallback, name=pipeline_name(runnable)))


def sharing(memo: dict[int, Any] | None, *policies: Any) -> dict[int, Any]:
    """A deep copy's memo by which the copy has the same policies: they are shared state."""
    return {**(memo or {}), **{id(policy): policy for policy in policies if policy is not None}}


class Binding:
    """What is bound keeps `with_retry` and `with_fallbacks` as they are here."""

    def bind(self: Any, **kwargs: Any) -> BoundRunnable:
        """The same with arguments bound to each call."""
        return BoundRunnable(bound=self, kwargs=kwargs)

    def with_config(self: Any, config: RunnableConfig | None = None, **kwargs: Any) -> BoundRunnable:
        """The same with a config bound to each call."""
        return BoundRunnable(bound=self, config={**(config or {}), **kwargs})  # type: ignore[typeddict-item]

    def with_listeners(self, **listeners: Any) -> Runnable[Any, Any]:
        """The same with functions that are told of its runs."""
        return self.bind().with_listeners(**listeners)

    def with_alisteners(self, **listeners: Any) -> Runnable[Any, Any]:
        """As `with_listeners`, with coroutine functions."""
        return self.bind().with_alisteners(**listeners)

    def with_types(self, **types: Any) -> Runnable[Any, Any]:
        """The same with other declared types."""
        return self.bind().with_types(**types)


class BoundRunnable(RunnableBinding[Any, Any]):
    """A runnable of ours with arguments or a config bound to each call; its policies are still reached."""

    def _around(self, bound: Any) -> Self:
        return self.model_copy(update={"bound": bound})

    def with_retry(self, **policy: Any) -> Self:
        """That of what is bound: retries replace each other, they never multiply."""
        return self._around(self.bound.with_retry(**policy))

    def with_fallbacks(
        self, fallbacks: Sequence[Any], *, exceptions_to_handle: Any = None, exception_key: str | None = None
    ) -> Any:
        """The same with alternatives around everything."""
        return resilient_fallbacks(self, fallbacks, exceptions_to_handle, exception_key)

    def without_retries(self) -> Self:
        """The same with one attempt a call."""
        return self._around(without_retries(self.bound))

    def bind_tools(self, tools: Sequence[Any], **how: Any) -> Any:
        """That of what is bound."""
        return self._around(self.bound.bind_tools(tools, **how))  # type: ignore[attr-defined]

    def with_structured_output(self, schema: Any = None, **how: Any) -> Any:
        """That of what is bound."""
        return self._around(self.bound.with_structured_output(schema, **how))  # type: ignore[attr-defined]


class _CallConfig(dict[str, Any]):
    """The config of one call, that counts the attempts made of each alternative."""

    def __init__(self, config: RunnableConfig, run: Any, counts: Counter[int] | None = None, alternative: int = 0) -> None:
        super().__init__(patch_config(config, callbacks=run.get_child()))
        self._run, self._counts, self._alternative = run, Counter() if counts is None else counts, alternative

    def of(self, alternative: int) -> _CallConfig:
        """The same where the primary is asked in the place of an alternative."""
        return _CallConfig(cast("RunnableConfig", self), self._run, self._counts, alternative)

    def attempt(self, alternative: int) -> RunnableConfig:
        """The config of the next attempt, whose run says which it is."""
        if not self._run.handlers:
            return cast("RunnableConfig", self)
        alternative = alternative or self._alternative
        self._counts[alternative] += 1
        child = attempt_child(self._run, self._counts[alternative], alternative)
        return patch_config(cast("RunnableConfig", dict(self)), callbacks=child)


class _Asked:
    """A runnable as the pipeline asks it: each time is an attempt with a run of its own."""

    def __init__(self, runnable: Any, alternative: int = 0) -> None:
        self._runnable, self._alternative = runnable, alternative

    def invoke(self, input: Any, config: _CallConfig, **kwargs: Any) -> Any:
        return self._runnable.invoke(input, config.attempt(self._alternative), **kwargs)

    async def ainvoke(self, input: Any, config: _CallConfig, **kwargs: Any) -> Any:
        return await self._runnable.ainvoke(input, config.attempt(self._alternative), **kwargs)


class _AskedAgain(Prompt):
    """A prompt, whose attempts are those of an alternative."""

    def __init__(self, prompt: Prompt, alternative: int) -> None:
        self._prompt, self._alternative = prompt, alternative

    def change(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        changed, config, *rest = self._prompt.change(args)
        return (changed, config.of(self._alternative), *rest)

    def __repr__(self) -> str:
        return repr(self._prompt)


class _Opened(NamedTuple):
    held: list[Any]
    rest: Any

    @property
    def _seawall_passed(self) -> bool:
        """Its pieces have passed the guardrails."""
        return True

    def _seawall_restored(self, rails: Guardrails) -> _Opened:
        """The same with what was taken out of the question put back."""
        if hasattr(self.rest, "__anext__"):
            return _Opened([], rails.astream(_again(self.held, self.rest)))
        return _Opened([], rails.stream(itertools.chain(self.held, self.rest or ())))


async def _again(held: list[Any], rest: Any) -> AsyncIterator[Any]:
    for piece in held:
        yield piece
    async for piece in rest:
        yield piece


class _Opener(_Asked):
    """Opens a stream and holds back what comes before its first content."""

    def __init__(self, runnable: Any, alternative: int = 0, rails: Sequence[Guardrails] = ()) -> None:
        super().__init__(runnable, alternative)
        self._rails = rails

    def invoke(self, input: Any, config: _CallConfig, **kwargs: Any) -> _Opened:
        pieces = self._runnable.stream(input, config.attempt(self._alternative), **kwargs)
        pieces = _screen.screened(self._rails, pieces) if self._rails else pieces
        held: list[Any] = []
        for piece in pieces:
            held.append(piece)
            if _has_content(piece):
                break
        return _Opened(held, pieces)

    async def ainvoke(self, input: Any, config: _CallConfig, **kwargs: Any) -> _Opened:
        pieces = self._runnable.astream(input, config.attempt(self._alternative), **kwargs)
        pieces = _screen.ascreened(self._rails, pieces) if self._rails else pieces
        held: list[Any] = []
        async for piece in pieces:
            held.append(piece)
            if _has_content(piece):
                break
        return _Opened(held, pieces)


def _opened(result: Any) -> _Opened:
    """A stream; a plain value is one of a single piece."""
    if isinstance(result, _Opened):
        return result
    if isinstance(result, AIMessage) and not isinstance(result, AIMessageChunk):
        result = AIMessageChunk(**{**result.model_dump(exclude={"type"}), "chunk_position": "last"})
    return _Opened([result], None)


def _has_content(piece: Any) -> bool:
    """Whether a reader would see it: an empty message that only names a role is nothing yet."""
    if isinstance(piece, str):
        return bool(piece)
    if not isinstance(piece, BaseMessage):
        return True
    return bool(piece.content or getattr(piece, "tool_call_chunks", None) or piece.additional_kwargs.get("reasoning_content"))


def _text(piece: Any) -> str:
    content = getattr(piece, "content", piece)
    return content if isinstance(content, str) else ""


class Resilient(Binding, _batch.Batching, Runnable[Any, Any]):  # type: ignore[misc]  # more said of batches
    """A Runnable behind a pipeline of seawall's policies. Made by `resilient`.

    Attributes:
        runnable: what is protected, without hidden retries of its own.
        pipeline: the policies around it.
    """

    def __init__(self, runnable: Any, pipeline: Pipeline, name: str | None = None) -> None:
        self.runnable = runnable
        self.pipeline = pipeline
        self.name = name
        self._calls = self._with_alternatives(_as(_Asked))
        # Innermost first.
        rails = [each for each in reversed(pipeline.policies) if isinstance(each, Guardrails) and each.output]
        self._streams = self._with_alternatives(_as(functools.partial(_Opener, rails=rails)))
        name, asked, opener = pipeline_name(runnable), _Asked(runnable), _Opener(runnable, rails=rails)
        self._ask, self._aask = _called(name, asked.invoke), _called(name, asked.ainvoke)
        self._open, self._aopen = _called(name, opener.invoke), _called(name, opener.ainvoke)

    def __repr__(self) -> str:
        return f"Resilient({self.runnable!r}, {self.pipeline!r})"

    @property
    def InputType(self) -> Any:
        """That of the protected runnable."""
        return self.runnable.InputType

    @property
    def OutputType(self) -> Any:
        """That of the protected runnable."""
        return self.runnable.OutputType

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """`Resilient` and the protected runnable's name, if it was given none."""
        own = name or self.name or f"Resilient<{self.runnable.get_name()}>"
        return f"{own}{suffix.title()}" if suffix else own

    # --- calls

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Calls the runnable through the pipeline."""

        def run(input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
            return self._calls.call(self._ask, input, _CallConfig(config, run_manager), **kwargs)

        return self._call_with_config(run, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Awaits the runnable through the pipeline."""

        async def run(input: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
            return await self._calls.acall(self._aask, input, _CallConfig(config, run_manager), **kwargs)

        return await self._acall_with_config(run, input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """The answer in pieces. Until the first content, retries and alternatives work as for `invoke`.

        Raises:
            StreamInterruptedError: the stream broke off after content was handed out; `partial` holds the text so far.
        """
        yield from self._transform_stream_with_config(iter([input]), self._pieces, config, **kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """As `stream`, for an event loop."""

        async def only() -> AsyncIterator[Any]:
            yield input

        async for piece in self._atransform_stream_with_config(only(), self._apieces, config, **kwargs):
            yield piece

    def _pieces(self, inputs: Iterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Iterator[Any]:
        (input,) = inputs
        call = _CallConfig(config, run_manager)
        held, rest = _opened(self._streams.call(self._open, input, call, **kwargs))
        partial = "".join(map(_text, held))
        yield from held
        try:
            for piece in rest or ():
                partial += _text(piece)
                yield piece
        except Exception as error:
            raise _interrupted(error, partial) from error

    async def _apieces(
        self, inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        (input,) = [each async for each in inputs]
        call = _CallConfig(config, run_manager)
        held, rest = _opened(await self._streams.acall(self._aopen, input, call, **kwargs))
        partial = "".join(map(_text, held))
        for piece in held:
            yield piece
        if rest is None:
            return
        try:
            async for piece in rest:
                partial += _text(piece)
                yield piece
        except Exception as error:
            raise _interrupted(error, partial) from error

    # --- policies, and what a chat model offers beside

    def with_retry(self, **policy: Any) -> Resilient:
        """The same with other retries: they replace those of the pipeline."""
        retry = retry_policy(**policy)
        policies = list(self.pipeline.policies)
        places = [place for place, each in enumerate(policies) if isinstance(each, Retry)]
        if places:
            policies[places[0]] = retry
        else:
            outer = [place for place, each in enumerate(policies) if isinstance(each, Fallback)]
            policies.insert(outer[-1] + 1 if outer else 0, retry)
        return type(self)(without_retries(self.runnable), self._pipeline(policies), self.name)

    def with_fallbacks(
        self, fallbacks: Sequence[Any], *, exceptions_to_handle: Any = None, exception_key: str | None = None
    ) -> Any:
        """The same with alternatives around everything."""
        if exception_key is not None:
            return resilient_fallbacks(self, fallbacks, exceptions_to_handle, exception_key)
        fallback = Fallback(*alternatives(listed(fallbacks), self.runnable), on=exceptions_to_handle)
        return type(self)(self.runnable, self._pipeline([fallback, *self.pipeline.policies]), self.name)

    def bind_tools(self, tools: Sequence[Any], **how: Any) -> Resilient:
        """The same with tools bound to the model and to its alternatives."""
        return self._each(lambda model: model.bind_tools(tools, **how))

    def with_structured_output(self, schema: Any = None, **how: Any) -> Resilient:
        """The same with the schema asked of the model and of its alternatives."""
        for policy in self.pipeline.policies:
            for place, other in enumerate(policy.alternatives if isinstance(policy, Fallback) else ()):
                if isinstance(other, BaseMessage):
                    raise ConfigurationError(
                        f"fallback {place} is the text {str(other.content)[:40]!r}, which with_structured_output cannot parse: "
                        "call with_fallbacks after it, with an answer in the schema's form"
                    )
        return self._each(lambda model: model.with_structured_output(schema, **how))

    def __deepcopy__(self, memo: dict[int, Any]) -> Resilient:
        return type(self)(copy.deepcopy(self.runnable, memo), self.pipeline, self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.runnable, self.pipeline, self.name)

    def _each(self, change: Callable[[Any], Any]) -> Resilient:
        def changed(alternative: Any, place: int) -> Any:
            return change(alternative) if hasattr(alternative, "bind_tools") else alternative

        return type(self)(change(self.runnable), self._with_alternatives(changed), self.name)

    def without_retries(self) -> Self:
        """The same without the pipeline's retries, for those who retry around it."""
        policies = [each for each in self.pipeline.policies if not isinstance(each, Retry)]
        return type(self)(without_retries(self.runnable), self._pipeline(policies), self.name)

    def _pipeline(self, policies: Sequence[Any]) -> Pipeline:
        return Pipeline(*policies, name=self.pipeline.name, monitor=self.pipeline.monitor)

    def _with_alternatives(self, change: Callable[[Any, int], Any]) -> Pipeline:
        """The pipeline with its policies, that is with their state, and other alternatives: `change` of each and its place."""
        policies = list(self.pipeline.policies)
        place = 0
        # Those of the innermost fallback are tried first.
        for at, policy in reversed(list(enumerate(policies))):
            if isinstance(policy, Fallback):
                policies[at] = policy.replaced([change(each, place + n) for n, each in enumerate(policy.alternatives, 1)])
                place += len(policy.alternatives)
        return self._pipeline(policies)


def _called(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method under the name by which logs and errors are to call it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call


def _as(kind: Callable[[Any, int], _Asked]) -> Callable[[Any, int], Any]:
    """How the pipeline is to ask an alternative in its place."""

    def asked(alternative: Any, place: int) -> Any:
        if isinstance(alternative, Prompt):
            return _AskedAgain(alternative, place)
        return kind(alternative, place) if isinstance(alternative, Runnable) else alternative

    return asked


def _interrupted(error: Exception, partial: str) -> Exception:
    # LangGraph's interrupts and commands are no failures, and what guardrails refuse is told as that.
    if isinstance(error, (StreamInterruptedError, OutputRefusedError)) or is_control_flow(type(error)):
        return error
    return errors.StreamInterruptedError(f"the stream broke off: {error}", partial=partial)


def resilient(runnable: Any, pipeline: Pipeline | None = None, **guard_arguments: Any) -> Resilient:
    """Any Runnable behind a pipeline: a chat model of whatever provider, a chain, a function.

    Hidden retries of the clients inside are switched off on a copy; the object given is not changed.

    Args:
        runnable: what to protect; a function becomes a `RunnableLambda`.
        pipeline: the policies; by default what `seawall.guard(**guard_arguments)` makes.
        guard_arguments: those of `seawall.guard`: `retry`, `fallback`, `timeout`, `circuit`, …; a first one `preset=`.

    Raises:
        ConfigurationError: both a pipeline and arguments, wrong ones, or what is neither a runnable nor a function.
    """
    if not isinstance(runnable, Runnable):
        if is_client(runnable):
            return _sdk.resilient(runnable, pipeline, **guard_arguments)  # type: ignore[no-any-return]
        if not callable(runnable):
            raise ConfigurationTypeError(f"resilient protects a Runnable or a function, not {shown(runnable)}")
        runnable = RunnableLambda(runnable)
    whole = _sdk.pipeline_of(pipeline, guard_arguments, lambda given: alternatives(given, runnable))
    return Resilient(without_retries(runnable), whole)
