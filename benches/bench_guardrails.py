"""What each guardrail costs, in nanoseconds for a check of a text of 1 KB and of 20 KB in which it finds nothing; beside it the same
patterns in the standard library's `re`, where there are some. And what a stream's piece costs that passes them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from _harness import arguments, called, measure
from _report import Report, Table
from seawall import Guardrails
from seawall.guardrails import Detector, Forbidden, MaxLength, MaxTokens, Redact, Shape

SSN, INJECTION = r"\b\d{3}-\d{2}-\d{4}\b", r"(?i)ignore (?:all )?previous instructions"
WORDS = "The quick brown fox, who is 7 years old, jumps over the lazy dog at https://example.org/path?a=b and goes home. "


class Row(BaseModel):
    name: str
    age: int


def text(size: int) -> str:
    return (WORDS * (size // len(WORDS) + 1))[:size]


def json_text(size: int) -> str:
    rows = ",".join('{"name": "Jo Smith", "age": 33}' for _ in range(size // 32))
    return f'{{"name": "x", "age": 1, "rows": [{rows}]}}'


def rules() -> dict[str, Guardrails]:
    def alone(rule: Any) -> Guardrails:
        return Guardrails(output=[rule])

    return {
        "no rule": Guardrails(),
        "MaxLength": alone(MaxLength(10**9)),
        "MaxTokens": alone(MaxTokens(10**9)),
        "Forbidden, one pattern": alone(Forbidden(INJECTION)),
        "Redact, one pattern": alone(Redact(SSN)),
        "Redact.secrets()": alone(Redact.secrets()),
        "Redact.personal()": alone(Redact.personal()),
        "Detector, an empty function": alone(Detector(lambda text: None)),
        "all of these": Guardrails(
            output=[MaxLength(10**9), MaxTokens(10**9), Forbidden(INJECTION), Redact(SSN), Redact.secrets(), Redact.personal()]
        ),
    }


def main() -> None:
    given = arguments(__doc__ or "")
    pace: dict[str, Any] = {"rounds": 5, "slice_ms": 5} if given.quick else {"rounds": 15, "slice_ms": 50}
    report = Report("guardrails", "What guardrails cost", ("pydantic",))
    for size, name in ((1_000, "1 KB"), (20_000, "20 KB")):
        subject = text(size)
        loops = {
            rule: called("target[0]._check('output', target[1])", (rails, [("content", subject)]))
            for rule, rails in rules().items()
        }
        for label, pattern in (("re: the forbidden pattern", INJECTION), ("re: the redacted pattern", SSN)):
            loops[label] = called("target[0](target[1])", (re.compile(pattern).search, subject))
        shaped = json_text(size)
        for label, rails in (
            ("Shape, a pydantic model", Guardrails(output=[Shape(Row)])),
            ("Shape, repair of what is in fences", Guardrails(output=[Shape(Row, repair=True)])),
        ):
            answer = f"```json\n{shaped}\n```" if "repair" in label else shaped
            loops[label] = called("target[0]._fit('content', target[1], 0, [])", (rails, answer))
        loops["pydantic alone"] = called("target[0](target[1])", (Row.model_validate_json, shaped))
        rounds = measure(loops, **pace)
        table = Table(f"A check of {name}, nothing found", ["ns", "median", "min", "ns for a KB"], notes=[])
        for rule in loops:
            table.add(rule, rounds.median(rule), rounds.low(rule), rounds.median(rule) / (size / 1_000))
        report.table(table, rounds=rounds.values)
    filters = {
        rule: rails._filter("content")
        for rule, rails in rules().items()
        if rule not in ("no rule", "Detector, an empty function")
    }
    loops = {rule: called("target.push(' word')", filter) for rule, filter in filters.items()}
    rounds = measure(loops, **pace)
    table = Table("A piece of a stream, of five characters", ["ns", "median", "min"], notes=[])
    for rule in loops:
        table.add(rule, rounds.median(rule), rounds.low(rule))
    report.table(table, rounds=rounds.values)
    report.finish()


if __name__ == "__main__":
    main()
