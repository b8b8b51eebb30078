"""What an option of a file may be: how it is read, and how errors and the page say it. Each reader gives the value, or `BROKEN` where
it told of a problem."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from seawall import errors
from seawall._keys import is_credential
from seawall.configuration._document import Node, is_read, plain, quoted, shown

if TYPE_CHECKING:
    from seawall.configuration._build import Builder

BROKEN: Any = type("Broken", (), {"__repr__": lambda _: "broken"})()
# What is not here, where a file is only checked; and a text in its place.
MISSING: Any = type("Missing", (), {"__repr__": lambda _: "missing"})()
STAND_IN = "stand-in"
# A file with a key in it holds the key, and little else.
_MOST_OF_A_KEY = 64 * 1024


class Kind(NamedTuple):
    """What an option takes. With `merges`, an entry that a table does not have is taken from `[defaults]`, or from the preset."""

    takes: str
    read: Callable[[Node, Builder], Any]
    merges: bool = False


class Option(NamedTuple):
    """One option of a table: its name is that of the constructor's argument."""

    name: str
    kind: Kind | None
    """What it takes; `None` for what only a program can say."""
    default: str
    meaning: str
    is_needed: bool = False
    stand_in: Any = None
    """What is given in place of one that is wrong, so that the others are looked at all the same."""


def must(node: Node, b: Builder, takes: str, hint: str = "") -> Any:
    """Tells that the value is of another kind."""
    if node.value is not None:
        b.report.wrong(node, f"{node.path} must be {takes}, not {shown(node)}", hint)
    return BROKEN


def typed(takes: str, *types: type) -> Kind:
    """A value of one of these types; its bounds are the constructor's."""

    def read(node: Node, b: Builder) -> Any:
        fits = isinstance(node.value, types) and (bool in types or not isinstance(node.value, bool))
        return node.value if fits else must(node, b, takes, _unquoted(node, types))

    return Kind(takes, read)


def _unquoted(node: Node, types: tuple[type, ...]) -> str:
    if isinstance(node.value, str) and str not in types:
        if bool in types and node.value.lower() in ("true", "false"):
            return f"write {node.value.lower()} without quotes"
        if not {int, float}.isdisjoint(types) and re.fullmatch(r"-?\d+(\.\d+)?", node.value):
            return f"write {node.value} without quotes"
    if str in types and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return f'write "{node.value}"'
    return ""


# Spans of time.

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SPAN = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit}(?![a-z]))?" for unit in _UNITS).replace("(?![a-z])", ""))
_LOOSE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*(?:,|and)?", re.IGNORECASE)
_WORDS = {
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_TAKES_SECONDS = 'seconds, or a text like "20s", "1m30s" or "250ms"'


def span(text: str) -> float | None:
    """The seconds of a text like `1m30s`; `None` if it is none."""
    found = _SPAN.fullmatch(text)
    if not text or len(text) > 40 or found is None:
        return None
    return sum(
        float(number) / 1000 if unit == "ms" else float(number) * _UNITS[unit]
        for unit, number in zip(_UNITS, found.groups(), strict=True)
        if number
    )


def _meant_span(text: str) -> str:
    """What a text that is nearly a span may mean."""
    parts, rest = [], text.strip().lower()[:40]
    while rest:
        found = _LOOSE.match(rest)
        unit = _WORDS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            return ""
        parts.append(found[1] + unit)
        rest = rest[found.end() :].strip()
    joined = "".join(parts)
    return f'is "{joined}" meant?' if span(joined) is not None else ""


def _seconds(node: Node, b: Builder, takes: str = _TAKES_SECONDS) -> Any:
    if isinstance(node.value, str):
        found = span(node.value)
        return must(node, b, takes, _meant_span(node.value)) if found is None else found
    if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    return must(node, b, takes)


def _or_false(node: Node, b: Builder) -> Any:
    return None if node.value is False else _seconds(node, b, f"{_TAKES_SECONDS}, or false for none")


def _window(node: Node, b: Builder) -> Any:
    if isinstance(node.value, (str, float)):
        found = _seconds(node, b, 'a number of calls, or a time like "60s"')
        return found if found is BROKEN else float(found)
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    return must(node, b, 'a number of calls, or a time like "60s"')


# Texts, and those that come from elsewhere.


def source(node: Node, b: Builder) -> Any:
    """What `{ env = "NAME" }` or `{ file = "path" }` names; `None` where it is no such table."""
    if not isinstance(node.value, dict):
        return None
    names = list(node.value)
    if len(names) != 1 or names[0] not in ("env", "file"):
        hint = next((hint for name in names if (hint := b.report.meant(name, ("env", "file")))), "")
        b.report.wrong(node, f'{node.path} must be {{ env = "NAME" }} or {{ file = "path" }}, with nothing else in it', hint)
        return BROKEN
    (inner,) = node.value.values()
    if not isinstance(inner.value, str) or not inner.value or "\0" in inner.value:
        return must(inner, b, "the name of an environment variable" if names[0] == "env" else "the path of a file")
    return _from_environment(inner, b) if names[0] == "env" else _from_file(inner, b)


def _from_environment(node: Node, b: Builder) -> Any:
    name = node.value
    value = b.environ.get(name)
    if value:
        return value
    state = "is not set" if value is None else "is empty"
    near = b.report.meant(name, [each for each in b.environ if each.isupper()])
    if b.is_rehearsal:
        b.warn(node, f"{node.path}: the environment variable {name} {state} here", near)
        return MISSING
    b.report.wrong(node, f"{node.path}: the environment variable {name} {state}", near or f"set {name} where this runs")
    return BROKEN


def _from_file(node: Node, b: Builder) -> Any:
    path = b.path(node.value)
    try:
        if path.exists() and not path.is_file():
            problem = f"{path} is no file"
        else:
            with path.open("rb") as file:
                text = file.read(_MOST_OF_A_KEY + 1).decode().strip()
            if text and len(text) <= _MOST_OF_A_KEY:
                return text
            problem = f"{path} is empty" if not text else f"{path} is longer than {_MOST_OF_A_KEY // 1024} KB, which no key is"
    except (OSError, ValueError) as error:
        problem = f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}"
    if b.is_rehearsal:
        b.warn(node, f"{node.path}: {problem}")
        return MISSING
    b.report.wrong(node, f"{node.path}: {problem}")
    return BROKEN


def _text(node: Node, b: Builder, takes: str = 'a text, or { env = "NAME" } or { file = "path" }') -> Any:
    if isinstance(node.value, str):
        return node.value
    found = source(node, b)
    return must(node, b, takes) if found is None else found


def _secret(node: Node, b: Builder) -> Any:
    if isinstance(node.value, str):
        b.warn(
            node,
            f"{node.path} is a secret that stands in the file",
            'write { env = "NAME" } or { file = "path" }, and make a new one if others have read this',
        )
    return _text(node, b, '{ env = "NAME" } or { file = "path" }')


def _texts(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, dict):
        return must(node, b, "a table of texts")
    read = {name: (_secret if is_credential(name) else _text)(each, b) for name, each in node.value.items()}
    if BROKEN in read.values():
        return BROKEN
    return {name: STAND_IN if each is MISSING else each for name, each in read.items()}


def _urls(node: Node, b: Builder) -> Any:
    each = node.value if isinstance(node.value, list) else [node]
    read = [_secret(one, b) for one in each]
    return BROKEN if BROKEN in read else ["json://localhost" if one is MISSING else one for one in read]


def _path(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, str) or not node.value or "\0" in node.value:
        return must(node, b, "the path of a file")
    path = b.path(node.value)
    if path.exists() and not path.is_file():
        b.report.wrong(node, f"{node.path}: {path} is no file")
        return BROKEN
    return path


def _paths(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, list):
        return _path(node, b)
    if len(node.value) != 2:
        return must(node, b, "the path of a file, or two paths [certificate, key]")
    read = tuple(_path(each, b) for each in node.value)
    return BROKEN if BROKEN in read else read


def _proxy(node: Node, b: Builder) -> Any:
    return False if node.value is False else _text(node, b, "the address of a proxy, or false for none")


def _anything(node: Node, b: Builder) -> Any:
    return plain(node) if is_read(node) else BROKEN


def _table_of_anything(node: Node, b: Builder) -> Any:
    return _anything(node, b) if isinstance(node.value, dict) else must(node, b, "a table")


# Classes of exceptions, by name and from nowhere else: a file imports nothing.

_ERRORS: dict[str, type[Exception]] = {
    **{
        name: kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    },
    **{row.error.__name__: row.error for row in errors.TABLE},
    "Timeout": errors.Timeout,
}
_ERROR_TAKES = "the name of a class of seawall.errors or of a builtin exception"


def _error(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, str):
        return must(node, b, _ERROR_TAKES)
    name = node.value.removeprefix("seawall.errors.").removeprefix("builtins.")
    found = _ERRORS.get(name)
    if found is not None:
        return found
    hint = '"transient" stands by itself, in no list' if name == "transient" else b.report.meant(name, _ERRORS)
    package, _, last = name.rpartition(".")
    if package:
        hint = (
            f'"{last}" is seawall\'s class of this name'
            if last in _ERRORS
            else "classes of other packages are for programs: a file imports nothing"
        )
    return must(node, b, _ERROR_TAKES, hint)


def _errors(node: Node, b: Builder) -> Any:
    from seawall._classify import transient

    if node.value == "transient":
        return transient
    each = node.value if isinstance(node.value, list) else [node]
    if not each:
        return must(node, b, "at least one class")
    if len(each) == 1 and isinstance(node.value, str):
        near = b.report.meant(node.value, ("transient",))
        if near:
            return must(node, b, f'"transient", or {_ERROR_TAKES}', near)
    read = [_error(one, b) for one in each]
    return BROKEN if BROKEN in read else tuple(read)


# Waits.


def _wait(node: Node, b: Builder) -> Any:
    import seawall
    from seawall.configuration._tables import WAITS

    if isinstance(node.value, (str, int, float)) and not isinstance(node.value, bool):
        found = _seconds(node, b)
        return BROKEN if found is BROKEN else b.made(seawall.wait_fixed, {"wait": found}, {}, node)
    if isinstance(node.value, list):
        parts = [_wait(each, b) for each in node.value]
        if not parts:
            return must(node, b, "at least one wait")
        return BROKEN if BROKEN in parts else seawall.wait_combine(*parts)
    if not isinstance(node.value, dict) or len(node.value) != 1:
        return must(node, b, _WAIT_TAKES)
    ((word, inner),) = node.value.items()
    if word == "chain":
        parts = [_wait(each, b) for each in inner.value] if isinstance(inner.value, list) else []
        if not parts:
            return must(inner, b, "a list of waits")
        return BROKEN if BROKEN in parts else seawall.wait_chain(*parts)
    table = WAITS.get(word)
    if table is None:
        b.unknown(node.path, word, inner, [*WAITS, "chain"])
        return BROKEN
    return b.thing(table, inner)


_WAIT_TAKES = 'seconds, a table like { exponential = { max = "30s" } }, or a list of such to be added up'


# Things of the file, by name.


def _patterns(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, list):
        return must(node, b, "a list of patterns", f"write [{quoted(node.value)}]" if isinstance(node.value, str) else "")
    wrong = [each for each in node.value if not isinstance(each.value, str)]
    for each in wrong:
        must(each, b, "a pattern, a text")
    return BROKEN if wrong or not node.value else [each.value for each in node.value]


def named(section: str, one: str) -> Kind:
    """The name of a thing in this section."""
    return Kind(f"the name of a {one}", lambda node, b: b.refer(section, one, node))


def names(section: str, one: str) -> Kind:
    """A list of such names."""

    def read(node: Node, b: Builder) -> Any:
        if not isinstance(node.value, list):
            return must(
                node, b, f"a list of names of {section}", f"write [{quoted(node.value)}]" if isinstance(node.value, str) else ""
            )
        found = [b.refer(section, one, each) for each in node.value]
        return BROKEN if BROKEN in found else found

    return Kind(f"a list of names of {section}", read)


TEXT = typed("a text", str)
FLAG = typed("true or false", bool)
WHOLE = typed("a whole number", int)
NUMBER = typed("a number", int, float)
SHARE = typed("a share like 0.5", int, float)
SECONDS = Kind("a time", _seconds)
SECONDS_OR_FALSE = Kind("a time, or `false` for none", _or_false)
WINDOW = Kind("a number of calls, or a time", _window)
SOURCED = Kind("a text, `{ env }` or `{ file }`", _text)
SECRET = Kind("`{ env }` or `{ file }`", _secret)
TEXTS = Kind("a table of texts, `{ env }` or `{ file }`", _texts, merges=True)
URLS = Kind("a list of `{ env }` or `{ file }`", _urls)
PATH = Kind("a path", _path)
PATTERNS = Kind("a list of patterns", _patterns)
PATHS = Kind("a path, or two: `[certificate, key]`", _paths)
PROXY = Kind("an address, `{ env }`, or `false` for none", _proxy)
ERROR = Kind("a class", _error)
ERRORS = Kind('a class, a list of them, or `"transient"`', _errors)
WAIT = Kind("a [wait](#waits)", _wait)
ANYTHING = Kind("anything", _anything)
PARAMETERS = Kind("a table", _table_of_anything, merges=True)
