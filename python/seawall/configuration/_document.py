"""A file as values that know where they stand, and what is wrong in it, shown as it stands there and without its secrets."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seawall import _seawall
from seawall.errors import ConfigurationError

# What is larger is no configuration; and reading anything up to this takes no time that somebody would notice.
MOST_BYTES = 256 * 1024
# So many problems are told one by one; who has more has another problem.
MOST_PROBLEMS = 50

Place = tuple[int, int, int]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Problem(NamedTuple):
    """Something wrong in a file, or to be warned of.

    `where` is what it is about, such as `models.fast.timeout`; empty where a text is no TOML at all. `hint` is what may be meant, or
    what to do. `source` is the line as far as it may be shown: keys and what looks like keys are left out of it.
    """

    file: str
    line: int
    column: int
    where: str
    message: str
    hint: str
    source: str
    mark: str

    def __str__(self) -> str:
        return self.told()

    def told(self, kind: str = "") -> str:
        """In three lines: the place and the message, the line of the file, and the mark below it."""
        head = f"{self.file}:{self.line}:{self.column}: {kind}{self.message}"
        number = f"{self.line:>4}"
        under = f"{' ' * len(number)} | {self.mark}{' ' + self.hint if self.hint else ''}"
        return f"{head}\n{number} | {self.source}\n{under}"


class Node:
    """A value of the file, what it is called, and where it and its key stand. A value of `None` is one that could not be read: a
    problem has told of it."""

    __slots__ = ("key", "path", "place", "value")

    def __init__(self, path: str, key: Place, place: Place, value: Any) -> None:
        self.path, self.key, self.place = path, key, place
        if isinstance(value, dict):
            # In the file's order; the parser's is that of the alphabet.
            entries = sorted(value.items(), key=lambda entry: entry[1][0])
            value = {name: Node(under(path, name), at, *inner) for name, (at, inner) in entries}
        elif isinstance(value, list):
            value = [Node(f"{path}[{at}]", inner[0], *inner) for at, inner in enumerate(value)]
        self.value: Any = value

    def __repr__(self) -> str:
        return f"<Node {self.path}>"  # not its value, which may be a key


def under(path: str, name: str) -> str:
    """What an entry of a table is called, as TOML would write it."""
    name = name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=not name.isprintable())
    return f"{path}.{name}" if path else name


# Options whose values are secrets, by what they are called; and other names that people give to such.
_SECRET_NAME = r"(?:[\w-]*(?:key|secret|token(?!s)|passw|auth|cookie|credential|bearer)[\w-]*|urls?)"  # noqa: S105  names
_SECRET_PATH = re.compile(rf"(?:^|\.){_SECRET_NAME}(?:$|[.\[])|headers|query", re.IGNORECASE)
_SECRETS = (
    # `api_key = "…"`: what stands behind the name, if it is neither a number nor a table.
    re.compile(rf"""(?<![\w-])["']?{_SECRET_NAME}["']?\s*[=:]\s*(?P<hide>[^\s{{\[\d-][^\n]*)""", re.IGNORECASE),
    re.compile(rf"""(?<![\w-])["']?{_SECRET_NAME}["']?\s*[=:]\s*\[(?P<hide>[^\n]*)""", re.IGNORECASE),
    # What services' keys look like.
    re.compile(
        r"(?<![A-Za-z0-9])(?P<hide>(?:sk|pk|rk|whsec|ghp|gsk|hf|xai|xox[a-z])[-_][\w-]{5,}|AIza[\w-]{10,}|eyJ[\w.-]{10,})"
    ),
    # Passwords and paths of addresses: those of webhooks are passwords.
    re.compile(r"://(?P<hide>[^/\s\"'@]+@)"),
    re.compile(r"[?&][^=\s\"']*=(?P<hide>[^&\s\"']+)"),
)
_ADDRESS = re.compile(r"(?:https?://[^/\s\"']*/|(?<![\w])(?!https?:)[a-z][\w+.-]*://)(?P<hide>[^\s\"']+)", re.IGNORECASE)
# Of what is longer nothing is shown: looking for secrets in it would take too long.
_MOST_LOOKED_AT = 2000
_TEXTS = re.compile(r"""(["'])(?P<hide>(?:(?!\1).)*)\1?""")


def is_secret(path: str) -> bool:
    """Whether what is called so is never shown."""
    return _SECRET_PATH.search(path) is not None


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _hidden(text: str, path: str) -> list[bool]:
    """Which characters are not to be shown."""
    if len(text) > _MOST_LOOKED_AT:
        return [True] * len(text)
    hidden = [False] * len(text)
    patterns = [*_SECRETS, *(() if path.endswith("base_url") else (_ADDRESS,))]
    if is_secret(path) and not path.endswith((".env", ".file")) and not re.search(r"\{\s*(?:env|file)\s*=", text):
        patterns.append(_TEXTS)
    for pattern in patterns:
        for found in pattern.finditer(text):
            begin, end = found.span("hide")
            hidden[begin:end] = [True] * (end - begin)
    return hidden


def _pieces(text: str, hidden: list[bool]) -> list[str]:
    """What is shown for each character."""
    pieces = []
    for at, character in enumerate(text):
        if hidden[at]:
            pieces.append("" if at and hidden[at - 1] else "***")
        else:
            pieces.append(character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}")
    return pieces


def safe(text: str, path: str = "") -> str:
    """A text without what looks like a secret in it, for a message."""
    return "".join(_pieces(text, _hidden(text, path)))


class _Line:
    """A line of the file as it is shown: without secrets, and no longer than a screen is wide."""

    ROOM = 120

    def __init__(self, text: str, *, is_text: bool, path: str) -> None:
        # Within a text of several lines, nothing tells what it is.
        self._shown = _pieces(text, [True] * len(text) if is_text else _hidden(text, path))

    def shown(self, column: int, width: int) -> tuple[str, str]:
        """The line, and the mark below it, so that it stands under these characters."""
        begin = max(0, min(column - 1, len(self._shown)) - self.ROOM // 2)
        pieces = self._shown[begin : begin + self.ROOM]
        before = "".join(pieces[: column - 1 - begin])
        marked = "".join(pieces[column - 1 - begin : column - 1 - begin + width])
        line = "".join(pieces).rstrip()
        left, right = "…" * (begin > 0), "…" * (begin + self.ROOM < len(self._shown))
        space = "".join("\t" if each == "\t" else " " * (1 + _wide(each)) for each in left + before)
        return left + line + right, space + "^" * max(1, sum(1 + _wide(each) for each in marked))


class Report:
    """Collects what is wrong in a file."""

    def __init__(self, file: str, text: str = "") -> None:
        self.file = file
        self._text = text
        self._lines = text.split("\n")
        self.problems: list[Problem] = []
        self.warnings: list[tuple[type[Warning], Problem]] = []
        self._known: set[tuple[int, int, str]] = set()
        self.count = 0

    def _problem(self, place: Place, where: str, message: str, hint: str) -> Problem:
        line, column, width = place
        # Whether the line begins inside of a text of several lines, of which no name tells what it is.
        before = "\n".join(self._lines[: line - 1]) if '"""' in self._text or "'''" in self._text else ""
        is_text = before.count('"""') % 2 == 1 or before.count("'''") % 2 == 1
        text = self._lines[line - 1].rstrip("\r") if line <= len(self._lines) else ""
        source, mark = _Line(text, is_text=is_text, path=where).shown(column, width)
        return Problem(self.file, line, column, safe(where, "base_url"), message, safe(hint, "base_url"), source, mark)

    def wrong(self, at: Node | Place, message: str, hint: str = "", *, where: str | None = None) -> None:
        """Tells of something wrong, once."""
        place, path = (at.place, at.path) if isinstance(at, Node) else (at, "")
        same = (place[0], place[1], message)
        if same in self._known:
            return
        self._known.add(same)
        self.count += 1
        if self.count <= MOST_PROBLEMS:
            self.problems.append(self._problem(place, path if where is None else where, message, hint))

    def warn(self, kind: type[Warning], at: Node | Place, message: str, hint: str = "") -> None:
        """Tells of something that its author hardly wants."""
        place, path = (at.place, at.path) if isinstance(at, Node) else (at, "")
        if len(self.warnings) < MOST_PROBLEMS:
            problem = self._problem(place, path, message, hint)
            if (kind, problem) not in self.warnings:
                self.warnings.append((kind, problem))

    def meant(self, word: str, names: Iterable[str]) -> str:
        """A hint, where one of the names is close."""
        if self.count > MOST_PROBLEMS or len(word) > 80:
            return ""
        by_folded = {name.casefold(): name for name in names}
        near = difflib.get_close_matches(word.casefold().replace("-", "_"), list(by_folded), 1)
        return f'is "{by_folded[near[0]]}" meant?' if near else ""

    def error(self) -> ConfigurationError | None:
        """All problems as one error."""
        if not self.problems:
            return None
        ordered = tuple(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))
        more = self.count - len(ordered)
        head = "" if self.count == 1 else f"{self.count} errors in {self.file}\n\n"
        error = ConfigurationError(head + "\n\n".join(map(str, ordered)) + (f"\n\n… and {more} more" if more else ""))
        error.problems = ordered
        return error


def _undecoded(report: Report, data: bytes, error: UnicodeDecodeError) -> None:
    line = data.count(b"\n", 0, error.start) + 1
    begin = data.rfind(b"\n", 0, error.start) + 1
    column = len(data[begin : error.start].decode(errors="replace")) + 1
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        report.wrong((1, 1, 1), "this is UTF-16, and TOML is UTF-8: save the file as UTF-8")
    else:
        report.wrong(
            (line, column, 1), f"byte 0x{data[error.start]:02x} is no UTF-8, which TOML has to be: save the file as UTF-8"
        )


def read(path: Path) -> tuple[Report, Node | None]:
    """The file, as far as it could be read; nothing where what is wrong with it leaves open what the rest means.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        report = Report(str(path))
        report.wrong((1, 1, 1), f"this is more than {MOST_BYTES // 1024} KB, which no configuration is")
        return report, None
    try:
        text = data.decode().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as error:
        report = Report(str(path), data.decode(errors="replace"))
        _undecoded(report, data, error)
        return report, None
    report = Report(str(path), text)
    (place, value), problems = _seawall.read_toml(text)
    for at, message, _ in problems:
        report.wrong(at, f"this is no TOML: {safe(message)}")
    if not all(confined for *_, confined in problems):
        return report, None
    return report, Node("", place, place, value)


def plain(node: Node) -> Any:
    """The value without places."""
    if isinstance(node.value, Mapping):
        return {name: plain(each) for name, each in node.value.items()}
    return [plain(each) for each in node.value] if isinstance(node.value, list) else node.value


def is_read(node: Node) -> bool:
    """Whether all of it could be read."""
    inner = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    return node.value is not None and all(map(is_read, inner))


def shown(node: Node) -> str:
    """The value as an error may show it."""
    value = node.value
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return "a text" if is_secret(node.path) else quoted(value)
    if is_secret(node.path) and not isinstance(value, bool):
        return "a number"
    return str(value).lower() if isinstance(value, bool) else str(value)


def quoted(text: str) -> str:
    """A text in quotes, cut short."""
    text = safe(text)
    return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}…"'
