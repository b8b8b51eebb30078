"""Scripts: TOML that says what a simulator does. Each table is a call of one of its methods, checked by that method."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seawall import _seawall
from seawall.errors import ConfigurationError
from seawall.simulator import distributions, faults

if TYPE_CHECKING:
    from seawall.simulator._simulator import Simulator

Place = tuple[int, int, int]
_T = TypeVar("_T")

SETTINGS = ("seed", "models", "api_keys", "require_key")
# The tables, the methods that they call, and the keys that they may have beside `models`.
TABLES = {
    "rule": ("on", ("fault", "times", "probability", "path", "after", "from", "until")),
    "outage": ("outage", ("fault", "from", "until")),
    "pace": ("pace", ("latency", "first_token", "per_token", "from", "until")),
    "limit": ("limit", ("requests_per_minute", "tokens_per_minute")),
}
# Where a latency stands, in tables and among the arguments of faults.
_LATENCIES = ("latency", "first_token", "per_token", "time")
_FAULTS = tuple(name for name in faults.__all__ if name != "Fault")
_DISTRIBUTIONS = tuple(name for name in distributions.__all__ if name != "Distribution")


@dataclass(frozen=True)
class Node:
    """A value of the script and where it stands."""

    place: Place
    value: Any

    @property
    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: Node(*node).plain for key, (_, node) in self.value.items()}
        if isinstance(self.value, list):
            return [Node(*node).plain for node in self.value]
        return self.value


@dataclass
class Table:
    """A table of the script, with what is needed to say what is wrong in it."""

    script: str
    label: str
    place: Place
    nodes: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)

    def wrong(self, message: str, place: Place | None = None) -> ConfigurationError:
        line, column, _ = place or self.place
        where = f"{self.label}: " if self.label else ""
        return ConfigurationError(f"{self.script}:{line}:{column}: {where}{message}")

    def known(self, allowed: Iterable[str]) -> None:
        """Refuses keys that are not among these."""
        allowed = sorted(allowed)
        for key, place in self.keys.items():
            if key not in allowed:
                raise self.wrong(f"{key!r} is not known here{_meant(key, allowed)}; there may be {', '.join(allowed)}", place)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Errors of the methods that are called get the place of the key that they name."""
        try:
            yield
        except (ConfigurationError, TypeError) as error:
            message = re.sub(r"\bstart\b", "from", str(error))
            named = re.match(r"\w+", message)
            raise self.wrong(message, self.keys.get(named.group() if named else "")) from None


def _meant(word: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(allowed), 1)
    return f"; is {near[0]!r} meant?" if near else ""


def _table(script: str, label: str, node: Node) -> Table:
    table = Table(script, label, node.place)
    if not isinstance(node.value, dict):
        raise table.wrong(f"this must be a table, not {node.plain!r}")
    for key, (place, inner) in node.value.items():
        table.keys[key], table.nodes[key] = place, Node(*inner)
    return table


@dataclass
class Script:
    """A script that was read."""

    name: str
    settings: Table
    # The method, its arguments, and the table that they come from.
    calls: list[tuple[str, dict[str, Any], Table]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def made(self, make: Callable[[dict[str, Any]], _T]) -> _T:
        """What is made of its settings."""
        with self.settings.placed():
            return make({name: node.plain for name, node in self.settings.nodes.items() if name in SETTINGS})

    def tell(self, sim: Simulator) -> None:
        """Tells a simulator everything; the first rule of a script goes before the others."""
        for method, arguments, table in reversed(self.calls):
            with table.placed():
                getattr(sim, method)(**arguments)


def read(path: Path) -> Script:
    """A script from a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: a script must be TOML in UTF-8: {error}") from None
    return parsed(text, str(path))


def parsed(text: str, name: str) -> Script:
    """A script from its text.

    Raises:
        ConfigurationError: it is wrong; where and why.
    """
    if not isinstance(text, str):
        raise TypeError(f"a script must be a str, not {text!r}")
    whole, problems = _seawall.read_toml(text)
    for place, message, _ in problems:
        raise Table(name, "", place).wrong(f"this is no TOML: {message}")
    root = Node(*whole)
    script = Script(name, _table(name, "", root))
    script.settings.known((*SETTINGS, *TABLES))
    for kind, (method, allowed) in TABLES.items():
        node = script.settings.nodes.get(kind)
        if node is None:
            continue
        if not isinstance(node.value, list):
            raise script.settings.wrong(f"{kind} must be written [[{kind}]], as often as needed", node.place)
        script.counts[kind] = len(node.value)
        for number, each in enumerate(node.value, 1):
            label = f"[[{kind}]]" if len(node.value) == 1 else f"[[{kind}]] {number}"
            table = _table(name, label, Node(*each))
            table.known(("models", *allowed))
            arguments = {_argument(key): _value(table, key) for key in allowed if key in table.nodes}
            if kind == "rule" and "fault" not in arguments:
                raise table.wrong("fault is missing: what the requests meet")
            if kind == "limit" and not arguments:
                raise table.wrong("requests_per_minute or tokens_per_minute is missing")
            script.calls += [(method, {"model": model, **arguments}, table) for model in _models(table)]
    return script


def _argument(key: str) -> str:
    return "start" if key == "from" else key


def _models(table: Table) -> list[str]:
    node = table.nodes.get("models")
    names = ["*"] if node is None else node.plain
    names = [names] if isinstance(names, str) else names
    if node is not None and (not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names)):
        raise table.wrong(f"models must be a name or a list of names, not {node.plain!r}", node.place)
    return list(names)


def _value(table: Table, key: str) -> Any:
    node = table.nodes[key]
    if key == "fault":
        return _fault(table, node)
    return _latency(table, key, node) if key in _LATENCIES else node.plain


def _called(table: Table, what: str, name: Any, place: Place, module: Any, names: tuple[str, ...], given: Iterable[str]) -> Any:
    """What a function of a module makes of the table's values."""
    if name not in names:
        raise table.wrong(f"{what} must be one of {', '.join(names)}, not {name!r}{_meant(str(name), names)}", place)
    function = getattr(module, name)
    parameters = inspect.signature(function).parameters
    free = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    arguments = {key: _value(table, key) for key in given}
    for key in arguments:
        if key not in parameters and not free:
            may = f"; there may be {', '.join(parameters)}" if parameters else "; it takes nothing"
            raise table.wrong(f"{key!r} is not known to {name}{_meant(key, parameters)}{may}", table.keys[key])
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments and parameter.kind is not parameter.VAR_KEYWORD:
            raise table.wrong(f"{key} is missing for {name}", place)
    with table.placed():
        return function(**arguments)


def _fault(table: Table, node: Node) -> Any:
    label = f"{table.label} fault"
    if isinstance(node.value, str):
        inner = Table(table.script, label, node.place)
        return _called(inner, "fault", node.value, node.place, faults, _FAULTS, ())
    inner = _table(table.script, label, node)
    name = inner.nodes.get("name")
    if name is None:
        raise inner.wrong(f"name is missing: one of {', '.join(_FAULTS)}")
    return _called(inner, "name", name.plain, name.place, faults, _FAULTS, [key for key in inner.nodes if key != "name"])


def _latency(table: Table, key: str, node: Node) -> Any:
    if isinstance(node.value, list):
        return tuple(node.plain)
    if not isinstance(node.value, dict):
        return node.plain
    inner = _table(table.script, f"{table.label} {key}", node)
    name = inner.nodes.get("distribution")
    if name is None:
        raise inner.wrong(f"distribution is missing: one of {', '.join(_DISTRIBUTIONS)}")
    given = [each for each in inner.nodes if each != "distribution"]
    return _called(inner, "distribution", name.plain, name.place, distributions, _DISTRIBUTIONS, given)
