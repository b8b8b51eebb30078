"""Scripts: what they say happens, what is wrong in them is told with its place, and no text makes them panic."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.errors import ConfigurationError
from seawall.llm import Chat
from seawall.simulator import Simulator, __main__, _script, faults

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
EXAMPLE = re.findall(r"^```toml\n(.*?)^```\n", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]


def fates(sim: Simulator, models: list[str]) -> list[str]:
    """What each of the requests for these models meets."""
    with sim:
        for model in models:
            Chat(model, api_key="k", base_url=sim.base_url, max_retries=0).batch(["x"], return_exceptions=True)
        return [request.fault for request in sim.requests]


def test_a_script_does_what_the_same_calls_do(seawall_clock):
    text = """
        seed = 3
        models = "a"
        require_key = false
        [[rule]]
        models = ["a", "b"]
        fault = { name = "cut", after = 1, how = "json" }
        times = 1
        [[rule]]
        fault = "empty_body"
        after = 2
        [[outage]]
        from = 10
        until = 20
        fault = { name = "status", code = 529, latency = [0, 0.001] }
        [[limit]]
        requests_per_minute = 5
        [[pace]]
        models = "b"
        latency = { distribution = "percentiles", p50 = 0.0, p99 = 0.001 }
    """
    with Simulator.loads(text, models=["a", "b"]) as sim:
        ask = Chat("a", api_key="k", base_url=sim.base_url, max_retries=0)
        met = []
        for _ in range(6):
            ask.batch(["x"], return_exceptions=True)
            met.append(sim.requests[-1].fault)
            seawall_clock.advance(4)
        assert met == ["cut json", "ok", "empty body", "outage: status 529", "outage: status 529", "empty body"]


def test_a_script_is_loaded_from_a_file_and_arguments_go_before_it(tmp_path):
    path = tmp_path / "trouble.toml"
    path.write_text('models = ["a"]\napi_keys = ["k"]\n[[rule]]\nfault = { name = "status", code = 418 }\n')
    with Simulator.load(path) as sim:
        Chat("a", api_key="k", base_url=sim.base_url, max_retries=0).batch(["x"], return_exceptions=True)
        Chat("a", api_key="wrong", base_url=sim.base_url, max_retries=0).batch(["x"], return_exceptions=True)
        assert [request.fault for request in sim.requests] == ["status 418", "refused 401"]
    assert fates(Simulator.load(str(path), models=None), ["b"]) == ["status 418"]
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"trouble.toml: a script must be TOML in UTF-8"):
        Simulator.load(path)
    with pytest.raises(OSError, match="nowhere"):
        Simulator.load(tmp_path / "nowhere.toml")
    with pytest.raises(TypeError, match="must be a str"):
        Simulator.loads(b"")  # type: ignore[arg-type]


def test_the_example_of_the_page_is_a_script():
    Simulator.loads(EXAMPLE)


WRONG = [
    ("seed = ", "script:1:8: this is no TOML"),
    ("[[rule]\n", "script:1:"),
    (
        "a = 2024-01-01",
        "script:1:5: this is no TOML: 2024-01-01 is a date, which nothing here is: write a text in quotes, and a time in seconds",
    ),
    ("sed = 1", "script:1:1: 'sed' is not known here; is 'seed' meant?; there may be api_keys, limit"),
    ("seed = -1", "script:1:1: seed must be a whole number from 0 on, not -1"),
    ("\nmodels = 5", "script:2:1: models must be names, not 5"),
    ("require_key = 1", "script:1:1: require_key must be True or False"),
    ("rule = 5", "script:1:8: rule must be written [[rule]]"),
    ('[rule]\nfault = "ok"', "script:1:1: rule must be written [[rule]]"),
    ("rule = [5]", "script:1:9: [[rule]]: this must be a table, not 5"),
    ("[[rule]]\ntimes = 2", "script:1:1: [[rule]]: fault is missing"),
    ('[[rule]]\nfault = "rate_limt"', "script:2:9: [[rule]] fault: fault must be one of broken_json"),
    ('[[rule]]\nfault = "rate_limt"', "not 'rate_limt'; is 'rate_limit' meant?"),
    ("[[rule]]\nfault = 5", "script:2:9: [[rule]] fault: this must be a table, not 5"),
    ("[[rule]]\nfault = { code = 5 }", "script:2:9: [[rule]] fault: name is missing: one of broken_json"),
    ('[[rule]]\nfault = "status"', "script:2:9: [[rule]] fault: code is missing for status"),
    (
        '[[rule]]\nfault = "ok"\n[[rule]]\nfault = { name = "status", code = 99 }',
        "script:4:28: [[rule]] 2 fault: code must be an HTTP status from 200 to 599, not 99",
    ),
    (
        '[[rule]]\nfault = { name = "reset", cod = 99 }',
        "script:2:27: [[rule]] fault: 'cod' is not known to reset; there may be latency",
    ),
    ('[[rule]]\nfault = { name = "hang", latency = 9 }', "'latency' is not known to hang; it takes nothing"),
    ('[[rule]]\nfault = "ok"\nprobability = 2', "script:3:1: [[rule]]: probability must be a share from 0 to 1, not 2"),
    ('[[rule]]\nfault = "ok"\ntimes = -1', "script:3:1: [[rule]]: times must be"),
    ('[[rule]]\nfault = "ok"\nmodels = []', "script:3:10: [[rule]]: models must be a name or a list of names, not []"),
    ('[[rule]]\nfault = "ok"\nstart = 5', "script:3:1: [[rule]]: 'start' is not known here"),
    ("[[outage]]\nfrom = 5\nuntil = 5", "script:3:1: [[outage]]: until must be later than from (5), not 5"),
    ("[[outage]]\nfrom = 'x'", "script:2:1: [[outage]]: from must be a number of seconds"),
    ("[[pace]]\nlatency = [1]", "script:2:1: [[pace]]: latency must be seconds, or a pair of the least and the most"),
    ("[[pace]]\nlatency = { mean = 1 }", "script:2:11: [[pace]] latency: distribution is missing: one of fixed"),
    ('[[pace]]\nlatency = { distribution = "gauss" }', "script:2:28: [[pace]] latency: distribution must be one of"),
    ('[[pace]]\nlatency = { distribution = "normal", mean = 1 }', "[[pace]] latency: deviation is missing for normal"),
    (
        '[[pace]]\nlatency = { distribution = "normal", mean = -1, deviation = 1 }',
        "script:2:38: [[pace]] latency: mean must be zero seconds or more, not -1",
    ),
    ('[[pace]]\nlatency = { distribution = "percentiles", x = 1 }', "script:2:43: [[pace]] latency: x must be a percentile"),
    ("[[limit]]\nmodels = 'a'", "script:1:1: [[limit]]: requests_per_minute or tokens_per_minute is missing"),
    ("[[limit]]\ntokens_per_minute = 0", "script:2:1: [[limit]]: tokens_per_minute must be a whole number from 1"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_told_with_its_place(text, words):
    with pytest.raises(ConfigurationError) as raised:
        Simulator.loads(text)
    assert words in str(raised.value)
    assert str(raised.value).startswith("script:")


NAMES = ("a", "b", "*")
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("ok", {}),
    ("status", {"code": 503, "message": 'a "b" ü'}),
    ("rate_limit", {"retry_after": 2.5}),
    ("reply", {"text": "x", "tool_calls": [{"name": "f", "arguments": {"a": [1, {"b": "c"}]}}]}),
    ("cut", {"after": 1, "how": "error"}),
    ("empty_choices", {"latency": [0, 0.001]}),
]
rules = st.fixed_dictionaries(
    {"model": st.sampled_from(NAMES), "fault": st.sampled_from(FAULTS)},
    optional={
        "times": st.integers(0, 3),
        "after": st.integers(0, 3),
        "probability": st.sampled_from([0, 0.25, 0.5, 1]),
        "path": st.sampled_from(["chat", "embeddings"]),
        "start": st.sampled_from([0, 1000]),
        "until": st.just(2000.5),
    },
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def written(seed: int, rules: list[dict[str, Any]]) -> str:
    lines = [f"seed = {seed}"]
    for rule in rules:
        name, arguments = rule["fault"]
        table = {**rule, "models": rule["model"], "fault": {"name": name, **arguments}, "from": rule.get("start", 0)}
        lines += ["[[rule]]", *(f"{key} = {toml(value)}" for key, value in table.items() if key not in ("model", "start"))]
    return "\n".join(lines)


@given(seed=st.integers(0, 9), rules=st.lists(rules, max_size=4))
@settings(max_examples=15, deadline=None)
def test_rules_written_as_a_script_deal_what_they_deal_written_in_python(seed, rules):
    asked = ["a", "b", "a", "a", "b", "a"]
    plain = Simulator(seed)
    for rule in reversed(rules):
        name, arguments = rule["fault"]
        arguments = {key: tuple(value) if key == "latency" else value for key, value in arguments.items()}
        plain.on(**{**rule, "fault": getattr(faults, name)(**arguments)})
    assert fates(Simulator.loads(written(seed, rules)), asked) == fates(plain, asked)


def loaded(text: str) -> None:
    """Loads a script, or learns where it is wrong."""
    try:
        Simulator.loads(text)
    except ConfigurationError as error:
        assert re.match(r"script:\d+:\d+: .", str(error)), text


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_mangled_script_is_refused_or_loaded(data):
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 12)))
        piece = data.draw(
            st.one_of(st.text(max_size=6), st.sampled_from(["[[", "]]", "{", "}", "=", "\n", '"', "'''", "9" * 30, "nan", "-1"]))
        )
        text = text[:begin] + piece + text[end:]
    loaded(text)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_or_loaded(text):
    loaded(text)


@pytest.mark.parametrize(
    "value", ["[" * 5000, "{a=" * 5000, "a." * 5000 + "b = 1", "x = " + "9" * 5000, "\ufeffseed = 1", "\x00", "seed = nan"]
)
def test_a_script_to_be_afraid_of_is_refused_or_loaded(value):
    loaded(value)
    loaded(f"a = {value}")


def test_the_page_names_every_fault_distribution_key_and_option():
    page = PAGE.read_text(encoding="utf-8")
    words = {*_script._FAULTS, *_script._DISTRIBUTIONS, *_script.SETTINGS, *_script.TABLES}
    words |= {key for _, keys in _script.TABLES.values() for key in keys}
    assert [word for word in sorted(words) if f"`{word}" not in page and f"[[{word}]]" not in page] == []
    options = {option for action in __main__._parser()._actions for option in action.option_strings if option.startswith("--")}
    assert [option for option in sorted(options - {"--help"}) if option not in page] == []
    for command in re.findall(r"^python -m seawall.simulator (.*)$", page, re.MULTILINE):
        __main__._parser().parse_args(command.split())
