"""Whether there is a key, and whether it looks like one. It is never shown, nor any part of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from seawall.doctor import Finding, Place, State

# How the keys of services begin, and whose each is.
_BEGINNINGS = {
    "sk-ant-": ("Anthropic", "anthropic.com"),
    "sk-or-": ("OpenRouter", "openrouter.ai"),
    "gsk_": ("Groq", "groq.com"),
    "xai-": ("xAI", "x.ai"),
    "hf_": ("Hugging Face", "huggingface.co"),
    "AIza": ("Google", "googleapis.com"),
    "pplx-": ("Perplexity", "perplexity.ai"),
    "sk-": ("OpenAI", "openai.com"),
}
_PLACEHOLDER = re.compile(
    r"^(?:<.*>|\$\{?\w+\}?|(?:your|my|the)[-_ ].*|.*(?:changeme|placeholder|api[-_ ]?key[-_ ]?here).*|sk-(?:\.+|x+|test|xxx.*)|x+|none|null|dummy|test|todo)$",
    re.IGNORECASE,
)


def looked_at(place: Place) -> Iterator[Finding]:
    def found(state: State, text: str, advice: str = "") -> Finding:
        return Finding("key", urlsplit(place.base_url).hostname or "", state, text, advice)

    if not place.key.value:
        yield found("problem", f"there is none in {place.source}", "put it there, where this runs")
        return
    problem = _shape(place.key.value, urlsplit(place.base_url).hostname or "")
    if problem is None:
        yield found("ok", f"from {place.source}; its shape is that of a key")
    else:
        state, text, advice = problem
        yield found(state, f"from {place.source}: {text}", advice)


def _shape(key: str, host: str) -> tuple[State, str, str] | None:
    """What is wrong with how a key looks."""
    is_local = host in ("localhost", "::1") or host.startswith("127.")
    if key != key.strip() or "\n" in key or "\r" in key:
        return "problem", "it has white space around it, or is of several lines", "take away what is around the key"
    if not key.isascii() or not key.isprintable():
        return "problem", "it has characters that no key has", "copy it anew: editors and chats change quotes and dashes"
    if key[0] in "\"'" or key[-1] in "\"'":
        return "problem", "it has quotes around it, which are sent", "take away the quotes: shells do, files of variables may not"
    if key.lower().startswith("bearer "):
        return "problem", 'it begins with "Bearer", which is sent twice', "leave the word out"
    if " " in key:
        return "problem", "it has a space within", "copy it anew"
    if is_local:
        return None  # those take anything
    if _PLACEHOLDER.match(key):
        return "problem", "it looks like a placeholder", "put the key itself there"
    begins = next(((of, at) for begin, (of, at) in _BEGINNINGS.items() if key.startswith(begin)), None)
    if begins is not None and not host.endswith(begins[1]) and any(host.endswith(at) for _, at in _BEGINNINGS.values()):
        return "problem", f"it looks like one of {begins[0]}, and {host} is not theirs", "give each service its own key"
    if host.endswith("openai.com") and begins is None:
        return "warning", "it does not begin as OpenAI's keys do", "check that it is the key, not its name or an id"
    return ("warning", "it is very short for a key", "check that it was copied whole") if len(key) < 20 else None
