"""The sections of a file, and what the tables of each become."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import seawall
from seawall import _order, presets
from seawall._keys import Told, open_to_all
from seawall._model import Hidden
from seawall.configuration import Asked, _compound, _kinds, _tables
from seawall.configuration._compound import Given
from seawall.configuration._document import quoted
from seawall.configuration._kinds import BROKEN, STAND_IN
from seawall.configuration._tables import Table
from seawall.errors import ConfigurationError

if TYPE_CHECKING:
    from seawall.configuration._build import Builder


def _model(b: Builder, name: str, table: Table, given: Given) -> Any:
    retry, fallbacks, params = given.take("retry"), given.take("fallbacks", []), given.take("params", {})
    if retry is not None and given.said("max_retries"):
        at = given.nodes["max_retries"]
        b.report.wrong(at, f"{at.path} and retry say the same in two ways: leave one out")
    key = _key(b, given)
    if "circuit" in given.arguments:
        given.arguments["circuit"] = _compound.circuit_of(given.arguments["circuit"], b, name)
        if given.arguments["circuit"] is BROKEN:
            del given.arguments["circuit"]
            given.broken.add("circuit")
    given.arguments.update({key: value for key, value in params.items() if table.option(key) is None})
    for key in params:
        if table.option(key) is not None:
            at = given.nodes["params"]
            b.report.wrong(
                at.value.get(key, at),
                f"{at.path} has {quoted(key)}, which is an option of the model and no parameter of requests",
            )
    policy = None if retry is None else _compound.retry_of(retry, b)
    model = b.made_of(table, given)
    if model is BROKEN or policy is BROKEN or "retry" in given.broken:
        return BROKEN
    if retry is not None:
        model = model._but(_retry=seawall.Retry(1) if policy is None else policy)
    if b.asked is not None and "base_url" not in given.missing:
        said = given.arguments
        b.asked[name] = Asked(said.get("base_url"), key, _source(given), said.get("proxy"), said.get("ca_bundle"), model)
    return _with_fallbacks(b, given, model, fallbacks)


def _with_fallbacks(b: Builder, given: Given, model: Any, fallbacks: list[Any]) -> Any:
    if not fallbacks:
        return model
    at = given.nodes["fallbacks"]
    for other in fallbacks:
        if type(other) is not type(model):
            b.report.wrong(
                at,
                f"{at.path} has {other!r}, which is no {type(model).__name__}: only models of one type stand in for each other",
            )
            return BROKEN
    weight = b.weigh(fallbacks, _compound.MOST_ALTERNATIVES, at, "alternatives")
    if weight is None:
        return BROKEN
    made = model.with_fallbacks(fallbacks)
    b.weights[id(made)] = weight + 1
    return made


def _key(b: Builder, given: Given) -> Hidden:
    """The key, as it is now. One that is not said is the environment's; whoever names another service may not mean that one."""
    if given.said("api_key"):
        where = [given.nodes[name].path.startswith("defaults.") for name in ("api_key", "base_url") if name in given.nodes]
        if where == [True, False]:
            b.warn(
                given.nodes["base_url"], f"{given.node.path} has a base_url and no api_key: it is sent that of defaults.models"
            )
        key = Hidden(None if given.arguments.get("api_key") is STAND_IN else given.arguments.get("api_key"))
        said = given.nodes["api_key"].value
        if key.value and isinstance(said, dict) and "file" in said:
            path = b.path(said["file"].value)
            given.arguments["api_key"] = Told(path)  # a path: it is read anew when it is written anew
            if b.is_rehearsal and (wrong := open_to_all(path)):
                b.warn(said["file"], f"{said['file'].path}: {wrong}")
        return key
    key = Hidden(b.environ.get("OPENAI_API_KEY"))
    if not key.value and not b.environ.get("OPENAI_API_KEY_FILE"):
        what = f"{given.node.path} has no api_key, and the environment variable OPENAI_API_KEY is not set"
        given.arguments["api_key"] = STAND_IN
        if b.is_rehearsal:
            b.warn(given.node, f"{what} here", 'write api_key = { env = "NAME" }')
            return key
        b.report.wrong(given.node, what, 'write api_key = { env = "NAME" }')
        given.broken.add("api_key")
    elif re.search(r"://(?!api\.openai\.com|localhost|127\.|\[::1\])", str(given.arguments.get("base_url", ""))):
        b.warn(
            given.node, f"{given.node.path} has no api_key: its base_url is sent OPENAI_API_KEY, which may be another service's"
        )
    return key


def _source(given: Given) -> str:
    """Where a key is from, in words."""
    node = given.nodes.get("api_key")
    if node is None:
        return "the environment variable OPENAI_API_KEY"
    if isinstance(node.value, dict):
        ((kind, inner),) = node.value.items()
        return f"the environment variable {inner.value}" if kind == "env" else f"the file {inner.value}"
    return "the configuration itself"


def _pipeline(b: Builder, name: str, table: Table, given: Given) -> Any:
    monitor = given.arguments.get("monitor")
    if given.said("policies"):
        return _ordered(b, name, given)
    given.take("policies")
    preset = given.arguments.get("preset")
    try:
        chosen = presets.get(preset)
    except ConfigurationError:
        at = given.nodes["preset"]
        known = [*presets.PRESETS, *presets.ALIASES]
        hint = b.report.meant(str(preset), known)
        b.report.wrong(at, f"{at.path} must be one of {', '.join(map(quoted, known))}, not {quoted(str(preset))}", hint)
        given.broken.add("preset")
        given.take("preset")
        chosen = presets.get(None)
    if chosen.fallback_required and not given.said("fallback"):
        what = f"{given.node.path}.fallback is missing: the preset {quoted(chosen.name)} wants it said aloud, a list of alternatives or false for none"
        b.report.wrong(given.node, what, "add fallback = false, or what is to stand in")
        given.broken.add("fallback")
    if "fallback" in given.broken:
        given.arguments["fallback"] = None  # said, whatever it was
    if "retry" in given.arguments:
        given.arguments["retry"] = _compound.retry_of(given.arguments["retry"], b, chosen.retry, chosen.retry_budget)
    if "circuit" in given.arguments:
        circuit = given.arguments["circuit"]
        given.arguments["circuit"] = circuit if isinstance(circuit, bool) else _compound.circuit_of(circuit, b)
    for part in ("retry", "circuit"):
        if given.arguments.get(part) is BROKEN:
            given.take(part)
            given.broken.add(part)
    given.arguments = (
        {"name": name, "monitor": monitor} | given.arguments if monitor is not None else {"name": name} | given.arguments
    )
    with _order.kept() as wrong:
        made = b.made_of(table, given)
    _warn_of(b, given, wrong)
    return made


def _ordered(b: Builder, name: str, given: Given) -> Any:
    at = given.nodes["policies"]
    own = b.entries["pipelines"][name].value
    others = [each for each in own if each not in ("policies", "name", "monitor")]
    if others:
        b.report.wrong(
            own[others[0]].key,
            f"{given.node.path} has policies, which is an order of its own: {others[0]} is for one without",
            where=own[others[0]].path,
        )
        return BROKEN
    policies = given.take("policies")
    if policies is None:
        return BROKEN
    weight = b.weigh(policies, _compound.MOST_POLICIES, at, "policies")
    if weight is None:
        return BROKEN
    monitor = given.arguments.get("monitor")
    if isinstance(monitor, bool):
        monitor = seawall.Monitor(name=name) if monitor else None
    arguments = {"name": given.arguments.get("name", name), "monitor": monitor}
    with _order.kept() as wrong:
        made = b.made(lambda **more: seawall.Pipeline(*policies, **more), arguments, given.nodes, given.node, given.broken)
    b.weights[id(made)] = weight
    _warn_of(b, given, wrong)
    return made


def _warn_of(b: Builder, given: Given, wrong: list[str]) -> None:
    for text in dict.fromkeys(wrong):
        # What is wrong is one part beside another: the part that it names first is where it is told.
        part = next((part for part in ("policies", "circuit", "retry") if part in given.nodes), None)
        b.report.warn(seawall.PipelineOrderWarning, given.nodes[part] if part else given.node, f"{given.node.path}: {text}")


def _circuit(b: Builder, name: str, table: Table, given: Given) -> Any:
    return _compound.circuit_of(given, b, name)


def _shared(b: Builder, name: str, table: Table, given: Given) -> Any:
    given.arguments.setdefault("name", name)
    return b.made_of(table, given)


def _monitor(b: Builder, name: str, table: Table, given: Given) -> Any:
    sinks = given.take("sinks", [])
    given.arguments.setdefault("name", name)
    monitor = b.made_of(table, given)
    if monitor is BROKEN:
        return BROKEN
    for sink, level, at in sinks:
        try:
            monitor.add_sink(sink, *(() if level is None else (level,)))
        except ConfigurationError:
            _kinds.must(
                at, b, '"warning", "critical" or "emergency"', b.report.meant(str(level), ("warning", "critical", "emergency"))
            )
            return BROKEN
    return monitor


def _plain(b: Builder, name: str, table: Table, given: Given) -> Any:
    return b.made_of(table, given)


class Section(NamedTuple):
    """A section of the file: `[models.NAME]` and its like."""

    name: str
    one: str
    tables: dict[str, Table]
    """By type; a section of one kind has one."""
    standard: Any
    """The type where none is said: a function of the table, if it depends."""
    build: Callable[[Builder, str, Table, Given], Any]
    has_defaults: bool = True


# What a file may hold. Things are built when they are first referred to, so the order is that of the page.
SECTIONS = {
    section.name: section
    for section in (
        Section("models", "model", {"chat": _tables.CHAT, "embeddings": _tables.EMBEDDINGS}, "chat", _model),
        Section("pipelines", "pipeline", {"": _tables.PIPELINE}, "", _pipeline),
        Section("circuits", "circuit", {"": _tables.CIRCUIT}, "", _circuit),
        Section("rate_limits", "rate limit", {"": _tables.RATE_LIMIT}, "", _shared),
        Section("hedges", "hedge", {"": _tables.HEDGE}, "", _shared),
        Section("bulkheads", "bulkhead", {"": _tables.BULKHEAD}, "", _shared),
        Section("caches", "cache", {"": _tables.CACHE}, "", _shared),
        Section("guardrails", "guardrail", {"": _tables.GUARDRAILS}, "", _plain, has_defaults=False),
        Section("monitors", "monitor", {"": _tables.MONITOR}, "", _monitor),
        Section(
            "sinks", "sink", _tables.SINKS, lambda node: "webhook" if "url" in node.value else None, _plain, has_defaults=False
        ),
    )
}
