"""`SelfHealingAgent`, the document's class with counts that are true."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig

from seawall._seawall import Fallback, Pipeline
from seawall.errors import ConfigurationError
from seawall.langchain._chat import ChatOpenAI, same_place
from seawall.langchain._health import health, text_of

logger = logging.getLogger("seawall.agent")

# What each way of answering is counted as.
_COUNTS = {"primary": "primary_success", "fallback": "fallback_used", "simplified": "self_healed"}


class Model:
    """One way to an answer: a model, asked with the prompt or with a changed one. Answers with its own name; stories tell the class's."""

    def __init__(self, name: str, model: Any, *, change: Callable[[Any], Any] | None = None, same_place: bool = False) -> None:
        self._name = name
        self._model = model
        self._seawall_same_place = same_place
        self._change = change or (lambda prompt: prompt)

    def invoke(self, prompt: Any, config: RunnableConfig | None) -> tuple[str, Any]:
        return self._name, self._model.invoke(self._change(prompt), config)

    async def ainvoke(self, prompt: Any, config: RunnableConfig | None) -> tuple[str, Any]:
        return self._name, await self._model.ainvoke(self._change(prompt), config)


def _question(prompt: Any) -> str:
    """What was asked: the text, or that of the last message of a person."""
    messages = prompt.to_messages() if isinstance(prompt, PromptValue) else prompt
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return str(prompt)
    asked = [message for message in convert_to_messages(messages) if message.type == "human"]
    return text_of(asked[-1]) if asked else str(prompt)


class SelfHealingAgent:
    """Answers always: the primary model, else the fallback, else the fallback with a simplified prompt, else an apology.

    A step that cannot help is skipped: after a wrong key nobody with the same key is asked.

    Args:
        primary: a chat model (any Runnable); default gpt-4 with 3 attempts.
        fallback: the same; default gpt-3.5-turbo with 2 attempts.
        simplify: a text with `{}` where the prompt goes, or a function of the prompt.
        apology: what `invoke` returns when nobody answered.

    Attributes:
        stats: how many requests there were, and which way each was answered.
        last_error: what the last apology was for.
    """

    def __init__(
        self,
        primary: Any = None,
        fallback: Any = None,
        *,
        simplify: str | Callable[[Any], Any] = "简单回答: {}",
        apology: str = "抱歉，服务暂时不可用",
    ) -> None:
        if isinstance(simplify, str) and "{}" not in simplify:
            raise ConfigurationError(f"simplify needs {{}} where the prompt goes, not {simplify!r}")
        self.primary_llm = ChatOpenAI(model="gpt-4").with_retry(stop_after_attempt=3) if primary is None else primary
        self.fallback_llm = ChatOpenAI(model="gpt-3.5-turbo").with_retry(stop_after_attempt=2) if fallback is None else fallback
        self.apology = apology
        self.last_error: Exception | None = None
        change = simplify if callable(simplify) else lambda prompt: simplify.replace("{}", _question(prompt))
        self._first = Model("primary", self.primary_llm)
        same = same_place(self.primary_llm, self.fallback_llm)
        second = Model("fallback", self.fallback_llm, same_place=same)
        third = Model("simplified", self.fallback_llm, change=change, same_place=same)
        self._pipeline = Pipeline(Fallback(second, third), name="SelfHealingAgent")
        self._lock = threading.Lock()
        self._stats = {"total_requests": 0, "primary_success": 0, "fallback_used": 0, "total_failures": 0, "self_healed": 0}

    @property
    def stats(self) -> dict[str, int]:
        """Counts so far: requests, and for each how it was answered. The last four add up to the first, once all have ended."""
        with self._lock:
            return dict(self._stats)

    def invoke(self, prompt: Any, config: RunnableConfig | None = None) -> str:
        """The answer's text, or the apology; never an error."""
        self._count("total_requests")
        try:
            way, response = self._pipeline.call(self._first.invoke, prompt, config)
        except Exception as error:
            return self._gave_up(error)
        return self._answered(way, response)

    async def ainvoke(self, prompt: Any, config: RunnableConfig | None = None) -> str:
        """As `invoke`, for an event loop."""
        self._count("total_requests")
        try:
            way, response = await self._pipeline.acall(self._first.ainvoke, prompt, config)
        except Exception as error:
            return self._gave_up(error)
        return self._answered(way, response)

    def get_health_status(self) -> str | dict[str, Any]:
        """`"未使用"` before the first request; then `status`, `success_rate`, `self_heal_rate` and `stats`.

        A request counts as a success whoever answered it; the rates are shares of the requests that have ended.
        """
        stats = self.stats
        healed = stats["self_healed"]
        answered = stats["primary_success"] + stats["fallback_used"] + healed
        ended = answered + stats["total_failures"]
        if not ended:
            return "未使用"
        return {
            "status": health(answered / ended),
            "success_rate": f"{answered / ended:.2%}",
            "self_heal_rate": f"{healed / ended:.2%}",
            "stats": stats,
        }

    def _count(self, name: str) -> None:
        with self._lock:
            self._stats[name] += 1

    def _answered(self, way: str, response: Any) -> str:
        self._count(_COUNTS[way])
        logger.info("answered by: %s", way)
        return text_of(response)

    def _gave_up(self, error: Exception) -> str:
        self._count("total_failures")
        self.last_error = error
        logger.error("no answer, apologised: %s", type(error).__name__)
        return self.apology
