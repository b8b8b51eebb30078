"""One table of names: the page's tables are made of it, and the dashboard and the alert rules ask for nothing else.

`python tests/telemetry/test_names.py` writes the page's tables anew, in both languages: `names.zh.json` has the words.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from seawall import CircuitBreaker, errors
from seawall._seawall import metric_names, span_names

DOCS = Path(__file__).parents[2] / "docs" / "monitor"
PAGE = DOCS / "telemetry.md"
CHINESE = DOCS / "telemetry.zh.md"
WORDS = json.loads(Path(__file__).with_name("names.zh.json").read_text(encoding="utf-8"))


def table(head: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [head, ["---"] * len(head), *rows]


def drawn(lines: list[list[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def in_chinese(lines: list[list[str]]) -> list[list[str]]:
    """Cell by cell; what is code alone stays."""

    def said(cell: str) -> str:
        if not re.search("[A-Za-z]", re.sub("`[^`]*`", "", cell)):
            return cell
        assert cell in WORDS, f"tests/telemetry/names.zh.json does not say what {cell!r} is in Chinese"
        return WORDS[cell]

    return [[said(cell) for cell in line] for line in lines]


def tables() -> dict[str, list[list[str]]]:
    attributes, instruments = span_names()
    return {
        "metrics": table(
            ["metric", "kind", "labels", "what it says"],
            [
                [f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels) or "–", text]
                for name, kind, _, labels, text in metric_names()
            ],
        ),
        "attributes": table(
            ["attribute", "of", "what it says"], [[f"`{name}`", ", ".join(places), text] for name, places, text in attributes]
        ),
        "instruments": table(
            ["instrument", "kind", "unit", "what it says"],
            [[f"`{name}`", kind, f"`{unit}`", text] for name, kind, unit, text in instruments],
        ),
    }


def written(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    for name, lines in tables().items():
        marks = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, rest = text.split(marks[0], 1)
        rows = drawn(in_chinese(lines) if page == CHINESE else lines)
        text = f"{before}{marks[0]}\n{rows}\n{marks[1]}{rest.split(marks[1], 1)[1]}"
    return text


@pytest.mark.parametrize("page", [PAGE, CHINESE], ids=lambda page: page.stem)
def test_the_page_s_tables_are_those_of_the_core(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == 3
    assert text == written(page), "python tests/telemetry/test_names.py writes them anew"


def test_every_word_of_the_chinese_tables_is_said():
    assert set(WORDS) <= {cell for lines in tables().values() for line in lines for cell in line}


def queries() -> dict[str, str]:
    """Every query of the dashboard and of the alert rules, by where it stands."""
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    }
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            found[f"variable {variable['name']}"] = f"sum by ({label}) ({metric})"
    for rule in re.split(r"\n      - alert: ", (DOCS / "alerts.rules.yml").read_text())[1:]:
        one_line = re.search(r"\n        expr: (?!\|)(.*)", rule)
        block = re.search(r"\n        expr: \|\n((?:          .*\n)+)", rule)
        found[f"alert {rule.splitlines()[0]}"] = (one_line or block)[1]
    return found


def labels_of(sample: str) -> set[str]:
    """The labels of what is sampled under a name; KeyError where nothing is."""
    of: dict[str, set[str]] = {}
    for name, kind, _, labels, _ in metric_names():
        if kind == "histogram":
            of |= {f"{name}_bucket": {*labels, "le"}, f"{name}_sum": set(labels), f"{name}_count": set(labels)}
        else:
            of[name] = set(labels)
    return of[sample]


def test_every_query_asks_for_what_there_is():
    found = queries()
    assert len(found) > 35
    asked = set()
    for where, query in found.items():
        selectors = re.findall(r"\b(seawall_\w+)(?:\{([^}]*)\})?", query)
        assert selectors, where
        everywhere = set.intersection(*(labels_of(name) for name, _ in selectors))
        for name, matchers in selectors:
            asked.add(name)
            for label, _, values in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
                assert label in labels_of(name), f"{where}: {name} has no {label}"
                for value in values.split("|"):
                    assert value.startswith("$") or value in known(label), f"{where}: {label} is never {value}"
        for grouped in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(re.split(r",\s*", grouped)) <= everywhere, f"{where}: by {grouped}"
    shown = {name for name, kind, *_ in metric_names() if kind != "histogram"}
    assert shown <= asked, "the dashboard shows everything"


def known(label: str) -> set[str]:
    return {
        "outcome": {"ok", *dir(errors)},
        "state": {"closed", "open", "half_open", "forced_open", "disabled", "metrics_only"},
    }[label]


def test_the_states_are_the_breakers_own():
    assert CircuitBreaker(name="any").state in known("state")


def test_annotations_name_labels_that_their_query_gives():
    for rule in re.split(r"\n      - alert: ", (DOCS / "alerts.rules.yml").read_text())[1:]:
        given = set(re.split(r",\s*", re.search(r"\bby \(([^)]*)\)", rule)[1]))
        assert set(re.findall(r"\$labels\.(\w+)", rule)) <= given, rule


if __name__ == "__main__":
    for page in (PAGE, CHINESE):
        page.write_text(written(page), encoding="utf-8")
