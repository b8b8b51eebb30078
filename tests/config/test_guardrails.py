"""Guardrails of a configuration file: what is built of them, and what is wrong with one that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import seawall
from seawall.errors import ConfigurationError, InputRefusedError, OutputRefusedError, OutputShapeError

FILE = """
[guardrails.strict]
max_input_length = 40
redact_secrets = true
redact_personal = true
redact = ['tok[a-z]+']
forbidden_input = ['(?i)ignore']
forbidden_output = ['bad']
schema = "schema.json"
repair = true

[pipelines.ask]
guardrails = "strict"

[models.main]
model = "m"
api_key = "k"
guardrails = "strict"
"""


def test_they_are_what_the_same_words_in_python_are(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "required": ["a"]}))
    path = tmp_path / "seawall.toml"
    path.write_text(FILE)
    with pytest.warns(seawall.configuration.ConfigurationWarning, match="key"):
        config = seawall.load(path)
    rails = config.guardrails["strict"]
    assert config.models["main"].guardrails is rails
    ask = config.pipelines["ask"](lambda prompt: prompt)
    assert ask('{"a": "token of me@example.org",}') == '{"a":"[redacted] of [email]"}'
    for text, error in (
        ("x" * 41, InputRefusedError),
        ("Ignore", InputRefusedError),
        ('{"a": "bad"}', OutputRefusedError),
        ("{}", OutputShapeError),
    ):
        with pytest.raises(error):
            ask(text)


def test_what_is_cut_out_may_be_put_back(tmp_path: Path) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text("[guardrails.kind]\nredact_personal = true\nrestore = true\n[pipelines.ask]\nguardrails = 'kind'\n")
    ask = seawall.load(path).pipelines["ask"](lambda prompt: f"{prompt} {len(prompt)}")
    assert ask("me@example.org") == "me@example.org 9"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("redact = 'x'", "must be a list of patterns"),
        ("redact = [3]", "must be a pattern, a text"),
        ("redact = ['(?=x)y']", "look-around"),
        ("schema = 'nowhere.json'", "nowhere.json"),
        ("restore = true", "restore is about what is cut out"),
        ("reask = 1", "repair and reask are about a schema"),
        ("max_input_length = 0", "characters"),
    ],
)
def test_what_is_wrong_with_one_is_said_with_its_place(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text(f"[guardrails.x]\n{line}\n")
    with pytest.raises(ConfigurationError, match=says) as wrong:
        seawall.load(path)
    assert len(wrong.value.problems) == 1
