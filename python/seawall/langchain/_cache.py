"""LangChain's own cache, in a `seawall.Cache`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, Generation

from seawall import _cache
from seawall._seawall import Cache
from seawall._word import shown
from seawall.errors import ConfigurationTypeError

# Tells what LangChain asks from what else is in the same cache.
_WHOSE = "langchain"


class SeawallCache(BaseCache):
    """Answers of LangChain's models, of whatever package, in a `seawall.Cache`: for `set_llm_cache(…)` and a model's `cache=`.

    It has that cache's time to live and bounds, and its file if it has one; `seawall.cache_bypass()` goes past it. LangChain asks and
    tells: equal calls at once are not made one, and an answer that is past its time stands in for no failure. Models of
    `seawall.langchain` do both if the `seawall.Cache` itself is given to them.

    Args:
        cache: where answers are kept; by default one of its own, in memory.

    Raises:
        ConfigurationTypeError: `cache` is no `seawall.Cache`.
    """

    def __init__(self, cache: Cache | None = None) -> None:
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigurationTypeError(f"cache must be a seawall.Cache or None, not {shown(cache)}")
        self.cache = Cache() if cache is None else cache

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:
        """The answer to a prompt by a model, if there is one."""
        said = [_WHOSE, llm_string, prompt]
        value, in_file = (None, None) if _cache.anew.get() is not None else self.cache._find(said)
        if value is None and in_file is not None and (value := _read(in_file)) is not None:
            self.cache._keep(said, value, len(in_file))
        if value is None:
            self.cache._missed()
            return None
        found: Sequence[Any] = list(value)
        return found

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """Keeps the answer to a prompt by a model."""
        if _cache.anew.get() is False:
            return
        in_file = _written(return_val) if self.cache.path else None
        # LangChain may change the list later.
        self.cache._keep([_WHOSE, llm_string, prompt], tuple(return_val), _cache.size(return_val), in_file)

    def clear(self, **kwargs: Any) -> None:
        """Forgets all answers, also those of others that use the same `seawall.Cache`."""
        self.cache.clear()

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:
        """The same; it takes no time that would be worth a thread."""
        return self.lookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """The same."""
        self.update(prompt, llm_string, return_val)

    async def aclear(self, **kwargs: Any) -> None:
        """The same."""
        self.clear()

    def __repr__(self) -> str:
        return f"SeawallCache({self.cache!r})"


def _written(generations: Sequence[Any]) -> bytes | None:
    """Generations as JSON; `None` for those that it cannot say, which are in memory only."""
    said: list[Any] = []
    for each in generations:
        if type(each) is Generation:
            said.append([each.text, each.generation_info])
        elif type(each) is ChatGeneration:
            said.append([message_to_dict(each.message), each.generation_info])
        else:
            return None
    text = _cache.as_json(said, None)
    return None if text is None else text.encode()


def _read(in_file: bytes) -> tuple[Generation, ...] | None:
    """The generations that these bytes are, if they are some."""
    found = _cache.from_json(in_file)
    try:
        return tuple(_generation(what, info) for what, info in found[0]) if found else None
    except (TypeError, ValueError, KeyError):  # of a later langchain-core, say
        return None


def _generation(what: Any, info: Any) -> Generation:
    if isinstance(what, str):
        return Generation(text=what, generation_info=info)
    message: BaseMessage
    (message,) = messages_from_dict([what])
    return ChatGeneration(message=message, generation_info=info)


__all__ = ["SeawallCache"]
