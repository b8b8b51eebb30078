"""What is wrong in a file is said so that whoever wrote it can mend it: where, what, what it may be, and what may be meant."""

from __future__ import annotations

import os
import textwrap

import pytest

import seawall
from seawall.errors import ConfigurationError

# Each kind of problem: the file, and all that is said of it, without the file's name.
SAID = {
    "a word without quotes": (
        "[models.x]\nmodel = gpt-4o\ntimeout = 20s\napi_key.env = 'A_KEY'",
        """
        2:9: this is no TOML: a text has to stand in quotes, and this is neither a number nor true or false
           2 | model = gpt-4o
             |         ^^^^^^
        3:11: this is no TOML: a text has to stand in quotes, and this is neither a number nor true or false
           3 | timeout = 20s
             |           ^^^
        """,
    ),
    "words of Python and JSON": (
        "[pipelines.x]\nretry = None\ncircuit = False",
        """
        2:9: this is no TOML: TOML has no word for nothing: leave the key out, or write false where a part is to be removed
           2 | retry = None
             |         ^^^^
        3:11: this is no TOML: true and false are written in small letters
           3 | circuit = False
             |           ^^^^^
        """,
    ),
    "no value": (
        "[models.x]\nmodel =\napi_key.env = 'A_KEY'",
        "2:8: this is no TOML: a value is missing here\n   2 | model =\n     |        ^",
    ),
    "said twice": (
        "[monitors.x]\nwindow = 1\nwindow = 2",
        "3:1: this is no TOML: this stands here a second time\n   3 | window = 2\n     | ^^^^^^",
    ),
    "a section that is none": (
        "[model.x]",
        '1:2: "model" is no section of a file; there are models, pipelines, circuits, rate_limits, hedges, bulkheads, caches, guardrails, monitors, sinks, defaults\n   1 | [model.x]\n     |  ^^^^^ is "models" meant?',
    ),
    "a section as a list": (
        "[[models]]\nmodel = 'x'",
        "1:1: models must be tables of their own, [models.NAME], not a list\n   1 | [[models]]\n     | ^^^^^^^^^^ write [models.NAME]",
    ),
    "an option beside the names": (
        "[monitors]\nwindow = 5",
        "2:10: monitors.window must be a table, [monitors.window], not 5\n   2 | window = 5\n     |          ^ is [monitors.NAME] with window in it meant?",
    ),
    "defaults without a section": (
        "[defaults]\ntimeout = 5",
        '2:1: defaults has no "timeout"; there are models, pipelines, circuits, rate_limits, hedges, bulkheads, caches, monitors\n   2 | timeout = 5\n     | ^^^^^^^ is [defaults.pipelines] meant?',
    ),
    "an option that is none, nearly": (
        "[monitors.x]\nwindw = 5",
        '2:1: monitors.x has no option "windw"\n   2 | windw = 5\n     | ^^^^^ is "window" meant?',
    ),
    "an option that is none": (
        "[monitors.x]\ncolour = 5",
        '2:1: monitors.x has no option "colour"; it may have window, name, rules, remind_every, sinks\n   2 | colour = 5\n     | ^^^^^^',
    ),
    "a parameter beside the options": (
        "[models.x]\nmodel = 'x'\napi_key.env = 'A_KEY'\ntemperature = 0",
        '4:1: models.x has no option "temperature"\n   4 | temperature = 0\n     | ^^^^^^^^^^^ it is a parameter of requests: write params = { temperature = … }',
    ),
    "an option among the parameters": (
        "[models.x]\nmodel = 'x'\napi_key.env = 'A_KEY'\nparams.timeout = 3",
        '4:18: models.x.params has "timeout", which is an option of the model and no parameter of requests\n   4 | params.timeout = 3\n     |                  ^',
    ),
    "something only for programs": (
        "[pipelines.x]\nretry.giveup = 'x'",
        "2:7: pipelines.x.retry.giveup is for programs: it is a function\n   2 | retry.giveup = 'x'\n     |       ^^^^^^",
    ),
    "something missing": (
        "[models.x]\napi_key.env = 'A_KEY'",
        "1:1: models.x.model is missing: the model's name\n   1 | [models.x]\n     | ^^^^^^^^^^ add model = …",
    ),
    "no type": (
        "[sinks.x]\nlogger = 'x'",
        '1:1: sinks.x.type is missing: "webhook" or "log" or "apprise" or "sentry"\n   1 | [sinks.x]\n     | ^^^^^^^^^ add type = "…"',
    ),
    "a type that is none": (
        "[sinks.x]\ntype = 'web_hook'",
        '2:8: sinks.x.type must be "webhook" or "log" or "apprise" or "sentry", not "web_hook"\n   2 | type = \'web_hook\'\n     |        ^^^^^^^^^^ is "webhook" meant?',
    ),
    "a time in other words": (
        "[pipelines.x]\ntimeout = '1 min 30 sec'",
        '2:11: pipelines.x.timeout must be seconds, or a text like "20s", "1m30s" or "250ms", or false for none, not "1 min 30 sec"\n   2 | timeout = \'1 min 30 sec\'\n     |           ^^^^^^^^^^^^^^ is "1m30s" meant?',
    ),
    "a number in quotes": (
        "[pipelines.x]\nretry = '3'",
        "2:9: pipelines.x.retry must be a number of attempts, a table like { attempts = 4 }, or false for none, not \"3\"\n   2 | retry = '3'\n     |         ^^^ write 3 without quotes",
    ),
    "a flag in quotes": (
        "[pipelines.x]\nchaos.enabled = 'true'",
        "2:17: pipelines.x.chaos.enabled must be true or false, not \"true\"\n   2 | chaos.enabled = 'true'\n     |                 ^^^^^^ write true without quotes",
    ),
    "out of bounds": (
        "[pipelines.x]\nretry = { attempts = 0, budget = 3 }\ntimeout = 0",
        """
        2:22: pipelines.x.retry.attempts must be a whole number from 1 on, not 0
           2 | retry = { attempts = 0, budget = 3 }
             |                      ^
        2:34: pipelines.x.retry.budget must be a share, more than 0 and at most 1, not 3
           2 | retry = { attempts = 0, budget = 3 }
             |                                  ^
        3:11: pipelines.x.timeout must be more than zero seconds, not 0
           3 | timeout = 0
             |           ^
        """,
    ),
    "what another needs": (
        "[circuits.x]\nfailure_threshold = 3\nminimum_calls = 5",
        "3:17: circuits.x.minimum_calls needs failure_rate or slow_call_duration: failures in a row are counted without it\n   3 | minimum_calls = 5\n     |                 ^",
    ),
    "a variable that is not set": (
        "[models.x]\nmodel = 'x'\napi_key = { env = 'A_KEEY' }",
        "3:19: models.x.api_key.env: the environment variable A_KEEY is not set\n   3 | api_key = { env = 'A_KEEY' }\n     |                   ^^^^^^^^ is \"A_KEY\" meant?",
    ),
    "a file that is not there": (
        "[models.x]\nmodel = 'x'\napi_key = { file = 'nowhere' }",
        "3:20: models.x.api_key.file: HERE/nowhere cannot be read: No such file or directory\n   3 | api_key = { file = 'nowhere' }\n     |                    ^^^^^^^^^",
    ),
    "a folder for a file": (
        "[models.x]\nmodel = 'x'\napi_key.env = 'A_KEY'\nca_bundle = '.'",
        "4:13: models.x.ca_bundle: HERE is no file\n   4 | ca_bundle = '.'\n     |             ^^^",
    ),
    "a source that is none": (
        "[models.x]\nmodel = 'x'\napi_key = { environ = 'A_KEY' }",
        """
        3:11: models.x.api_key must be { env = "NAME" } or { file = "path" }, with nothing else in it
           3 | api_key = { environ = '***' }
             |           ^^^^^^^^^^^^^^^^^^^ is "env" meant?
        """,
    ),
    "no key": (
        "[models.x]\nmodel = 'x'",
        '1:1: models.x has no api_key, and the environment variable OPENAI_API_KEY is not set\n   1 | [models.x]\n     | ^^^^^^^^^^ write api_key = { env = "NAME" }',
    ),
    "an address that is none": (
        "[models.x]\nmodel = 'x'\napi_key.env = 'A_KEY'\nbase_url = 'api.openai.com'",
        """
        4:12: models.x.base_url "api.openai.com" has no http:// or https:// in front; give it like "http://api.openai.com"
           4 | base_url = 'api.openai.com'
             |            ^^^^^^^^^^^^^^^^
        """,
    ),
    "a name that is none": (
        "[monitors.x]\nsinks = ['opps']\n[sinks.ops]\ntype = 'log'",
        '2:10: monitors.x.sinks[0]: there is no sink "opps"; there are "ops"\n   2 | sinks = [\'opps\']\n     |          ^^^^^^ is "ops" meant?',
    ),
    "a name where none are": (
        "[pipelines.x]\nmonitor = 'main'",
        "2:11: pipelines.x.monitor: there is no monitor \"main\"; the file has no [monitors.NAME]\n   2 | monitor = 'main'\n     |           ^^^^^^",
    ),
    "a circle": (
        "[defaults.models]\nmodel = 'x'\napi_key.env = 'A_KEY'\n[models]\na.fallbacks = ['b']\nb.fallbacks = ['c']\nc.fallbacks = ['a']",
        '7:16: models.c.fallbacks[0] goes in a circle: "a" → "b" → "c" → "a"\n   7 | c.fallbacks = [\'a\']\n     |                ^^^',
    ),
    "models of two types": (
        "[defaults.models]\nmodel = 'x'\napi_key.env = 'A_KEY'\n[models]\na.fallbacks = ['b']\nb.type = 'embeddings'",
        "5:15: models.a.fallbacks has <Embeddings x>, which is no Chat: only models of one type stand in for each other\n   5 | a.fallbacks = ['b']\n     |               ^^^^^",
    ),
    "a text as what stands in": (
        "[pipelines.x]\nfallback = 'sorry'",
        '2:12: pipelines.x.fallback must be a list of { model = "name" }, { value = "an answer" } or { prompt = "answer briefly: {}" }, or false for none, not "sorry"\n   2 | fallback = \'sorry\'\n     |            ^^^^^^^ write [{ value = "sorry" }]',
    ),
    "nothing said of what stands in": (
        "[pipelines.x]\npreset = 'prod'",
        '1:1: pipelines.x.fallback is missing: the preset "prod" wants it said aloud, a list of alternatives or false for none\n   1 | [pipelines.x]\n     | ^^^^^^^^^^^^^ add fallback = false, or what is to stand in',
    ),
    "a preset that is none": (
        "[pipelines.x]\npreset = 'prodution'",
        '2:10: pipelines.x.preset must be one of "default", "dev", "test", "prod", "development", "testing", "production", not "prodution"\n   2 | preset = \'prodution\'\n     |          ^^^^^^^^^^^ is "production" meant?',
    ),
    "a class that is none": (
        "[pipelines.x]\nretry.on = ['RatelimitErr', 'openai.APIError', 'KeyboardInterrupt']",
        """
        2:13: pipelines.x.retry.on[0] must be the name of a class of seawall.errors or of a builtin exception, not "RatelimitErr"
           2 | retry.on = ['RatelimitErr', 'openai.APIError', 'KeyboardInterrupt']
             |             ^^^^^^^^^^^^^^ is "RateLimitError" meant?
        2:29: pipelines.x.retry.on[1] must be the name of a class of seawall.errors or of a builtin exception, not "openai.APIError"
           2 | retry.on = ['RatelimitErr', 'openai.APIError', 'KeyboardInterrupt']
             |                             ^^^^^^^^^^^^^^^^^ "APIError" is seawall's class of this name
        2:48: pipelines.x.retry.on[2] must be the name of a class of seawall.errors or of a builtin exception, not "KeyboardInterrupt"
           2 | retry.on = ['RatelimitErr', 'openai.APIError', 'KeyboardInterrupt']
             |                                                ^^^^^^^^^^^^^^^^^^^
        """,
    ),
    "limits that are none": (
        "[pipelines.x]\nrate_limit = 5\nbulkhead = true\n[pipelines.y]\nbulkhead = 0\nrate_limit = 'acount'\n[rate_limits.account]\nper = 1\n[pipelines.z]\ncache = 60",
        """
        2:14: pipelines.x.rate_limit must be a table like { requests = 500, per = 60 }, or the name of one of rate_limits, not 5
           2 | rate_limit = 5
             |              ^
        3:12: pipelines.x.bulkhead must be a number of calls, a table like { max_concurrency = 8 }, or the name of one of bulkheads, not true
           3 | bulkhead = true
             |            ^^^^
        5:12: pipelines.y.bulkhead must be a whole number from 1 on, not 0
           5 | bulkhead = 0
             |            ^
        6:14: pipelines.y.rate_limit: there is no rate limit "acount"; there are "account"
           6 | rate_limit = 'acount'
             |              ^^^^^^^^ is "account" meant?
        7:1: rate_limits.account: a RateLimit needs requests=, tokens= or both: how much is allowed?
           7 | [rate_limits.account]
             | ^^^^^^^^^^^^^^^^^^^^^
        10:9: pipelines.z.cache must be a table like { ttl = 300 }, or the name of one of caches, not 60
          10 | cache = 60
             |         ^^
        """,
    ),
    "what follows from a mistake, not": (
        "[pipelines.x]\nchaos = { exception = 'Busy', exception_rate = 0.5 }",
        """
        2:23: pipelines.x.chaos.exception must be the name of a class of seawall.errors or of a builtin exception, not "Busy"
           2 | chaos = { exception = 'Busy', exception_rate = 0.5 }
             |                       ^^^^^^
        """,
    ),
    "something needed that is refused, and more": (
        "[models.x]\nmodel = ''\napi_key.env = 'A_KEY'\nmax_retries = -1",
        """
        2:9: models.x.model must be the name of a model, not ''
           2 | model = ''
             |         ^^
        4:15: models.x.max_retries must be a whole number from 0 on, not -1
           4 | max_retries = -1
             |               ^^
        """,
    ),
    "an empty time": (
        "[monitors.x]\nremind_every = ''",
        """
        2:16: monitors.x.remind_every must be seconds, or a text like "20s", "1m30s" or "250ms", not ""
           2 | remind_every = ''
             |                ^^
        """,
    ),
    "a folder for a key": (
        "[models.x]\nmodel = 'x'\napi_key = { file = '.' }",
        """
        3:20: models.x.api_key.file: HERE is no file
           3 | api_key = { file = '.' }
             |                    ^^^
        """,
    ),
    "transient among classes": (
        "[pipelines.x]\nretry.on = ['transient', 'ValueError']",
        """
        2:13: pipelines.x.retry.on[0] must be the name of a class of seawall.errors or of a builtin exception, not "transient"
           2 | retry.on = ['transient', 'ValueError']
             |             ^^^^^^^^^^^ "transient" stands by itself, in no list
        """,
    ),
    "a wait that is none": (
        "[pipelines.x]\nretry.wait = { exponental = {} }",
        '2:16: pipelines.x.retry.wait has no option "exponental"\n   2 | retry.wait = { exponental = {} }\n     |                ^^^^^^^^^^ is "exponential" meant?',
    ),
    "a wait out of bounds": (
        "[pipelines.x]\nretry.wait = { random = { min = 3, max = 1 } }",
        "2:42: pipelines.x.retry.wait.random.max must be at least min (3), not 1\n   2 | retry.wait = { random = { min = 3, max = 1 } }\n     |                                          ^",
    ),
    "rules": (
        "[[monitors.x.rules]]\nmetric = 'eror_rate'\n[[monitors.x.rules]]\nmetric = 'p95'\nwarning = '8s'\ncritical = 3\n[[monitors.x.rules]]\nmetric = 'p99'",
        """
        2:10: monitors.x.rules[0].metric must be one of outage, error_rate, success_rate, retry_rate, fallback_rate, avg_latency, p95, p99, first_token, tokens, cost, not 'eror_rate'
           2 | metric = 'eror_rate'
             |          ^^^^^^^^^^^ is "error_rate" meant?
        6:12: monitors.x.rules[1].critical must be at least the limit of warning (8), not 3
           6 | critical = 3
             |            ^
        7:1: monitors.x.rules[2]: warning, critical or emergency must be given: a rule needs a limit; float('inf') switches it off
           7 | [[monitors.x.rules]]
             | ^^^^^^^^^^^^^^^^^^^^
        """,
    ),
    "a level that is none": (
        "[monitors.x]\nsinks = [{ sink = 'log', level = 'critcal' }]\n[sinks.log]\ntype = 'log'",
        '2:34: monitors.x.sinks[0].level must be "warning", "critical" or "emergency", not "critcal"\n   2 | sinks = [{ sink = \'log\', level = \'critcal\' }]\n     |                                  ^^^^^^^^^ is "critical" meant?',
    ),
    "two ways to say one thing": (
        "[models.x]\nmodel = 'x'\napi_key.env = 'A_KEY'\nmax_retries = 3\nretry = 2\n[pipelines.y]\npolicies = [{ retry = 2 }]\ntimeout = 3",
        """
        4:15: models.x.max_retries and retry say the same in two ways: leave one out
           4 | max_retries = 3
             |               ^
        8:1: pipelines.y has policies, which is an order of its own: timeout is for one without
           8 | timeout = 3
             | ^^^^^^^
        """,
    ),
    "policies that are none": (
        "[pipelines.x]\npolicies = [{ retri = 3 }, { circuit = false }, 'retry', { timeout = 3, retry = 2 }]",
        """
        2:15: pipelines.x.policies[0] has no option "retri"
           2 | policies = [{ retri = 3 }, { circuit = false }, 'retry', { timeout = 3, retry = 2 }]
             |               ^^^^^ is "retry" meant?
        2:40: pipelines.x.policies[1].circuit is false, and this is a list of what there is
           2 | policies = [{ retri = 3 }, { circuit = false }, 'retry', { timeout = 3, retry = 2 }]
             |                                        ^^^^^ leave it out
        2:49: pipelines.x.policies[2] must be one policy in braces, such as { retry = 3 }, { circuit = true } or { timeout = "10s" }, not "retry"
           2 | policies = [{ retri = 3 }, { circuit = false }, 'retry', { timeout = 3, retry = 2 }]
             |                                                 ^^^^^^^
        2:58: pipelines.x.policies[3] must have one entry, not 2: one policy in braces, such as { retry = 3 }, { circuit = true } or { timeout = "10s" }
           2 | policies = [{ retri = 3 }, { circuit = false }, 'retry', { timeout = 3, retry = 2 }]
             |                                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^
        """,
    ),
    "a template's field": (
        "[sinks.x]\nurl = 'https://example.com/x'\ntemplate.text = '{mesage}'",
        "3:17: sinks.x.template.text names {mesage}: the fields of an alert are kind, level, previous, peak, metrics, limits, calls, incident, since, timestamp, name, message, silenced\n   3 | template.text = '{mesage}'\n     |                 ^^^^^^^^^^",
    ),
    "a bad default, once": (
        "[defaults.models]\ntimeout = 'soon'\nmodel = 'x'\napi_key.env = 'A_KEY'\n[models]\na = {}\nb = {}",
        '2:11: defaults.models.timeout must be seconds, or a text like "20s", "1m30s" or "250ms", or false for none, not "soon"\n   2 | timeout = \'soon\'\n     |           ^^^^^^',
    ),
}


def said(path: os.PathLike[str], text: str | bytes) -> str:
    """All that is said of a file, without its name."""
    path = path / "seawall.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError) as refused:
        seawall.load(path)
    error = refused.value
    blocks = [str(problem).replace(f"{path}:", "") for problem in error.problems]
    whole = "\n".join(blocks).replace(str(path.parent), "HERE")
    lines = "\n\n".join(map(str, error.problems))
    assert str(error) == (lines if len(blocks) == 1 else f"{len(blocks)} errors in {path}\n\n{lines}")
    return whole


@pytest.mark.parametrize("name", SAID)
def test_what_is_wrong_is_said(name, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-x")
    text, wanted = SAID[name]
    assert said(tmp_path, text) == textwrap.dedent(wanted).strip()


def test_all_that_is_wrong_is_said_in_the_file_s_order(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-x")
    texts = [text for name, (text, _) in SAID.items() if name.startswith(("out of", "a time", "rules"))]
    whole = "[sinks.last]\n" + "\n".join(text.replace(".x", f".x{at}") for at, text in enumerate(texts))
    (tmp_path / "s.toml").write_text(whole)
    with pytest.raises(ConfigurationError) as refused:
        seawall.load(tmp_path / "s.toml")
    places = [(problem.line, problem.column) for problem in refused.value.problems]
    assert len(places) == 8 and places[0] == (1, 1) and places == sorted(places)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"a = '\xff'", "1:6: byte 0xff is no UTF-8, which TOML has to be: save the file as UTF-8"),
        ("a = 1".encode("utf-16"), "1:1: this is UTF-16, and TOML is UTF-8: save the file as UTF-8"),
        (b"#" * 300_000, "1:1: this is more than 256 KB, which no configuration is"),
    ],
)
def test_what_is_no_text_is_said(data, wanted, tmp_path):
    assert said(tmp_path, data).split("\n")[0] == wanted


def test_a_file_saved_by_an_editor_of_windows_is_read(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf[monitors.main]\r\nwindow = 5\r\n")
    assert seawall.load(tmp_path / "s.toml").monitors["main"].window == 5
    assert said(tmp_path, b"\xef\xbb\xbf[monitors.main]\r\nwindow = 'x'\r\n").split("\n")[1] == "   2 | window = 'x'"


def test_marks_stand_under_what_they_mark(tmp_path):
    problem = said(tmp_path, "[monitors]\n\t'模型' = { window = 'x' }")
    assert problem.split("\n")[1:] == ["   2 | \t'模型' = { window = 'x' }", "     | \t                    ^^^"]
    long = said(tmp_path, f"[monitors]\nx = {{ name = '{'n' * 500}', window = 'x', remind_every = '{'r' * 500}' }}")
    shown, mark = long.split("\n")[1:3]
    assert len(shown) < 140 and shown[mark.index("^") :].startswith("'x'") and shown.endswith("…")


def test_of_a_line_without_end_nothing_is_shown(tmp_path):
    problem = said(tmp_path, f"[monitors]\nx = {{ name = '{'n' * 3000}', window = 'x' }}")
    assert "x.window must be" in problem and "nn" not in problem and "'x'" not in problem and "^" in problem


def test_many_problems_are_counted(tmp_path):
    (tmp_path / "s.toml").write_text("[monitors.x]\n" + "\n".join(f"unknown{at} = 1" for at in range(5000)))
    with pytest.raises(ConfigurationError, match=r"(?s)^5000 errors in .*… and 4950 more$") as refused:
        seawall.load(tmp_path / "s.toml")
    assert len(refused.value.problems) == 50


def test_what_doubles_at_each_step_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-x")
    models = "".join(f"m{at}.fallbacks = ['m{at + 1}', 'm{at + 1}']\n" for at in range(30))
    found = said(tmp_path, f"[defaults.models]\nmodel = 'x'\napi_key.env = 'A_KEY'\n[models]\n{models}m30 = {{}}\n")
    assert found.startswith(
        "29:17: models.m24.fallbacks comes to 126 alternatives, with those that they bring along; 63 are the most"
    )
    pipelines = "".join(f"p{at}.policies = [{{ pipeline = 'p{at + 1}' }}, {{ pipeline = 'p{at + 1}' }}]\n" for at in range(30))
    found = said(tmp_path, f"[pipelines]\n{pipelines}p30.policies = [{{ retry = 2 }}]\n")
    assert "policies comes to" in found
    chain = "".join(f"m{at}.fallbacks = ['m{at + 1}']\n" for at in range(400))
    found = said(tmp_path, f"[defaults.models]\nmodel = 'x'\napi_key.env = 'A_KEY'\n[models]\n{chain}m400 = {{}}\n")
    assert "a chain of more than 32 references leads here" in found
