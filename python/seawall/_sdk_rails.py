"""Guardrails around the requests of an SDK's client: which texts are in their bodies and in their answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seawall import _guardrails
from seawall._texts import Texts, fields, is_model
from seawall.errors import ConfigurationError

if TYPE_CHECKING:
    from seawall._sdk_request import Asked
    from seawall._seawall import Guardrails

# Where in a request's body a model reads texts.
_BODY = (
    "messages",
    "system",
    "instructions",
    "input",
    "prompt",
    "suffix",
    "content",
    "additional_instructions",
    "additional_messages",
)
# What SDKs have read out of a text.
_READ = frozenset(["parsed", "parsed_arguments", "parsed_output"])
# What a new body has instead of the headers of the old one.
_OF_THE_BODY = ("content-length", "content-encoding", "transfer-encoding")


def is_request(value: Any) -> bool:
    """Whether it is a call of a client, as its pipeline has it."""
    return hasattr(type(value), "_seawall_is_request")


def asked(rails: Guardrails, request: Asked) -> tuple[Asked, int, list[tuple[str, str]]]:
    """The request with what the rules leave of its texts, how much was cut out, and what of that goes back into the answer. One without
    texts is as it was.

    Raises:
        ConfigurationError: its answer could not be looked at.
        InputRefusedError: a rule refuses it.
    """
    names = _BODY if rails.of is None else (rails.of,)
    bodies: dict[str, Mapping[str, Any]] = {}
    for part in ("json_data", "extra_json"):
        body = getattr(request.options, part, None)
        if isinstance(body, Mapping) and any(name in body for name in names):
            bodies[part] = body
    if not bodies:
        return request, 0, []
    if (rails.output or rails._restores()) and request.reads_itself:
        raise ConfigurationError(
            "guardrails with rules for the output cannot look at what a program reads by itself (with_streaming_response, and streams "
            "of with_raw_response): leave that out, or the rules"
        )
    texts = Texts()
    makers = {part: {name: texts.read(body[name], name) for name in names if name in body} for part, body in bodies.items()}
    clean, redacted, held = rails._check("input", texts.found)
    times = sum(count for _, count in redacted)
    if not times:
        return request, 0, []
    left = iter(clean)
    changed = {part: {**bodies[part], **{name: make(left) for name, make in each.items()}} for part, each in makers.items()}
    return request.with_bodies(changed), times, held


def answered(
    rails: Guardrails, request: Asked, answer: Any, times: int, held: list[tuple[str, str]] | None = None
) -> tuple[Any, int, int, tuple[Any, Any] | None]:
    """An answer as `_guardrails.answered` has it. One without texts is as it was: vectors, files, lists of models."""
    raw = getattr(answer, "http_response", None)
    if raw is None or not hasattr(answer, "parse"):
        left, redacted, repaired, refused = _guardrails.of_whole(rails, answer, times, held, must_say=False)
        # What was read out of the text is read anew.
        return left if left is answer else request.parsed(_unread(left)), redacted, repaired, refused
    try:
        body = json.loads(raw.content)
    except ValueError:
        return answer, 0, 0, None
    left, redacted, repaired, refused = _guardrails.of_whole(rails, body, times, held, must_say=False)
    return answer if left is body else _with_body(request, answer, left), redacted, repaired, refused


def _unread(value: Any) -> Any:
    """The same without what was read out of its texts."""
    if isinstance(value, list):
        return [_unread(each) for each in value]
    if not is_model(value):
        return value
    parts = {name: held for name, held in fields(value).items() if isinstance(held, list) or is_model(held)}
    changed = {name: each for name, held in parts.items() if (each := _unread(held)) is not held and each != held}
    changed |= dict.fromkeys(_READ & fields(value).keys())
    return value.model_copy(update=changed) if changed else value


def _with_body(request: Asked, answer: Any, body: Any) -> Any:
    raw = answer.http_response
    headers = [(name, value) for name, value in raw.headers.multi_items() if name.lower() not in _OF_THE_BODY]
    made = request.transport.Response(
        raw.status_code, headers=headers, content=json.dumps(body).encode(), request=raw.request, extensions=raw.extensions
    )
    made.elapsed = raw.elapsed
    anew = copy.copy(answer)
    anew.http_response, anew._parsed_by_type = made, {}
    return anew


def asked_again(request: Asked, said: str, told: str) -> Asked:
    """The request that is told what was answered to it, and why that does not do."""
    body = request.options.json_data
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": told}]
    for name in ("messages", "input", "prompt"):
        held = body.get(name)
        if isinstance(held, (list, tuple)) and name != "prompt":
            return request.with_bodies({"json_data": {**body, name: [*held, *turns]}}, anew=True)
        if isinstance(held, str) and name == "input":
            return request.with_bodies({"json_data": {**body, name: [{"role": "user", "content": held}, *turns]}}, anew=True)
        if isinstance(held, str):
            more = f"{held}\n\nYou have answered:\n{said}\n\n{told}"
            return request.with_bodies({"json_data": {**body, name: more}}, anew=True)
    return request
