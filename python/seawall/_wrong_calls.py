"""What is said of calls that cannot be, and what was meant: misspelt arguments, policies as decorators, results for functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seawall._word import shown
from seawall.errors import ConfigurationTypeError

# What other libraries, and this one elsewhere, call an argument.
_ALSO_CALLED = {
    "Retry": {
        **dict.fromkeys(
            ("tries", "max_tries", "max_attempts", "retries", "max_retries", "times", "stop_after_attempt"), "attempts"
        ),
        **dict.fromkeys(("exceptions", "exception", "retry", "retry_on", "expected_exception"), "on"),
        **dict.fromkeys(("delay", "backoff", "interval", "seconds"), "wait"),
    },
    "CircuitBreaker": {
        **dict.fromkeys(("fail_max", "threshold", "failures", "max_failures"), "failure_threshold"),
        **dict.fromkeys(("reset_timeout", "recovery", "timeout", "seconds"), "recovery_timeout"),
        **dict.fromkeys(("on", "exceptions", "exception"), "expected_exception"),
        **dict.fromkeys(("exclude", "excluded"), "ignore"),
        "fallback": "fallback_function",
    },
    "Timeout": {"timeout": "seconds", "limit": "seconds"},
    "Cache": {
        "seconds": "ttl",
        "timeout": "ttl",
        "expire": "ttl",
        "maxsize": "max_items",
        "max_size": "max_items",
        "file": "path",
    },
    "Bulkhead": {"limit": "max_concurrency", "max_workers": "max_concurrency", "timeout": "max_wait"},
    "Hedge": {"seconds": "delay", "after": "delay"},
    "Monitor": {"window_size": "window"},
    "with_retry": {
        **dict.fromkeys(("attempts", "tries", "max_attempts", "max_retries", "retries"), "stop_after_attempt"),
        **dict.fromkeys(("on", "exceptions", "exception", "retry"), "retry_if_exception_type"),
    },
    "guard": {
        **dict.fromkeys(("retries", "attempts", "max_retries", "stop"), "retry"),
        **dict.fromkeys(("circuit_breaker", "breaker"), "circuit"),
    },
}
# Where an argument's value changes with its name.
_IN_OTHER_WORDS = {
    "RateLimit": {
        **dict.fromkeys(("requests_per_minute", "rpm"), "write requests=…, per=60"),
        **dict.fromkeys(("tokens_per_minute", "tpm"), "write tokens=…, per=60"),
        **dict.fromkeys(("requests_per_second", "rps"), "write requests=…, per=1"),
    },
}
_DECORATORS = {
    "Retry": "@seawall.retry(3)",
    "Timeout": "@seawall.guard(timeout=20)",
    "Fallback": '@seawall.guard(fallback=["…"])',
    "Hedge": "@seawall.guard(hedge=2)",
    "RateLimit": "@seawall.guard(rate_limit=limit)",
    "Bulkhead": "@seawall.guard(bulkhead=bulkhead)",
    "Cache": "@seawall.guard(cache=cache)",
    "Chaos": "@seawall.guard(chaos=chaos)",
    "Guardrails": "@seawall.guard(guardrails=guardrails)",
}
_MADE_OF = {"RateLimit": "{}, per=60", "Bulkhead": "{}", "Cache": "{}", "Guardrails": "input={}"}


def near(word: str, words: Iterable[str], likeness: float = 0.6) -> str | None:
    """The word that is most like it, if any is."""
    import difflib  # here: only who errs needs it

    found = difflib.get_close_matches(word, list(words), 1, likeness)
    return found[0] if found else None


def meant(whose: str, given: str, names: Iterable[str]) -> str:
    """What is said of an argument that is none of the names."""
    names = list(names)
    if given in _IN_OTHER_WORDS.get(whose, ()):
        return _IN_OTHER_WORDS[whose][given]
    likely = _ALSO_CALLED.get(whose, {}).get(given) or near(given, names)
    return f"is {likely}= meant?" if likely else f"it takes {', '.join(names) or 'none'}"


def unexpected(whose: str, given: str, names: Iterable[str]) -> ConfigurationTypeError:
    """Of an argument that is none, in Python's words."""
    return ConfigurationTypeError(f"{whose}() got an unexpected keyword argument {given!r}: {meant(whose, given, names)}")


def not_one(argument: str, kind: type, given: Any) -> ConfigurationTypeError:
    """Of an argument that takes one of a class or `None`, and was given the class, or what one is made of."""
    name = f"seawall.{kind.__name__}"
    hint = ""
    if given is kind:
        hint = f": make one of the class, {argument}={name}(…)"
    elif isinstance(given, (int, float, list)) and not isinstance(given, bool) and kind.__name__ in _MADE_OF:
        hint = f": write {argument}={name}({_MADE_OF[kind.__name__].format(repr(given)[:30])})"
    return ConfigurationTypeError(f"{argument} must be a {name} or None, not {shown(given)}{hint}")


def refuse_others(whose: Callable[..., Any], others: Mapping[str, Any]) -> None:
    """Refuses the arguments that a function takes only to say that it has none of that name."""
    for given in others:
        parameters = inspect.signature(whose).parameters.values()
        raise unexpected(whose.__name__, given, [one.name for one in parameters if one.kind is not one.VAR_KEYWORD])


def no_arguments(kind: type, error: TypeError) -> ConfigurationTypeError:
    """Of a native class that did not take its arguments, in place of what PyO3 says."""
    # Of a class without positional arguments it says "takes 0 positional arguments".
    said = str(error).replace(f"{kind.__name__}.__new__()", f"{kind.__name__}()", 1)
    parameters = [one for one in inspect.signature(kind).parameters.values() if not one.name.startswith("_")]
    names = [one.name for one in parameters]
    misspelt = re.search(r"unexpected keyword argument '(.*)'$", said)
    if misspelt is not None:
        return unexpected(kind.__name__, misspelt[1], names)
    if "positional arguments but" in said:
        by_name = ", ".join(f"{one.name}=" for one in parameters if one.kind is one.KEYWORD_ONLY)
        return ConfigurationTypeError(f"{said}: write the others by name, {by_name}")
    return ConfigurationTypeError(f"{said}: it takes {', '.join(names)}")


def no_decorator(policy: Any) -> ConfigurationTypeError:
    """Of a policy that was called, as a decorator is."""
    name = next(base.__name__ for base in type(policy).__mro__ if base.__name__ in _DECORATORS)
    return ConfigurationTypeError(
        f"{policy!r} is a policy and guards nothing by itself: put it into a pipeline, Pipeline({name}(…))(function), "
        f"or write {_DECORATORS[name]}"
    )


def no_policy(given: Any, policies: str) -> ConfigurationTypeError:
    """Of what a pipeline was given that is none of the policies."""
    from seawall._seawall import Monitor  # not at the top: this module is loaded by whoever errs

    hint = ""
    if isinstance(given, type) and given.__name__ in {*_DECORATORS, "CircuitBreaker", "Pipeline"}:
        hint = f": make one of the class, {given.__name__}(…)"
    elif isinstance(given, (list, tuple)):
        hint = ": give them one by one, Pipeline(*policies)"
    elif isinstance(given, Monitor):
        hint = ": a monitor is given by name, Pipeline(…, monitor=monitor)"
    elif callable(given):
        hint = ": the function comes afterwards, Pipeline(…)(function)"
    return ConfigurationTypeError(f"a pipeline takes policies ({policies}, or another Pipeline), not {_brief(given)}{hint}")


def no_function(method: str, given: Any) -> ConfigurationTypeError:
    """Of what was given to `call` or `acall` in place of a function."""
    said = shown(given)
    if inspect.iscoroutine(given):
        given.close()  # else it is said of it that it was never awaited, which is no news
    return ConfigurationTypeError(
        f"{method} takes the function and then its arguments, {method}(ask, question), not what the function gives, "
        f"{method}(ask(question)): it was given {said}"
    )


def _brief(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or shown(value))
