"""The page's example is loaded, and its tables are the tables that files are read by.

`python tests/config/test_page.py` writes the page's tables anew, in both languages: `page.zh.json` has the words.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest

import seawall
from seawall.configuration import _sections, _tables
from seawall.configuration._tables import Table

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
CHINESE = PAGE.with_name("configuration.zh.md")
WORDS = json.loads(Path(__file__).with_name("page.zh.json").read_text(encoding="utf-8"))
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```\n", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def rows(table: Table, before: Table | None = None) -> list[list[str]]:
    left = [
        option for option in table.options if option.kind is not None and (before is None or before.option(option.name) is None)
    ]
    return [
        [
            f"`{option.name}`",
            option.kind.takes,
            "**needed**" if option.is_needed and not option.default else option.default,
            option.meaning,
        ]
        for option in left
    ]


def drawn(head: list[str], lines: list[list[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in [head, ["---"] * len(head), *lines])


def tables() -> dict[str, str]:
    head = ["option", "takes", "default", "meaning"]
    found = {
        "models": drawn(head, rows(_tables.CHAT)),
        "embeddings": drawn(head, rows(_tables.EMBEDDINGS, _tables.CHAT)),
        "pipelines": drawn(head, rows(_tables.PIPELINE)),
        "retry": drawn(head, rows(_tables.RETRY)),
        "chaos": drawn(head, rows(_tables.CHAOS)),
        "circuits": drawn(head, rows(_tables.CIRCUIT)),
        "rate_limits": drawn(head, rows(_tables.RATE_LIMIT)),
        "hedges": drawn(head, rows(_tables.HEDGE)),
        "bulkheads": drawn(head, rows(_tables.BULKHEAD)),
        "caches": drawn(head, rows(_tables.CACHE)),
        "guardrails": drawn(head, rows(_tables.GUARDRAILS)),
        "monitors": drawn(head, rows(_tables.MONITOR)),
        "rules": drawn(head, rows(_tables.RULE)),
    }
    of_waits = [[f"`{word}`", *row] for word, table in _tables.WAITS.items() for row in rows(table)]
    of_sinks = [[f"`{word}`", *row] for word, table in _tables.SINKS.items() for row in rows(table) if row[0] != "`type`"]
    return {**found, "waits": drawn(["wait", *head], of_waits), "sinks": drawn(["type", *head], of_sinks)}


def in_chinese(table: str) -> str:
    """Cell by cell; what is code or a number alone stays."""

    def said(cell: str) -> str:
        if not re.search("[A-Za-z]", re.sub("`[^`]*`", "", cell)):
            return cell
        assert cell in WORDS, f"tests/config/page.zh.json does not say what {cell!r} is in Chinese"
        return WORDS[cell]

    return "".join("| " + " | ".join(map(said, line[2:-2].split(" | "))) + " |\n" for line in table.splitlines())


def written(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    for name, table in tables().items():
        mark, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, rest = text.split(mark, 1)
        text = f"{before}{mark}\n{in_chinese(table) if page == CHINESE else table}\n{end}{rest.split(end, 1)[1]}"
    return text


@pytest.mark.parametrize("page", [PAGE, CHINESE], ids=lambda page: page.stem)
def test_the_page_s_tables_are_those_that_files_are_read_by(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == len(tables())
    assert text == written(page), "python tests/config/test_page.py writes them anew"


def test_every_word_of_the_chinese_tables_is_said():
    said = {cell for table in tables().values() for line in table.splitlines() for cell in line[2:-2].split(" | ")}
    assert set(WORDS) <= said


def test_the_page_s_example_is_loaded_and_warns_of_nothing(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "DEEPSEEK_API_KEY"):
        monkeypatch.setenv(name, "sk-x")
    monkeypatch.setenv("OPS_WEBHOOK", "https://hooks.example.com/x")
    (tmp_path / "seawall.toml").write_text(EXAMPLE, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = seawall.load(tmp_path / "seawall.toml")
    assert {name: list(things) for name, things in config.sections.items()} == {
        "models": ["fast", "cheap", "elsewhere", "vectors"],
        "pipelines": ["tools", "search"],
        "circuits": ["elsewhere"],
        "rate_limits": ["account"],
        "hedges": ["tail"],
        "bulkheads": ["tools"],
        "caches": ["answers"],
        "guardrails": ["strict"],
        "monitors": ["main"],
        "sinks": ["ops", "log"],
    }
    assert repr(config.models["fast"]) == "<Chat gpt-4o-mini, then gpt-4.1-nano, then deepseek-chat>"
    assert "up to 4 attempts" in str(config.pipelines["tools"].describe())


def test_the_page_s_example_shows_every_section():
    assert all(f"[{name}." in EXAMPLE or f"[[{name}." in EXAMPLE for name in (*_sections.SECTIONS, "defaults"))


def test_the_error_that_the_page_shows_is_what_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.chdir(tmp_path)
    Path("seawall.toml").write_text('[models.fast]\nmodel = "gpt-4o-mini"\ntimeout = "20 sec"\ntemperature = 0\n')
    with pytest.raises(seawall.ConfigurationError) as refused:
        seawall.load("seawall.toml")
    assert f"```text\n{refused.value}\n```" in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    for page in (PAGE, CHINESE):
        page.write_text(written(page), encoding="utf-8")
