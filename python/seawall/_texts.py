"""Where texts stand in messages, requests and answers: those of the SDKs, of LangChain, and plain dicts of either."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Make = Callable[[Iterator[str]], Any]

# Where texts stand in messages, in their parts and in answers.
_NAMES = (
    "content",
    "text",
    "refusal",
    "reasoning_content",
    "reasoning",
    "thinking",
    "arguments",
    "function",
    "function_call",
    "tool_calls",
    "invalid_tool_calls",
    "additional_kwargs",
    "message",
    "choices",
    "output",
    "summary",
    "citations",
    "cited_text",
    "audio",
    "transcript",
)
# What a tool is called with, where that is no JSON text: any text in it.
_DEEP = ("args", "input")


def fields(model: Any) -> dict[str, Any]:
    """The fields of a model of pydantic's, those that its class does not know included."""
    try:
        return {**vars(model), **(getattr(model, "__pydantic_extra__", None) or {})}
    except TypeError:  # no model
        return {}


def is_model(value: Any) -> bool:
    """Whether it is a model of pydantic's: a message of LangChain's, an answer of an SDK."""
    return hasattr(type(value), "model_copy")


def is_prompt(value: Any) -> bool:
    """Whether it is a prompt of LangChain's."""
    return callable(getattr(value, "to_messages", None))


class Texts:
    """The texts in a value, and the value with others in their places. The value itself is never changed.

    Attributes:
        found: the texts, each with its place.
        is_text: whether the value, or a part of it, may hold texts, empty ones included.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.is_text = False

    def read(self, value: Any, place: str) -> Make:
        """Notes the texts in `value`; gives what makes it anew of other texts, in the same order."""
        if isinstance(value, str):
            self.is_text = True
            self.found.append((place, value))
            return next
        if isinstance(value, Mapping):
            return self._parts(value, value, place, lambda changed: {**value, **changed})
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return self._list(value, place)
        if is_prompt(value):
            return self.read(value.to_messages(), place)
        if is_model(value):
            return self._parts(value, fields(value), place, lambda changed: value.model_copy(update=changed))
        return lambda texts: value

    def _parts(self, value: Any, parts: Mapping[str, Any], place: str, changed: Callable[[dict[str, Any]], Any]) -> Make:
        makers: dict[str, Make] = {}
        for name in _NAMES:
            if is_read(held := parts.get(name)):
                makers[name] = self.read(held, f"{place}.{name}" if place else name)
        for name in _DEEP:
            if is_read(held := parts.get(name)) and ("name" in parts or isinstance(held, str)):
                makers[name] = self._deep(held, f"{place}.{name}" if place else name)
        source = parts.get("source")  # of a document that is a text
        if isinstance(source, Mapping) and source.get("type") == "text" and isinstance(source.get("data"), str):
            made = self.read(source["data"], f"{place}.source.data")
            makers["source"] = lambda texts: {**source, "data": made(texts)}
        if not makers:
            return lambda texts: value

        def make(texts: Iterator[str]) -> Any:
            made = {name: each(texts) for name, each in makers.items()}
            if any(made[name] != parts[name] for name in made):
                made |= _without_logprobs(parts)
            return changed(made)

        return make

    def _list(self, value: Any, place: str) -> Make:
        if type(value) is tuple and len(value) == 2 and all(isinstance(part, str) for part in value):
            make = self.read(value[1], place)  # a message as (role, content)
            return lambda texts: (value[0], make(texts))
        makers = [self.read(item, f"{place}[{at}]") for at, item in enumerate(value)]
        return lambda texts: type(value)(make(texts) for make in makers)

    def _deep(self, value: Any, place: str) -> Make:
        if isinstance(value, Mapping):
            makers = {key: self._deep(held, f"{place}.{key}") for key, held in value.items()}
            return lambda texts: {key: make(texts) for key, make in makers.items()}
        if isinstance(value, (list, tuple)):
            each = [self._deep(item, f"{place}[{at}]") for at, item in enumerate(value)]
            return lambda texts: type(value)(make(texts) for make in each)
        return self.read(value, place) if isinstance(value, str) else lambda texts: value


def is_read(value: Any) -> bool:
    """Whether texts may be in it."""
    return isinstance(value, (str, Mapping, list, tuple)) or is_model(value)


def _without_logprobs(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What spells the text once more, token by token, is gone where the text is another."""
    gone: dict[str, Any] = {}
    if parts.get("logprobs"):
        gone["logprobs"] = None
    metadata = parts.get("response_metadata")
    if isinstance(metadata, Mapping) and metadata.get("logprobs"):
        gone["response_metadata"] = {**metadata, "logprobs": None}
    return gone


# --- by the way to it

Path = tuple[Any, ...]


def get(holder: Any, step: Any) -> Any:
    """What is at a step of a way: an item's number, or a name. `None` where there is nothing."""
    if isinstance(step, int):
        return holder[step] if isinstance(holder, (list, tuple)) and len(holder) > step else None
    return holder.get(step) if isinstance(holder, Mapping) else getattr(holder, step, None)


def put(value: Any, changes: Mapping[Path, Any]) -> Any:
    """The same with other things at the ends of these ways. The value itself is not changed."""
    if not changes:
        return value
    if () in changes:
        return changes[()]
    anew = value.model_copy(deep=True) if is_model(value) else copy.deepcopy(value)
    for path, changed in changes.items():
        anew = _put(anew, path, changed)
    return anew


def _put(holder: Any, path: Path, changed: Any) -> Any:
    step, *rest = path
    if rest:
        changed = _put(get(holder, step), tuple(rest), changed)
    if isinstance(holder, tuple):
        parts = [*holder[:step], changed, *holder[step + 1 :]]
        return type(holder)(*parts) if hasattr(holder, "_fields") else tuple(parts)
    if isinstance(holder, (dict, list)):
        holder[step] = changed
    else:
        setattr(holder, step, changed)
    return holder


def main(value: Any) -> tuple[str | None, Callable[[str], Any]]:
    """The text of an answer that its shape is about, and what gives the answer with another one."""
    if isinstance(value, str):
        return value, lambda text: text
    where = list(_main(value))
    texts = [at(value, path) for path in where]
    if not any(texts):
        return None, lambda text: value

    def with_text(text: str) -> Any:
        return put(value, {path: "" if place else text for place, path in enumerate(where)})

    return "".join(texts), with_text


def at(value: Any, path: Path) -> Any:
    """What is at the end of a way."""
    for step in path:
        value = get(value, step)
    return value


def _main(value: Any) -> Iterator[Path]:
    message: Path = ("choices", 0, "message") if get(get(get(value, "choices"), 0), "message") is not None else ()
    holder = at(value, message)
    if isinstance(get(holder, "content"), str):
        yield (*message, "content")
        return
    for place, part in enumerate(get(holder, "content") or ()):
        if get(part, "type") in ("text", "output_text") and isinstance(get(part, "text"), str):
            yield (*message, "content", place, "text")
    output = get(value, "output")
    for place, item in enumerate(output if isinstance(output, (list, tuple)) else ()):
        if get(item, "type") == "message":
            for inner in _main(item):
                yield ("output", place, *inner)
