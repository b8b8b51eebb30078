"""For `make docs`: links to files of the repository that are no pages become their names, since a site has no such files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.resolve()
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(((?!https?:|#)[^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    folder = (DOCS / page.file.src_uri).parent

    def inside(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(DOCS) and target.suffix in {".md", ".png", ".json", ".yml"}:
            return link[0]
        name = target.relative_to(DOCS.parent)
        return f"`{name}`" if link[1].strip("`") in str(name) else f"{link[1]} (`{name}`)"

    return LINK.sub(inside, markdown)
