"""How a chat model calls the native client, and what those who listen are told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.uuid import uuid7

from seawall._chat_batch import landed
from seawall._seawall import AttemptEvent, Reply, Route
from seawall._seawall import Stream as NativeStream
from seawall.langchain._messages import last_chunk, to_chunk, to_result, to_wire
from seawall.langchain._tracing import Attempts, Call, adone, coming_run, done, listeners
from seawall.llm import AsyncStream


class Calls(BaseChatModel):
    """The calls of a `ChatOpenAI`.

    A call is made natively, attempts, waits and all. If somebody listens, the native client tells of each attempt, and it is
    told here, in the caller's thread or task.
    """

    # --- what langchain-core's methods come down to

    def _told(
        self, run_manager: Any, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Attempts | None:
        """What is told of the attempts, if somebody listens; out of the arguments where it is known already."""
        attempts: Attempts | None = kwargs.pop("_attempts", None)
        if attempts is None and run_manager is not None and run_manager.handlers:
            attempts = Attempts(self, run_manager, messages, stop, dict(kwargs))
        return attempts

    def _prepared(self, stop: list[str] | None, kwargs: dict[str, Any]) -> tuple[Attempts | None, Route, dict[str, Any]]:
        """What is told of the attempts, the route and the parameters of a call with these arguments."""
        model: Any = self
        attempts = kwargs.pop("_attempts", None)
        return attempts, model._route_of_call(kwargs), model._call_params(stop, kwargs)

    def _result(self, reply: Reply, params: dict[str, Any]) -> ChatResult:
        model: Any = self
        return to_result(reply, logprobs=model._wants_logprobs(params))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        attempts, route, params = self._prepared(stop, kwargs)
        if attempts is None:
            reply = route.call("chat", to_wire(messages), params)
        else:
            reply = _reply(route.watch("chat", to_wire(messages), params, every=attempts.whole), attempts)
        return self._result(reply, params)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        attempts, route, params = self._prepared(stop, kwargs)
        if attempts is None:
            reply = await landed(route.start("chat", to_wire(messages), params))
        else:
            reply = await _areply(route.watch("chat", to_wire(messages), params, every=attempts.whole), attempts)
        return self._result(reply, params)

    def _opened(
        self, messages: list[BaseMessage], stop: list[str] | None, run_manager: Any, kwargs: dict[str, Any]
    ) -> tuple[NativeStream, Attempts | None]:
        """A stream, and what is told of its attempts."""
        model: Any = self
        attempts = self._told(run_manager, messages, stop, kwargs)
        route = model._route_of_call(kwargs)
        params = model._stream_params(stop, kwargs)
        if attempts is None:
            return route.stream(to_wire(messages), params), None
        return route.watch("stream", to_wire(messages), params, every=attempts.whole), attempts

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        stream, attempts = self._opened(messages, stop, run_manager, kwargs)
        model: Any = self
        restarts = model.on_interrupt == "restart"
        piece: Any
        try:
            for piece in stream:
                if attempts is not None and type(piece) is AttemptEvent:
                    done(attempts.see(piece))
                    continue
                chunk = _identified(to_chunk(piece, restarts=restarts), attempts)
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece.content, chunk=chunk)
                yield chunk
            if stream.attempts is not None:
                end = last_chunk(stream.attempts, stream.alternative or 0, stream.seconds or 0.0, bool(stream.cached))
                yield _identified(end, attempts)
        except BaseException as error:
            stream.close()
            if attempts is not None:
                done(attempts.failed(error))
            raise

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        stream, attempts = self._opened(messages, stop, run_manager, kwargs)
        model: Any = self
        restarts = model.on_interrupt == "restart"
        piece: Any
        try:
            async for piece in AsyncStream(stream):
                if attempts is not None and type(piece) is AttemptEvent:
                    await adone(attempts.see(piece))
                    continue
                chunk = _identified(to_chunk(piece, restarts=restarts), attempts)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece.content, chunk=chunk)
                yield chunk
            if stream.attempts is not None:
                end = last_chunk(stream.attempts, stream.alternative or 0, stream.seconds or 0.0, bool(stream.cached))
                yield _identified(end, attempts)
        except BaseException as error:
            stream.close()
            if attempts is not None:
                await adone(attempts.failed(error))
            raise

    # --- where langchain-core has a run of the model, it is the call's

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        kwargs["_attempts"] = self._told(run_manager, messages, stop, kwargs)
        return super()._generate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        kwargs["_attempts"] = self._told(run_manager, messages, stop, kwargs)
        return await super()._agenerate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        kwargs.pop("_attempts", None)
        return super()._get_invocation_params(stop=stop, **kwargs)

    # --- where the model was given policies, the call is a run of its own, and each attempt one of the model's

    def _call(self, manager: Any, input: Any, config: RunnableConfig, stop: list[str] | None, kwargs: Any) -> Call | None:
        """The call, for those who listen."""
        heard = listeners(self, config, manager)
        return None if heard is None else Call(self, heard, input, config, stop, kwargs)

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> AIMessage:
        """The answer.

        Raises:
            APIError: one of its classes, when the attempts are used up or the failure is not retryable.
        """
        config = ensure_config(config)
        call = self._call(CallbackManager, input, config, stop, kwargs) if self._has_policies else None
        if call is None:
            return super().invoke(input, config, stop=stop, **kwargs)
        attempts: Any = done(call.begin())
        try:
            result = self._generate_with_cache(call.messages, stop, attempts, _attempts=attempts, **call.kwargs)
            answer: AIMessage = done(call.succeeded(result))
        except BaseException as error:
            done(call.failed(error))
            raise
        return answer

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> AIMessage:
        """As `invoke`, for an event loop."""
        config = ensure_config(config)
        call = self._call(AsyncCallbackManager, input, config, stop, kwargs) if self._has_policies else None
        if call is None:
            return await super().ainvoke(input, config, stop=stop, **kwargs)
        attempts: Any = await adone(call.begin())
        try:
            result = await self._agenerate_with_cache(call.messages, stop, attempts, _attempts=attempts, **call.kwargs)
            answer: AIMessage = await adone(call.succeeded(result))
        except BaseException as error:
            await adone(call.failed(error))
            raise
        return answer

    def stream(
        self, input: Any, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The answer in pieces. Until the first content, failures are retried as for `invoke`.

        Raises:
            StreamInterruptedError: the stream broke off after content was handed out; `partial` holds the text so far.
        """
        config = ensure_config(config)
        heard = listeners(self, config, CallbackManager)
        if heard is None or not self._should_stream(async_api=False, **{**kwargs, "stream": True}):
            yield from super().stream(input, config, stop=stop, **kwargs)
        elif self._has_policies:
            call = Call(self, heard, input, config, stop, kwargs)
            done(call.begin())
            pieces = self._pieces(call, stop)
            with closing(pieces):
                yield from call.tapped(pieces)
        else:
            config, attempts = self._foretold(heard, input, config, stop, kwargs)
            yield from super().stream(input, config, stop=stop, _attempts=attempts, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """As `stream`, for an event loop."""
        config = ensure_config(config)
        heard = listeners(self, config, AsyncCallbackManager)
        pieces: Any
        if heard is None or not self._should_stream(async_api=True, **{**kwargs, "stream": True}):
            pieces = tapped = super().astream(input, config, stop=stop, **kwargs)
        elif self._has_policies:
            call = Call(self, heard, input, config, stop, kwargs)
            await adone(call.begin())
            pieces = self._apieces(call, stop)
            tapped = call.atapped(pieces)
        else:
            config, attempts = self._foretold(heard, input, config, stop, kwargs)
            pieces = tapped = super().astream(input, config, stop=stop, _attempts=attempts, **kwargs)
        async with aclosing(pieces):
            async for piece in tapped:
                yield piece

    def _foretold(
        self, heard: Any, input: Any, config: RunnableConfig, stop: list[str] | None, kwargs: Any
    ) -> tuple[RunnableConfig, Attempts]:
        """The config of a stream whose run langchain-core is about to start, and what is told of the attempts below it."""
        config = {**config, "callbacks": heard, "run_id": config.get("run_id") or uuid7()}
        messages = self._convert_input(input).to_messages()
        return config, Attempts(self, coming_run(heard, config["run_id"]), messages, stop, dict(kwargs))

    def _pieces(self, call: Call, stop: list[str] | None) -> Any:
        attempts = call.attempts
        opened: Any = self._stream(call.messages, stop, _attempts=attempts, **call.kwargs)
        try:
            if self.rate_limiter:
                self.rate_limiter.acquire(blocking=True)
            with closing(opened) as chunks:
                for chunk in map(call.shaped, chunks):
                    attempts.on_llm_new_token(chunk.message.content, chunk=chunk)
                    yield chunk.message
            done(call.succeeded())
        except BaseException as error:
            done(call.failed(error))
            raise

    async def _apieces(self, call: Call, stop: list[str] | None) -> AsyncIterator[Any]:
        attempts = call.attempts
        opened: Any = self._astream(call.messages, stop, _attempts=attempts, **call.kwargs)
        try:
            if self.rate_limiter:
                await self.rate_limiter.aacquire(blocking=True)
            async with aclosing(opened) as chunks:
                async for chunk in chunks:
                    shaped = call.shaped(chunk)
                    await attempts.on_llm_new_token(shaped.message.content, chunk=shaped)
                    yield shaped.message
            await adone(call.succeeded())
        except BaseException as error:
            await adone(call.failed(error))
            raise

    @property
    def _has_policies(self) -> bool:
        model: Any = self
        return model._retry is not None or bool(model._others)


def _reply(stream: NativeStream, attempts: Attempts) -> Reply:
    """The reply that comes after what there is to tell."""
    piece: Any
    try:
        with stream:
            for piece in stream:
                if type(piece) is not AttemptEvent:
                    break
                done(attempts.see(piece))
    except BaseException as error:
        done(attempts.failed(error))
        raise
    reply: Reply = piece
    return reply


async def _areply(stream: NativeStream, attempts: Attempts) -> Reply:
    piece: Any
    try:
        with stream:
            async for piece in AsyncStream(stream):
                if type(piece) is not AttemptEvent:
                    break
                await adone(attempts.see(piece))
    except BaseException as error:
        await adone(attempts.failed(error))
        raise
    reply: Reply = piece
    return reply


def _identified(chunk: ChatGenerationChunk, attempts: Attempts | None) -> ChatGenerationChunk:
    """The piece with the id of its run, where langchain-core knows only the call's."""
    if attempts is not None and attempts.whole:
        chunk.message.id = attempts.message_id
    return chunk
