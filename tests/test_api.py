"""The public API is what `api.txt` says: whoever changes a name or an argument sees it, and says so in CHANGELOG.md.

`python tests/test_api.py` writes the file anew.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).with_name("api.txt")
MODULES = (
    "seawall",
    "seawall.configuration",
    "seawall.dashboard",
    "seawall.errors",
    "seawall.guardrails",
    "seawall.journal",
    "seawall.langchain",
    "seawall.llm",
    "seawall.presets",
    "seawall.simulator",
    "seawall.sinks",
    "seawall.telemetry",
    "seawall.testing",
    "seawall.compat.circuitbreaker",
)
MARK = {
    inspect.Parameter.POSITIONAL_ONLY: "",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "",
    inspect.Parameter.KEYWORD_ONLY: "",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def arguments(thing: Any) -> str:
    """Names, order and kinds, and what may be left out: what callers depend on. Not annotations, nor the defaults' texts."""
    try:
        parameters = [one for one in inspect.signature(thing).parameters.values() if not one.name.startswith("_")]
    except (ValueError, TypeError):
        return "(…)"
    if hasattr(thing, "model_fields"):
        # What a base of LangChain's has is its own, and another version's is different.
        own = {name for kind in thing.__mro__ if is_ours(kind) for name in vars(kind).get("__annotations__", {})}
        parameters = [one for one in parameters if one.name in own]
    said, kinds = [], [parameter.kind for parameter in parameters]
    for at, parameter in enumerate(parameters):
        if at and kinds[at - 1] is inspect.Parameter.POSITIONAL_ONLY and kinds[at] is not inspect.Parameter.POSITIONAL_ONLY:
            said.append("/")
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not {"*", *kinds[:at]} & {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.KEYWORD_ONLY,
        }:
            said.append("*")
        said.append(MARK[parameter.kind] + parameter.name + ("=" if parameter.default is not parameter.empty else ""))
    return f"({', '.join(said)})"


def is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "seawall"


def members(kind: type) -> Iterator[str]:
    """What its own classes give it: not what a base of somebody else's does."""
    seen: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        if is_ours(one):
            seen |= {name: value for name, value in vars(one).items() if not name.startswith("_")}
    fields = getattr(kind, "model_fields", {})
    for name in sorted(seen):
        value = seen[name]
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if callable(value):
            yield f"{name}{arguments(value)}"
        elif name not in fields and not name.startswith("model_"):
            yield name
    yield from sorted(name for name in fields if name not in seen)


def names(module: Any) -> list[str]:
    """What it says is public; where it says nothing, what it does not only borrow."""
    said = getattr(module, "__all__", None)
    if said is not None:
        return sorted(said)
    return sorted(
        n
        for n, thing in vars(module).items()
        if not n.startswith("_") and str(getattr(thing, "__module__", "")).startswith("seawall")
    )


def api() -> Iterator[str]:
    for place in MODULES:
        module = importlib.import_module(place)
        yield f"[{place}]"
        for name in names(module):
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                yield f"{name}: module" if thing.__name__.partition(".")[0] == "seawall" else f"{name}: {thing.__name__}"
            elif typing.get_origin(thing) is not None:
                # An alias of types: what it and its signature are said to be differs between Pythons.
                yield name
            elif isinstance(thing, type) and issubclass(thing, enum.Enum):
                yield f"{name}: {', '.join(member.name for member in thing)}"
            elif isinstance(thing, type):
                bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
                yield f"class {name}{arguments(thing)}" + (f" of {bases}" if bases else "")
                if is_ours(thing):
                    yield from (f"    {member}" for member in members(thing))
            elif callable(thing):
                yield f"{name}{arguments(thing)}"
            else:
                yield name
        yield ""


def test_nothing_public_has_changed_unnoticed():
    was, now = FILE.read_text(encoding="utf-8").splitlines(), "\n".join(api()).splitlines()
    gone, new = [line for line in was if line not in now], [line for line in now if line not in was]
    assert (gone, new) == ([], []), "if that is meant: python tests/test_api.py, and a line in CHANGELOG.md"
    assert was == now


def test_every_public_name_says_what_it_is():
    silent = [
        f"{place}.{name}"
        for place in MODULES
        for name in names(importlib.import_module(place))
        # `Sink` is an alias of types, which has no docstring of its own.
        if callable(thing := getattr(importlib.import_module(place), name)) and not inspect.getdoc(thing) and name != "Sink"
    ]
    assert silent == []


def described() -> Iterator[tuple[str, Any, str]]:
    """Each public class, function, method and property, and what is said of it: of an attribute, its class may say it. A member's
    name has a colon."""
    for place in MODULES:
        module = importlib.import_module(place)
        yield place, module, module.__doc__ or ""
        for name in names(module):
            thing = getattr(module, name)
            if not callable(thing) or name == "Sink":  # an alias of types has no docstring of its own
                continue
            yield f"{place}.{name}", thing, inspect.getdoc(thing) or ""
            for base in thing.__mro__ if isinstance(thing, type) else ():
                for member, value in vars(base).items() if is_ours(base) else ():
                    if member.startswith("_") or not (callable(value) or hasattr(value, "__get__")):
                        continue
                    said = inspect.getdoc(getattr(thing, member, value)) if callable(value) else value.__doc__
                    of_the_class = " ".join(one.__doc__ or "" for one in thing.__mro__ if is_ours(one))
                    yield (
                        f"{place}.{name}:{member}",
                        value,
                        said or (re.search(rf"\b{member}\b", of_the_class) and of_the_class) or "",
                    )


def test_help_says_something_of_everything_public():
    assert [name for name, _, said in described() if not said] == [], "write a docstring: meaning, units, defaults, errors raised"


# Errors are raised, not made, and say what they carry once, for all of them; what LangChain's own classes take is in its documentation.
SAID_ELSEWHERE = ("seawall.errors", "seawall.langchain", "seawall.compat", "seawall.configuration")
# Made by what gives them.
NOT_MADE = {
    "Alert",
    "AsyncStream",
    "Attempts",
    "CircuitEvent",
    "CircuitMetrics",
    "Dashboard",
    "Events",
    "CircuitBreakerError",
    "Rejected",
}


def test_help_names_every_argument():
    unnamed = {}
    for name, thing, said in described():
        if name.startswith(SAID_ELSEWHERE) or not (isinstance(thing, type) or inspect.isroutine(thing)):
            continue
        if ":" in name or name.rpartition(".")[2] in NOT_MADE:
            continue
        try:
            parameters = inspect.signature(thing).parameters.values()
        except (TypeError, ValueError):
            continue
        missing = [one.name for one in parameters if not one.name.startswith("_") and one.kind is not one.VAR_KEYWORD]
        missing = [one for one in missing if not re.search(rf"\b{one}\b", said)]
        if missing:
            unnamed[name] = missing
    assert unnamed == {}, "say in the docstring what they mean, in which units, and what they are by default"


def test_tab_offers_what_is_public_and_nothing_else():
    import seawall

    assert {name for name in dir(seawall) if not name.startswith("__")} == {*seawall.__all__, "llm", "simulator"}
    assert all(hasattr(seawall, name) for name in dir(seawall))


@pytest.mark.parametrize(
    "name",
    "configuration dashboard errors guardrails journal langchain llm presets simulator simulator.faults sinks telemetry testing".split(),
)
def test_tab_offers_what_is_public_in_a_part(name: str):
    part = importlib.import_module(f"seawall.{name}")
    assert {name for name in dir(part) if not name.startswith("_")} == set(part.__all__)
    assert all(hasattr(part, name) for name in dir(part))


if __name__ == "__main__":
    FILE.write_text("\n".join(api()), encoding="utf-8")
