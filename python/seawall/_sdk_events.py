"""What the events of an SDK's stream say: content, the end, a failure. By their fields: nothing of an SDK is imported."""

from __future__ import annotations

from typing import Any

_NOTHING: Any = object()
_ANTHROPIC = frozenset(
    ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "ping"]
)
# Of the Responses API: what says that something begins.
_FRAMES = frozenset(
    f"response.{name}"
    for name in [
        "created",
        "queued",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_summary_part.added",
        "keepalive",
    ]
)
_ENDS = frozenset(f"response.{name}" for name in ["completed", "incomplete", "failed", "cancelled"])


def fields(model: Any) -> dict[str, Any]:
    """The fields of a model of an SDK, those that its class does not know included."""
    try:
        return {**vars(model), **(getattr(model, "__pydantic_extra__", None) or {})}
    except TypeError:  # no model
        return {}


class Watch:
    """What was seen of one stream.

    Attributes:
        has_content: something that a reader would see has come.
        said_done: the server sent `[DONE]`.
        text: the text so far, of the first choice.
    """

    __slots__ = ("_ended", "_open", "_protocol", "_seen", "_text", "has_content", "said_done")

    def __init__(self) -> None:
        self.has_content = False
        self.said_done = False
        self._text: list[str] = []
        self._protocol: str | None = None
        self._open: set[int] = set()
        self._seen = self._ended = False

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def is_whole(self) -> bool:
        """Whether the stream may end here: its protocol said so. Of an unknown protocol, any event will do."""
        if self._protocol == "choices" and not self._seen:
            return False  # nothing but an end, or usage of nothing
        if self.said_done:
            return self._protocol is not None
        return self._protocol == "other" or (self._ended and not self._open)

    def see(self, event: Any) -> Any:
        """Takes an event in; gives the error object if it tells of a failure, else `None`."""
        choices = getattr(event, "choices", _NOTHING)
        if choices is not _NOTHING:
            self._protocol = "choices"
            for choice in choices or ():
                self._seen = True
                self._choice(choice)
            return None if choices else getattr(event, "error", None)
        kind = getattr(event, "type", None)
        if kind in _ANTHROPIC:
            self._protocol = "message"
            self._message(kind, event)
        elif isinstance(kind, str) and (kind.startswith("response.") or kind == "error"):
            self._protocol = "response"
            return self._response(kind, event)
        else:
            self._protocol = "other"
            self.has_content = True
        return None

    def _says(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._text.append(text)

    def _choice(self, choice: Any) -> None:
        index, delta = getattr(choice, "index", 0), getattr(choice, "delta", None)
        text = getattr(choice, "text", None) if delta is None else getattr(delta, "content", None)
        if index == 0:
            self._says(text)
        if text or any(value for name, value in fields(delta).items() if name != "role"):
            self.has_content = True
        if getattr(choice, "finish_reason", None):
            self._ended = True
            self._open.discard(index)
        else:
            self._open.add(index)

    def _message(self, kind: str, event: Any) -> None:
        if kind == "content_block_delta":
            self.has_content = True
            self._says(getattr(getattr(event, "delta", None), "text", None))
        elif kind == "content_block_start":
            # A block of text begins empty; a tool's names the tool.
            self.has_content |= getattr(getattr(event, "content_block", None), "type", None) not in ("text", "thinking")
        elif kind == "message_stop":
            self._ended = True

    def _response(self, kind: str, event: Any) -> Any:
        if kind == "error":
            return {"message": getattr(event, "message", None), "code": getattr(event, "code", None)}
        if kind in _ENDS:
            self._ended = True
        elif kind not in _FRAMES:
            self.has_content = True
        if kind == "response.output_text.delta":
            self._says(getattr(event, "delta", None))
        if kind != "response.failed":
            return None
        return fields(getattr(getattr(event, "response", None), "error", None)) or {"message": "The response failed."}
