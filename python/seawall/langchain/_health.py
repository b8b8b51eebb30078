"""What the document's parts share: the text of an answer, and the words of its health table."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage


def text_of(response: Any) -> str:
    """The text of whatever a chain answers with: a message, a dict with an answer, a text."""
    if isinstance(response, BaseMessage):
        content = response.content
        return content if isinstance(content, str) else str(response.text)
    if isinstance(response, dict):
        for name in ("answer", "output", "result", "text"):
            if name in response:
                return text_of(response[name])
    return response if isinstance(response, str) else str(response)


def health(success_rate: float) -> str:
    """The document's levels: 健康 from 95 %, 警告 from 80 %, else 异常."""
    if success_rate >= 0.95:
        return "健康"
    return "警告" if success_rate >= 0.80 else "异常"
