"""What can go wrong: each function makes a `Fault` for `Simulator.on`.

Nearly all take `latency=`: seconds before anything is answered, a pair of the least and the most, or one of
`seawall.simulator.distributions`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from seawall._word import whole_number
from seawall.errors import ConfigurationError
from seawall.simulator.distributions import Distribution, Latency, Seconds, distribution, fixed, number, seconds

ToolCall = tuple[str, Mapping[str, Any]] | Mapping[str, Any]

_HTML = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
_CUTS = ("clean", "reset", "error", "json")


@dataclass(frozen=True)
class Fault:
    """A kind of trouble. Made by the functions of this module.

    Attributes:
        name: as the log of requests shows it.
        kind: what happens.
        details: the rest of it.
        latency: before anything is answered.
    """

    name: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)
    latency: Distribution = field(default_factory=lambda: fixed(0))

    def __hash__(self) -> int:
        return hash((self.name, self.latency))

    def wire(self) -> str:
        """As the native server reads it."""
        return json.dumps({"name": self.name, "kind": self.kind, **self.details, "latency": self.latency.wire()})


def _latency(value: Latency) -> Distribution:
    return distribution("latency", value)


def ok(*, latency: Latency = 0) -> Fault:
    """No trouble: a healthy answer."""
    return Fault("ok", "ok", {}, _latency(latency))


def latency(time: Latency) -> Fault:
    """A healthy answer that takes its time: seconds, a pair of the least and the most, or a distribution."""
    return Fault("latency", "ok", {}, distribution("time", time))


def reply(
    text: str | None = None,
    *,
    tool_calls: Sequence[ToolCall] = (),
    reasoning: str | None = None,
    finish_reason: str | None = None,
    latency: Latency = 0,
) -> Fault:
    """A healthy answer with this text, or these calls of tools, or both.

    Args:
        text: what is said. Without it and without calls, the answer is the simulator's own.
        tool_calls: `("get_weather", {"city": "Rome"})`, or `{"name": …, "arguments": …}`, each.
        reasoning: what the model thought: `reasoning_content`, or a `thinking` block of Anthropic's.
        finish_reason: instead of the right one, like `"content_filter"`.

    Raises:
        TypeError, ConfigurationError: arguments that cannot be meant.
    """
    _texts(text=text, reasoning=reasoning, finish_reason=finish_reason)
    details = {
        "text": text,
        "tool_calls": [_call(each) for each in _list("tool_calls", tool_calls)],
        "reasoning": reasoning,
        "finish_reason": finish_reason,
    }
    return Fault("reply", "ok", details, _latency(latency))


def _texts(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {value!r}")


def _list(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list, not {value!r}")
    return value


def _call(value: Any) -> tuple[str, Any]:
    if isinstance(value, Mapping):
        if set(value) - {"name", "arguments"}:
            raise ConfigurationError(f"a call in tool_calls has a name and arguments, not {', '.join(map(str, value))}")
        value = (value.get("name"), value.get("arguments", {}))
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], str) or not isinstance(value[1], Mapping):
        raise ConfigurationError(f"a call in tool_calls must be a name and a dict of arguments, not {value!r}")
    return value[0], _sendable("the arguments of a call in tool_calls", dict(value[1]))


def _sendable(name: str, value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} must be JSON, not {value!r}: {error}") from None
    return value


def status(
    code: int,
    message: str | None = None,
    *,
    error_code: str | None = None,
    error_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | Mapping[str, Any] | None = None,
    content_type: str | None = None,
    latency: Latency = 0,
) -> Fault:
    """An HTTP status with the error object of the API that is asked, or with any body and headers.

    Args:
        code: 200 to 599.
        message, error_code, error_type: what the error object says.
        headers: sent along; they replace the server's own of that name.
        body: sent instead of the error object: a text, or a dict that becomes JSON.
        content_type: default `application/json`.
    """
    if isinstance(code, bool) or not isinstance(code, int) or not 200 <= code <= 599:
        raise ConfigurationError(f"code must be an HTTP status from 200 to 599, not {code!r}")
    _texts(message=message, error_code=error_code, error_type=error_type, content_type=content_type)
    if not isinstance(headers, (Mapping, type(None))):
        raise TypeError(f"headers must be a dict, not {headers!r}")
    if not isinstance(body, (str, Mapping, type(None))):
        raise TypeError(f"body must be a str or a dict, not {body!r}")
    details: dict[str, Any] = {
        "code": code,
        "message": message,
        "error_code": error_code,
        "error_type": error_type,
        "body": body if body is None or isinstance(body, str) else json.dumps(_sendable("body", body)),
        "content_type": content_type and _header("content_type", content_type)[1],
        "headers": [_header(name, value) for name, value in (headers or {}).items()],
    }
    return Fault(f"status {code}", "status", details, _latency(latency))


def _header(name: Any, value: Any) -> tuple[str, str]:
    name, value = str(name), str(value)
    if name.lower() in ("content-length", "transfer-encoding", "connection"):
        raise ConfigurationError(f"{name} is the server's own; to cut an answer short use faults.cut()")
    if not name or not name.isascii() or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name):
        raise ConfigurationError(f"{name!r} is no header's name")
    if not value.isascii() or not (value.isprintable() or not value):
        raise ConfigurationError(f"{value!r} cannot be the value of header {name!r}")
    return name, value


def rate_limit(
    retry_after: Seconds | None = None,
    *,
    retry_after_ms: float | None = None,
    date: bool = False,
    latency: Latency = 0,
) -> Fault:
    """429, with `Retry-After` in seconds, `retry-after-ms`, or (with `date`) `Retry-After` as an HTTP date.

    Args:
        retry_after: seconds. Default: none are said; with `date`, 0.
        retry_after_ms: milliseconds, in a header of their own.
        date: whether `Retry-After` is a date, so many seconds ahead; `retry_after_ms` is left out then.
    """
    if not isinstance(date, bool):
        raise TypeError(f"date must be True or False, not {date!r}")
    if date:
        ahead = seconds("retry_after", 0 if retry_after is None else retry_after)
        return Fault("rate limit", "retry_after_date", {"seconds": ahead}, _latency(latency))
    headers = {}
    if retry_after is not None:
        headers["retry-after"] = f"{seconds('retry_after', retry_after):g}"
    if retry_after_ms is not None:
        headers["retry-after-ms"] = f"{number('retry_after_ms', retry_after_ms, 1e12):g}"
    return replace(status(429, headers=headers, latency=latency), name="rate limit")


def quota(*, latency: Latency = 0) -> Fault:
    """429 `insufficient_quota`: no waiting helps."""
    message = "You exceeded your current quota, please check your plan and billing details."
    kind = "insufficient_quota"
    return replace(status(429, message, error_code=kind, error_type=kind, latency=latency), name="quota")


def overloaded(*, latency: Latency = 0) -> Fault:
    """529, Anthropic's word for too much load."""
    return replace(status(529, "Overloaded", latency=latency), name="overloaded")


def context_window(*, latency: Latency = 0) -> Fault:
    """400 `context_length_exceeded`: the input is too long for the model."""
    message = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."
    return replace(status(400, message, error_code="context_length_exceeded", latency=latency), name="context window")


def content_filter(*, latency: Latency = 0) -> Fault:
    """400 `content_filter`: the input was refused for what it says."""
    message = "The response was filtered due to the prompt triggering the content management policy."
    return replace(status(400, message, error_code="content_filter", latency=latency), name="content filter")


def unknown_model(*, latency: Latency = 0) -> Fault:
    """404 `model_not_found`."""
    return replace(status(404, error_code="model_not_found", latency=latency), name="unknown model")


def hang() -> Fault:
    """No answer, ever."""
    return Fault("hang", "hang")


def reset(*, latency: Latency = 0) -> Fault:
    """The connection is reset before any byte."""
    return Fault("reset", "reset", {}, _latency(latency))


def broken_json(*, latency: Latency = 0) -> Fault:
    """200 with JSON that breaks off."""
    return Fault("broken json", "broken_json", {}, _latency(latency))


def html(*, latency: Latency = 0) -> Fault:
    """200 with an HTML page, as a gateway in between sends it."""
    return replace(status(200, body=_HTML, content_type="text/html", latency=latency), name="html")


def empty_choices(*, latency: Latency = 0) -> Fault:
    """200 with `choices: []` (embeddings: `data: []`)."""
    return Fault("empty choices", "empty_choices", {}, _latency(latency))


def empty_body(*, latency: Latency = 0) -> Fault:
    """200 without a body."""
    return Fault("empty body", "empty_body", {}, _latency(latency))


def cut(after: int = 3, how: Literal["clean", "reset", "error", "json"] = "clean", *, latency: Latency = 0) -> Fault:
    """A stream that breaks off after so many pieces of content; a plain body in its middle.

    Args:
        after: pieces of content that come.
        how: `"clean"`: it just ends, without `finish_reason` and `[DONE]` (a plain body before its announced length);
            `"reset"`: the connection is reset; `"error"`: an error object takes the place of the rest; `"json"`: in the
            midst of an event's JSON.
    """
    if how not in _CUTS:
        raise ConfigurationError(f"how must be one of {', '.join(map(repr, _CUTS))}, not {how!r}")
    return Fault(f"cut {how}", "cut", {"after": whole_number("after", after, 0), "how": how}, _latency(latency))


def no_done(*, latency: Latency = 0) -> Fault:
    """A stream with its `finish_reason` and without `[DONE]`."""
    return Fault("no done", "no_done", {}, _latency(latency))


def done_only(*, latency: Latency = 0) -> Fault:
    """A stream with `[DONE]` and without a `finish_reason`."""
    return Fault("done only", "done_only", {}, _latency(latency))


def drip(interval: Seconds, pieces: int | None = None, *, latency: Latency = 0) -> Fault:
    """The answer comes in pieces, `interval` seconds apart.

    Args:
        pieces: how many; default an event each of a stream, ten of a plain body.
    """
    details = {"interval": seconds("interval", interval), "pieces": None if pieces is None else whole_number("pieces", pieces, 0)}
    return Fault("drip", "drip", details, _latency(latency))


def stall(after: int = 3, keepalive: Seconds | None = None, *, latency: Latency = 0) -> Fault:
    """A stream that falls silent after so many pieces of content.

    Args:
        keepalive: comments, that are no content, come so many seconds apart.
    """
    every = None if keepalive is None else seconds("keepalive", keepalive)
    return Fault("stall", "stall", {"after": whole_number("after", after, 0), "keepalive": every}, _latency(latency))


__all__ = [
    "Fault",
    "broken_json",
    "content_filter",
    "context_window",
    "cut",
    "done_only",
    "drip",
    "empty_body",
    "empty_choices",
    "hang",
    "html",
    "latency",
    "no_done",
    "ok",
    "overloaded",
    "quota",
    "rate_limit",
    "reply",
    "reset",
    "stall",
    "status",
    "unknown_model",
]


def __dir__() -> list[str]:
    return sorted(__all__)
