"""The runs that callbacks and tracers see: one for each call, and below it one for each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    AsyncCallbackManagerForLLMRun,
    AsyncParentRunManager,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForChainRun,
    CallbackManagerForLLMRun,
    ParentRunManager,
)
from langchain_core.language_models._utils import (
    _filter_invocation_params_for_tracing,
    _normalize_messages,
    _update_message_content_to_blocks,
)
from langchain_core.language_models.chat_models import _format_for_tracing, _format_ls_structured_output
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.utils.utils import LC_ID_PREFIX
from langchain_core.utils.uuid import uuid7

from seawall._attempts import GIVEN_UP
from seawall.langchain._messages import known

if TYPE_CHECKING:
    from seawall._seawall import AttemptEvent

T = TypeVar("T")

# langchain-core's own word for the n-th attempt, which it leaves out for the first one.
ATTEMPT_TAG = "retry:attempt:{}"
FALLBACK_TAG = "fallback:{}"
# LangGraph's word for a run whose messages are nobody's: the call's own run has them.
_UNHEARD_TAG = "nostream"

# What is to be told, step by step: a manager's calls, done already or to be awaited.
Steps = Generator[Any, Any, T]


def done(steps: Steps[T]) -> T:
    """Takes the steps with managers whose calls do what they say."""
    try:
        value = next(steps)
        while True:
            value = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


async def adone(steps: Steps[T]) -> T:
    """Takes the steps with managers whose calls are to be awaited."""
    try:
        value = next(steps)
        while True:
            try:
                value = await value
            except BaseException as error:
                value = steps.throw(error)
            else:
                value = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


def tags(number: int, alternative: int) -> list[str]:
    """What marks the run of an attempt: the number among those of its alternative, and the alternative but for the primary."""
    fallback = [FALLBACK_TAG.format(alternative)] if alternative else []
    return [ATTEMPT_TAG.format(number), *fallback]


def note(run: Any, facts: dict[str, Any]) -> None:
    """Puts into the run's metadata what is known only now. Tracers have no callback for that, but a map of the open runs."""
    for handler in run.handlers:
        runs = getattr(handler, "run_map", None)
        record = runs.get(str(run.run_id)) if isinstance(runs, dict) else None
        extra = getattr(record, "extra", None)
        if isinstance(extra, dict):
            extra["metadata"] = {**(extra.get("metadata") or {}), **facts}


def listeners(model: Any, config: RunnableConfig, manager: type[BaseCallbackManager]) -> Any:
    """Whoever listens to a call, as a manager; `None` if nobody does."""
    configured: Any = manager.configure(  # type: ignore[attr-defined]
        config.get("callbacks"), model.callbacks, model.verbose, config.get("tags"), None, config.get("metadata")
    )
    return configured if configured.handlers else None


def coming_run(manager: Any, run_id: Any, *, is_chain: bool = False) -> Any:
    """The run of a model, or of a chain, that langchain-core is about to start under this id for those who listen."""
    kinds: Any = (AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun)
    if is_chain:
        kinds = (AsyncCallbackManagerForChainRun, CallbackManagerForChainRun)
    return kinds[isinstance(manager, CallbackManager)](
        run_id=run_id,
        parent_run_id=manager.parent_run_id,
        handlers=manager.handlers,
        inheritable_handlers=manager.inheritable_handlers,
        tags=manager.tags,
        inheritable_tags=manager.inheritable_tags,
        metadata=manager.metadata,
        inheritable_metadata=manager.inheritable_metadata,
    )


def _child(run: Any, names: Sequence[str]) -> Any:
    """A manager of runs below `run`, marked with tags. langchain-core has one below a chain's run only, not below a model's."""
    kind: Any = AsyncParentRunManager if _is_async(run) else ParentRunManager
    child = kind.get_child(run)
    child.add_tags(list(names), inherit=False)
    return child


def attempt_child(run: Any, number: int, alternative: int) -> Any:
    """A manager of the runs of an attempt below a chain's run."""
    child = _child(run, tags(number, alternative))
    child.add_metadata({"seawall_attempt": number, "seawall_alternative": alternative}, inherit=False)
    return child


def _is_async(run: Any) -> bool:
    return hasattr(run, "get_sync")


class Attempts:
    """The runs of a call's attempts.

    Below a model's own run (`whole` is false) they are only told of, once there is a second one: tokens, usage and the
    answer are the model run's, so that everything is counted once. Below a chain's run they are the model's runs.
    """

    def __init__(
        self,
        model: Any,
        run: Any,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Any,
        *,
        whole: bool = False,
    ) -> None:
        self.whole = whole
        self.refused: list[str] = []
        self._model, self._run, self._messages, self._stop, self._kwargs = model, run, messages, stop, kwargs
        self._current: Any = None
        self._facts: dict[str, Any] = {}
        self._chunks: list[ChatGenerationChunk] = []
        self._earlier: list[ChatGenerationChunk] = []
        self._message_id: str | None = None
        self.made = 0

    def see(self, event: AttemptEvent) -> Steps[None]:
        """Tells what the native client says of an attempt."""
        if event.kind == "refused":
            self.refused.append(event.model)
            return
        self._facts = known(
            {
                "attempt": event.number,
                "alternative": event.alternative,
                "model": event.model,
                "outcome": event.outcome,
                "status": event.status,
                "request_id": event.request_id,
                "seconds": event.seconds,
                "waited": event.waited,
            }
        )
        if event.kind == "begun":
            self.made += 1
            yield from self._begin(event.alternative, event.number)
            return
        run = self._current
        # One that was given up, since another one answered first, has no error of its own.
        beaten = asyncio.CancelledError("another request answered first") if event.outcome == GIVEN_UP else None
        error = event.error or beaten
        if error is not None:
            self._note(run)
            yield from self._fail(error)
        elif not self.whole:
            self._note(run)
            self._current = None
            yield run.on_llm_end(LLMResult(generations=[[self._told()]]))

    def begin(self) -> Steps[None]:
        """Begins one run for all of them, where nobody tells of each."""
        yield from self._begin(0, None)

    def _begin(self, alternative: int, number: int | None) -> Steps[None]:
        """A run for an attempt, or for an answer that took none."""
        model = [self._model, *self._model._others][alternative]
        facts, names = {}, []
        if number is not None:
            facts = {"seawall_attempt": number, "seawall_alternative": alternative, "seawall_model": model.model_name}
            names = tags(number, alternative) + ([] if self.whole else [_UNHEARD_TAG])
        kwargs = dict(self._kwargs)
        form = _format_ls_structured_output(
            kwargs.pop("ls_structured_output_format", None) or kwargs.pop("structured_output_format", None)
        )
        params = model._get_invocation_params(stop=self._stop, **kwargs)
        child = _child(self._run, names)
        manager = type(child).configure(
            child,
            model.callbacks,
            model.verbose,
            None,
            model.tags,
            dict(model._get_ls_params_with_defaults(stop=self._stop, **kwargs)),
            {**(model.metadata or {}), **facts},
            langsmith_inheritable_metadata=_filter_invocation_params_for_tracing(params),
        )
        self._earlier += self._chunks
        self._chunks = []
        # Known before it is told of: a task that is cancelled meanwhile ends it.
        self._current = coming_run(manager, uuid7())
        yield manager.on_chat_model_start(
            model._serialized,
            [_format_for_tracing(self._messages)],
            run_id=self._current.run_id,
            invocation_params=params,
            options={"stop": self._stop, **form},
            batch_size=1,
        )

    def _told(self) -> ChatGeneration:
        """The attempt's facts where a message would be."""
        metadata = {"seawall": self._facts}
        status = {"status_code": self._facts.get("status"), "request_id": self._facts.get("request_id")}
        return ChatGeneration(message=AIMessage(content="", response_metadata={**known(status), **metadata}))

    def _note(self, run: Any) -> None:
        note(run, {f"seawall_{name}": value for name, value in self._facts.items()})

    def _fail(self, error: BaseException) -> Steps[None]:
        run, self._current = self._current, None
        said = merge_chat_generation_chunks(self._chunks)
        generations: list[Any] = [[said]] if said is not None else []
        yield run.on_llm_error(error, response=LLMResult(generations=[*generations, [self._told()]]))

    # --- where the attempts' runs have the tokens and the answer

    @property
    def message_id(self) -> str:
        """The id of the pieces: of the attempt that gave the first, also where another one goes on from it."""
        if self._message_id is None:
            self._message_id = f"{LC_ID_PREFIX}-{self.run_id}"
        return self._message_id

    def succeeded(self, result: ChatResult | None = None) -> Steps[Any]:
        """Tells of the answer, and gives it; that of a stream is what its pieces make."""
        if self._current is None:
            yield from self._begin(0, None)  # out of a cache: nobody was asked
        if result is None:
            said = merge_chat_generation_chunks(self._chunks)
            if said is None:
                raise ValueError("No generation chunks were returned")
            result = ChatResult(generations=[said])
        if self.made:
            self._note(self._current)
        run, self._current = self._current, None
        generations: Any = [result.generations]
        yield run.on_llm_end(LLMResult(generations=generations, llm_output=result.llm_output))
        if self._earlier:
            whole: Any = merge_chat_generation_chunks([*self._earlier, *self._chunks])
            return whole.message
        return result.generations[0].message

    def failed(self, error: BaseException) -> Steps[None]:
        """Tells of what ended the call while an attempt was under way."""
        if self._current is not None:
            self._note(self._current)
            yield from self._fail(error)

    def summary(self) -> dict[str, Any]:
        """What the call's run says of them."""
        facts: dict[str, Any] = {"seawall_attempts": self.made}
        if self.refused:
            facts["seawall_refused"] = self.refused
        return facts

    # --- a run manager to langchain-core: that of the attempt under way

    @property
    def handlers(self) -> list[Any]:
        """Of the call's run."""
        handlers: list[Any] = self._run.handlers
        return handlers

    @property
    def run_id(self) -> Any:
        """Of the run under way."""
        return (self._current or self._run).run_id

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **more: Any) -> Any:
        """Hands a token on."""
        if chunk is not None:
            self._chunks.append(chunk)
        return self._current.on_llm_new_token(token, chunk=chunk, **more)

    def on_stream_event(self, event: Any, **more: Any) -> Any:
        """Hands an event on; those of an answer out of a cache come before any run."""
        if self._current is not None:
            return self._current.on_stream_event(event, **more)
        steps = self._first_event(event, more)
        return adone(steps) if _is_async(self._run) else done(steps)

    def _first_event(self, event: Any, more: dict[str, Any]) -> Steps[None]:
        yield from self._begin(0, None)
        yield self._current.on_stream_event(event, **more)


class Call:
    """The run of a call of a model that was given policies: a chain's, as that of langchain-core's own wrappers."""

    def __init__(
        self, model: Any, manager: Any, input: Any, config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> None:
        self._model, self._manager, self._input = model, manager, input
        self._name, self._run_id = config.get("run_name") or model.get_name(), config.get("run_id")
        self._messages: list[BaseMessage] = model._convert_input(input).to_messages()
        self.messages = _normalize_messages(self._messages)
        self._stop, self._kwargs = stop, dict(kwargs)
        # langchain-core keeps these two from the request.
        self.kwargs = {k: v for k, v in kwargs.items() if k not in ("ls_structured_output_format", "structured_output_format")}
        self._index, self._index_type = -1, ""

    def begin(self) -> Steps[Attempts]:
        """Starts the run."""
        # Known before it is told of: a task that is cancelled meanwhile ends it.
        self._run = coming_run(self._manager, self._run_id or uuid7(), is_chain=True)
        self.attempts = Attempts(self._model, self._run, self._messages, self._stop, self._kwargs, whole=True)
        yield self._manager.on_chain_start(None, self._input, name=self._name, run_id=self._run.run_id)
        return self.attempts

    def succeeded(self, result: ChatResult | None = None) -> Steps[Any]:
        """Ends the run and its last attempt's with the answer, and gives that."""
        output = yield from self.attempts.succeeded(result)
        note(self._run, {**self.attempts.summary(), **known({"seawall_served_by": output.response_metadata.get("served_by")})})
        yield self._run.on_chain_end(output)
        return output

    def failed(self, error: BaseException) -> Steps[None]:
        """Ends what runs."""
        yield from self.attempts.failed(error)
        note(self._run, self.attempts.summary())
        yield self._run.on_chain_error(error)

    def shaped(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """A piece as langchain-core's own streams have it."""
        message = chunk.message
        message.response_metadata = {**(chunk.generation_info or {}), **message.response_metadata}
        if self._model.output_version == "v1":
            chunk.message = message = _update_message_content_to_blocks(message, "v1")
            blocks: Any = message.content
            for block in blocks:
                if block["type"] != self._index_type:
                    self._index_type = block["type"]
                    self._index += 1
                block.setdefault("index", self._index)
        return chunk

    def _tap(self, method: str, pieces: T) -> T:
        for handler in self._run.handlers:
            if isinstance(handler, _StreamingCallbackHandler):
                tapped: T = getattr(handler, method)(self._run.run_id, pieces)
                return tapped
        return pieces

    def tapped(self, pieces: Iterator[AIMessageChunk]) -> Iterator[AIMessageChunk]:
        """The pieces, seen by whoever makes events of what chains stream."""
        return self._tap("tap_output_iter", pieces)

    def atapped(self, pieces: AsyncIterator[AIMessageChunk]) -> AsyncIterator[AIMessageChunk]:
        """As `tapped`, for an event loop."""
        return self._tap("tap_output_aiter", pieces)
