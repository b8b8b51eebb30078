"""Pieces of what notebooks show: pure functions from texts and numbers to HTML.

Everything that comes in as text is escaped here. Nothing is fetched and nothing runs. Colours are a translucent grey, the text's
own colour and accents that are readable on light and on dark, so every theme will do; and what a colour says is said in words too.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from seawall._in_words import printable

# The accents. What is fine needs none of them to be read.
TONES = {"good": "#2f9e44", "fair": "#c96a05", "bad": "#e5484d", "still": "#8b8b8b", "plain": "#3b82c4"}
# What stands before a word of that tone, for those who do not see colours.
MARKS = {"good": "●", "fair": "▲", "bad": "■", "still": "○", "plain": "●"}

# Three times the class: notebooks have rules of their own for tables and their rows, and for the widths of lists.
_STYLE = """
.seawall.seawall.seawall{font:13px/1.45 system-ui,sans-serif;color:inherit;max-width:60em;margin:.3em 0;border:1px solid rgba(128,128,128,.35);
border-radius:6px;padding:.55em .8em .65em;overflow-wrap:anywhere}
.seawall.seawall.seawall .sw-head{display:flex;flex-wrap:wrap;gap:.2em .7em;align-items:baseline}
.seawall.seawall.seawall .sw-kind{opacity:.75}
.seawall.seawall.seawall .sw-name{font-weight:600}
.seawall.seawall.seawall .sw-badge{border:1px solid;border-radius:1em;padding:0 .6em;font-weight:600;white-space:nowrap}
.seawall.seawall.seawall .sw-badge b,.seawall.seawall.seawall .sw-mark{font-weight:400;font-style:normal}
.seawall.seawall.seawall .sw-badge span{color:inherit}
.seawall.seawall.seawall .sw-note{opacity:.8}
.seawall.seawall.seawall p{margin:.35em 0 0}
.seawall.seawall.seawall .sw-part{margin:.6em 0 .1em;font-weight:600;opacity:.75;font-size:12px}
.seawall.seawall.seawall table{border-collapse:collapse;margin:.4em 0 0;border:0;font-size:13px;color:inherit;background:none}
.seawall.seawall.seawall th,.seawall.seawall.seawall td{text-align:left;vertical-align:top;padding:.12em 1.3em .12em 0;border:0;background:none;
font-weight:400;color:inherit;max-width:34em;white-space:normal}
.seawall.seawall.seawall .sw-wide{overflow-x:auto;overflow-wrap:break-word}
.seawall.seawall.seawall tr{background:none;border:0}
.seawall.seawall.seawall th{opacity:.75;white-space:nowrap}
.seawall.seawall.seawall td.sw-number,.seawall.seawall.seawall th.sw-number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.seawall.seawall.seawall .sw-figures{display:flex;flex-wrap:wrap;gap:.3em 1.8em;margin:.5em 0 0}
.seawall.seawall.seawall .sw-figures div{display:flex;flex-direction:column-reverse;margin:0}
.seawall.seawall.seawall .sw-figures dd{font-size:17px;font-variant-numeric:tabular-nums;width:auto;margin:0}
.seawall.seawall.seawall .sw-figures dt{font-size:12px;font-weight:400;opacity:.75;width:auto;margin:0}
.seawall.seawall.seawall .sw-box{border:1px solid rgba(128,128,128,.4);border-left:4px solid;border-radius:5px;background:rgba(128,128,128,.06);
padding:.3em .5em .4em .7em;margin:.35em 0 0}
.seawall.seawall.seawall .sw-core{border-style:dashed;border-left-width:1px}
.seawall.seawall.seawall .sw-text{white-space:pre-wrap;max-height:22em;overflow:auto;margin:.5em 0 0;padding:.4em .6em;border-radius:4px;
background:rgba(128,128,128,.1)}
.seawall.seawall.seawall .sw-warning{border-left:4px solid #c96a05;padding:.1em .6em;margin:.5em 0 0;background:rgba(201,106,5,.1)}
.seawall.seawall.seawall svg{display:block;margin:.4em 0 0;max-width:100%;overflow:visible}
.seawall.seawall.seawall details{margin:.4em 0 0}
.seawall.seawall.seawall summary{cursor:pointer;opacity:.8}
.seawall.seawall.seawall code{font:12px/1.4 ui-monospace,monospace;background:none;color:inherit;padding:0}
"""
# So much of a text is put into a notebook.
_LONGEST = 20_000
STYLE = f"<style>{' '.join(_STYLE.split())}</style>"


def text(value: object) -> str:
    """A text for HTML; what cannot be printed is shown as a mark in its place."""
    return html.escape(printable(str(value), besides="\n\t"), quote=True)


def card(kind: str, name: str | None, *parts: str, badge: str = "", note: str = "", language: str = "en") -> str:
    """A whole picture: what it is, whose, how it is, and its parts."""
    head = [f'<span class="sw-kind">{text(kind)}</span>']
    if name is not None:
        head.append(f'<span class="sw-name">{text(name)}</span>')
    head.append(badge)
    if note:
        head.append(f'<span class="sw-note">{text(note)}</span>')
    label = text(" ".join(filter(None, (kind, name))))
    opening = f'<div class="seawall" role="group" lang="{language}" aria-label="{label}">'
    return f'{STYLE}{opening}<div class="sw-head">{"".join(head)}</div>{"".join(parts)}</div>'


def badge(word: str, tone: str) -> str:
    """A word in a frame of its tone."""
    return f'<span class="sw-badge" style="border-color:{TONES[tone]}">{mark(tone)} {text(word)}</span>'


def mark(tone: str) -> str:
    return f'<i class="sw-mark" aria-hidden="true" style="color:{TONES[tone]}">{MARKS[tone]}</i>'


def line(*words: object) -> str:
    """A paragraph."""
    return f"<p>{text(' '.join(map(str, words)))}</p>" if words else ""


def part(title: str) -> str:
    """The title of a part."""
    return f'<div class="sw-part">{text(title)}</div>'


def warning(said: str) -> str:
    """A paragraph that warns."""
    return f'<div class="sw-warning" role="note"><b aria-hidden="true">⚠</b> {text(said)}</div>'


def quote(said: str) -> str:
    """A longer text as it is, or most of what is very long."""
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}… ({len(said) - _LONGEST:,} more letters)"
    return f'<div class="sw-text">{text(said)}</div>'


def folded(title: str, inside: str) -> str:
    """Something that is seen when asked for."""
    return f"<details><summary>{text(title)}</summary>{inside}</details>"


class Cell(NamedTuple):
    """A cell of a table that is more than a text."""

    said: str
    tone: str | None = None
    number: bool = False

    def html(self, tag: str = "td") -> str:
        kind = ' class="sw-number"' if self.number else ""
        before = "" if self.tone is None else f"{mark(self.tone)}&nbsp;"
        return f"<{tag}{kind}>{before}{text(self.said)}</{tag}>"


def table(rows: Iterable[Sequence[str | Cell]], titles: Sequence[str | Cell] = ()) -> str:
    """Rows of cells; without titles, the first cell of a row names what follows."""

    def cell(value: str | Cell, tag: str = "td") -> str:
        return (value if isinstance(value, Cell) else Cell(value)).html(tag)

    body = ""
    for row in rows:
        first = cell(row[0]) if titles else cell(row[0], "th").replace("<th", '<th scope="row"', 1)
        body += f"<tr>{first}{''.join(map(cell, row[1:]))}</tr>"
    if not body:
        return ""
    names = "".join(cell(title, "th").replace("<th", '<th scope="col"', 1) for title in titles)
    head = f"<thead><tr>{names}</tr></thead>" if titles else ""
    return f'<div class="sw-wide"><table>{head}<tbody>{body}</tbody></table></div>'


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """Numbers, large, with what they are."""
    return f'<dl class="sw-figures">{"".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)}</dl>'


def nest(boxes: Sequence[tuple[str, str, str]], core: str) -> str:
    """Boxes inside one another, the first outermost: each a title, what it says, and a tone; and what is inside of all."""
    inside = f'<div class="sw-box sw-core">{text(core)}</div>'
    for title, said, tone in reversed(boxes):
        about = f' <span class="sw-note">{text(said)}</span>' if said else ""
        inside = f'<div class="sw-box" style="border-left-color:{TONES[tone]}"><b>{text(title)}</b>{about}{inside}</div>'
    return inside


class Bar(NamedTuple):
    """One call of a sparkline: how high (0 to 1), of which tone, and what it says when pointed at."""

    height: float
    tone: str
    said: str


def sparkline(bars: Sequence[Bar], label: str, *, width: int = 420, height: int = 44) -> str:
    """A bar for each call, the newest on the right. What failed has a square on top, what was retried a triangle."""
    if not bars:
        return ""
    step = min(width / len(bars), 12.0)
    drawn = []
    for place, bar in enumerate(bars):
        x, tall = place * step, max(1.5, bar.height * (height - 9))
        top, mid = height - tall, x + step * 0.4
        shape = f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}" fill="{TONES[bar.tone]}"/>'
        if bar.tone == "bad":
            shape += f'<rect x="{mid - 2.2:.1f}" y="{top - 6.5:.1f}" width="4.4" height="4.4" fill="{TONES["bad"]}"/>'
        elif bar.tone == "fair":
            shape += f'<path d="M{mid - 2.6:.1f} {top - 2:.1f}h5.2l-2.6-4.6z" fill="{TONES["fair"]}"/>'
        drawn.append(f"<g><title>{text(bar.said)}</title>{shape}</g>")
    whole = step * len(bars)
    base = f'<path d="M0 {height}.5H{whole:.0f}" stroke="currentColor" stroke-opacity=".4"/>'
    return (
        f'<svg role="img" aria-label="{text(label)}" width="{whole:.0f}" height="{height + 1}" viewBox="0 0 {whole:.0f} {height + 1}">'
        f"{base}{''.join(drawn)}</svg>"
    )


class Span(NamedTuple):
    """A stretch of a timeline: its seconds, its tone, what stands beside it. Without a tone it is a wait."""

    start: float
    end: float
    tone: str | None
    said: str


def timeline(spans: Sequence[Span], label: str, *, width: int = 200) -> str:
    """A row for each stretch: a bar where it lies in time, then its words."""
    last = max((span.end for span in spans), default=0.0) or 1.0
    rows = []
    for span in spans:
        x = min(span.start / last, 1.0) * width
        long = max(2.5, min((span.end - span.start) / last * width, width - x))
        x = min(x, width - 2.5)
        if span.tone is None:
            bar = f'<path d="M{x:.1f} 6H{x + long:.1f}" stroke="currentColor" stroke-opacity=".6" stroke-dasharray="2 2"/>'
        else:
            bar = f'<rect x="{x:.1f}" y="1.5" width="{long:.1f}" height="9" rx="1.5" fill="{TONES[span.tone]}"/>'
        drawn = f'<svg aria-hidden="true" width="{width}" height="12" viewBox="0 0 {width} 12">{bar}</svg>'
        before = "" if span.tone is None else f"{mark(span.tone)} "
        at = f'<td class="sw-number">{span.start:.2f} s</td>'
        rows.append(f"<tr>{at}<td>{drawn}</td><td>{before}{text(span.said)}</td></tr>")
    body = "".join(rows)
    return f'<div class="sw-wide"><table aria-label="{text(label)}"><tbody>{body}</tbody></table></div>' if rows else ""
