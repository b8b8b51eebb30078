"""For `make docs`: links that a site has no files for. Those to files of the repository that are no pages become their names, and those from
a page to its own in the other language lead to where that is on the site."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.resolve()
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(((?!https?:|#)[^)#\s]+)(#[^)]*)?\)")
CHINESE = ".zh.md"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    source = DOCS / page.file.src_uri

    def inside(link: re.Match[str]) -> str:
        target = (source.parent / link[2]).resolve()
        if target.name.removesuffix(CHINESE) == source.name.removesuffix(".md"):
            return f'<a href="{up(page.url)}zh/{page.url}">{escape(link[1])}</a>'
        if target.name.removesuffix(".md") == source.name.removesuffix(CHINESE):
            return f'<a href="{up(page.url)}{page.url.removeprefix("zh/")}">{escape(link[1])}</a>'
        if target.is_relative_to(DOCS) and target.suffix in {".md", ".png", ".json", ".yml"}:
            return link[0]
        name = target.relative_to(DOCS.parent)
        return f"`{name}`" if link[1].strip("`") in str(name) else f"{link[1]} (`{name}`)"

    return LINK.sub(inside, markdown)


def on_page_context(context: Any, *, config: Any, **_: Any) -> Any:
    for other in config.extra.alternate:
        # From the first page the switch would lead to the host's root, wherever on it the site is.
        other["link"] = other["link"].removeprefix("/") or "./"
    return context


def up(url: str) -> str:
    """From that page to the site's root."""
    return "../" * url.count("/") or "./"
