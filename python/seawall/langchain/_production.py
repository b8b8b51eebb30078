"""`create_production_llm`: the document's factory."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from seawall._decorators import own_breaker
from seawall._log_hooks import after_log, before_sleep_log
from seawall._seawall import wait_exponential
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError
from seawall.langchain._chat import ChatOpenAI

logger = logging.getLogger("seawall.production")

ATTEMPTS = 5
FALLBACK_ATTEMPTS = 3
# Seconds until an open circuit is probed, as in the document's template.
RECOVERY = 60


class ProductionLLM(ChatOpenAI):
    """A `ChatOpenAI` that can also be called like a function."""

    def __call__(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """`invoke`."""
        return self.invoke(input, config, **kwargs)


def create_production_llm(
    model: str = "gpt-4",
    timeout: float | timedelta | None = 30,
    enable_fallback: bool = True,
    enable_circuit_breaker: bool = True,
    *,
    fallback_model: str = "gpt-3.5-turbo",
    **arguments: Any,
) -> ProductionLLM:
    """A chat model as the document recommends for production, in one pipeline: 5 attempts, then another model, 3 attempts.

    Each model has a circuit breaker of its own, that sees its attempts: it opens when half of at least 20 within 30 s
    failed and is probed after 60 s. A model whose circuit is open is passed over without a request. Waits are 1, 2, 4 …
    60 s, unless the server says how long (`Retry-After`).

    Args:
        model: the primary's name.
        timeout: seconds for one attempt (30).
        enable_fallback: whether `fallback_model` stands in (true).
        enable_circuit_breaker: whether there are breakers (true).
        arguments: those of `ChatOpenAI`, for both models.

    Returns:
        a chat model that can also be called: `llm("你好")` is `llm.invoke("你好")`.
    """
    for argument, given in (("model", model), ("fallback_model", fallback_model)):
        if not isinstance(given, str):
            raise ConfigurationTypeError(f"{argument} must be the name of a model, not {shown(given)}")
    if "circuit" in arguments:
        raise ConfigurationError("create_production_llm makes the breakers itself: give circuit= to ChatOpenAI, or leave it out")

    def made(name: str, attempts: int) -> ProductionLLM:
        breaker = own_breaker(name, recovery_timeout=RECOVERY) if enable_circuit_breaker else None
        llm = ProductionLLM(model=name, timeout=timeout, circuit=breaker, **arguments)
        return llm.with_retry(
            stop_after_attempt=attempts,
            wait=wait_exponential(multiplier=1, min=1, max=60),
            before_sleep=before_sleep_log(logger, logging.WARNING),
            after=after_log(logger, logging.INFO),
        )

    primary = made(model, ATTEMPTS)
    if not enable_fallback:
        return primary
    whole: ProductionLLM = primary.with_fallbacks([made(fallback_model, FALLBACK_ATTEMPTS)])
    return whole
