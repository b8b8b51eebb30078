"""Which texts an item of a stream goes on with, by what it looks like: a plain text, the events of the SDKs, chunks of LangChain's and
of seawall's, and dicts of any of them. Nothing of theirs is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from seawall import _texts
from seawall._texts import Path, get


class Key(NamedTuple):
    """Which text of an answer it is.

    Attributes:
        group: which answer: a choice's number, a message's id.
        name: what it is in that answer.
        number: which one of those.
    """

    group: Any
    name: str
    number: Any = None

    @property
    def is_main(self) -> bool:
        """Whether it is what the answer says, and no reasoning or call of a tool."""
        return self.name in ("content", "text", "output_text")

    @property
    def place(self) -> str:
        """As errors name it."""
        of = f"choices[{self.group}]." if isinstance(self.group, int) and self.group else ""
        return f"{of}{'content' if self.is_main else self.name}"


class Piece(NamedTuple):
    """A piece of a text, and where it stands in its item."""

    key: Key
    path: Path
    text: str


@dataclass
class Read:
    """What an item of a stream says.

    Attributes:
        pieces: what it goes on with.
        totals: texts that are over by now, whole once more, and where.
        is_end_of: whether a text is over with it.
        is_over: whether an answer is.
        is_bare: whether nothing is in it but its pieces.
        wholes: where whole texts may be beside them.
        emptied: what else than its texts is not to be said twice.
    """

    pieces: list[Piece] = field(default_factory=list)
    totals: list[tuple[Key, Path]] = field(default_factory=list)
    is_end_of: Callable[[Key], bool] = lambda key: False
    is_over: Callable[[Any], bool] = lambda group: False
    is_bare: bool = False
    wholes: list[Path] = field(default_factory=list)
    emptied: dict[Path, Any] = field(default_factory=dict)
    logprobs: list[Path] = field(default_factory=list)
    made: Callable[[Any, dict[Path, Any]], Any] = _texts.put

    def changed(self, item: Any, changes: dict[Path, Any]) -> Any:
        """The item with other texts. What spells them token by token goes."""
        return self.made(item, {**changes, **dict.fromkeys(self.logprobs, None)})

    def with_only(self, item: Any, path: Path, text: str) -> Any:
        """An item that goes on with that text alone."""
        return self.changed(item, {**self.emptied, **{piece.path: "" for piece in self.pieces}, path: text})

    def add(self, key: Key, path: Path, text: Any) -> None:
        if isinstance(text, str):
            self.pieces.append(Piece(key, path, text))


def read(item: Any) -> Read | None:
    """What an item says; `None` where it is nothing that is known."""
    if isinstance(item, str):
        return Read([Piece(Key(0, "content"), (), item)], is_bare=True)
    return _known(item, ()) or _compound(item)


def _known(item: Any, at: Path) -> Read | None:
    choices = get(item, "choices")
    if isinstance(choices, (list, tuple)):
        return _completion(item, choices, at)
    kind = get(item, "type")
    if isinstance(kind, str) and kind in _MESSAGE:
        return _message_event(item, kind, at)
    if isinstance(kind, str) and (kind.startswith("response.") or kind == "error"):
        return _response_event(item, kind, at)
    if hasattr(item, "_with") and type(item).__name__ == "Chunk":
        return _chunk(item)
    if _texts.is_model(item) and hasattr(item, "content") and isinstance(kind, str):
        return _langchain(item, at)
    return None


# --- chat completions, and completions


def _completion(item: Any, choices: Any, at: Path) -> Read:
    found = Read()
    over: set[Any] = set()
    is_bare = not get(item, "usage")
    for place, choice in enumerate(choices):
        path = (*at, "choices", place)
        number = get(choice, "index")
        group = number if isinstance(number, int) else place
        delta = get(choice, "delta")
        if delta is None:
            if get(choice, "message") is not None:
                found.wholes.append((*path, "message"))
            found.add(Key(group, "text"), (*path, "text"), get(choice, "text"))
        else:
            _delta(found, group, delta, (*path, "delta"))
            known = {"content", "refusal", "reasoning", "reasoning_content"}
            parts = delta if isinstance(delta, Mapping) else _texts.fields(delta)
            is_bare = is_bare and not any(held for name, held in parts.items() if name not in known)
        if get(choice, "logprobs"):
            found.logprobs.append((*path, "logprobs"))
        if get(choice, "finish_reason"):
            over.add(group)
            found.emptied |= {(*path, "finish_reason"): None}
    if get(item, "usage"):
        found.emptied |= {(*at, "usage"): None}
    found.is_bare = is_bare and not over and bool(choices) and any(piece.text for piece in found.pieces)
    found.is_end_of = lambda key: key.group in over
    found.is_over = over.__contains__
    return found


def _delta(found: Read, group: Any, delta: Any, path: Path) -> None:
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        held = get(delta, name)
        found.add(Key(group, name), (*path, name), held)
        if name == "content" and isinstance(held, (list, tuple)):
            _parts(found, group, held, (*path, name))
    function = get(delta, "function_call")
    if function is not None:
        found.add(Key(group, "function_call.arguments"), (*path, "function_call", "arguments"), get(function, "arguments"))
        found.emptied |= {(*path, "function_call", "name"): None}
    if get(delta, "audio") is not None:
        found.add(Key(group, "audio.transcript"), (*path, "audio", "transcript"), get(get(delta, "audio"), "transcript"))
    for place, call in enumerate(get(delta, "tool_calls") or ()):
        number = get(call, "index")
        key = Key(group, f"tool_calls[{place if number is None else number}].arguments")
        where = (*path, "tool_calls", place)
        found.add(key, (*where, "function", "arguments"), get(get(call, "function"), "arguments"))
        if get(call, "function") is not None:
            found.emptied |= {(*where, "id"): None, (*where, "function", "name"): None}


# --- the parts of a content that is a list


def _parts(found: Read, group: Any, parts: Any, path: Path) -> None:
    for place, part in enumerate(parts):
        if isinstance(part, str):
            found.add(Key(group, "content"), (*path, place), part)
            continue
        number = get(part, "index")
        number = place if number is None else number
        for name in ("text", "thinking", "reasoning", "refusal", "partial_json", "arguments", "input", "args"):
            key = Key(group, "content" if name == "text" else name, number)
            found.add(key, (*path, place, name), get(part, name))
        for inner, summary in enumerate(get(part, "summary") or ()):
            key = Key(group, "summary", (number, get(summary, "index") or inner))
            found.add(key, (*path, place, "summary", inner, "text"), get(summary, "text"))


# --- Anthropic's messages

_MESSAGE = frozenset(
    ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "ping"]
)


def _message_event(item: Any, kind: str, at: Path) -> Read:
    found = Read()
    number = get(item, "index")
    if kind == "content_block_delta":
        delta = get(item, "delta")
        for name in ("text", "thinking", "partial_json", "content"):
            key = Key("message", "content" if name == "text" else f"content.{name}", number)
            found.add(key, (*at, "delta", name), get(delta, name))
        found.wholes = [(*at, "delta", "citation")]
        found.is_bare = any(piece.text for piece in found.pieces)
    elif kind == "content_block_start":
        # A block of text begins empty; of what is whole already all is looked at.
        found.wholes = [(*at, "content_block")]
    elif kind == "content_block_stop":
        found.is_end_of = lambda key: key.number == number
    elif kind == "message_stop":
        found.is_end_of = found.is_over = lambda of: True
    return found


# --- the Responses API


def _response_event(item: Any, kind: str, at: Path) -> Read:
    found = Read()
    what = kind.removeprefix("response.")
    name, _, step = what.rpartition(".")
    number = tuple(get(item, part) for part in ("item_id", "output_index", "content_index", "summary_index"))
    key = Key("response", name, number)
    if step == "delta":
        if name != "audio":  # sound, in base64
            found.add(key, (*at, "delta"), get(item, "delta"))
        if get(item, "logprobs"):
            found.logprobs.append((*at, "logprobs"))
        found.is_bare = any(piece.text for piece in found.pieces)
        found.made = _with_logprobs_emptied
        return found
    if step == "done" and (total := next((part for part in _TOTALS if isinstance(get(item, part), str)), None)):
        found.totals.append((key, (*at, total)))
        if get(item, "logprobs"):
            found.logprobs.append((*at, "logprobs"))
        found.made = _with_logprobs_emptied
        found.is_end_of = lambda other: other == key
        return found
    found.wholes = [(*at, part) for part in ("item", "part", "response")]
    if what in ("completed", "incomplete", "failed", "cancelled"):
        found.is_end_of = found.is_over = lambda of: True
    return found


_TOTALS = ("text", "refusal", "arguments", "input", "code", "transcript")


def _with_logprobs_emptied(item: Any, changes: dict[Path, Any]) -> Any:
    return _texts.put(item, {path: [] if path[-1] == "logprobs" else change for path, change in changes.items()})


# --- chunks of seawall's


def _chunk(item: Any) -> Read:
    found = Read(made=_chunk_with)
    group = item.index
    for name in ("content", "reasoning", "refusal"):
        found.add(Key(group, name), (name,), getattr(item, name))
    for place, (number, _, _, arguments) in enumerate(item.tool_calls):
        found.add(Key(group, f"tool_calls[{number}].arguments"), ("tool_calls", place), arguments)
    if item.finish_reason is not None:
        found.is_end_of = lambda key: key.group == group
        found.is_over = lambda of: of == group
        found.emptied[("finish_reason",)] = None
    found.is_bare = item.finish_reason is None and item.usage is None and item.role is None and not item.tool_calls
    found.is_bare = found.is_bare and any(piece.text for piece in found.pieces)
    return found


def _chunk_with(item: Any, changes: dict[Path, Any]) -> Any:
    content, reasoning, refusal = (changes.get((name,), getattr(item, name)) for name in ("content", "reasoning", "refusal"))
    calls = [changes.get(("tool_calls", place), call[3]) for place, call in enumerate(item.tool_calls)]
    return item._with(content or "", reasoning, refusal, calls)


# --- LangChain's messages


def _langchain(item: Any, at: Path) -> Read:
    found = Read(made=_message_with)
    if not hasattr(item, "tool_call_chunks") and not type(item).__name__.endswith("Chunk"):
        found.wholes = [at]
        return found
    group = item.id or "message"
    content = item.content
    if isinstance(content, str):
        found.add(Key(group, "content"), (*at, "content"), content)
    else:
        _parts(found, group, content, (*at, "content"))
    kwargs = item.additional_kwargs
    for name in ("reasoning_content", "reasoning", "refusal"):
        found.add(Key(group, name), (*at, "additional_kwargs", name), kwargs.get(name))
    _delta(
        found,
        (group, "additional_kwargs"),
        {k: kwargs.get(k) for k in ("tool_calls", "function_call")},
        (*at, "additional_kwargs"),
    )
    for place, call in enumerate(getattr(item, "tool_call_chunks", ())):
        number = call.get("index")
        key = Key(group, f"tool_calls[{place if number is None else number}].args")
        found.add(key, (*at, "tool_call_chunks", place, "args"), call.get("args"))
        found.emptied |= {(*at, "tool_call_chunks", place, name): None for name in ("id", "name")}
    metadata = item.response_metadata
    if metadata.get("logprobs"):
        found.logprobs.append((*at, "response_metadata", "logprobs"))
    is_last = getattr(item, "chunk_position", None) == "last" or metadata.get("finish_reason") or metadata.get("stop_reason")
    if is_last:
        found.is_end_of = lambda key: key.group in (group, (group, "additional_kwargs"))
        found.is_over = lambda of: of == group
    found.is_bare = not (
        is_last or metadata or kwargs or getattr(item, "tool_call_chunks", ()) or getattr(item, "usage_metadata", None)
    )
    found.is_bare = found.is_bare and any(piece.text for piece in found.pieces)
    found.emptied |= {(*at, "response_metadata"): {}}
    for name in ("usage_metadata", "chunk_position"):
        if hasattr(item, name):
            found.emptied |= {(*at, name): None}
    return found


def _message_with(item: Any, changes: dict[Path, Any]) -> Any:
    # In order: what stands in another thing goes after that.
    made = _texts.put(item, dict(sorted(changes.items(), key=lambda change: len(change[0]))))
    if not any("tool_call_chunks" in path for path in changes):
        return made
    # What is read out of the pieces of calls is read anew.
    parts = {name: getattr(made, name) for name in type(made).model_fields} | {"tool_calls": [], "invalid_tool_calls": []}
    return type(made)(**parts)


# --- several in one, and dicts of whatever kind


def _compound(item: Any) -> Read | None:
    if isinstance(item, (list, tuple)):
        found, makers = Read(), []
        known = [(place, inner) for place, each in enumerate(item) if (inner := _inner(each)) is not None]
        if not known:
            return None
        for place, inner in known:
            found.pieces += [piece._replace(path=(place, *piece.path)) for piece in inner.pieces]
            found.totals += [(key, (place, *path)) for key, path in inner.totals]
            found.emptied |= {(place, *path): value for path, value in inner.emptied.items()}
            found.logprobs += [(place, *path) for path in inner.logprobs]
            found.wholes += [(place, *path) for path in inner.wholes]
            makers.append((place, inner.made))
        inners = [inner for _, inner in known]
        found.is_end_of = lambda key: any(inner.is_end_of(key) for inner in inners)
        found.is_over = lambda group: any(inner.is_over(group) for inner in inners)
        found.made = lambda item, changes: _of_each(item, changes, makers)
        return found
    if isinstance(item, Mapping) or _texts.is_model(item):
        return _mapping(item)
    return None


def _inner(item: Any) -> Read | None:
    if isinstance(item, str) or item is None or isinstance(item, (int, float, Mapping)):
        # Beside the pieces in a tuple: where they come from, and what kind they are.
        return _known(item, ()) if isinstance(item, Mapping) else None
    return _known(item, ())


def _of_each(item: Any, changes: dict[Path, Any], makers: list[tuple[int, Callable[[Any, dict[Path, Any]], Any]]]) -> Any:
    parts = list(item)
    for place, made in makers:
        if mine := {path[1:]: change for path, change in changes.items() if path[0] == place}:
            parts[place] = made(parts[place], mine)
    return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)


def _mapping(item: Any) -> Read | None:
    found = Read()
    parts = item if isinstance(item, Mapping) else _texts.fields(item)
    for path, text in _strings(parts, ()):
        found.add(Key(0, "content" if path == ("content",) else ".".join(map(str, path))), path, text)
    if found.pieces:
        return found
    texts = _texts.Texts()
    texts.read(item, "")
    found.wholes = [()]
    return found if texts.found else None


# Texts by name in a dict of no known kind; others say what kind it is, or whose.
_NAMES = ("content", "text", "refusal", "thinking", "reasoning", "reasoning_content", "arguments", "message", "delta")


def _strings(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    for name in _NAMES:
        held = get(value, name)
        if isinstance(held, str):
            yield (*path, name), held
        elif isinstance(held, Mapping):
            yield from _strings(held, (*path, name))
