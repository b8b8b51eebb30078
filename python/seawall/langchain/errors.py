"""The errors that the LangChain layer raises: those of `seawall.errors`, that are langchain-core `ModelError`s too.

`except seawall.errors.RateLimitError` catches them, and so does `except langchain_core.exceptions.ModelRateLimitError`.
What LangGraph's default rule makes of an error hangs on its builtin bases: a `ConnectionError` is tried again, a `RuntimeError` is
not, and a `TimeoutError` alone is not either. So failures of the network are the first here, and what no repetition mends the second.
"""

from __future__ import annotations

from langchain_core import exceptions as core

from seawall import errors
from seawall.errors import ConfigurationError


class APIError(errors.APIError, core.ModelError):
    __doc__ = errors.APIError.__doc__


class APIConnectionError(errors.APIConnectionError, APIError, core.ModelConnectionError, ConnectionError):
    __doc__ = errors.APIConnectionError.__doc__


class APITimeoutError(errors.APITimeoutError, APIConnectionError, core.ModelTimeoutError):
    __doc__ = errors.APITimeoutError.__doc__


Timeout = APITimeoutError


class APIStatusError(errors.APIStatusError, APIError):
    __doc__ = errors.APIStatusError.__doc__


class BadRequestError(errors.BadRequestError, APIStatusError, core.ModelInvalidRequestError, RuntimeError):
    __doc__ = errors.BadRequestError.__doc__


class AuthenticationError(errors.AuthenticationError, APIStatusError, core.ModelAuthenticationError, RuntimeError):
    __doc__ = errors.AuthenticationError.__doc__


class PermissionDeniedError(errors.PermissionDeniedError, APIStatusError, core.ModelPermissionDeniedError, RuntimeError):
    __doc__ = errors.PermissionDeniedError.__doc__


class NotFoundError(errors.NotFoundError, APIStatusError, core.ModelNotFoundError, RuntimeError):
    __doc__ = errors.NotFoundError.__doc__


class ConflictError(errors.ConflictError, APIStatusError):
    __doc__ = errors.ConflictError.__doc__
    is_retryable = True


class UnprocessableEntityError(errors.UnprocessableEntityError, APIStatusError, core.ModelInvalidRequestError, RuntimeError):
    __doc__ = errors.UnprocessableEntityError.__doc__


class RateLimitError(errors.RateLimitError, APIStatusError, core.ModelRateLimitError):
    __doc__ = errors.RateLimitError.__doc__


class InternalServerError(errors.InternalServerError, APIStatusError, core.ModelAPIError):
    __doc__ = errors.InternalServerError.__doc__


class ServiceUnavailable(errors.ServiceUnavailable, InternalServerError):
    __doc__ = errors.ServiceUnavailable.__doc__


class QuotaExceededError(errors.QuotaExceededError, RateLimitError, RuntimeError):
    __doc__ = errors.QuotaExceededError.__doc__
    # The base class says that a rate limit passes; an exhausted quota does not.
    is_retryable = False


class ContextWindowExceededError(errors.ContextWindowExceededError, BadRequestError, core.ContextOverflowError):
    __doc__ = errors.ContextWindowExceededError.__doc__


class ContentFilterError(errors.ContentFilterError, BadRequestError):
    __doc__ = errors.ContentFilterError.__doc__


class MalformedResponseError(errors.MalformedResponseError, APIError):
    __doc__ = errors.MalformedResponseError.__doc__
    is_retryable = True


class StreamInterruptedError(errors.StreamInterruptedError, APIError):
    __doc__ = errors.StreamInterruptedError.__doc__
    is_retryable = True


class OutputRefusedError(errors.OutputRefusedError, core.ModelError, RuntimeError):
    __doc__ = errors.OutputRefusedError.__doc__
    is_retryable = False


class OutputShapeError(errors.OutputShapeError, core.ModelError):
    __doc__ = errors.OutputShapeError.__doc__
    is_retryable = True


__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterError",
    "ContextWindowExceededError",
    "InternalServerError",
    "MalformedResponseError",
    "NotFoundError",
    "OutputRefusedError",
    "OutputShapeError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RateLimitError",
    "ServiceUnavailable",
    "StreamInterruptedError",
    "Timeout",
    "UnprocessableEntityError",
]
