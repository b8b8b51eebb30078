"""The rules that `Guardrails` are made of: limits, forbidden patterns, redaction, detectors, and the shape of an answer.

Patterns are searched for in time linear in the text, so they know no look-around and no back-references: what needs those is a
`Detector`. They are checked when they are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from seawall import _guarded
from seawall._seawall import Guardrails, Rail
from seawall._tokens import count_by
from seawall._word import shown, whole_number
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from tiktoken import Encoding
    from typing_extensions import Self

__all__ = ["Detector", "Forbidden", "Guardrails", "MaxLength", "MaxTokens", "Redact", "Rule", "Shape"]


def __dir__() -> list[str]:
    return sorted(__all__)


class Rule:
    """One rule of `Guardrails`. Not made itself: `MaxLength`, `MaxTokens`, `Forbidden`, `Redact`, `Detector` and `Shape` are.

    Attributes:
        name: what it is called in errors and stories.
    """

    name: str
    _rail: Rail
    _made: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

    def __init__(self) -> None:
        raise ConfigurationTypeError(
            "Rule is what all rules are: make one of MaxLength, MaxTokens, Forbidden, Redact, Detector or Shape"
        )

    def _is(self, called: str, rail: Rail, /, *args: Any, **kwargs: Any) -> None:
        self.name, self._rail = called, rail
        self._made = (type(self), args, _given(**kwargs))

    def _described(self) -> str:
        """In words that tell two rules apart, in any process."""
        _, args, kwargs = self._made
        return f"{type(self).__name__}{[_worded(arg) for arg in args]}{[(key, _worded(kwargs[key])) for key in sorted(kwargs)]}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, self._made

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        maker, args, kwargs = self._made
        said = [repr(arg) if not callable(arg) else getattr(arg, "__qualname__", "…") for arg in args]
        return f"{maker.__qualname__}({', '.join([*said, *(f'{key}={value!r}' for key, value in kwargs.items())])})"


def _remade(maker: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return maker(*args, **kwargs)


def _worded(value: Any) -> str:
    if callable(value):
        code = getattr(value, "__code__", None)
        line = f":{code.co_filename}:{code.co_firstlineno}" if code is not None else ""
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}{line}"
    return repr(value)


def _name(given: str | None, default: str) -> str:
    if given is None:
        return default
    if not isinstance(given, str) or not given:
        raise ConfigurationTypeError(f"name must be a text that is not empty, not {shown(given)}")
    return given


def _flag(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise ConfigurationTypeError(f"{name} must be True or False, not {shown(given)}")
    return given


def _given(**kwargs: Any) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if value is not None}


def _texts(name: str, given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        hint = "; of a compiled pattern give its text" if hasattr(given, "pattern") else ""
        raise ConfigurationTypeError(f"{name} must be a pattern or a list of patterns, as texts, not {shown(given)}{hint}")
    return list(texts)


class MaxLength(Rule):
    """So many characters at most: of all that is asked in one call together, and of each text that is answered.

    Args:
        characters: the most that pass.
        name: its name in errors (`"max_length"`).
    """

    def __init__(self, characters: int, *, name: str | None = None) -> None:
        most = whole_number("characters", characters, 1, 2**62)
        called = _name(name, "max_length")
        self._is(called, Rail.length(called, most), characters, name=name)


class MaxTokens(Rule):
    """So many tokens at most, counted as `MaxLength` counts characters.

    Args:
        tokens: the most that pass.
        count: a function of a text that counts its tokens, for each text on its own; or a tiktoken `Encoding`, or the name of one
            ("o200k_base"), which takes the extra `seawall[tiktoken]`. By default four bytes are one, which is about right for English.
        name: its name in errors (`"max_tokens"`).
    """

    def __init__(
        self, tokens: int, *, count: Callable[[str], int] | Encoding | str | None = None, name: str | None = None
    ) -> None:
        most = whole_number("tokens", tokens, 1, 2**62)
        called = _name(name, "max_tokens")
        if count is None:
            rail = Rail.tokens(called, most)
        else:
            counted = count if callable(count) else count_by(count)
            _plain_function("count", counted)
            rail = Rail.ask(called, lambda text: f"more than {most} tokens" if counted(text) > most else None)
        self._is(called, rail, tokens, count=count, name=name)


class Forbidden(Rule):
    r"""None of these patterns may be there: `Forbidden(r"(?i)ignore (all )?previous instructions", name="injection")`.

    Args:
        patterns: a pattern, or a list of them.
        name: its name in errors (`"forbidden"`).
    """

    def __init__(self, patterns: str | Iterable[str], *, name: str | None = None) -> None:
        texts = _texts("patterns", patterns)
        called = _name(name, "forbidden")
        self._is(
            called, Rail.forbid(called, [("", text, "") for text in texts]), texts if len(texts) > 1 else texts[0], name=name
        )


class Redact(Rule):
    r"""What matches is replaced: `Redact(r"\b\d{3}-\d{2}-\d{4}\b", "[ssn]")`, `Redact.secrets()`, `Redact.personal()`.

    Args:
        patterns: a pattern, or a list of them.
        replacement: what takes its place, as it is.
        restore: put it back into the answer. It is asked under a placeholder that is numbered in its call, `[SSN_1]`, equal values
            under equal ones; what comes back with that says the value again to the caller, and to nobody else. Of the input only.
        name: its name in stories (`"redact"`).
    """

    def __init__(
        self, patterns: str | Iterable[str], replacement: str = "[redacted]", *, restore: bool = False, name: str | None = None
    ) -> None:
        texts = _texts("patterns", patterns)
        if not isinstance(replacement, str):
            raise ConfigurationTypeError(f"replacement must be a text, not {shown(replacement)}")
        called = _name(name, "redact")
        rail = Rail.redact(called, [("", text, replacement) for text in texts], _flag("restore", restore))
        kept = {"restore": restore or None, "name": name}
        self._is(called, rail, texts if len(texts) > 1 else texts[0], replacement, **kept)

    @classmethod
    def secrets(cls, *, restore: bool = False, name: str | None = None) -> Redact:
        """API keys, tokens, private keys and passwords in URLs, by the formats that their issuers have published; each is replaced by
        what it is, as `[openai-key]`. `restore`: as of `Redact`."""
        rule = object.__new__(cls)
        called = _name(name, "secrets")
        rule._is(called, Rail.secrets(called, _flag("restore", restore)))
        rule._made = (Redact.secrets, (), _given(restore=restore or None, name=name))
        return rule

    @classmethod
    def personal(cls, *, restore: bool = False, name: str | None = None) -> Redact:
        """Mail addresses, telephone and US social security numbers, and the numbers of cards and accounts (IBAN) whose check digits
        are right; each is replaced by what it is, as `[email]`. `restore`: as of `Redact`, as `[EMAIL_1]`."""
        rule = object.__new__(cls)
        called = _name(name, "personal")
        rule._is(called, Rail.personal(called, _flag("restore", restore)))
        rule._made = (Redact.personal, (), _given(restore=restore or None, name=name))
        return rule

    def _described(self) -> str:
        return f"{self._made[0].__qualname__}{super()._described()}"


def _plain_function(name: str, given: Any) -> None:
    if not callable(given):
        raise ConfigurationTypeError(f"{name} must be a function of the text, not {shown(given)}")
    if _guarded.kind(given) == "coroutine":
        raise ConfigurationTypeError(
            f"{name} must be a plain function, not an async one: it is called on whatever thread has the text"
        )


class Detector(Rule):
    """A function of yours that looks at a text: what it finds is replaced, or refused.

    It gives `None` or `False` for nothing, `True` for a text that is refused as a whole, or what it has found: (start, end, label)
    each, or objects with `start`, `end` and `entity_type` (as Presidio's), in characters. Of a stream it sees the whole, so nothing
    is handed out before the end.

    Args:
        detect: the function. It is called on whatever thread has the text, and at the same time for several.
        action: `"redact"` replaces what is found by its label, as `[label]`; `"refuse"` refuses the text.
        on_error: what follows when it raises: `"refuse"`, or `"pass"`: the text goes on unseen.
        name: its name in errors; default: the function's.
    """

    def __init__(
        self,
        detect: Callable[[str], Any],
        *,
        action: Literal["redact", "refuse"] = "redact",
        on_error: Literal["refuse", "pass"] = "refuse",
        name: str | None = None,
    ) -> None:
        _plain_function("detect", detect)
        for argument, given, words in (("action", action, ("redact", "refuse")), ("on_error", on_error, ("refuse", "pass"))):
            if given not in words:
                raise ConfigurationError(f"{argument} must be {' or '.join(map(repr, words))}, not {shown(given)}")
        called = _name(name, getattr(detect, "__name__", type(detect).__name__))
        self._detect, self._refuses, self._passes = detect, action == "refuse", on_error == "pass"
        kept = {"action": action if self._refuses else None, "on_error": on_error if self._passes else None, "name": name}
        self._is(called, Rail.ask(called, self._look), detect, **kept)

    def _look(self, text: str) -> str | list[tuple[int, int, str]] | None:
        try:
            given = self._detect(text)
            found = given if given is None or isinstance(given, bool) else list(given)
        except Exception as error:
            return None if self._passes else f"the detector raised {type(error).__name__}"
        if not found:
            return None
        if found is True:
            return "the detector says no"
        spans = sorted((self._span(item, len(text)) for item in found), key=lambda span: span[:2])
        if self._refuses:
            return f"the detector found {', '.join(sorted({label for _, _, label in spans}))}"
        kept: list[tuple[int, int, str]] = []
        for start, end, label in spans:
            if kept and start < kept[-1][1]:  # over one another: both go
                kept[-1] = (kept[-1][0], max(end, kept[-1][1]), kept[-1][2])
            elif end > start:
                kept.append((start, end, f"[{label}]"))
        return kept

    def _span(self, item: Any, length: int) -> tuple[int, int, str]:
        is_tuple = isinstance(item, (tuple, list)) and len(item) == 3
        start, end, label = item if is_tuple else (getattr(item, part, None) for part in ("start", "end", "entity_type"))
        if not (type(start) is int and type(end) is int and isinstance(label, str)):
            raise ConfigurationTypeError(
                f"the detector {self.name!r} must give (start, end, label) for what it finds, or True, False or None; it gave an "
                f"item of type {type(item).__name__}"
            )
        if not 0 <= start <= end <= length:
            raise ConfigurationError(
                f"the detector {self.name!r} gave the place {start} to {end} in a text of {length} characters"
            )
        return start, end, label


class Shape(Rule):
    """The answer has to be JSON of this shape; it is what `reply.parsed()` then gives.

    Args:
        shape: a pydantic model, a `pydantic.TypeAdapter`, or a JSON schema as a dict (that needs `seawall[schema]`).
        repair: mend what models do to JSON (fences, prose around it, comments, trailing commas, single quotes, brackets that are
            missing at the end) where there is no doubt what was meant. The reply says so (`reply.guardrails`).
        reask: how often the model is told what is wrong and asked again, as further attempts of the retries around it. Of a
            stream never.
        name: its name in errors (`"shape"`).
    """

    def __init__(self, shape: Any, *, repair: bool = False, reask: int = 0, name: str | None = None) -> None:
        _flag("repair", repair)
        times = whole_number("reask", reask, 0, 1000)
        self._fits = _fits(shape)
        called = _name(name, "shape")
        kept = {"repair": repair or None, "reask": reask or None, "name": name}
        self._is(called, Rail.shape(called, self._fit, repair, times), shape, **kept)

    def _fit(self, text: str) -> tuple[Any, tuple[str, str] | None]:
        parsed, why, wrong = self._fits(text)
        if why is None:
            return parsed, None
        listed = "\n".join(f"- {line}" for line in wrong[:20])
        told = f"Your answer does not do:\n{listed}\nAnswer again with the whole JSON, corrected, and with nothing else."
        return None, (why, told)


_Fitted = tuple[Any, "str | None", list[str]]


def _fits(shape: Any) -> Callable[[str], _Fitted]:
    """What reads a text: the value, or why it is none, in words without a word of it, and what its maker is told."""
    if isinstance(shape, Mapping):
        return _schema(dict(shape))
    for method in ("model_validate_json", "validate_json"):
        validate = getattr(shape, method, None)
        if callable(validate):
            return lambda text, validate=validate: _pydantic(validate, text)  # type: ignore[misc]
    raise ConfigurationTypeError(
        f"shape must be a pydantic model, a pydantic.TypeAdapter or a JSON schema (a dict), not {shown(shape)}"
    )


def _pydantic(validate: Callable[[str], Any], text: str) -> _Fitted:
    try:
        return validate(text), None, []
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if not callable(errors):
            raise
        found = errors(include_url=False, include_input=False, include_context=False)
    kinds: list[str] = []
    for item in found:
        # Of what is missing the last name is the model's own; other places may be words of the answer.
        kind = f"{item['type']}: {item['loc'][-1]}" if item["type"] == "missing" and item["loc"] else str(item["type"])
        if kind not in kinds:
            kinds.append(kind)
    told = [f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in found]
    return None, f"it does not fit ({', '.join(kinds[:10])})", told


def _schema(schema: dict[str, Any]) -> Callable[[str], _Fitted]:
    try:
        import jsonschema  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigurationError("a JSON schema as a shape needs the package jsonschema: pip install 'seawall[schema]'") from None
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigurationError(f"shape is no JSON schema: {error.message} (at {error.json_path})") from None
    validator = kind(schema)

    def fits(text: str) -> _Fitted:
        try:
            value = json.loads(text, parse_constant=_no_json)
        except RecursionError:
            return None, "it is nested too deeply", ["the whole: nested too deeply"]
        except ValueError as error:
            return None, "it is no JSON", [f"the whole: {error}"]
        found = list(validator.iter_errors(value))
        if not found:
            return value, None, []
        words = sorted({str(error.validator) for error in found})
        return None, f"it does not fit ({', '.join(words)})", [f"{error.json_path}: {error.message[:500]}" for error in found]

    return fits


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
