"""Whether an SDK's answer with a good status can be used, and answers made of a plain text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, get_args, get_origin

from seawall import _sdk_errors
from seawall._sdk_events import fields

_MODEL = "seawall-fallback"


def _declared(model: Any) -> Mapping[str, Any]:
    return getattr(type(model), "model_fields", None) or getattr(type(model), "__fields__", {})


def is_model(kind: Any) -> bool:
    """Whether a response type is a model, that is something else than bytes, a text, or nothing."""
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and hasattr(kind, "model_validate" if hasattr(kind, "model_fields") else "parse_obj")


def check(answer: Any, asked: Any, cast_to: Any, response: Any, sdk: ModuleType | None) -> None:
    """Refuses what is no answer.

    Args:
        asked: the options of the request.
        cast_to: what the SDK was to make of the response.

    Raises:
        MalformedResponseError: a page or a text where JSON was to come, or JSON without the answer in it.
        APIError: the SDK's; an error object where the answer was to be.
    """

    def malformed(message: str) -> Exception:
        return _sdk_errors.malformed(sdk, response, message, answer[:2000] if isinstance(answer, str) else None)

    if isinstance(answer, (str, type(None))) and is_model(cast_to):
        kind = getattr(response, "headers", {}).get("content-type") or "no content type"
        raise malformed(f"the answer is no JSON but {kind}: does base_url point to the API?")
    declared = _declared(answer)
    if not declared:
        return
    error = None if "error" in declared else getattr(answer, "error", None)
    if {"output", "status"} <= declared.keys() and str(asked.method).lower() == "post" and answer.status == "failed":
        error = fields(answer.error) or {"message": "The response failed."}
    if error:
        raise _sdk_errors.failed(sdk, response, error)
    if "choices" in declared:
        if not answer.choices:
            raise malformed("the answer has no choices")
        if any("message" in _declared(choice) and choice.message is None for choice in answer.choices):
            raise malformed("a choice of the answer has no message")
    elif {"content", "stop_reason"} <= declared.keys() and getattr(answer, "content", None) is None:
        raise malformed("the message has no content")
    elif {"output", "status"} <= declared.keys() and answer.output is None:
        raise malformed("the response has no output")
    elif {"data", "model", "usage"} <= declared.keys() and "embedding" in str(asked.url):
        wanted = _inputs(asked.json_data)
        if len(answer.data or ()) != wanted and (wanted is not None or not answer.data):
            raise malformed(f"{len(answer.data or ())} embeddings came for {'the input' if wanted is None else wanted}")


def _inputs(body: Any) -> int | None:
    """How many texts were to be embedded; `None` where the body does not say."""
    given = body.get("input") if isinstance(body, Mapping) else None
    if isinstance(given, str):
        return 1
    if not isinstance(given, (list, tuple)) or not given:
        return None
    return 1 if isinstance(given[0], int) else len(given)


def of_text(text: str, cast_to: Any, stream_cls: Any) -> tuple[str, bytes] | None:
    """A text as a server would have sent it in answer to a request: the content's type, and the body.

    Args:
        cast_to: what the answer is to become.
        stream_cls: if it is to be a stream, its class.

    Returns:
        `None` where the answer to that request is no text.
    """
    if stream_cls is None:
        answer = _ANSWERS.get(getattr(cast_to, "__name__", "").removeprefix("Parsed").removeprefix("Beta"))
        return None if answer is None else ("application/json", json.dumps(answer(text)).encode())
    # A union of events goes by the names of its members.
    named = str(get_args(stream_cls))
    events = next((made for name, made in _EVENTS.items() if name in named), None)
    if events is None:
        return None
    told = [
        f"event: {event['type']}\ndata: {json.dumps(event)}" if "type" in event else f"data: {json.dumps(event)}"
        for event in events(text)
    ]
    return "text/event-stream", ("\n\n".join(told) + "\n\n").encode()


def _completion(text: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "logprobs": None,
        "message": {"role": "assistant", "content": text, "refusal": None},
    }
    return {"id": _MODEL, "object": "chat.completion", "created": int(time.time()), "model": _MODEL, "choices": [choice]}


def _message(text: str) -> dict[str, Any]:
    return {
        "id": _MODEL, "type": "message", "role": "assistant", "model": _MODEL, "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0},
    }  # fmt: skip


def _response(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": _MODEL, "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": _MODEL, "object": "response", "created_at": time.time(), "model": _MODEL, "status": "completed", "output": [message],
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": False,
        "temperature": None, "tool_choice": "auto", "tools": [], "top_p": None,
    }  # fmt: skip


def _chunks(text: str) -> Iterator[dict[str, Any]]:
    for delta, end in (({"role": "assistant", "content": text}, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        yield {"id": _MODEL, "object": "chat.completion.chunk", "created": int(time.time()), "model": _MODEL, "choices": [choice]}


def _message_events(text: str) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": {**_message(text), "content": [], "stop_reason": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 0}}
    yield {"type": "message_stop"}


def _response_events(text: str) -> Iterator[dict[str, Any]]:
    whole = _response(text)
    (message,) = whole["output"]
    (part,) = message["content"]
    place = {"item_id": _MODEL, "output_index": 0, "content_index": 0}
    item = {"output_index": 0, "item": {**message, "content": [], "status": "in_progress"}}
    events: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": {**whole, "status": "in_progress", "output": []}}),
        ("output_item.added", item),
        ("content_part.added", {**place, "part": {**part, "text": ""}}),
        ("output_text.delta", {**place, "delta": text, "logprobs": []}),
        ("output_text.done", {**place, "text": text, "logprobs": []}),
        ("content_part.done", {**place, "part": part}),
        ("output_item.done", {"output_index": 0, "item": message}),
        ("completed", {"response": whole}),
    ]
    for number, (name, event) in enumerate(events):
        yield {"type": f"response.{name}", "sequence_number": number, **event}


_ANSWERS = {"ChatCompletion": _completion, "Message": _message, "Response": _response}
_EVENTS = {"ChatCompletionChunk": _chunks, "MessageStartEvent": _message_events, "ResponseCreatedEvent": _response_events}
