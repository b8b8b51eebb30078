"""Options that are tables of their own, or name other things of the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import seawall
from seawall._classify import transient
from seawall._decorators import own_breaker
from seawall.configuration._document import Node, quoted
from seawall.configuration._kinds import ANYTHING, BROKEN, SECONDS, Kind, must

if TYPE_CHECKING:
    from seawall.configuration._build import Builder

# More alternatives than that no call tries.
MOST_ALTERNATIVES = 63
MOST_POLICIES = 63


@dataclass
class Given:
    """What a table says: arguments for a constructor, where they stand, and those that are wrong."""

    node: Node
    arguments: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    """Options whose values are not here, where a file is only checked."""

    def said(self, name: str) -> bool:
        return name in self.arguments or name in self.broken or name in self.missing

    def take(self, name: str, otherwise: Any = None) -> Any:
        """An option that is no argument of the constructor, taken out."""
        return self.arguments.pop(name, otherwise)

    def over(self, other: Given) -> Given:
        """This where it says something, and the other where it does not; of tables within, entry by entry."""
        arguments = {**other.arguments, **self.arguments}
        for name in self.arguments.keys() & other.arguments.keys():
            mine, theirs = self.arguments[name], other.arguments[name]
            if isinstance(mine, Given) and isinstance(theirs, Given):
                arguments[name] = mine.over(theirs)
            elif isinstance(mine, Merged) and isinstance(theirs, Merged):
                arguments[name] = Merged({**theirs, **mine})
        for name in self.broken:
            arguments.pop(name, None)
        broken = self.broken | (other.broken - self.arguments.keys())
        missing = self.missing | (other.missing - self.nodes.keys())
        return Given(self.node, arguments, {**other.nodes, **self.nodes}, broken, missing)


class Merged(dict[str, Any]):
    """A table whose entries are merged with those of `[defaults]`."""


def _retry(node: Node, b: Builder) -> Any:
    if node.value is False:
        return False
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return Given(node, {"attempts": node.value}, {"attempts": node})
    if isinstance(node.value, dict):
        return b.given(b.tables.RETRY, node)
    hint = f"write {node.value} without quotes" if isinstance(node.value, str) and node.value.isdigit() else ""
    return must(node, b, "a number of attempts, a table like { attempts = 4 }, or false for none", hint)


def retry_of(given: Any, b: Builder, attempts: int = 3, budget: float | None = None) -> Any:
    """The policy that `retry = …` describes; `None` for none."""
    if given is False or given is BROKEN:
        return None if given is False else BROKEN
    base = {"attempts": attempts, "on": transient} | ({} if budget is None else {"budget": budget})
    return b.made(seawall.Retry, {**base, **given.arguments}, given.nodes, given.node, given.broken)


def _circuit(node: Node, b: Builder) -> Any:
    if isinstance(node.value, bool):
        return node.value
    if isinstance(node.value, str):
        return b.refer("circuits", "circuit", node)
    if isinstance(node.value, dict):
        return b.given(b.tables.CIRCUIT, node)
    return must(node, b, "true, false, a table like { failure_threshold = 5 }, or the name of one of circuits")


def circuit_of(given: Any, b: Builder, name: str | None = None) -> Any:
    """The breaker that `circuit = …` describes; `None` for none."""
    if not isinstance(given, Given):
        return own_breaker(name) if given is True else None if given is False else given
    # What `circuit = true` does, but for what is said.
    base: dict[str, Any] = {"expected_exception": transient, "recovery_timeout": 30, "name": name}
    if not given.said("failure_threshold"):
        base |= {"failure_rate": 0.5} | ({} if given.said("window") else {"window": 30.0, "minimum_calls": 20})
    return b.made(seawall.CircuitBreaker, {**base, **given.arguments}, given.nodes, given.node, given.broken)


def _shared(node: Node, b: Builder, one: str, table: Any, takes: str) -> Any:
    """What is described in place, or under a name that others may use too."""
    section = f"{one.replace(' ', '_')}s"
    if isinstance(node.value, str):
        return b.refer(section, one, node)
    return b.thing(table, node) if isinstance(node.value, dict) else must(node, b, f"{takes}, or the name of one of {section}")


def _rate_limit(node: Node, b: Builder) -> Any:
    return _shared(node, b, "rate limit", b.tables.RATE_LIMIT, "a table like { requests = 500, per = 60 }")


def _bulkhead(node: Node, b: Builder) -> Any:
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return b.made(seawall.Bulkhead, {"max_concurrency": node.value}, {"max_concurrency": node}, node)
    return _shared(node, b, "bulkhead", b.tables.BULKHEAD, "a number of calls, a table like { max_concurrency = 8 }")


def _hedge(node: Node, b: Builder) -> Any:
    if isinstance(node.value, str) and not node.value[:1].isdigit():
        return b.refer("hedges", "hedge", node)
    if isinstance(node.value, dict):
        return b.thing(b.tables.HEDGE, node)
    delay = SECONDS.read(node, b)
    return BROKEN if delay is BROKEN else b.made(seawall.Hedge, {"delay": delay}, {"delay": node}, node)


def _cache(node: Node, b: Builder) -> Any:
    return _shared(node, b, "cache", b.tables.CACHE, "a table like { ttl = 300 }")


def _monitor(node: Node, b: Builder) -> Any:
    if isinstance(node.value, (bool, str)):
        return node.value if isinstance(node.value, bool) else b.refer("monitors", "monitor", node)
    return must(node, b, "true for one of its own, false for none, or the name of one of monitors")


def _chaos(node: Node, b: Builder) -> Any:
    return b.thing(b.tables.CHAOS, node)


def _one_of(node: Node, b: Builder, words: tuple[str, ...], takes: str) -> Any:
    """The one entry of a table that has one of these: its name and its value."""
    if not isinstance(node.value, dict):
        return must(node, b, takes)
    if len(node.value) != 1:
        b.report.wrong(node, f"{node.path} must have one entry, not {len(node.value)}: {takes}")
        return BROKEN
    ((word, inner),) = node.value.items()
    if word not in words:
        b.unknown(node.path, word, inner, words)
        return BROKEN
    return word, inner


_ALTERNATIVE_TAKES = '{ model = "name" }, { value = "an answer" } or { prompt = "answer briefly: {}" }'


def _fallback(node: Node, b: Builder) -> Any:
    if node.value is False:
        return None
    if isinstance(node.value, str):
        kind = "model" if node.value in b.entries["models"] else "value"
        return must(node, b, f"a list of {_ALTERNATIVE_TAKES}, or false for none", f"write [{{ {kind} = {quoted(node.value)} }}]")
    if not isinstance(node.value, (list, dict)):
        return must(node, b, f"a list of {_ALTERNATIVE_TAKES}, or false for none")
    each = node.value if isinstance(node.value, list) else [node]
    if not 1 <= len(each) <= MOST_ALTERNATIVES:
        return must(node, b, f"a list of 1 to {MOST_ALTERNATIVES} alternatives, or false for none")
    found = [_alternative(one, b) for one in each]
    return BROKEN if BROKEN in found else found


def _alternative(node: Node, b: Builder) -> Any:
    entry = _one_of(node, b, ("model", "value", "prompt"), _ALTERNATIVE_TAKES)
    if entry is BROKEN:
        return BROKEN
    word, inner = entry
    if word == "model":
        return b.refer("models", "model", inner)
    if word == "value":
        return ANYTHING.read(inner, b)
    if not isinstance(inner.value, str):
        return must(inner, b, "a text with {} where the input goes")
    return b.made(seawall.Prompt, {"change": inner.value}, {"change": inner}, inner)


_POLICIES = ("cache", "retry", "hedge", "circuit", "rate_limit", "bulkhead", "timeout", "fallback", "chaos", "pipeline")
_POLICY_TAKES = 'one policy in braces, such as { retry = 3 }, { circuit = true } or { timeout = "10s" }'


def _policies(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, list) or not 1 <= len(node.value) <= MOST_POLICIES:
        return must(
            node,
            b,
            f"a list of 1 to {MOST_POLICIES} policies, outermost first"
            if isinstance(node.value, list)
            else f"a list of policies, each {_POLICY_TAKES}",
        )
    found = [_policy(each, b) for each in node.value]
    return BROKEN if BROKEN in found else found


_BY_TABLE = {"cache": _cache, "rate_limit": _rate_limit, "bulkhead": _bulkhead, "hedge": _hedge, "chaos": _chaos}


def _policy(node: Node, b: Builder) -> Any:
    entry = _one_of(node, b, _POLICIES, _POLICY_TAKES)
    if entry is BROKEN:
        return BROKEN
    word, inner = entry
    if inner.value is False:
        b.report.wrong(inner, f"{inner.path} is false, and this is a list of what there is", "leave it out")
        return BROKEN
    if word == "retry":
        return retry_of(_retry(inner, b), b)
    if word == "circuit":
        return circuit_of(_circuit(inner, b), b)
    if word in _BY_TABLE:
        return _BY_TABLE[word](inner, b)
    if word == "pipeline":
        return b.refer("pipelines", "pipeline", inner)
    if word == "timeout":
        if isinstance(inner.value, dict):
            return b.thing(b.tables.TIMEOUT, inner)
        limit = SECONDS.read(inner, b)
        return BROKEN if limit is BROKEN else b.made(seawall.Timeout, {"seconds": limit}, {"seconds": inner}, inner)
    if isinstance(inner.value, dict) and inner.value.keys().isdisjoint(("model", "value", "prompt")):
        return b.thing(b.tables.FALLBACK, inner)
    alternatives = _fallback(inner, b)
    return BROKEN if alternatives is BROKEN else seawall.Fallback(*alternatives)


def _rules(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, list):
        return must(node, b, 'a list of tables like { metric = "error_rate", critical = 0.1 }')
    found = [b.thing(b.tables.RULE, each) for each in node.value]
    return BROKEN if BROKEN in found else found


def _bound(node: Node, b: Builder) -> Any:
    if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    return SECONDS.read(node, b) if isinstance(node.value, str) else must(node, b, 'a number, or a time like "8s" for a latency')


def _latency(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, list):
        return SECONDS.read(node, b)
    found = tuple(SECONDS.read(each, b) for each in node.value)
    return BROKEN if BROKEN in found else found


def _sinks(node: Node, b: Builder) -> Any:
    if not isinstance(node.value, list):
        return must(node, b, "a list of names of sinks", f"write [{quoted(node.value)}]" if isinstance(node.value, str) else "")
    found = [_sink(each, b) for each in node.value]
    return BROKEN if any(each[0] is BROKEN for each in found) else found


def _sink(node: Node, b: Builder) -> tuple[Any, Any, Node]:
    if not isinstance(node.value, dict):
        return b.refer("sinks", "sink", node), None, node
    for name, inner in node.value.items():
        if name not in ("sink", "level"):
            b.unknown(node.path, name, inner, ("sink", "level"))
    name, level = node.value.get("sink"), node.value.get("level")
    if name is None:
        b.report.wrong(node, f"{node.path}.sink is missing: the name of a sink")
        return BROKEN, None, node
    return b.refer("sinks", "sink", name), None if level is None else level.value, level or node


RETRY = Kind("attempts, a [table](#retry), or `false` for none", _retry, merges=True)
CIRCUIT = Kind("`true`, `false`, a [table](#circuits), or the name of a circuit", _circuit, merges=True)
RATE_LIMIT = Kind("a [table](#rate-limits), or the name of a rate limit", _rate_limit)
HEDGE = Kind("a time, a [table](#hedges), or the name of a hedge", _hedge)
BULKHEAD = Kind("a number of calls, a [table](#bulkheads), or the name of a bulkhead", _bulkhead)
CACHE = Kind("a [table](#caches), or the name of a cache", _cache)
MONITOR = Kind("`true`, `false`, or the name of a monitor", _monitor)
CHAOS = Kind("a [table](#chaos)", _chaos)
FALLBACK = Kind("a list of [alternatives](#alternatives), or `false` for none", _fallback)
POLICIES = Kind("a list of [policies](#an-order-of-your-own)", _policies)
RULES = Kind("a list of [rules](#rules)", _rules)
BOUND = Kind("a number, or a time for a latency", _bound)
LATENCY = Kind("a time, or two: `[least, most]`", _latency)
SINKS = Kind("a list of names of sinks", _sinks)
