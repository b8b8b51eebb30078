"""The one table for each thing that a file may describe. Options have the names of the constructor's arguments; a test holds each table
against its constructor's signature, and another writes the page's tables from these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import seawall
from seawall import _rules, sinks
from seawall._guardrails import configured
from seawall.configuration import _compound as compound
from seawall.configuration._kinds import (
    ANYTHING,
    ERROR,
    ERRORS,
    FLAG,
    NUMBER,
    PARAMETERS,
    PATH,
    PATHS,
    PATTERNS,
    PROXY,
    SECONDS,
    SECONDS_OR_FALSE,
    SECRET,
    SHARE,
    SOURCED,
    STAND_IN,
    TEXT,
    TEXTS,
    URLS,
    WAIT,
    WHOLE,
    WINDOW,
    Option,
    named,
    names,
)
from seawall.llm import Chat, Embeddings


class Table(NamedTuple):
    """What a table of the file may hold. `own` are the options that are no arguments of the constructor; `spread` is the one whose list
    is given as positional arguments."""

    constructor: Callable[..., Any]
    options: tuple[Option, ...]
    own: tuple[str, ...] = ()
    spread: str | None = None
    alone: tuple[str, ...] = ()
    """Options for which `[defaults]` does not speak."""

    def option(self, name: str) -> Option | None:
        return next((each for each in self.options if each.name == name), None)

    @property
    def names(self) -> list[str]:
        """What may be written."""
        return [each.name for each in self.options if each.kind is not None]


def code(name: str, instead: str) -> Option:
    """An argument that only a program can give."""
    return Option(name, None, "", instead)


RETRY = Table(
    seawall.Retry,
    (
        Option("attempts", WHOLE, "3", "calls, all told"),
        Option("on", ERRORS, '`"transient"`', "which failures are tried again"),
        Option("wait", WAIT, "0.5 s doubling to 8 s", "time between two attempts"),
        Option("timeout", SECONDS, "none", "for all attempts and waits together"),
        Option("max_retry_after", SECONDS, "120", "the longest `Retry-After` that is waited for"),
        Option("budget", SHARE, "none", "the most retries, as a share of the calls"),
        code("stop", "attempts and timeout say when to stop"),
        code("on_result", "it is a function"),
        code("giveup", "it is a function"),
        code("before", "it is a function"),
        code("after", "it is a function"),
        code("before_sleep", "it is a function"),
    ),
)

CIRCUIT = Table(
    seawall.CircuitBreaker,
    (
        Option(
            "failure_threshold",
            WHOLE,
            "none",
            "failures in a row that open it; then the rate below is not looked at unless it is given",
        ),
        Option("recovery_timeout", SECONDS, "30", "until a probe is let through"),
        Option("expected_exception", ERRORS, '`"transient"`', "what counts as a failure"),
        Option("name", TEXT, "the table's", "in logs, errors and metrics"),
        Option("failure_rate", SHARE, "0.5", "the share of the window's calls from which it opens"),
        Option("slow_call_rate", SHARE, "1", "the share of slow calls from which it opens"),
        Option("slow_call_duration", SECONDS, "none", "from when on a call is slow"),
        Option("window", WINDOW, '`"30s"`', "what the rates are of"),
        Option("minimum_calls", WHOLE, "20", "calls that there must be before a rate counts"),
        Option("recovery_backoff", WAIT, "none", "lets the recovery time grow"),
        Option("half_open_max_calls", WHOLE, "1", "probes at a time"),
        Option("success_threshold", WHOLE, "1", "probes that must succeed for it to close"),
        Option("max_half_open_time", SECONDS, "60, or `recovery_timeout`", "after which a probe that hangs is given up"),
        Option("ignore", ERRORS, "none", "what counts neither as failure nor as success"),
        code("fallback_function", "it is a function; a pipeline has fallback"),
        code("on_result", "it is a function"),
        code("listeners", "they are functions"),
    ),
)

RATE_LIMIT = Table(
    seawall.RateLimit,
    (
        Option("requests", NUMBER, "any number", "so many in each `per`; this, `tokens` or both"),
        Option("tokens", NUMBER, "any number", "so many in each `per`, estimated first and settled by what was used"),
        Option("per", SECONDS, "60", "the span"),
        Option("burst", NUMBER, "a fiftieth of the limit", "what may go at once after a pause"),
        Option("max_queue", WHOLE, "1000", "calls that wait; more are turned away"),
        Option("max_wait", SECONDS, "as the call's limits allow", "the longest wait"),
        Option("settle", FLAG, "by what was used", "`false`: the estimate holds, for servers that go by what was asked for"),
        Option("estimate", TEXT, "four bytes a token", "a tiktoken encoding that counts them, such as `o200k_base`"),
        Option(
            "key",
            TEXT,
            "one limit for all",
            "a limit for each `model`, `endpoint`, or value of that argument of the function or parameter of the request",
        ),
        Option("max_keys", WHOLE, "10000", "keys that are remembered in any case"),
        Option("name", TEXT, "the table's", "in errors and logs"),
    ),
)

HEDGE = Table(
    seawall.Hedge,
    (
        Option("delay", SECONDS, "learnt", "without an answer, after which an attempt is made once more"),
        Option("percentile", SHARE, "0.95", "in place of `delay`: the share of attempts that answer in time"),
        Option("minimum_calls", WHOLE, "20", "attempts that have to be known before"),
        Option("initial_delay", SECONDS, "nothing is hedged", "until then"),
        Option("min_delay", SECONDS, "0.001", "never earlier"),
        Option("max_hedges", WHOLE, "1", "further requests of one call"),
        Option("budget", SHARE, "0.05", "the share of the calls that may be hedged"),
        Option("name", TEXT, "the table's", "in logs and stories"),
    ),
)

BULKHEAD = Table(
    seawall.Bulkhead,
    (
        Option("max_concurrency", WHOLE, "", "calls under way at a time", is_needed=True, stand_in=1),
        Option("max_queue", WHOLE, "0", "calls that wait; more are turned away"),
        Option("max_wait", SECONDS, "as the call's limits allow", "the longest wait"),
        Option("name", TEXT, "the table's", "in errors and logs"),
    ),
)

CACHE = Table(
    seawall.Cache,
    (
        Option("ttl", SECONDS_OR_FALSE, "300", "so long an answer is given again; `false`: as long as there is room"),
        Option("max_items", WHOLE, "10000", "answers that are kept"),
        Option("max_bytes", WHOLE, "64000000", "what they take together"),
        Option("stale_if_error", SECONDS, "0", "so long beyond its time an answer stands in for a call that fails"),
        Option("name", TEXT, "the table's", "in logs and stories"),
        Option("path", PATH, "in memory only", "the file that keeps answers beyond the process, and shares them"),
        code("key", "it is a function"),
    ),
)

GUARDRAILS = Table(
    configured,
    (
        Option("max_input_length", WHOLE, "none", "characters of all that is asked in a call"),
        Option("max_input_tokens", WHOLE, "none", "tokens of it"),
        Option("max_output_length", WHOLE, "none", "characters of each text that is answered"),
        Option("max_output_tokens", WHOLE, "none", "tokens of it"),
        Option("count", TEXT, "four bytes a token", "a tiktoken encoding that counts these tokens, such as `o200k_base`"),
        Option("redact_secrets", FLAG, "`false`", "whether keys, tokens and passwords are cut out, both ways"),
        Option("redact_personal", FLAG, "`false`", "likewise mail addresses, telephone, card and account numbers"),
        Option("redact", PATTERNS, "none", "patterns that are cut out, both ways"),
        Option("restore", FLAG, "`false`", "whether what is cut out of a question is put back into its answer"),
        Option("forbidden_input", PATTERNS, "none", "patterns that refuse what is asked"),
        Option("forbidden_output", PATTERNS, "none", "patterns that refuse what is answered"),
        Option("schema", PATH, "none", "a file with the JSON schema that answers have to fit"),
        Option("repair", FLAG, "`false`", "whether what is nearly JSON is mended"),
        Option("reask", WHOLE, "0", "how often the model is asked again, within the attempts"),
        Option("of", TEXT, "`messages`, or the first text", "the argument of a function that is looked at"),
        Option("max_held", WHOLE, "16384", "bytes of a stream that are held back at the most"),
    ),
)

CHAOS = Table(
    seawall.Chaos,
    (
        Option("latency", compound.LATENCY, "none", "added to calls"),
        Option("latency_rate", SHARE, "1", "to which share of them"),
        Option("exception", ERROR, "none", "raised in place of the call"),
        Option("exception_rate", SHARE, "1", "for which share"),
        Option("result", ANYTHING, "none", "given in place of the call's"),
        Option("result_rate", SHARE, "1", "for which share"),
        Option("seed", WHOLE, "any", "of chance"),
        Option("enabled", FLAG, "`false`", "whether anything happens"),
    ),
)

_MODEL = (
    Option("type", TEXT, '`"chat"`', '`"chat"` or `"embeddings"`'),
    Option("model", TEXT, "", "the model's name", is_needed=True, stand_in="model"),
    Option("api_key", SECRET, "`OPENAI_API_KEY`", "the key", stand_in=STAND_IN),
    Option("base_url", SOURCED, "OpenAI's", "where the service is", stand_in="http://localhost/"),
    Option("organization", SOURCED, "`OPENAI_ORG_ID`", "sent as `OpenAI-Organization`"),
    Option("project", SOURCED, "`OPENAI_PROJECT_ID`", "sent as `OpenAI-Project`"),
    Option("timeout", SECONDS_OR_FALSE, "60", "one attempt, to the last byte"),
    Option("first_token_timeout", SECONDS, "none", "of a stream, to its first content"),
    Option("idle_timeout", SECONDS, "none", "of a stream, from one content to the next"),
    Option("on_interrupt", TEXT, '`"error"`', '`"error"`, `"restart"` or `"continue"`: when a stream breaks off'),
    Option("max_retries", WHOLE, "2", "attempts after the first; `retry` says more"),
    Option("retry", compound.RETRY, "of 3 attempts", "its retries"),
    Option("circuit", compound.CIRCUIT, "`false`", "its breaker"),
    Option("hedge", compound.HEDGE, "none", "when an attempt is made once more, beside the one under way"),
    Option("rate_limit", compound.RATE_LIMIT, "none", "what each attempt waits for"),
    Option("bulkhead", compound.BULKHEAD, "none", "how many attempts are under way at a time"),
    Option("cache", compound.CACHE, "none", "what gives its answers again"),
    Option("guardrails", named("guardrails", "guardrail"), "none", "what questions and answers have to pass"),
    Option("fallbacks", names("models", "model"), "none", "models that stand in, in order"),
    Option("monitor", named("monitors", "monitor"), "none", "what counts its calls"),
    Option("params", PARAMETERS, "none", "parameters of every request: `temperature`, `max_completion_tokens`, …"),
    Option("default_headers", TEXTS, "none", "with every request"),
    Option("default_query", TEXTS, "none", "with every request"),
    Option("max_response_bytes", WHOLE, "64 MiB", "a longer reply is refused"),
    Option("ca_bundle", PATH, "the system's", "a PEM file of authorities to trust"),
    Option("client_cert", PATHS, "none", "our own certificate"),
    Option("proxy", PROXY, "the environment's", "the proxy to use"),
    Option("idempotency_key", FLAG, "`false`", "whether each call has an `Idempotency-Key`"),
)
_MODEL_OWN = ("type", "retry", "fallbacks", "params")
CHAT = Table(Chat, _MODEL, _MODEL_OWN)
EMBEDDINGS = Table(
    Embeddings,
    (
        *_MODEL,
        Option("max_batch_inputs", WHOLE, "2048", "texts in one request"),
        Option("max_batch_tokens", WHOLE, "300000", "tokens in one request"),
    ),
    _MODEL_OWN,
    # What is about streams and chats is no embeddings model's.
    alone=("params", "first_token_timeout", "idle_timeout", "on_interrupt", "guardrails"),
)

PIPELINE = Table(
    seawall.guard,
    (
        Option("preset", TEXT, "the default one", '`"dev"`, `"test"` or `"prod"`: what holds where the table says nothing'),
        Option("name", TEXT, "the table's", "in logs and notes"),
        Option("retry", compound.RETRY, "the preset's", "attempts"),
        Option("fallback", compound.FALLBACK, "none; `prod` wants it said", "what stands in, in order"),
        Option("timeout", SECONDS_OR_FALSE, "the preset's", "for the primary with its retries"),
        Option("attempt_timeout", SECONDS_OR_FALSE, "the preset's", "for one attempt"),
        Option("deadline", SECONDS_OR_FALSE, "none", "for everything, fallbacks included"),
        Option("circuit", compound.CIRCUIT, "the preset's", "its breaker"),
        Option("hedge", compound.HEDGE, "none", "when an attempt is made once more, beside the one under way"),
        Option("rate_limit", compound.RATE_LIMIT, "none", "what each attempt waits for"),
        Option("bulkhead", compound.BULKHEAD, "none", "how many attempts are under way at a time"),
        Option("cache", compound.CACHE, "none", "what gives answers again"),
        Option("guardrails", named("guardrails", "guardrail"), "none", "what arguments and results have to pass"),
        Option("monitor", compound.MONITOR, "the preset's", "what counts its calls"),
        Option("chaos", compound.CHAOS, "none", "faults on purpose, for tests"),
        Option(
            "policies",
            compound.POLICIES,
            "none",
            "in place of all others but `name` and `monitor`: an order of your own, outermost first",
        ),
    ),
    ("policies",),
)

TIMEOUT = Table(
    seawall.Timeout,
    (
        Option("seconds", SECONDS, "", "the limit", is_needed=True, stand_in=1),
        Option("thread", FLAG, "`false`", "whether a plain function is left behind on a thread when it is over"),
    ),
)

FALLBACK = Table(
    seawall.Fallback,
    (
        Option("alternatives", compound.FALLBACK, "", "what stands in, in order", is_needed=True),
        Option("on", ERRORS, "what may help elsewhere", "for which failures"),
        Option("only_when_open", FLAG, "`false`", "only for calls that an open circuit turned away"),
        code("on_result", "it is a function"),
    ),
    spread="alternatives",
)

RULE = Table(
    _rules.Rule,
    (
        Option("metric", TEXT, "", f"one of {', '.join(f'`{name}`' for name in _rules.METRICS)}", is_needed=True),
        Option("warning", compound.BOUND, "none", "the limit of this level"),
        Option("critical", compound.BOUND, "none", "likewise"),
        Option("emergency", compound.BOUND, "none", "likewise"),
        Option("minimum", WHOLE, "by metric", "calls that there must be before it can begin an incident"),
        Option("clear", SHARE, "0.8", "a level is left at this share of its limit"),
        Option("hold", SECONDS, "0", "so long it has to be bad before it is said"),
        Option("clear_hold", SECONDS, "as `hold`", "so long it has to be good again before that is"),
    ),
)

MONITOR = Table(
    seawall.Monitor,
    (
        Option("window", WINDOW, "100", "what its numbers are of"),
        Option("name", TEXT, "the table's", "in alerts and pictures"),
        Option("rules", compound.RULES, "the document's limits", "when a number is bad"),
        Option("remind_every", SECONDS, "never", "after which an incident that lasts is told again"),
        Option("sinks", compound.SINKS, "none", 'where alerts go: names of sinks, or `{ sink = "name", level = "critical" }`'),
    ),
)

_TYPE = Option("type", TEXT, '`"webhook"` where there is a `url`', "which of these it is", is_needed=True)
SINKS = {
    "webhook": Table(
        sinks.Webhook,
        (
            _TYPE,
            Option("url", SOURCED, "", "where to; never shown", is_needed=True, stand_in="http://localhost/"),
            Option("headers", TEXTS, "none", "further headers"),
            Option("secret", SECRET, "none", "signs each delivery as Standard Webhooks has it"),
            Option("template", ANYTHING, "all of the alert", 'what is sent, with fields in braces: `{ text = "{message}" }`'),
        ),
        ("type",),
    ),
    "log": Table(sinks.LogSink, (_TYPE, Option("logger", TEXT, '`"seawall.alerts"`', "the name of a logger")), ("type",)),
    "apprise": Table(
        sinks.Apprise, (_TYPE, Option("urls", URLS, "", "apprise's URLs", is_needed=True)), ("type",), spread="urls"
    ),
    "sentry": Table(sinks.Sentry, (_TYPE,), ("type",)),
}

_FACTOR = Option("multiplier", NUMBER, "1", "the first wait, in seconds")
_BASE = Option("exp_base", NUMBER, "2", "by which it grows each time")
_MOST = Option("max", SECONDS, "none", "the longest wait")
_LEAST = Option("min", SECONDS, "0", "the shortest wait")
_GROWTH = (_FACTOR, _MOST, _BASE, _LEAST)
_FIRST = Option("initial", SECONDS, "1", "the first wait")
WAITS = {
    "fixed": Table(seawall.wait_fixed, (Option("wait", SECONDS, "", "always this", is_needed=True),)),
    "random": Table(seawall.wait_random, (Option("min", SECONDS, "0", "from"), Option("max", SECONDS, "1", "to"))),
    "incrementing": Table(
        seawall.wait_incrementing,
        (
            Option("start", SECONDS, "0", "the first wait"),
            Option("increment", SECONDS, "100", "by which each is longer than the one before"),
            _MOST,
        ),
    ),
    "exponential": Table(seawall.wait_exponential, _GROWTH),
    "random_exponential": Table(seawall.wait_random_exponential, _GROWTH),
    "full_jitter": Table(seawall.wait_full_jitter, _GROWTH),
    "equal_jitter": Table(seawall.wait_equal_jitter, _GROWTH),
    "exponential_jitter": Table(
        seawall.wait_exponential_jitter, (_FIRST, _MOST, _BASE, Option("jitter", SECONDS, "1", "chance up to this is added"))
    ),
    "decorrelated_jitter": Table(seawall.wait_decorrelated_jitter, (_FIRST, _MOST)),
}
