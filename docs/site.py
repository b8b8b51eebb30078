"""For `make docs`: links that a site has no files for, diagrams, and a search for each language. Links to files of the repository that are no pages become their names,
those from a page to its own in the other language lead to where that is on the site, pages with a diagram load the script that
draws it from the site itself, and a search finds pages of the language that it is made in."""

from __future__ import annotations

import hashlib
import json
import re
from html import escape
from importlib.resources import files as files_of
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

# What mermaid itself published as dist/mermaid.min.js of 11.16.0. The theme would have browsers fetch it from elsewhere.
MERMAID = "74d7c46dabca328c2294733910a8aa1ed0c37451776e8d5295da38a2b758fb9b"
SCRIPT = "assets/javascripts/mermaid.min.js"
# The theme colours arrowheads by names that mermaid has changed, and in the dark they would not be seen.
SETTINGS = """(initialize => mermaid.initialize = settings => initialize({
  ...settings,
  themeCSS: settings.themeCSS + "marker path, marker circle { fill: var(--md-mermaid-edge-color) !important; stroke: var(--md-mermaid-edge-color) !important }",
  sequence: { ...settings.sequence, mirrorActors: false },
}))(mermaid.initialize)"""
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


def on_files(files: Any, *, config: Any) -> None:
    script = Path(str(files_of("mermaidx") / "assets" / "mermaid.js"))
    if hashlib.sha256(script.read_bytes()).hexdigest() != MERMAID:
        raise PluginError(
            "the package mermaidx brings another mermaid: look at the diagrams, and write its digest into docs/site.py"
        )
    files.append(File.generated(config, SCRIPT, abs_src_path=str(script)))


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    if page.url.startswith("zh/"):
        # The theme looks for the search's index below its base, and uses that for nothing else here.
        base = json.dumps(get_relative_url(".", page.url))
        output = output.replace(f'"base": {base}', f'"base": {json.dumps(get_relative_url("zh/", page.url))}', 1)
    if '<pre class="mermaid">' not in output:
        return output
    return output.replace(
        "</body>", f'<script src="{get_relative_url(SCRIPT, page.url)}"></script><script>{SETTINGS}</script></body>'
    )


# After i18n, which makes one index of all languages at its -100.
@event_priority(-200)
def on_post_build(*, config: Any, **_: Any) -> None:
    """Gives each language an index of its own; what has no translation is in both."""
    site = Path(config.site_dir)
    index = site / "search" / "search_index.json"
    found = json.loads(index.read_text(encoding="utf-8"))
    chinese: list[Any] = []
    english: list[Any] = []
    for section in found["docs"]:
        (chinese if section["location"].startswith("zh/") else english).append(section)
    if not chinese:
        return
    theirs = [{**section, "location": section["location"].removeprefix("zh/") or "./"} for section in chinese]
    translated = {section["location"].partition("#")[0] for section in theirs}
    for section in english:
        page = section["location"].partition("#")[0]
        if page and page not in translated and (site / "zh" / page / "index.html").exists():
            theirs.append(section)
    write(index, {**found, "config": {**found["config"], "lang": ["en"]}, "docs": english})
    write(site / "zh" / "search" / index.name, {**found, "docs": theirs})


def write(index: Path, found: Any) -> None:
    index.parent.mkdir(exist_ok=True)
    index.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def on_page_context(context: Any, *, config: Any, **_: Any) -> Any:
    for other in config.extra.alternate:
        # From the first page the switch would lead to the host's root, wherever on it the site is.
        other["link"] = other["link"].removeprefix("/") or "./"
    return context


def up(url: str) -> str:
    """From that page to the site's root."""
    return "../" * url.count("/") or "./"
