"""Guardrails around functions: which of their arguments and results are texts, and how those are replaced."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from seawall._guarded import is_decorated
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from seawall._seawall import Filter, Guardrails

# A text, where it stands, and what gives the whole with another text there.
_Put = Callable[[Any, str], Any]


class Applied(NamedTuple):
    """Something that guardrails did.

    Attributes:
        what: `redacted` or `repaired`.
        direction: `input` or `output`.
        rule: the rule's name.
        times: how often.
    """

    what: str
    direction: str
    rule: str
    times: int


def remade(kind: type[Guardrails], input: Any, output: Any, of: str | None, max_held: int) -> Guardrails:
    return kind(input=input, output=output, of=of, max_held=max_held)


class _Texts:
    """The texts in a value, and the value with others in their places. The value itself is never changed."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.is_text = False

    def read(self, value: Any, place: str) -> Callable[[Iterator[str]], Any]:
        """Notes the texts in `value`; gives what makes it anew of other texts, in the same order."""
        if isinstance(value, str):
            self.is_text = True
            self.found.append((place, value))
            return next
        if isinstance(value, Mapping):
            return self._mapping(value, place)
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return self._list(value, place)
        if hasattr(value, "model_copy"):  # pydantic's: LangChain's messages, the SDK's answers
            return self._object(value, place)
        if callable(getattr(value, "to_messages", None)):  # a prompt of LangChain's
            messages = value.to_messages()
            return self.read(messages, place)
        return lambda texts: value

    def _mapping(self, value: Mapping[str, Any], place: str) -> Callable[[Iterator[str]], Any]:
        parts = {key: self.read(value[key], f"{place}.{key}" if place else key) for key in _TEXTS if _is_read(value.get(key))}
        return lambda texts: {**value, **{key: make(texts) for key, make in parts.items()}} if parts else value

    def _list(self, value: Any, place: str) -> Callable[[Iterator[str]], Any]:
        if type(value) is tuple and len(value) == 2 and all(isinstance(part, str) for part in value):
            make = self.read(value[1], place)  # a message as (role, content)
            return lambda texts: (value[0], make(texts))
        makers = [self.read(item, f"{place}[{at}]") for at, item in enumerate(value)]
        return lambda texts: type(value)(make(texts) for make in makers)

    def _object(self, value: Any, place: str) -> Callable[[Iterator[str]], Any]:
        parts: dict[str, Any] = {}
        for name in _TEXTS:
            held = getattr(value, name, None)
            if _is_read(held):
                parts[name] = self.read(held, f"{place}.{name}" if place else name)
        if not parts:
            if callable(getattr(value, "to_messages", None)):
                return self.read(value.to_messages(), place)
            return lambda texts: value
        return lambda texts: value.model_copy(update={name: make(texts) for name, make in parts.items()})


# Where texts stand in messages, in their parts and in answers.
_TEXTS = (
    "content",
    "text",
    "refusal",
    "reasoning_content",
    "reasoning",
    "arguments",
    "function",
    "tool_calls",
    "message",
    "choices",
)


def _is_read(value: Any) -> bool:
    return isinstance(value, (str, Mapping, list, tuple)) or hasattr(value, "model_copy")


def _checked(rails: Guardrails, direction: str, value: Any, place: str) -> tuple[Any, int, bool]:
    """The value as the rules leave it, how much was cut out of it, and whether there was any text."""
    texts = _Texts()
    make = texts.read(value, place)
    if not texts.found:
        return value, 0, texts.is_text
    if direction == "input":
        clean, redacted = rails._check(direction, texts.found)
    else:
        clean, redacted = [], []
        for pair in texts.found:
            looked, cut = rails._check(direction, [pair])
            clean += looked
            redacted += cut
    times = sum(count for _, count in redacted)
    return (make(iter(clean)) if times else value), times, True


def check_input(rails: Guardrails, input: Any) -> Any:
    value, _, found = _checked(rails, "input", input, "input" if isinstance(input, str) else "messages")
    if not found:
        raise ConfigurationTypeError(f"input must be a text, a message or a list of messages, not {shown(input)}")
    return value


def check_output(rails: Guardrails, output: Any) -> Any:
    value, _, _, refused = answered(rails, output, 0)
    if refused is not None:
        raise refused[0]
    return value


# --- in a pipeline


def asked(rails: Guardrails, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> tuple[Any, int]:
    """The arguments with what the rules leave of their text, or `None` where nothing changes."""
    where = _where(rails, function, args, kwargs or {})
    value = args[where] if isinstance(where, int) else (kwargs or {})[where]
    clean, times, found = _checked(rails, "input", value, str(where) if isinstance(where, str) else f"argument {where}")
    if not found:
        raise ConfigurationTypeError(
            f"guardrails find no text in the argument {where!r}: name one that is a text or messages (of=…)"
        )
    return (_put(args, kwargs, where, clean) if times else None), times


def _put(args: tuple[Any, ...], kwargs: dict[str, Any] | None, where: int | str, value: Any) -> tuple[Any, Any]:
    if isinstance(where, int):
        return (*args[:where], value, *args[where + 1 :]), kwargs
    return args, {**(kwargs or {}), where: value}


def _looks_like_text(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_message(item) for item in value)
    return _is_message(value) or callable(getattr(value, "to_messages", None))


def _is_message(item: Any) -> bool:
    if isinstance(item, tuple):
        return len(item) == 2 and all(isinstance(part, str) for part in item)
    if isinstance(item, Mapping):
        return "role" in item and "content" in item
    return hasattr(item, "content") and hasattr(item, "model_copy")


def _where(rails: Guardrails, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    """Which argument is looked at: by its position, or by its name."""
    if rails.of is not None:
        if rails.of in kwargs:
            return rails.of
        names = _parameters(function)
        if rails.of in names and names.index(rails.of) < len(args):
            return names.index(rails.of)
        raise ConfigurationError(f"guardrails look at the argument {rails.of!r} (of=), which the call has not")
    if "messages" in kwargs:
        return "messages"
    for at, value in enumerate(args):
        if _looks_like_text(value):
            return at
    for name, value in kwargs.items():
        if _looks_like_text(value):
            return name
    raise ConfigurationTypeError(
        "guardrails find no text in the call's arguments: they look at `messages`, or at the first text or list of messages; name "
        "another one with Guardrails(of=…)"
    )


@functools.lru_cache(maxsize=256)
def _parameters_of(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _parameters(function: Any) -> tuple[str, ...]:
    try:
        return _parameters_of(function)
    except TypeError:  # not hashable
        return tuple(inspect.signature(function).parameters)


def answered(rails: Guardrails, value: Any, times: int) -> tuple[Any, int, int, tuple[Any, Any] | None]:
    """What a function gave as the rules leave it, how much was cut out and mended, and the refusal where its shape is wrong, with
    what was said and what its maker is told if it may be asked again."""
    clean, redacted, found = _checked(rails, "output", value, "" if not isinstance(value, str) else "content")
    if not found:
        if _is_empty(value):
            return value, 0, 0, None
        raise ConfigurationTypeError(
            f"guardrails find no text in what the function gave ({shown(value)}): it has to be a text, a message or a chat completion"
        )
    if not any(type(rule).__name__ == "Shape" for rule in rails.output):
        return clean, redacted, 0, None
    text, put = _main(clean)
    if text is None:
        return clean, redacted, 0, None
    mended, _, repaired, refused = rails._fit("content", text, times)
    if refused is not None:
        error, told = refused
        return clean, 0, 0, (error, None if told is None else (text, told))
    return (clean if mended is None else put(mended)), redacted, repaired, None


def _is_empty(value: Any) -> bool:
    """Whether it is an answer that happens to hold no text: a call of a tool, say."""
    return hasattr(value, "content") or hasattr(value, "choices") or (isinstance(value, Mapping) and "choices" in value)


def _main(value: Any) -> tuple[str | None, Callable[[str], Any]]:
    """The text of an answer that its shape is about, and what gives the answer with another one."""
    if isinstance(value, str):
        return value, lambda text: text
    holder = value
    for step in ("choices", 0, "message"):
        inner = _get(holder, step)
        if inner is None:
            break
        holder = inner
    content = _get(holder, "content")
    if not isinstance(content, str) or not content:
        return None, lambda text: value

    def put(text: str) -> Any:
        if holder is value and hasattr(value, "model_copy"):
            return value.model_copy(update={"content": text})
        anew = copy.deepcopy(value)
        inside = anew
        for step in ("choices", 0, "message"):
            deeper = _get(inside, step)
            if deeper is None:
                break
            inside = deeper
        if isinstance(inside, dict):
            inside["content"] = text
        else:
            inside.content = text
        return anew

    return content, put


def _get(holder: Any, step: Any) -> Any:
    if isinstance(step, int):
        return holder[step] if isinstance(holder, (list, tuple)) and len(holder) > step else None
    return holder.get(step) if isinstance(holder, Mapping) else getattr(holder, step, None)


def asked_again(
    rails: Guardrails, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None, said: str, told: str
) -> tuple[Any, Any]:
    """The arguments of a call that is told what it gave, and why that does not do."""
    where = _where(rails, function, args, kwargs or {})
    value = args[where] if isinstance(where, int) else (kwargs or {})[where]
    if callable(getattr(value, "to_messages", None)):
        value = value.to_messages()
    if isinstance(value, str):
        more: Any = f"{value}\n\nYou have answered:\n{said}\n\n{told}"
    else:
        messages = list(value) if isinstance(value, (list, tuple)) and not _is_message(value) else [value]
        is_plain = isinstance(messages[-1], Mapping)
        turns = (("assistant", said), ("user", told))
        more = [*messages, *({"role": role, "content": text} if is_plain else (role, text) for role, text in turns)]
    return _put(args, kwargs, where, more)


# --- in a file


def configured(
    *,
    max_input_length: int | None = None,
    max_input_tokens: int | None = None,
    max_output_length: int | None = None,
    max_output_tokens: int | None = None,
    count: str | None = None,
    redact_secrets: bool = False,
    redact_personal: bool = False,
    redact: list[str] | None = None,
    forbidden_input: list[str] | None = None,
    forbidden_output: list[str] | None = None,
    schema: str | None = None,
    repair: bool = False,
    reask: int = 0,
    of: str | None = None,
    max_held: int | None = None,
) -> Guardrails:
    """`Guardrails` as a file describes them: lengths first, then what is cut out, then what is forbidden, then the shape."""
    from seawall.guardrails import Forbidden, Guardrails, MaxLength, MaxTokens, Redact, Rule, Shape

    def rules(length: int | None, tokens: int | None, forbidden: list[str] | None) -> list[Rule]:
        found: list[Rule] = []
        found += [] if length is None else [MaxLength(length)]
        found += [] if tokens is None else [MaxTokens(tokens, count=count)]
        found += [Redact.secrets()] if redact_secrets else []
        found += [Redact.personal()] if redact_personal else []
        found += [] if redact is None else [Redact(redact)]
        return found + ([] if forbidden is None else [Forbidden(forbidden)])

    if count is not None and max_input_tokens is None and max_output_tokens is None:
        raise ConfigurationError("count is about max_input_tokens and max_output_tokens, and there is neither")
    output = rules(max_output_length, max_output_tokens, forbidden_output)
    if schema is not None:
        output.append(Shape(_schema_in(schema), repair=repair, reask=reask))
    elif repair or reask:
        raise ConfigurationError("repair and reask are about a schema, and there is none")
    return Guardrails(input=rules(max_input_length, max_input_tokens, forbidden_input), output=output, of=of, max_held=max_held)


def _schema_in(path: str) -> dict[str, Any]:
    import json
    from pathlib import Path

    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"schema {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"schema {path!r} is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"schema {path!r} holds no JSON object")
    return schema


# --- texts that come in pieces


def _shape(rails: Guardrails, said: list[str]) -> None:
    if any(type(rule).__name__ == "Shape" for rule in rails.output):
        *_, refused = rails._fit("content", "".join(said), 2**32 - 1)
        if refused is not None:
            raise refused[0]


def _last(rails: Guardrails, filter: Filter, said: list[str]) -> str:
    """What was held back, once the whole has its shape."""
    text = filter.end()
    _shape(rails, [*said, text])
    return text


def _piece(piece: Any) -> str:
    if not isinstance(piece, str):
        raise ConfigurationTypeError(f"guardrails.stream takes texts, not {shown(piece)}")
    return piece


def stream(rails: Guardrails, pieces: Iterable[str]) -> Iterator[str]:
    if isinstance(pieces, str) or is_decorated(pieces):
        raise ConfigurationTypeError(f"guardrails.stream takes the texts of an iterator, not {shown(pieces)}")
    return _stream(rails, pieces)


def _stream(rails: Guardrails, pieces: Iterable[str]) -> Iterator[str]:
    filter, said = rails._filter(), []
    for piece in pieces:
        text = filter.push(_piece(piece))
        if text:
            said.append(text)
            yield text
    if text := _last(rails, filter, said):
        yield text


async def astream(rails: Guardrails, pieces: AsyncIterable[str]) -> AsyncIterator[str]:
    filter, said = rails._filter(), []
    async for piece in pieces:
        text = filter.push(_piece(piece))
        if text:
            said.append(text)
            yield text
    if text := _last(rails, filter, said):
        yield text
