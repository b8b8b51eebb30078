"""Batches of a chat model with a journal, with progress and patience: the native client's own, seen by those who listen as calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager, CallbackManager
from langchain_core.language_models._utils import _update_message_content_to_blocks
from langchain_core.language_models.chat_models import _gen_info_and_msg_metadata
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.utils import LC_ID_PREFIX
from langchain_core.utils.uuid import uuid7

from seawall import _batch
from seawall._chat_batch import Said
from seawall._seawall import Reply
from seawall.errors import ConfigurationError
from seawall.langchain._batch import Batching, concurrency_of
from seawall.langchain._messages import to_result, to_wire
from seawall.langchain._tracing import Call, Steps, adone, done, listeners
from seawall.llm import Chat


class _Calls:
    """The calls of a batch: what each asks, who listens to it, and what it gives."""

    def __init__(
        self,
        model: Any,
        inputs: Sequence[Any],
        configs: list[RunnableConfig],
        kwargs: dict[str, Any],
        manager: type[BaseCallbackManager],
    ) -> None:
        if model.rate_limiter is not None:
            raise ConfigurationError(
                "rate_limiter is asked before each call of its own, and a batch with journal, progress or patience is none of these: give "
                "rate_limit=seawall.RateLimit(…) to the model"
            )
        self._model, self._inputs, self._configs, self._manager = model, inputs, configs, manager
        self._kwargs = dict(kwargs)
        self._stop = self._kwargs.pop("stop", None)
        own = dict(self._kwargs)
        timeout = {"timeout": own.pop("timeout")} if "timeout" in own else {}
        self._params = {**model._call_params(self._stop, own), **timeout}
        self._logprobs = model._wants_logprobs(self._params)
        # Those that somebody listens to, and that are not over.
        self._heard: dict[int, Call] = {}

    def job(self, said: Said, inputs: Any) -> _batch.Job:
        """What the native client is to do. Failures are results here, so that whoever ends the batch has them all."""
        chat: Chat = self._model._client
        return chat._job(inputs, concurrency_of(self._configs), True, said, self._params, takes_async=True)

    def __len__(self) -> int:
        return len(self._inputs)

    def begin(self, at: int) -> Steps[_batch.Question]:
        """Begins a call, and gives what it asks; or why it cannot."""
        try:
            messages = to_wire(self._model._convert_input(self._inputs[at]).to_messages())
        except (TypeError, ValueError) as error:
            return _batch.Question(error)
        config = self._configs[at]
        heard = listeners(self._model, config, self._manager)
        if heard is not None:
            call = self._heard[at] = Call(self._model, heard, self._inputs[at], config, self._stop, self._kwargs)
            yield from call.begin()
            yield from call.attempts.begin()
        return _batch.Question(messages)

    def end(self, at: int, result: Any) -> Steps[Any]:
        """Ends a call, and gives its answer or the exception in its place."""
        call = self._heard.get(at)
        answer = self._answer(result, call) if isinstance(result, Reply) else None
        if call is None:
            return result if answer is None else answer.generations[0].message
        if answer is None:
            yield from call.failed(result)
        else:
            call.attempts.made = len(result.attempts)
            result = yield from call.succeeded(answer)
        # Only now: a task that is cancelled meanwhile ends it.
        del self._heard[at]
        return result

    def _answer(self, reply: Reply, call: Call | None) -> ChatResult:
        """What langchain-core makes of an answer."""
        result = to_result(reply, logprobs=self._logprobs)
        run_id = uuid7() if call is None else call.attempts.run_id
        for at, generation in enumerate(result.generations):
            if self._model.output_version == "v1" and isinstance(generation.message, AIMessage):
                generation.message = _update_message_content_to_blocks(generation.message, "v1")
            if generation.message.id is None:
                generation.message.id = f"{LC_ID_PREFIX}-{run_id}-{at}"
            generation.message.response_metadata = _gen_info_and_msg_metadata(generation)
        return result

    def left(self, error: BaseException) -> Steps[None]:
        """Ends the calls that the end of the batch leaves."""
        while self._heard:
            yield from self._heard.popitem()[1].failed(error)


class _Inputs:
    """The questions of a batch as it takes them on."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[_batch.Question]:
        return (done(self._calls.begin(at)) for at in range(len(self)))


class _AsyncInputs(_Inputs):
    """The same where those who listen are to be awaited."""

    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[_batch.Question]:
        for at in range(len(self)):
            yield await adone(self._calls.begin(at))


class KeptBatching(Batching):
    """The batch methods of a chat model."""

    def _kept(
        self, inputs: Sequence[Any], configs: list[RunnableConfig], said: Said, kwargs: dict[str, Any]
    ) -> Generator[tuple[int, Any], None, None]:
        calls = _Calls(self, inputs, configs, kwargs, CallbackManager)
        pairs = _batch.results(calls.job(said, _Inputs(calls)))
        try:
            for at, result in pairs:
                yield at, done(calls.end(at, result))
        except BaseException as error:
            # It says on the error how far it came.
            with suppress(BaseException):
                pairs.throw(error)
            done(calls.left(error))
            raise

    async def _akept(
        self, inputs: Sequence[Any], configs: list[RunnableConfig], said: Said, kwargs: dict[str, Any]
    ) -> AsyncGenerator[tuple[int, Any], None]:
        calls = _Calls(self, inputs, configs, kwargs, AsyncCallbackManager)
        pairs = _batch.aresults(calls.job(said, _AsyncInputs(calls)))
        try:
            async for at, result in pairs:
                yield at, await adone(calls.end(at, result))
        except BaseException as error:
            with suppress(BaseException):
                await pairs.athrow(error)
            await adone(calls.left(error))
            raise
