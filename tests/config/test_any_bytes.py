"""Whatever is in a file: it is read, or it is a `ConfigurationError` whose places are in the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import seawall
from seawall.configuration import _sections
from seawall.errors import ConfigurationError

# apprise loads it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NAMES = ["x", "y", "main", "a b", "", "ü"]
WORDS = sorted(
    {
        name
        for section in _sections.SECTIONS.values()
        for table in section.tables.values()
        for name in [option.name for option in table.options]
    }
)
INNER = [
    "attempts",
    "wait",
    "on",
    "exponential",
    "max",
    "chain",
    "random",
    "model",
    "value",
    "prompt",
    "retry",
    "circuit",
    "timeout",
    "pipeline",
    "sink",
    "level",
    "metric",
    "warning",
    "env",
    "file",
    "seconds",
    "alternatives",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "seawall.toml"


def load(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            seawall.load(file)
        except ConfigurationError as error:
            lines = data.decode(errors="replace").split("\n")
            assert error.problems
            for problem in error.problems:
                assert (
                    problem.file == str(file)
                    and 1 <= problem.line <= len(lines)
                    and 1 <= problem.column <= len(lines[problem.line - 1]) + 2
                )
                assert "^" in problem.mark and problem.message and str(problem) in str(error)
                assert all(character.isprintable() or character in "\t\n" for character in str(problem))


def quoted(text: str) -> str:
    return '"' + "".join(each if each.isalnum() or each in " -_.{}:/" else f"\\U{ord(each):08x}" for each in text) + '"'


scalars = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers(-(2**63), 2**64).map(str),
    st.sampled_from(["0", "1", "3", "0.5", "-1", "1e400", "inf", "-inf", "nan", "1979-05-27", "20s", "None"]),
    st.sampled_from(
        [
            "20s",
            "1m30s",
            "9" * 50 + "s",
            "transient",
            "TimeoutError",
            "http://localhost:1/v1",
            "gpt-4o",
            "{}",
            "{message}",
            "p95",
            "critical",
            "HOME",
            *NAMES,
            "prod",
            "dev",
            "chat",
            "embeddings",
            "webhook",
            "log",
            "/dev/zero",
            ".",
        ]
    ).map(quoted),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(quoted),
)
keys = st.one_of(st.sampled_from(INNER + WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(quoted))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda items: "{ " + ", ".join(f"{key} = {value}" for key, value in items.items()) + " }"
        ),
    ),
    max_leaves=8,
)
tables = st.builds(
    lambda section, name, items: f"[{section}.{quoted(name)}]\n" + "".join(f"{key} = {value}\n" for key, value in items.items()),
    st.sampled_from([*_sections.SECTIONS, "defaults"]),
    st.sampled_from([*NAMES, *_sections.SECTIONS]),
    st.dictionaries(st.sampled_from(WORDS), values, max_size=6),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tables, max_size=6, unique_by=lambda table: table.split("\n")[0]))
def test_no_tables_make_it_fail_in_another_way(file, parts):
    load(file, "".join(parts).encode())


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode(errors="replace")),
        st.text("[]{}=.,\"'#\\ \n\rab0-_:T\x00\x1b\u2028", max_size=120).map(str.encode),
    )
)
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf")
@example(b"0=1_\x00")
@example(b"[models.x]\nmodel = '''\n\n")
@example(b"a" * 200_000)
@example(b".".join([b"a"] * 100_000) + b" = 1")
@example(b"a = " + b"[" * 200_000)
@example(b"a = " + b"{a=" * 60_000)
@example(b"".join(b"[models.m%d]\n" % at for at in range(15_000)))
def test_no_bytes_make_it_fail_in_another_way(file, data):
    load(file, data)


def test_nothing_is_read_that_never_ends(file: Path, monkeypatch: Any) -> None:
    for path in ("/dev/zero", "/dev/stdin", "/"):
        load(file, f"[models.x]\nmodel = 'x'\napi_key = {{ file = '{path}' }}\nca_bundle = '{path}'".encode())
