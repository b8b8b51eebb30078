"""What a file describes is what the same calls would make, and works."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import seawall
from seawall import configuration
from seawall.configuration import ConfigurationWarning
from seawall.errors import ConfigurationError, RateLimitExceededError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a text, with a key in the environment."""
    monkeypatch.setenv("A_KEY", "sk-of-the-environment")

    def load(text: str) -> configuration.Config:
        path = tmp_path / "seawall.toml"
        path.write_text(text, encoding="utf-8")
        return seawall.load(path)

    return load


def model(sim: Simulator, more: str = "", name: str = "gpt-4o") -> str:
    return f'model = "{name}"\nbase_url = "{sim.base_url}"\napi_key = {{ env = "A_KEY" }}\n{more}\n'


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A server that lets in whoever has a key of the environment or of a file."""
    with Simulator(api_keys=["sk-of-the-environment", "sk-of-the-file", "sk-in-the-file-itself"]) as simulator:
        yield simulator


def test_a_model_asks_where_and_as_whom_the_file_says(load, sim):
    config = load("[models.fast]\n" + model(sim, 'params = { temperature = 0.5 }\ndefault_headers = { "x-team" = "blue" }'))
    chat = config.models["fast"]
    assert isinstance(chat, Chat) and chat.invoke("hello").content
    (request,) = sim.requests
    assert (request.headers["x-team"], request.body["temperature"], request.body["model"]) == ("blue", 0.5, "gpt-4o")


def test_retries_alternatives_and_monitors_of_a_model_are_the_file_s(load, sim):
    config = load(
        "[models.fast]\n"
        + model(sim, 'fallbacks = ["cheap"]\nmonitor = "main"\nretry = { attempts = 4, wait = 0 }')
        + "[models.cheap]\n"
        + model(sim, "max_retries = 0", "gpt-4o-mini")
        + "[monitors.main]\n"
    )
    sim.on("gpt-4o", faults.status(503))
    reply = config.models["fast"].invoke("hello")
    assert (reply.alternative, [attempt.model for attempt in reply.attempts]) == (1, ["gpt-4o"] * 4 + ["gpt-4o-mini"])
    assert config.monitors["main"].snapshot()["attempts"] == 5
    assert config.models["cheap"].monitor is None


def test_without_retries_there_is_one_request(load, sim):
    sim.on("gpt-4o", faults.status(503))
    config = load("[models.fast]\n" + model(sim, "retry = false"))
    with pytest.raises(seawall.errors.ServiceUnavailable):
        config.models["fast"].invoke("hello")
    assert sim.count() == 1


def test_embeddings_have_their_own_options(load, sim):
    config = load("[models.vectors]\ntype = 'embeddings'\nmax_batch_inputs = 1\n" + model(sim, name="text-embedding-3-small"))
    assert isinstance(config.models["vectors"], Embeddings)
    assert len(config.models["vectors"].invoke(["one", "two"]).vectors) == sim.count() == 2


def test_a_pipeline_guards_functions(load):
    config = load(
        """
        [pipelines.tools]
        retry = { attempts = 3, wait = 0, on = ["ConnectionError", "RateLimitError"] }
        fallback = [{ value = "instead" }]
        """
    )
    calls = []

    @config.pipelines["tools"]
    def tool() -> str:
        calls.append(1)
        raise ConnectionError

    assert (tool(), len(calls)) == ("instead", 3)


def described(text: str) -> list[str]:
    return [line.strip(" └") for line in str(text).splitlines()]


def test_a_preset_holds_where_the_table_says_nothing(load):
    config = load(
        '[pipelines.tools]\npreset = "prod"\nfallback = false\n[pipelines.mine]\npreset = "prod"\nfallback = false\nretry.wait = 1\ncircuit = false'
    )
    made = seawall.guard("prod", name="tools", fallback=None)
    assert described(config.pipelines["tools"].describe())[1:] == described(made.describe())[1:]
    mine = str(config.pipelines["mine"].describe())
    assert "up to 5 attempts" in mine and "20 % of the calls" in mine and "waits 1 s" in mine and "CircuitBreaker" not in mine


def test_what_a_circuit_does_not_say_is_as_in_that_of_a_guard(load):
    config = load(
        """
        [circuits]
        like_true = {}
        in_a_row = { failure_threshold = 7 }
        rate = { failure_rate = 0.2 }
        calls = { failure_rate = 0.2, window = 10, recovery_timeout = "1m" }
        """
    )
    says = {name: circuit.explain() for name, circuit in config.circuits.items()}
    own = seawall._decorators.own_breaker("like_true").explain()
    assert says["like_true"] == own
    assert "7 failures in a row" in repr(seawall.Pipeline(config.circuits["in_a_row"]).describe())
    shown = {name: repr(seawall.Pipeline(circuit).describe()) for name, circuit in config.circuits.items()}
    assert "20 %" in shown["rate"] and "30 s" in shown["rate"]
    assert "20 %" in shown["calls"] and "10 calls" in shown["calls"] and "60 s" in shown["calls"]


def test_what_is_named_in_two_places_is_one_thing(load, sim):
    config = load(
        "[circuits.openai]\nfailure_threshold = 9\n[monitors.main]\n[pipelines.one]\ncircuit = 'openai'\nmonitor = 'main'\n"
        "[pipelines.two]\npolicies = [{ retry = 2 }, { circuit = 'openai' }]\nmonitor = 'main'\n"
        "[models.fast]\n" + model(sim, "circuit = 'openai'")
    )
    breaker = config.circuits["openai"]
    assert all(breaker in config.pipelines[name].policies for name in ("one", "two"))
    assert config.pipelines["one"].monitor is config.pipelines["two"].monitor is config.monitors["main"]
    assert breaker.name == "openai"


def test_limits_are_shared_by_name_and_one_s_own_in_place(load, sim):
    config = load(
        "[models.a]\n"
        + model(sim, 'rate_limit = "account"\nbulkhead = 2')
        + "[models.b]\n"
        + model(sim, 'rate_limit = "account"')
        + """
        [pipelines.p]
        rate_limit = { requests = 3, per = "1h", max_wait = 0 }
        bulkhead = "few"
        [pipelines.ordered]
        policies = [{ rate_limit = "account" }, { bulkhead = { max_concurrency = 1 } }]
        [rate_limits.account]
        requests = 2
        per = "1h"
        burst = 2
        max_wait = 0
        [bulkheads.few]
        max_concurrency = 3
        """
    )
    account = config.rate_limits["account"]
    assert (account.name, config.bulkheads["few"].name) == ("account", "few")
    assert config.models["a"].invoke("x").content and config.models["b"].invoke("x").content
    for refused in (lambda: config.models["b"].invoke("x"), lambda: config.pipelines["ordered"].call(len, "x")):
        with pytest.raises(RateLimitExceededError, match="account"):
            refused()
    assert sim.count() == 2
    assert config.pipelines["p"].call(len, "x") == 1


def test_a_cache_gives_a_model_s_answers_again(load, sim):
    config = load(
        "[models.a]\n"
        + model(sim, 'cache = "answers"')
        + "[pipelines.ordered]\npolicies = [{ cache = { ttl = false } }, { retry = 2 }]\n[caches.answers]\nttl = '1m'"
    )
    assert [config.models["a"].invoke("x").cached for _ in range(2)] == [False, True]
    assert (sim.count(), config.caches["answers"].name) == (1, "answers")
    assert config.pipelines["ordered"].call(len, "x") == 1


def test_an_order_of_one_s_own_is_kept(load):
    config = load(
        """
        [pipelines.outer]
        policies = [
            { timeout = "1m" },
            { fallback = { alternatives = [{ value = 1 }], only_when_open = true } },
            { retry = { attempts = 2, wait = [0.5, { random = { max = 1 } }] } },
            { pipeline = "inner" },
        ]
        [pipelines.inner]
        policies = [{ circuit = true }, { timeout = { seconds = 5, thread = true } }, { chaos = { latency = 1 } }]
        """
    )
    kinds = [type(policy).__name__ for policy in config.pipelines["outer"].policies]
    assert kinds == ["Timeout", "Fallback", "Retry", "CircuitBreaker", "Timeout", "Chaos"]
    assert config.pipelines["inner"].policies[1].thread


def test_defaults_hold_where_tables_say_nothing_entry_by_entry(load, sim):
    config = load(
        "[defaults.models]\n"
        + model(sim, 'retry = { attempts = 2, wait = 0 }\ndefault_headers = { "x-a" = "1", "x-b" = "2" }')
        + '[models.fast]\nretry = { attempts = 3 }\ndefault_headers = { "x-b" = "3" }\n[models.slow]\nmodel = "gpt-4o-mini"\n'
    )
    sim.on("*", faults.status(503))
    for name, requests in (("fast", 3), ("slow", 2)):
        sim.forget()
        with pytest.raises(seawall.errors.ServiceUnavailable):
            config.models[name].invoke("hello")
        assert sim.count() == requests
        assert (sim.requests[0].headers["x-a"], sim.requests[0].headers["x-b"]) == ("1", "3" if name == "fast" else "2")


def test_tables_within_defaults_are_merged_entry_by_entry(load):
    config = load(
        "[defaults.pipelines]\nretry = { attempts = 2, budget = 0.5 }\n[pipelines.x]\nretry.attempts = 7\n[pipelines.y]\nretry = false"
    )
    assert "up to 7 attempts" in str(config.pipelines["x"].describe()) and "50 % of the calls" in str(
        config.pipelines["x"].describe()
    )
    assert "Retry" not in str(config.pipelines["y"].describe())


def test_what_is_about_chats_is_no_default_of_embeddings(load, sim):
    config = load(
        "[defaults.models]\nidle_timeout = 5\nparams = { temperature = 0 }\n[models.vectors]\ntype = 'embeddings'\n"
        + model(sim, name="text-embedding-3-small")
        + "[models.fast]\n"
        + model(sim)
    )
    config.models["vectors"].invoke("one")
    config.models["fast"].invoke("one")
    assert ["temperature" in request.body for request in sim.requests] == [False, True]


def test_the_defaults_key_for_another_service_is_warned_of(load, sim):
    defaults = "[defaults.models]\n" + model(sim) + "[models.fast]\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(defaults + "timeout = 5")
        load(defaults + "base_url = 'https://api.example.com/v1'\napi_key = { env = 'A_KEY' }")
    with pytest.warns(
        ConfigurationWarning, match=r"models.fast has a base_url and no api_key: it is sent that of defaults.models"
    ):
        load(defaults + "base_url = 'https://api.example.com/v1'")


def test_monitors_have_rules_and_tell_sinks(load, raw):
    server = raw(raw.answer("{}"))
    config = load(
        f"""
        [monitors.main]
        window = "1h"
        remind_every = "10m"
        sinks = ["hook", {{ sink = "log", level = "critical" }}]
        [[monitors.main.rules]]
        metric = "outage"
        emergency = 2
        [[monitors.main.rules]]
        metric = "p95"
        warning = "1m30s"
        [sinks.hook]
        url = "{server.base_url}/hook"
        template = {{ text = "{{message}}" }}
        [sinks.log]
        type = "log"
        logger = "ops"
        """
    )
    monitor = config.monitors["main"]
    assert (monitor.window, monitor.remind_every, monitor.name) == (3600.0, 600.0, "main")
    assert {rule.metric: rule.emergency or rule.warning for rule in monitor.rules if rule.metric in ("outage", "p95")} == {
        "outage": 2,
        "p95": 90,
    }
    assert monitor.sinks == [config.sinks["hook"], config.sinks["log"]]
    for _ in range(2):
        monitor.record(False)
    assert seawall.sinks.flush()
    assert server.requests[0].body == b'{"text": "ALERT (emergency): total outage, 2 failures in a row"}'


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20", 20),
        ("0.5", 0.5),
        ('"20s"', 20),
        ('"1m30s"', 90),
        ('"250ms"', 0.25),
        ('"1h"', 3600),
        ('"1.5h"', 5400),
        ('"1d2h3m4s5ms"', 93784.005),
    ],
)
def test_times_are_seconds_or_texts(load, written, seconds):
    assert load(f"[pipelines.x]\npolicies = [{{ timeout = {written} }}]").pipelines["x"].policies[0].seconds == seconds


def test_a_key_comes_from_a_file_beside_the_configuration(load, tmp_path, sim):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "openai").write_text("sk-of-the-file\n")
    config = load("[models.fast]\n" + model(sim).replace('{ env = "A_KEY" }', '{ file = "keys/openai" }'))
    assert config.models["fast"].invoke("hello").content


def test_a_key_in_the_file_is_warned_of_and_not_shown(load, sim):
    with pytest.warns(ConfigurationWarning) as warned:
        load("[models.fast]\n" + model(sim).replace('{ env = "A_KEY" }', '"sk-in-the-file-itself"'))
    (warning,) = warned
    assert "seawall.toml:4:11: models.fast.api_key is a secret that stands in the file" in str(warning.message)
    assert "in-the-file-itself" not in str(warning.message)
    assert warning.filename == __file__


def test_the_environment_s_key_for_another_service_is_warned_of(load, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with pytest.warns(ConfigurationWarning, match="is sent OPENAI_API_KEY, which may be another service's"):
        load('[models.fast]\nmodel = "m"\nbase_url = "https://api.example.com/v1"')


def test_known_wrong_settings_warn_with_their_place(load):
    with pytest.warns(
        seawall.PipelineOrderWarning, match=r"seawall.toml:3:11: pipelines.x: failure_threshold=2 is not above the 3 attempts"
    ):
        load("[pipelines.x]\nretry = 3\ncircuit = { failure_threshold = 2 }")
    with pytest.warns(
        seawall.PipelineOrderWarning, match=r"seawall.toml:2:12: pipelines.x: the CircuitBreaker stands outside the Fallback"
    ):
        load("[pipelines.x]\npolicies = [{ circuit = true }, { fallback = [{ value = 1 }] }]")


def test_what_is_right_warns_of_nothing(load, sim):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("[models.fast]\n" + model(sim))


def test_what_a_file_does_not_describe_is_told_with_what_it_does(load):
    config = load("[monitors.main]\n[monitors.other]\n")
    assert list(config.monitors) == ["main", "other"] and len(config.models) == 0 and "mian" not in config.monitors
    with pytest.raises(
        KeyError, match=r"seawall.toml describes no monitor 'mian'; there are 'main', 'other': is \"main\" meant\?"
    ) as refused:
        config.monitors["mian"]
    assert isinstance(refused.value, ConfigurationError)
    with pytest.raises(KeyError, match=r"describes no model 'fast'$"):
        config.models["fast"]
    assert config.models.get("fast") is None
    assert repr(config).endswith("seawall.toml: monitors main, other>")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        seawall.load(tmp_path / "nowhere.toml")


def test_paths_are_texts_too_and_begin_where_the_file_is(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "s.toml").write_text('[models.x]\nmodel = "m"\napi_key = { file = "key" }\n')
    (tmp_path / "deep" / "key").write_text("sk-x")
    monkeypatch.chdir(tmp_path)
    assert isinstance(seawall.load("deep/s.toml").models["x"], Chat)
    assert isinstance(seawall.load(str(Path("deep", "s.toml"))).models["x"], Chat)


def test_the_error_and_its_problems_travel(load):
    with pytest.raises(ConfigurationError) as refused:
        load("[monitors.main]\nwindow = 0\nnmae = 1")
    for again in (
        refused.value,
        pickle.loads(pickle.dumps(refused.value)),
        copy.copy(refused.value),
        copy.deepcopy(refused.value),
    ):
        assert [(each.line, each.column, each.where) for each in again.problems] == [
            (2, 10, "monitors.main.window"),
            (3, 1, "monitors.main.nmae"),
        ]
        assert str(again) == str(refused.value)
    assert ConfigurationError("x").problems == ()
