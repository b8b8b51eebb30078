"""The constructor's arguments: other names, the environment, and those of langchain-openai that have no meaning here."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, SecretStr

from seawall._hedges import hedge_of
from seawall._keys import Carried, is_credential
from seawall._model import OF_A_BATCH, Model, environment
from seawall.errors import ConfigurationError

_TRANSPORT = "the native client has a transport of its own; proxy=, ca_bundle= and client_cert= are about it"
_RESPONSES = "it belongs to the responses API, and seawall speaks the chat completions API"
_RAW = "texts are sent as they are, and the server counts their tokens"
_AZURE = "only OpenAI-compatible places are spoken to; give their URL as base_url="

# Each with why not, or what to use here.
NOT_TAKEN = {
    "async_client": _TRANSPORT,
    "client": _TRANSPORT,
    "http_async_client": _TRANSPORT,
    "http_client": _TRANSPORT,
    "http_socket_options": _TRANSPORT,
    "root_async_client": _TRANSPORT,
    "root_client": _TRANSPORT,
    "context_management": _RESPONSES,
    "include": _RESPONSES,
    "previous_response_id": _RESPONSES,
    "reasoning": f"{_RESPONSES}; give reasoning_effort=",
    "truncation": _RESPONSES,
    "use_previous_response_id": _RESPONSES,
    "use_responses_api": "seawall speaks the chat completions API",
    "disabled_params": "a parameter that is not given is not sent",
    "extra_headers": "give default_headers=",
    "extra_query": "give default_query=",
    "include_response_headers": "response_metadata has request_id, and errors have headers",
    "stream": "give streaming=True, or call stream()",
    "stream_chunk_timeout": "give idle_timeout=, the limit from one content to the next",
    "tiktoken_model_name": "count tokens with custom_get_token_ids=",
    "allowed_special": _RAW,
    "check_embedding_ctx_length": _RAW,
    "disallowed_special": _RAW,
    "embedding_ctx_length": _RAW,
    "tiktoken_enabled": _RAW,
    "deployment": _AZURE,
    "openai_api_type": _AZURE,
    "openai_api_version": _AZURE,
    "api_version": _AZURE,
    "headers": "give default_headers=",
    "messages": "give the messages as the input of a call",
    "retry_max_seconds": "give with_retry(wait=...)",
    "retry_min_seconds": "give with_retry(wait=...)",
    "show_progress_bar": "embed_documents shows none",
    "skip_empty": "every text has its vector",
    "idempotency_key": "seawall.llm.Chat and Embeddings take it",
    **dict.fromkeys(OF_A_BATCH, "the batch methods take it"),
}
# What the client is told, that is no parameter of a request.
_CLIENT = {"messages", "stream", *signature(Model).parameters} - {"params"}
# What a call cannot say either, but for another model.
_NO_CALLS = _CLIENT - {"model"} | {"http_client", "extra_headers", "extra_query", *OF_A_BATCH}
# Parameters of the API that are no fields: known, so that a misspelt name is not taken for one.
_PARAMETERS = {
    "audio",
    "function_call",
    "functions",
    "max_completion_tokens",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "response_format",
    "safety_identifier",
    "store",
    "stream_options",
    "tool_choice",
    "tools",
    "user",
    "web_search_options",
}
_ENVIRONMENT = {
    "openai_api_key": ("OPENAI_API_KEY",),
    "openai_api_base": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "openai_organization": ("OPENAI_ORG_ID", "OPENAI_ORGANIZATION"),
    "openai_proxy": ("OPENAI_PROXY",),
}


_KEYS = {"api_key", "openai_api_key"}


def _concealed(name: str, value: Any) -> Any:
    return SecretStr(value) if name in _KEYS and isinstance(value, str) else value


def accepted(model: type[BaseModel], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as the model's fields take them, with the environment's values for those that are missing.

    A key given as a text is a `SecretStr` from here on, in what the caller holds too: some tracebacks show local variables.

    Raises:
        ConfigurationError: an argument without a meaning here, one given twice, a client's among the parameters.
    """
    for name in _KEYS & arguments.keys():
        arguments[name] = _concealed(name, arguments[name])
    arguments = {name: value for name, value in arguments.items() if not _refused(name, value)}
    for name, field in model.model_fields.items():
        alias = field.alias
        if alias in arguments and name in arguments and alias != name and arguments[alias] != arguments.pop(name):
            raise ConfigurationError(f"{alias} and {name} are two names of one argument, and were given different values")
        variables = _ENVIRONMENT.get(name)
        if variables and arguments.get(str(alias)) is None and arguments.get(name) is None:
            value = _concealed(name, environment(None, *variables))
            if value is None and name in _KEYS and (file := environment(None, "OPENAI_API_KEY_FILE")):
                value = Path(file)
            if value is not None:
                # Read once: copies keep the key they were made with.
                arguments = {**arguments, name: value}
                arguments.pop(str(alias), None)
    if "hedge" in arguments:
        arguments["hedge"] = hedge_of(arguments["hedge"])  # one for all copies of the model
    for name in {**(arguments.get("model_kwargs") or {}), **(arguments.get("extra_body") or {})}:
        if name in _CLIENT:
            raise ConfigurationError(f"{name} is no parameter of a request: {NOT_TAKEN.get(name, 'give it as an argument')}")
    return arguments


def _refused(name: str, value: Any) -> bool:
    """Whether to leave the argument out, being off anyway."""
    if name not in NOT_TAKEN:
        return False
    if value:
        raise ConfigurationError(f"{name} is not taken: {NOT_TAKEN[name]}")
    return True


def with_parameters(model: type[BaseModel], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with those that are no field as parameters of the request, as langchain-openai does."""
    fields = model.model_fields
    known = {*fields, *(field.alias for field in fields.values())}
    more = {name: arguments[name] for name in arguments if name not in known}
    if not more:
        return arguments
    for name in sorted(more.keys() - _PARAMETERS):
        # Past here, the model's __init__ and its caller.
        warnings.warn(
            f"{name} is no argument of {model.__name__}: it is sent as a parameter of every request. "
            "If that is meant, say so with model_kwargs= or extra_body=",
            stacklevel=3,
        )
    fields_only = {name: value for name, value in arguments.items() if name in known}
    return {**fields_only, "model_kwargs": {**(arguments.get("model_kwargs") or {}), **more}}


def refuse_in_call(parameters: Mapping[str, Any]) -> None:
    """Refuses what a call cannot change, that the server would only be puzzled by."""
    for name in parameters:
        if name in _NO_CALLS:
            raise ConfigurationError(f"{name} is no parameter of a request: {NOT_TAKEN.get(name, f'give {name}= to the model')}")


def shown(fields: Iterable[tuple[str | None, Any]]) -> Iterator[tuple[str | None, Any]]:
    """The fields as a repr shows them: without secrets, also where a function that gives the key holds what it makes it from."""
    for name, value in fields:
        is_source = name == "openai_api_key" and value is not None and not isinstance(value, SecretStr)
        yield name, SecretStr("hidden") if is_source or (name in _PLACES and _holds_secret(value)) else value


def without_secrets(model: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they are pickled: a key of the environment's is the environment's of whoever loads it, and what else only this
    process may know is found again in it alone."""
    fields = dict(fields)
    key = fields.get("openai_api_key")
    if isinstance(key, SecretStr):
        is_outside = key.get_secret_value() == environment(None, *_ENVIRONMENT["openai_api_key"])
        fields["openai_api_key"] = _OfEnvironment() if is_outside else Carried(f"this {model}", key)
    for name in _PLACES:
        if _holds_secret(fields.get(name)):
            fields[name] = Carried(f"{name} of this {model}", fields[name])
    return fields


# What may hold one besides the key.
_PLACES = ("default_headers", "default_query", "openai_api_base", "openai_proxy")


def _holds_secret(value: Any) -> bool:
    if isinstance(value, str):
        return "@" in value or any(is_credential(name) for name, _ in parse_qsl(urlsplit(value).query))
    return isinstance(value, Mapping) and any(is_credential(str(name)) for name in value)


class _OfEnvironment:
    """Stands for the environment's key in what is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _environments_key, ()


def _environments_key() -> SecretStr | Path:
    names = _ENVIRONMENT["openai_api_key"]
    if key := environment(None, *names):
        return SecretStr(key)
    if file := environment(None, "OPENAI_API_KEY_FILE"):
        return Path(file)
    raise ConfigurationError(f"the key of this model was the environment's where it was pickled: set {names[0]} here too")


__all__ = ["accepted", "refuse_in_call", "shown", "with_parameters", "without_secrets"]
