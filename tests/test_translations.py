"""A page and its Chinese translation are the same page: block by block the same headings, programs, tables, lists, links and names of code."""

from __future__ import annotations

import io
import re
import tokenize
from collections import Counter
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Written by programs, or for those who work on seawall.
ENGLISH_ONLY = ("adr/*", "campaign.md", "performance.md", "reference.md")
PAGES = [
    page
    for page in [*sorted(ROOT.glob("README.md")), *sorted(DOCS.rglob("*.md"))]
    if not page.name.endswith(".zh.md")
    and not any(fnmatch(page.relative_to(DOCS).as_posix(), names) for names in ENGLISH_ONLY if page.is_relative_to(DOCS))
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a translation has besides: its glossary, and the anchors that links in either language go by.
BESIDES = re.compile(r"^<!-- only here -->\n.*?^<!-- end -->\n|^<a id=\"[\w-]+\"></a>\n", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`` ?(.+?) ?``|`([^`]+)`")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")
PRINTED = ("output", "text")
# A line of a diagram is who tells whom, and words. Of these stay calls, events, classes and numbers.
DRAWN = re.compile(r"^( *participant \w+|[^:\n]*:?)(.*)$", re.MULTILINE)
KEPT = re.compile(r"\w+\(.*?\)|[a-z_]+\.[a-z_]+|[A-Z][a-z]+[A-Z]\w+|\d[\d.]*", re.ASCII)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def in_chinese(page: Path) -> Path:
    return page.with_name(f"{page.stem}.zh.md")


def uncommented(language: str, code: str) -> str:
    """Code as it runs: comments are translated, and nothing else of it but what a diagram says."""
    if language in PRINTED:
        return code
    if language == "mermaid":
        return DRAWN.sub(lambda line: f"{line[1]} {KEPT.findall(line[2])}", code)
    if language != "python":
        return re.sub(r"(^|(?<=\s))[ \t]*#.*$", "", code, flags=re.MULTILINE)
    lines = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines)


def cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row.strip().strip("|"))


def links(text: str) -> Counter[str]:
    return Counter(mark + target.replace(".zh.md", ".md") for mark, target in LINK.findall(text))


def names(text: str) -> Counter[str]:
    """What is written as code, but for the words of prose within: those are translated."""
    found = Counter(" ".join((one or other).split()) for one, other in CODE.findall(text))
    return Counter({re.sub(r" ?（.*?）| ?\((?:all|one attempt)\)| the call$| 调用$", "", code): n for code, n in found.items()})


def blocks(page: Path) -> list[tuple[str, tuple[object, ...]]]:
    """The blocks of a page, and what each is made of without its words: (what it is, its code, its links, …)."""
    text = BESIDES.sub("", page.read_text(encoding="utf-8"))
    fences = [(language, uncommented(language, code)) for language, code in FENCE.findall(text)]
    found: list[tuple[str, tuple[object, ...]]] = []
    for block in re.split(r"\n{2,}", FENCE.sub("\n\n```\n\n", text).strip()):
        if block == "```":
            language, code = fences.pop(0)
            found.append((code, ("code", language, code)))
        elif block.startswith("#"):
            found.append((block, ("heading", block.split()[0], names(block))))
        elif block.startswith("|"):
            for row in block.splitlines():
                first, *_ = between = cells(row)
                found.append((row, ("row", len(between), names(first), names(row), links(row), Counter(NUMBER.findall(row)))))
        elif re.match(r"- |\d+\. ", block):
            items = re.split(r"\n(?=- |\d+\. )", block)
            found += [(item, ("item", names(item), links(item))) for item in items]
        else:
            found.append((block, ("prose", block if block.startswith("<!--") else "", names(block), links(block))))
    return found


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_says_the_same_in_chinese(page: Path):
    assert in_chinese(page).exists(), f"{name(page)} has no translation {in_chinese(page).name}"
    for (said, english), (told, chinese) in zip_longest(blocks(page), blocks(in_chinese(page)), fillvalue=("the end", ())):
        assert chinese == english, f"{name(in_chinese(page))} has\n{told}\nwhere {name(page)} has\n{said}"


def test_a_heading_of_several_pages_is_one_in_chinese():
    told: dict[str, set[str]] = {}
    for page in PAGES:
        pair = [
            HEADING.findall(FENCE.sub("", BESIDES.sub("", one.read_text(encoding="utf-8")))) for one in (page, in_chinese(page))
        ]
        if len(pair[0]) == len(pair[1]):
            for english, chinese in zip(*pair, strict=True):
                told.setdefault(english, set()).add(chinese)
    assert {english: chinese for english, chinese in told.items() if len(chinese) > 1} == {}


def test_every_translation_is_of_a_page():
    translations = {in_chinese(page) for page in PAGES}
    assert {*ROOT.glob("*.zh.md"), *DOCS.rglob("*.zh.md")} == translations


@pytest.mark.parametrize("page", [in_chinese(page) for page in PAGES], ids=name)
def test_a_translation_leads_to_translations(page: Path):
    targets = {target.partition("#")[0] for _, target in LINK.findall(page.read_text(encoding="utf-8"))}
    english = [page.parent / target for target in targets if target.endswith(".md") and not target.endswith(".zh.md")]
    # But for the link to the same page in English.
    assert [to.name for to in english if in_chinese(to).exists() and in_chinese(to) != page] == []
