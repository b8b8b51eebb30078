"""langchain-core messages to the API's, and replies to messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from seawall._attempts import Attempts
from seawall._seawall import Chunk, Reply

PROVIDER = "openai"


def known(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not known."""
    return {name: value for name, value in facts.items() if value is not None}


def to_wire(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The messages as the API takes them."""
    wire: list[dict[str, Any]] = convert_to_openai_messages(messages)
    return wire


def usage_metadata(usage: Mapping[str, int] | None) -> UsageMetadata | None:
    """Tokens under langchain-core's names."""
    if usage is None:
        return None
    metadata: UsageMetadata = {  # type: ignore[typeddict-item]  # the details are optional
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    if "cached_tokens" in usage:
        metadata["input_token_details"] = InputTokenDetails(cache_read=usage["cached_tokens"])
    if "reasoning_tokens" in usage:
        metadata["output_token_details"] = OutputTokenDetails(reasoning=usage["reasoning_tokens"])
    return metadata


def story(attempts: Attempts, alternative: int, seconds: float, cached: bool) -> dict[str, Any]:
    """What `response_metadata` says of how the answer came about, in plain values that serialise."""
    names = ("model", "alternative", "outcome", "status", "request_id", "seconds", "waited")
    rows = [{name: getattr(attempt, name) for name in names} for attempt in attempts]
    served_by = attempts[-1].model if attempts else None
    told = {"served_by": served_by, "alternative": alternative, "attempts": rows, "seconds": seconds}
    if cached:
        told["cached"] = True
    return {"served_by": served_by, "attempts": len(attempts), "seawall": told}


def to_result(reply: Reply, *, logprobs: bool = False) -> ChatResult:
    """A whole reply, all its choices; with their `logprobs` if those were asked for."""
    metadata = known(
        {
            "model_name": reply.model,
            "model_provider": PROVIDER,
            "finish_reason": reply.finish_reason,
            "id": reply.id,
            "request_id": reply.request_id,
            "token_usage": reply.usage,
            "system_fingerprint": reply.system_fingerprint,
            "service_tier": reply.service_tier,
        }
    )
    metadata |= story(reply.attempts, reply.alternative, reply.seconds, reply.cached)
    first = _message(
        reply.content,
        [{"id": i, "function": {"name": name, "arguments": arguments}} for i, name, arguments in reply.tool_calls],
        reply.refusal,
        reply.reasoning,
    )
    first.usage_metadata = usage_metadata(reply.usage)
    messages = [first]
    if len(reply.choices) > 1 or logprobs:
        choices = sorted(reply.raw["choices"], key=lambda choice: choice.get("index") or 0)
        messages += [_choice(choice) for choice in choices[1:]]
        for message, choice in zip(messages, choices, strict=True):
            message.response_metadata = {**metadata, **_own(choice)}
    else:
        first.response_metadata = metadata
    generations = [
        ChatGeneration(message=message, generation_info={"finish_reason": message.response_metadata.get("finish_reason")})
        for message in messages
    ]
    output = known({"token_usage": reply.usage, "model_name": reply.model, "id": reply.id})
    return ChatResult(generations=generations, llm_output=output)


def _own(choice: Mapping[str, Any]) -> dict[str, Any]:
    """What a choice says of itself."""
    return known({name: choice.get(name) for name in ("finish_reason", "logprobs")})


def _choice(choice: Mapping[str, Any]) -> AIMessage:
    message = choice["message"]
    return _message(
        message.get("content") or "", message.get("tool_calls") or (), message.get("refusal"), message.get("reasoning_content")
    )


def _message(text: str, calls: Iterable[Mapping[str, Any]], refusal: str | None, reasoning: str | None) -> AIMessage:
    tool_calls, invalid = [], []
    for call in calls:
        try:
            # A tool with no parameters may come with no arguments at all.
            function = {**call["function"], "arguments": call["function"]["arguments"] or "{}"}
            tool_calls.append(parse_tool_call({**call, "function": function}, return_id=True))
        except Exception as error:
            invalid.append(make_invalid_tool_call(dict(call), str(error)))
    return AIMessage(
        content=text,
        tool_calls=[call for call in tool_calls if call is not None],
        invalid_tool_calls=invalid,
        additional_kwargs=known({"refusal": refusal, "reasoning_content": reasoning}),
    )


class StreamedMessage(AIMessageChunk):
    """A piece of an answer that may begin anew: pieces added up are those of the last attempt."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """As what it is told to others: a piece like any other."""
        return AIMessageChunk.lc_id()

    def plain(self) -> AIMessageChunk:
        """As any model's piece is."""
        return AIMessageChunk(**{name: getattr(self, name) for name in AIMessageChunk.model_fields})

    def __add__(self, other: Any) -> Any:
        rest = list(other) if isinstance(other, (list, tuple)) else [other]
        at = max((at for at, piece in enumerate(rest) if isinstance(piece, RestartedMessage)), default=None)
        return self.plain() + other if at is None else rest[at].plain() + rest[at + 1 :]


class RestartedMessage(StreamedMessage):
    """The first piece of an answer that begins anew: added to what came before it, it takes its place."""

    def __radd__(self, other: Any) -> AIMessageChunk:
        return self.plain()


class StreamedChunk(ChatGenerationChunk):
    """The same for langchain-core, which adds up what is around the messages."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """As what it is told to others: a piece like any other."""
        return ChatGenerationChunk.lc_id()

    def __add__(self, other: ChatGenerationChunk | list[ChatGenerationChunk]) -> ChatGenerationChunk:
        pieces = [self, *other] if isinstance(other, list) else [self, other]
        last = max((at for at, piece in enumerate(pieces) if isinstance(piece.message, RestartedMessage)), default=0)
        first = ChatGenerationChunk(message=pieces[last].message, generation_info=pieces[last].generation_info)
        return first + pieces[last + 1 :]


def to_chunk(chunk: Chunk, *, restarts: bool = False) -> ChatGenerationChunk:
    """A piece of a stream; of one that may begin anew with `restarts`."""
    metadata: dict[str, Any] = {}
    if chunk.restarted or chunk.continued:
        metadata["seawall"] = {"restarted": True} if chunk.restarted else {"continued": True}
    if chunk.finish_reason is not None:
        told = {
            "finish_reason": chunk.finish_reason,
            "model_name": chunk.model,
            "model_provider": PROVIDER,
            "system_fingerprint": chunk.system_fingerprint,
            "service_tier": chunk.service_tier,
        }
        metadata |= known(told)
    calls: list[ToolCallChunk] = [
        tool_call_chunk(name=name, args=arguments, id=call_id, index=index)
        for index, call_id, name, arguments in chunk.tool_calls
    ]
    kind = RestartedMessage if chunk.restarted else StreamedMessage if restarts else AIMessageChunk
    message = kind(
        content=chunk.content,
        tool_call_chunks=calls,
        usage_metadata=usage_metadata(chunk.usage),
        response_metadata=metadata,
        additional_kwargs=known({"refusal": chunk.refusal, "reasoning_content": chunk.reasoning}),
    )
    finish = {"finish_reason": chunk.finish_reason}
    whole = StreamedChunk if restarts else ChatGenerationChunk
    return whole(message=message, generation_info=None if chunk.finish_reason is None else finish)


def last_chunk(attempts: Attempts, alternative: int, seconds: float, cached: bool) -> ChatGenerationChunk:
    """The piece that ends a stream: how it came about."""
    message = AIMessageChunk(content="", response_metadata=story(attempts, alternative, seconds, cached))
    message.chunk_position = "last"
    return ChatGenerationChunk(message=message)
