"""From a file's tables to things: each is built when it is first referred to, and everything that is wrong is told, not the first alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seawall.configuration import Asked, _kinds, _tables
from seawall.configuration._compound import Given, Merged
from seawall.configuration._document import Node, Report, is_read, quoted, safe, under
from seawall.configuration._kinds import BROKEN, MISSING
from seawall.configuration._sections import SECTIONS, Section
from seawall.configuration._tables import Table

# A chain of references that is longer than this is no configuration.
_DEEPEST = 32


class ConfigurationWarning(UserWarning):
    """Something in a file that its author hardly wants, such as a key that stands in it."""


class Builder:
    """Reads the tables of one file. In a rehearsal, secrets that are not here are warned of, and stood in for."""

    tables = _tables

    def __init__(
        self,
        report: Report,
        root: Node,
        directory: Path,
        environ: Mapping[str, str],
        *,
        is_rehearsal: bool,
        asked: dict[str, Asked] | None = None,
    ) -> None:
        self.report, self.environ, self.is_rehearsal, self.asked = report, environ, is_rehearsal, asked
        self._directory = directory
        self.entries: dict[str, dict[str, Node]] = {name: {} for name in SECTIONS}
        self._defaults: dict[str, Node] = {}
        self._made: dict[tuple[str, str], Any] = {}
        self._path: list[tuple[str, str]] = []
        # How much a thing comes to with all that it refers to, where that is more than itself.
        self.weights: dict[int, int] = {}
        self._sort(root)

    # The parts of the file.

    def _sort(self, root: Node) -> None:
        allowed = [*SECTIONS, "defaults"]
        for name, node in root.value.items():
            if name == "defaults":
                self._sort_defaults(node)
            elif name not in SECTIONS:
                hint = self.report.meant(name, allowed) or self.report.meant(f"{name}s", allowed)
                self.report.wrong(
                    node.key, f"{quoted(name)} is no section of a file; there are {', '.join(allowed)}", hint, where=name
                )
            elif not isinstance(node.value, dict):
                takes = f"tables of their own, [{name}.NAME]"
                _kinds.must(node, self, takes, f"write [{name}.NAME]" if isinstance(node.value, list) else "")
            else:
                for entry, inner in node.value.items():
                    self._sort_entry(SECTIONS[name], entry, inner)

    def _sort_entry(self, section: Section, name: str, node: Node) -> None:
        if not name.strip() or not name.isprintable():
            self.report.wrong(node.key, f"a {section.one} must have a name that can be read", where=node.path)
        elif isinstance(node.value, dict):
            self.entries[section.name][name] = node
        else:
            names = {option for table in section.tables.values() for option in table.names}
            hint = f"is [{section.name}.NAME] with {name} in it meant?" if name in names else ""
            _kinds.must(node, self, f"a table, [{section.name}.{name}]", hint)

    def _sort_defaults(self, node: Node) -> None:
        if not isinstance(node.value, dict):
            _kinds.must(node, self, "tables, such as [defaults.models]")
            return
        allowed = [section.name for section in SECTIONS.values() if section.has_defaults]
        for name, inner in node.value.items():
            if name not in allowed:
                known = {
                    each: section for section in SECTIONS.values() for table in section.tables.values() for each in table.names
                }
                hint = f"is [defaults.{known[name].name}] meant?" if name in known else self.report.meant(name, allowed)
                self.report.wrong(
                    inner.key, f"defaults has no {quoted(name)}; there are {', '.join(allowed)}", hint, where=inner.path
                )
            elif isinstance(inner.value, dict):
                self._defaults[name] = inner
            else:
                _kinds.must(inner, self, f"a table, [defaults.{name}]")

    def everything(self) -> dict[str, dict[str, Any]]:
        """All things of the file, by section and name; those that are wrong are left out."""
        for section in SECTIONS.values():
            if section.name in self._defaults:
                # Looked at even where nothing of the kind is described.
                for table in section.tables.values():
                    self._given_defaults(section, table)
            for name in self.entries[section.name]:
                self._thing_of(section, name)
        found = {section: {name: self._made[section, name] for name in entries} for section, entries in self.entries.items()}
        return {section: {name: made for name, made in things.items() if made is not BROKEN} for section, things in found.items()}

    # Tables.

    def unknown(self, path: str, name: str, node: Node, allowed: Iterable[str], table: Table | None = None) -> None:
        """Tells of an option that there is not."""
        allowed = list(allowed)
        hint = self.report.meant(name, allowed)
        if table is not None and "params" in allowed and name in _PARAMETERS:
            hint = f"it is a parameter of requests: write params = {{ {name} = … }}"
        may = "" if hint else f"; it may have {', '.join(allowed)}"
        self.report.wrong(node.key, f"{path} has no option {quoted(name)}{may}", hint, where=node.path)

    def given(self, table: Table, node: Node, elsewhere: Iterable[str] = ()) -> Given:
        """What a table says, as arguments. `elsewhere` are options of others of its section, which are passed over."""
        given = Given(node)
        for name, inner in node.value.items():
            option = table.option(name)
            if option is None:
                if name not in elsewhere:
                    self.unknown(node.path, name, inner, table.names, table)
                continue
            given.nodes[name] = inner
            if option.kind is None:
                self.report.wrong(inner.key, f"{inner.path} is for programs: {option.meaning}", where=inner.path)
                given.broken.add(name)
                continue
            value = option.kind.read(inner, self) if is_read(inner) else BROKEN
            if value is BROKEN:
                given.broken.add(name)
            elif value is MISSING:
                given.missing.add(name)
                given.arguments.update({} if option.stand_in is None else {name: option.stand_in})
            else:
                given.arguments[name] = Merged(value) if option.kind.merges and type(value) is dict else value
        return given

    def need(self, table: Table, given: Given) -> bool:
        """Tells of options that have to be there and are not; whether what is there is enough to look at the rest."""
        is_enough = True
        for option in table.options:
            if option.is_needed and not given.said(option.name) and option.name not in table.own:
                missing = f"{under(given.node.path, option.name)} is missing: {option.meaning}"
                self.report.wrong(given.node, missing, f"add {option.name} = …")
                given.broken.add(option.name)
            if option.name in given.broken and option.name not in table.own:
                if option.stand_in is not None:
                    given.arguments[option.name] = option.stand_in
                elif option.is_needed:
                    is_enough = False
        return is_enough

    def thing(self, table: Table, node: Node) -> Any:
        """What a table within another describes."""
        if not isinstance(node.value, dict):
            return _kinds.must(node, self, f"a table with {', '.join(table.names)}")
        given = self.given(table, node)
        return self.made_of(table, given) if self.need(table, given) else BROKEN

    def made_of(self, table: Table, given: Given) -> Any:
        constructor, spread = table.constructor, table.spread
        needed = {option.name: option.stand_in for option in table.options if option.is_needed}
        if spread is None:
            return self.made(constructor, given.arguments, given.nodes, given.node, given.broken, needed)

        def spread_out(**arguments: Any) -> Any:
            return constructor(*(arguments.pop(spread, None) or ()), **arguments)

        return self.made(spread_out, given.arguments, given.nodes, given.node, given.broken, needed)

    def made(
        self,
        make: Callable[..., Any],
        arguments: Mapping[str, Any],
        nodes: Mapping[str, Node],
        node: Node,
        broken: Iterable[str] = (),
        needed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """What the constructor makes of the arguments. It refuses one at a time: what it refused is told and left out, until it refuses
        nothing more. `needed` are stand-ins for those that cannot be left out."""
        left, gone = dict(arguments), set(broken)
        while True:
            try:
                thing = make(**left)
            except ImportError as error:
                if self.is_rehearsal:
                    self.warn(node, f"{node.path}: {error}")
                    return BROKEN
                self.report.wrong(node, f"{node.path}: {error}")
                return BROKEN
            except ValueError as error:  # a `ConfigurationError`, or of what a request cannot hold
                name = self._refused(str(error), left, gone, nodes, node)
                stand_in = needed.get(name or "")
                if name is None or (name in needed and (stand_in is None or left[name] == stand_in)):
                    return BROKEN
                del left[name]
                left.update({} if stand_in is None else {name: stand_in})
                gone.add(name)
                if not left:
                    return BROKEN
            else:
                return BROKEN if gone else thing

    def _refused(
        self, message: str, left: Mapping[str, Any], gone: set[str], nodes: Mapping[str, Node], node: Node
    ) -> str | None:
        """Tells what the constructor said, where the argument stands that it spoke of; which one that was."""
        message = re.sub(r"^wait_\w+: |^Prompt: ", "", message)
        message = re.sub(r" \((?:int|float|str|bool|list|tuple|dict|type|NoneType)\)", "", message)
        message = safe(message, "base_url")
        words = re.findall(r"\w+", message)
        name = next((word for word in words if word in left), None)
        if not gone.isdisjoint(words):
            return name if words[0] == name else None  # it follows from what was told
        at = node if name is None else nodes.get(name, node)
        if words[0] in nodes and message.startswith(words[0]):
            at, rest = _within(nodes[words[0]], message[len(words[0]) :])
            choice = re.fullmatch(r".* must be (?:one of )?(.*), not '(\w*)'", rest)
            self.report.wrong(
                at, f"{at.path}{rest}", self.report.meant(choice[2], re.findall(r"\w+", choice[1])) if choice else ""
            )
        else:
            self.report.wrong(at, f"{node.path}: {message}")
        return name

    def warn(self, node: Node, message: str, hint: str = "") -> None:
        self.report.warn(ConfigurationWarning, node, message, hint)

    def path(self, text: str) -> Path:
        """A path of the file: it begins where the file is."""
        return self._directory / Path(text).expanduser() if text.startswith("~") else self._directory / text

    # Things with names.

    def refer(self, section: str, one: str, node: Node) -> Any:
        """The thing that a value names."""
        if not isinstance(node.value, str):
            return _kinds.must(node, self, f"the name of a {one}")
        name, entries = node.value, self.entries[section]
        if name not in entries:
            there = f"there are {', '.join(map(quoted, list(entries)[:20]))}" if entries else f"the file has no [{section}.NAME]"
            hint = self.report.meant(name, entries)
            self.report.wrong(node, f"{node.path}: there is no {one} {quoted(name)}; {there}", hint)
            return BROKEN
        if (section, name) in self._path:
            circle = [*self._path[self._path.index((section, name)) :], (section, name)]
            self.report.wrong(node, f"{node.path} goes in a circle: {' → '.join(quoted(each) for _, each in circle)}")
            return BROKEN
        if len(self._path) > _DEEPEST:
            self.report.wrong(node, f"{node.path}: a chain of more than {_DEEPEST} references leads here")
            return BROKEN
        return self._thing_of(SECTIONS[section], name)

    def _thing_of(self, section: Section, name: str) -> Any:
        key = (section.name, name)
        if key not in self._made:
            self._path.append(key)
            try:
                self._made[key] = self._built(section, name)
            finally:
                self._path.pop()
        return self._made[key]

    def _built(self, section: Section, name: str) -> Any:
        node = self.entries[section.name][name]
        table = self._table_of(section, node)
        if table is None:
            return BROKEN
        given = self.given(table, node).over(self._given_defaults(section, table))
        given.take("type")
        given.broken.discard("type")
        return section.build(self, name, table, given) if self.need(table, given) else BROKEN

    def _given_defaults(self, section: Section, table: Table) -> Given:
        node = self._defaults.get(section.name)
        if node is None:
            return Given(Node("", (1, 1, 1), (1, 1, 1), {}))
        given = self.given(table, node, {name for each in section.tables.values() for name in each.names})
        for name in table.alone:
            given.take(name)
            given.broken.discard(name)
        return given

    def _table_of(self, section: Section, node: Node) -> Table | None:
        """The table that holds, by the option `type`."""
        defaults = self._defaults.get(section.name)
        said = node.value.get("type") or (defaults.value.get("type") if defaults else None)
        if len(section.tables) == 1 or said is None:
            kind = section.standard if not callable(section.standard) else section.standard(node)
            if kind is None:
                self.report.wrong(node, f"{node.path}.type is missing: {_either(section.tables)}", 'add type = "…"')
                return None
            return section.tables[kind]
        found = section.tables.get(said.value) if isinstance(said.value, str) else None
        if found is None:
            _kinds.must(
                said,
                self,
                _either(section.tables),
                self.report.meant(said.value, section.tables) if isinstance(said.value, str) else "",
            )
        return found

    def weigh(self, things: Iterable[Any], most: int, node: Node, what: str) -> int | None:
        """What these come to with all that they refer to, counted before it is put together: what doubles at each step would fill the
        memory. `None` where it is too much, which is told."""
        weight = sum(self.weights.get(id(thing), 1) for thing in things)
        if weight <= most:
            return weight
        self.report.wrong(node, f"{node.path} comes to {weight} {what}, with those that they bring along; {most} are the most")
        return None


def _either(tables: Mapping[str, Table]) -> str:
    return " or ".join(f'"{each}"' for each in tables)


def _within(node: Node, rest: str) -> tuple[Node, str]:
    """The part of a value that a message speaks of, as in `[2].metric must be …`, and what it says of it."""
    while True:
        item, entry = re.match(r"\[(\d+)\]", rest), re.match(r"\.(\w+)|\['([^']*)'\]", rest)
        if item and isinstance(node.value, list) and int(item[1]) < len(node.value):
            node, rest = node.value[int(item[1])], rest[item.end() :]
        elif entry and isinstance(node.value, dict) and (entry[1] or entry[2]) in node.value:
            node, rest = node.value[entry[1] or entry[2]], rest[entry.end() :]
        else:
            return node, rest


# Parameters of requests that somebody may write beside the model's options.
_PARAMETERS = frozenset(
    (
        *("temperature", "top_p", "n", "seed", "stop", "max_tokens", "max_completion_tokens", "presence_penalty"),
        *("frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "user", "tools", "tool_choice", "response_format"),
        *("reasoning_effort", "verbosity", "service_tier", "store", "metadata", "parallel_tool_calls", "dimensions"),
    )
)
