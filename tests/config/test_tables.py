"""The tables of options are the constructors' own arguments: a new argument cannot be forgotten, nor an option outlive its argument."""

from __future__ import annotations

import inspect
import re

import pytest

from seawall import presets
from seawall.configuration import _sections, _tables
from seawall.configuration._tables import WAITS, Table

TABLES: dict[str, Table] = {
    "retry": _tables.RETRY,
    "circuit": _tables.CIRCUIT,
    "chaos": _tables.CHAOS,
    "timeout": _tables.TIMEOUT,
    "fallback": _tables.FALLBACK,
    "rule": _tables.RULE,
    **{f"wait {word}": table for word, table in WAITS.items()},
    **{
        f"{section.name} {kind}".strip(): table
        for section in _sections.SECTIONS.values()
        for kind, table in section.tables.items()
    },
}


def parameters(table: Table) -> dict[str, inspect.Parameter]:
    """The constructor's arguments, those included that it hands on to its parent."""
    found: dict[str, inspect.Parameter] = {}
    constructors = (
        table.constructor.__mro__
        if inspect.isclass(table.constructor) and table.constructor.__init__ is not object.__init__
        else (table.constructor,)
    )
    for each in constructors:
        if inspect.isclass(each) and "__init__" not in vars(each) and each is not table.constructor:
            continue
        signature = inspect.signature(each)
        found = {**signature.parameters, **found}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            break
    hidden = {
        name
        for name, parameter in found.items()
        if name.startswith("_") or name in ("cls", "args", "kwargs") or parameter.kind is parameter.VAR_KEYWORD
    }
    return {name: parameter for name, parameter in found.items() if name not in hidden}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_constructor_s_arguments(name):
    table = TABLES[name]
    options = [option.name for option in table.options if option.name not in table.own]
    assert len(options) == len(set(options))
    assert sorted(options) == sorted(parameters(table))
    assert set(table.own) <= {option.name for option in table.options}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_needed_and_what_holds_by_default_is_the_constructor_s(name):
    table = TABLES[name]
    for argument, parameter in parameters(table).items():
        option = table.option(argument)
        assert option is not None
        if option.kind is None:
            assert parameter.default is not parameter.empty
            continue
        is_needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        assert option.is_needed == (is_needed or argument == table.spread), argument
        assert option.is_needed or option.default
        if type(parameter.default) in (int, float, bool) and argument not in ("max", "max_response_bytes"):
            assert option.default.strip("`") == str(parameter.default).lower().removesuffix(".0"), argument


def test_what_only_programs_can_say_are_functions_or_said_in_another_way():
    for table in TABLES.values():
        for option in table.options:
            assert option.kind is not None or re.search(r"function|say when to stop", option.meaning)


def test_the_presets_are_named_where_the_page_lists_them():
    meaning = _tables.PIPELINE.option("preset").meaning
    assert all(f'`"{name}"`' in meaning for name in presets.PRESETS if name != "default")
