"""Guardrails around functions: which of their arguments and results are texts, and how those are replaced."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

from seawall import _screen, _sdk_rails
from seawall._seawall import Guardrails
from seawall._texts import Texts, is_prompt, main
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

# What goes back into an answer, as (placeholder, value).
Held = list[tuple[str, str]]


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


def packed(read: Any) -> bytes | None:
    """What a shape has read, for a reply that is pickled; `None` where it cannot go along, as what was made in a function."""
    try:
        return pickle.dumps(read)
    except Exception:  # whatever its class raises
        return None


def unpacked(read: bytes) -> Any:
    """It again."""
    return pickle.loads(read)


def _checked(rails: Guardrails, direction: str, value: Any, place: str) -> tuple[Any, int, bool, Held]:
    """The value as the rules leave it, how much was cut out of it, whether there was any text, and what goes back into the answer."""
    texts = Texts()
    make = texts.read(value, place)
    if not texts.found:
        return value, 0, texts.is_text, []
    if direction == "input":
        clean, redacted, held = rails._check(direction, texts.found)
    else:
        clean, redacted, held = [], [], []
        for pair in texts.found:
            looked, cut, _ = rails._check(direction, [pair])
            clean += looked
            redacted += cut
    times = sum(count for _, count in redacted)
    return (make(iter(clean)) if times else value), times, True, held


def check_input(rails: Guardrails, input: Any) -> Any:
    value, _, found, _ = _checked(rails, "input", input, "input" if isinstance(input, str) else "messages")
    if not found:
        raise ConfigurationTypeError(f"input must be a text, a message or a list of messages, not {shown(input)}")
    return value


def check_output(rails: Guardrails, output: Any) -> Any:
    value, _, _, refused = of_whole(rails, output, 0, must_say=True)
    if refused is not None:
        raise refused[0]
    return value


# --- in a pipeline


def asked(rails: Guardrails, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> tuple[Any, int, Held]:
    """The arguments with what the rules leave of their text, or `None` where nothing changes; how much was cut out, and what of that
    goes back into the answer."""
    if args and _sdk_rails.is_request(args[0]):
        request, times, held = _sdk_rails.asked(rails, args[0])
        return (((request, *args[1:]), kwargs) if times else None), times, held
    where = _where(rails, function, args, kwargs or {})
    value = args[where] if isinstance(where, int) else (kwargs or {})[where]
    clean, times, found, held = _checked(rails, "input", value, str(where) if isinstance(where, str) else f"argument {where}")
    if not found:
        raise ConfigurationTypeError(
            f"guardrails find no text in the argument {where!r}: name one that is a text or messages (of=…)"
        )
    return (_put(args, kwargs, where, clean) if times else None), times, held


def _put(args: tuple[Any, ...], kwargs: dict[str, Any] | None, where: int | str, value: Any) -> tuple[Any, Any]:
    if isinstance(where, int):
        return (*args[:where], value, *args[where + 1 :]), kwargs
    return args, {**(kwargs or {}), where: value}


def _looks_like_text(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_message(item) for item in value)
    return _is_message(value) or is_prompt(value)


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


def answered(
    rails: Guardrails, value: Any, times: int, args: tuple[Any, ...] = (), held: Held | None = None
) -> tuple[Any, int, int, tuple[Any, Any] | None]:
    """What a function gave as the rules leave it, how much was cut out and mended, and the refusal where its shape is wrong, with
    what was said and what its maker is told if it may be asked again."""
    if args and _sdk_rails.is_request(args[0]):
        return _sdk_rails.answered(rails, args[0], value, times, held)
    if hasattr(type(value), "_seawall_passed"):
        return value, 0, 0, None
    if hasattr(value, "__next__"):
        return _screen.stream(rails, value), 0, 0, None
    if hasattr(value, "__anext__"):
        return _screen.astream(rails, value), 0, 0, None
    return of_whole(rails, value, times, held, must_say=True)


def of_whole(
    rails: Guardrails, value: Any, times: int, held: Held | None = None, *, must_say: bool
) -> tuple[Any, int, int, tuple[Any, Any] | None]:
    """The same of an answer that is there. `must_say`: whether one without any text is a mistake."""
    clean, redacted, found, _ = _checked(rails, "output", value, "" if not isinstance(value, str) else "content")
    if not found:
        if not must_say or _is_empty(value):
            return value, 0, 0, None
        raise ConfigurationTypeError(
            f"guardrails find no text in what the function gave ({shown(value)}): it has to be a text, a message, a chat completion, or "
            "an iterator of their pieces"
        )
    if not any(type(rule).__name__ == "Shape" for rule in rails.output):
        return clean, redacted, 0, None
    text, put = main(clean)
    if text is None:
        return clean, redacted, 0, None
    mended, _, repaired, refused = rails._fit("content", text, times, held or [])
    if refused is not None:
        error, told = refused
        return clean, 0, 0, (error, None if told is None else (text, told))
    return (clean if mended is None else put(mended)), redacted, repaired, None


def restored(held: Held, value: Any, args: tuple[Any, ...]) -> Any:
    """An answer with what was taken out of its question put back."""
    rails = Guardrails._restoring(held)
    if hasattr(type(value), "_seawall_restored"):
        return value._seawall_restored(rails)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if hasattr(value, "__next__") or hasattr(value, "__anext__") or (args and _sdk_rails.is_request(args[0])):
        return answered(rails, value, 0, args)[0]
    return of_whole(rails, value, 0, must_say=False)[0]


def _is_empty(value: Any) -> bool:
    """Whether it is an answer that happens to hold no text: a call of a tool, say."""
    return hasattr(value, "content") or hasattr(value, "choices") or (isinstance(value, Mapping) and "choices" in value)


def asked_again(
    rails: Guardrails, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None, said: str, told: str
) -> tuple[Any, Any]:
    """The arguments of a call that is told what it gave, and why that does not do."""
    if args and _sdk_rails.is_request(args[0]):
        return (_sdk_rails.asked_again(args[0], said, told), *args[1:]), kwargs
    where = _where(rails, function, args, kwargs or {})
    value = args[where] if isinstance(where, int) else (kwargs or {})[where]
    if is_prompt(value):
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
    restore: bool = False,
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

    def rules(length: int | None, tokens: int | None, forbidden: list[str] | None, restore: bool = False) -> list[Rule]:
        found: list[Rule] = []
        found += [] if length is None else [MaxLength(length)]
        found += [] if tokens is None else [MaxTokens(tokens, count=count)]
        found += [Redact.secrets(restore=restore)] if redact_secrets else []
        found += [Redact.personal(restore=restore)] if redact_personal else []
        found += [] if redact is None else [Redact(redact, restore=restore)]
        return found + ([] if forbidden is None else [Forbidden(forbidden)])

    if count is not None and max_input_tokens is None and max_output_tokens is None:
        raise ConfigurationError("count is about max_input_tokens and max_output_tokens, and there is neither")
    if restore and not (redact_secrets or redact_personal or redact):
        raise ConfigurationError("restore is about what is cut out, and nothing is")
    output = rules(max_output_length, max_output_tokens, forbidden_output)
    if schema is not None:
        output.append(Shape(_schema_in(schema), repair=repair, reask=reask))
    elif repair or reask:
        raise ConfigurationError("repair and reask are about a schema, and there is none")
    asked = rules(max_input_length, max_input_tokens, forbidden_input, restore)
    return Guardrails(input=asked, output=output, of=of, max_held=max_held)


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
