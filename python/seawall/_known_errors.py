"""What the exceptions and error codes of others mean, by name: nothing of theirs is imported."""

# Annotations that are no texts: a NamedTuple would compile each, which takes longest of all here.
from typing import Literal, NamedTuple

from seawall import _seawall, errors

Look = Literal["", "status", "http", "code", "certificate", "errno", "aws", "grpc", "group", "model", "control"]


class Row(NamedTuple):
    """What a failure class means where nothing else was said."""

    retry: bool | None
    """Retried by default; `None` where only a listed class decides."""
    fallback: bool | Literal["other_credentials"]
    """Which alternatives are tried: any, none, or those with other credentials or another endpoint."""
    breaker: bool
    """Counted by the breakers of guards and models."""


CLASSES: dict[str, Row] = {
    name: Row(retry, "other_credentials" if fallback is None else fallback, breaker)
    for name, retry, fallback, breaker in _seawall.CLASSES
}

# Classes that a status alone cannot say: whoever claims one of them, by type or by code, is believed.
NARROW = frozenset({"quota", "context_window", "content_filter"})


class Known(NamedTuple):
    """What is known of an exception class."""

    failure: str | None
    """Its failure class; `None` where the class is too broad to have one."""
    look: Look
    """How an instance is looked at more closely; "" where the class alone decides.

    `status`: by status and codes. `code`: likewise, and `code` is a status too. `aws`: by AWS's code first. `http`: by status
    alone. `certificate`: whether a certificate was not accepted. `errno`, `grpc`, `group`, `model`: as the name says. `control`: not
    at all, since it is no outcome of a call.
    """


_OPENAI_TREE: tuple[tuple[str | None, Look, str], ...] = (
    (None, "status", "APIError APIStatusError"),
    ("malformed", "", "APIResponseValidationError"),
    ("transient", "certificate", "APIConnectionError"),
    ("transient", "", "APITimeoutError ConflictError"),
    ("transient", "status", "InternalServerError"),
    ("permanent", "status", "BadRequestError UnprocessableEntityError"),
    ("auth", "", "AuthenticationError"),
    ("auth", "status", "PermissionDeniedError"),
    ("not_found", "", "NotFoundError"),
    ("rate_limited", "status", "RateLimitError"),
)

# By the root of the module's name, then by the class's. A class is what the first known name of its MRO says, except
# that a NARROW one further up wins and a broad one (None) gives way.
_TREES: dict[str, tuple[tuple[str | None, Look, str], ...]] = {
    "builtins": (
        ("transient", "", "ConnectionError TimeoutError"),
        (None, "errno", "OSError"),
        (None, "group", "BaseExceptionGroup"),
    ),
    "exceptiongroup": ((None, "group", "BaseExceptionGroup"),),
    "asyncio": (("transient", "", "TimeoutError IncompleteReadError"),),
    "concurrent": (("transient", "", "TimeoutError"),),
    "socket": (("transient", "", "gaierror herror timeout"),),
    "ssl": (("permanent", "", "SSLCertVerificationError"), ("transient", "certificate", "SSLError")),
    "http": (("malformed", "", "IncompleteRead"), ("transient", "", "BadStatusLine RemoteDisconnected")),
    "urllib": ((None, "code", "HTTPError"), ("transient", "certificate", "URLError"), ("malformed", "", "ContentTooShortError")),
    "openai": (
        *_OPENAI_TREE,
        ("content_filter", "", "ContentFilterFinishReasonError"),
        ("auth", "", "SubjectTokenProviderError"),
        ("transient", "", "WebSocketConnectionClosedError"),
    ),
    "anthropic": (
        *_OPENAI_TREE,
        ("transient", "", "RequestTimeoutError RetryableError"),
        ("quota", "", "PaymentRequiredError ContractSpendLimitReachedError EnforcedSpendLimitReachedError"),
        ("auth", "", "CredentialsError WorkloadIdentityError"),
    ),
    "litellm": (
        ("quota", "", "BudgetExceededError"),
        ("context_window", "", "ContextWindowExceededError"),
        ("content_filter", "", "ContentPolicyViolationError"),
    ),
    "httpx": (
        (None, "status", "HTTPStatusError"),
        ("transient", "certificate", "TransportError"),
        ("permanent", "", "UnsupportedProtocol LocalProtocolError InvalidURL TooManyRedirects"),
        ("malformed", "", "DecodingError"),
    ),
    "httpcore": (
        ("transient", "certificate", "NetworkError"),
        ("transient", "", "TimeoutException ProtocolError ProxyError ConnectionNotAvailable"),
        ("permanent", "", "UnsupportedProtocol LocalProtocolError"),
    ),
    "requests": (
        (None, "status", "RequestException"),
        ("transient", "", "Timeout"),
        ("transient", "certificate", "ConnectionError RetryError"),
        ("malformed", "", "ChunkedEncodingError ContentDecodingError JSONDecodeError"),
        ("permanent", "", "InvalidURL InvalidSchema MissingSchema URLRequired InvalidHeader TooManyRedirects"),
    ),
    "urllib3": (
        ("transient", "certificate", "MaxRetryError SSLError PoolError ProxyError"),
        ("transient", "", "TimeoutError ProtocolError"),
        ("malformed", "", "DecodeError IncompleteRead InvalidChunkLength ResponseError"),
        ("permanent", "", "LocationValueError InvalidHeader ProxySchemeUnsupported"),
    ),
    "aiohttp": (
        (None, "http", "ClientResponseError"),
        ("transient", "certificate", "ClientConnectionError"),
        (
            "permanent",
            "",
            "ClientConnectorCertificateError ServerFingerprintMismatch InvalidURL NonHttpUrlClientError TooManyRedirects",
        ),
        ("malformed", "", "ClientPayloadError"),
        ("malformed", "http", "ContentTypeError"),
    ),
    "botocore": (
        (None, "aws", "ClientError"),
        ("transient", "certificate", "HTTPClientError ConnectionError"),
        ("transient", "", "IncompleteReadError"),
        ("auth", "", "NoCredentialsError PartialCredentialsError CredentialRetrievalError NoAuthTokenError"),
        ("auth", "", "TokenRetrievalError SSOError LoginError UnknownCredentialError"),
        ("permanent", "", "ParamValidationError ValidationError"),
    ),
    "google": (
        (None, "code", "GoogleAPICallError APIError"),
        ("transient", "", "RetryError TransportError TimeoutError"),
        ("auth", "", "GoogleAuthError"),
    ),
    "grpc": ((None, "grpc", "RpcError"), ("transient", "", "FutureTimeoutError")),
    "websockets": ((None, "status", "InvalidStatus"), ("transient", "", "ConnectionClosed")),
    "trio": (("transient", "", "TooSlowError BrokenResourceError"),),
    "anyio": (("transient", "", "BrokenResourceError EndOfStream IncompleteRead"),),
    "langchain_core": (
        (None, "model", "ModelError"),
        ("auth", "", "ModelAuthenticationError"),
        ("auth", "status", "ModelPermissionDeniedError"),
        ("permanent", "status", "ModelInvalidRequestError"),
        ("not_found", "", "ModelNotFoundError"),
        ("rate_limited", "status", "ModelRateLimitError"),
        ("transient", "status", "ModelAPIError"),
        ("transient", "certificate", "ModelConnectionError"),
        ("transient", "", "ModelTimeoutError"),
        ("context_window", "", "ContextOverflowError"),
        ("content_filter", "", "ModelRefusalError"),
    ),
    # An interrupt() or a command on its way up through a node: no outcome of a call.
    "langgraph": (("permanent", "control", "GraphBubbleUp"),),
}
_TREES["httpx2"] = (*_TREES["httpx"], ("malformed", "", "SSEError"))
_TREES["httpcore2"] = _TREES["httpcore"]
_TREES["aioboto3"] = _TREES["aiobotocore"] = _TREES["botocore"]

KNOWN: dict[tuple[str, str], Known] = {
    (root, name): Known(failure, look) for root, rows in _TREES.items() for failure, look, names in rows for name in names.split()
}
for _row in errors.TABLE:
    _look: Look = "certificate" if _row.error is errors.APIConnectionError else "status" if _row.closer_look else ""
    KNOWN["seawall", _row.error.__name__] = Known(_row.failure, _look)


def of_status(status: int) -> str:
    """The failure class of an HTTP error status, where no code says more."""
    if status >= 500 or status in (408, 409, 425):
        return "transient"
    return {401: "auth", 402: "quota", 403: "auth", 404: "not_found", 410: "not_found", 429: "rate_limited", 499: "unknown"}.get(
        status, "permanent"
    )


_CODES_BY_CLASS: dict[str, str] = {
    "quota": "insufficient_quota billing_hard_limit_reached billing_not_active billing_error payment_required insufficient_balance"
    " insufficient_credits credit_limit_reached servicequotaexceededexception arrearage",
    "context_window": "context_length_exceeded context_window_exceeded model_max_prompt_tokens_exceeded exceed_context_size_error",
    "content_filter": "content_filter content_policy_violation responsibleaipolicyviolation moderation_blocked data_inspection_failed"
    " datainspectionfailed prompt_blocked",
    "auth": "invalid_api_key api_key_invalid authentication_error permission_error permission_denied unauthenticated account_deactivated",
    "not_found": "model_not_found not_found_error not_found deploymentnotfound model_not_supported model_decommissioned",
    "rate_limited": "rate_limit_exceeded rate_limit_error too_many_requests resource_exhausted",
    "transient": "server_error overloaded_error api_error timeout_error internal_server_error service_unavailable unavailable internal"
    " deadline_exceeded aborted overloaded engine_overloaded",
    "permanent": "invalid_request_error invalid_argument request_too_large failed_precondition unsupported_parameter badrequesterror",
}
CODES: dict[str, str] = {code: failure for failure, codes in _CODES_BY_CLASS.items() for code in codes.split()}

_AWS_BY_CLASS: dict[str, str] = {
    "rate_limited": "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException SlowDown"
    " TooManyRequestsException ProvisionedThroughputExceededException RequestLimitExceeded BandwidthLimitExceeded"
    " EC2ThrottledException PriorRequestNotComplete TransactionInProgressException",
    "transient": "RequestTimeout RequestTimeoutException InternalError InternalFailure InternalServerError InternalServerException"
    " ServiceUnavailable ServiceUnavailableException ModelTimeoutException ModelNotReadyException ModelErrorException"
    " ModelStreamErrorException ServiceException",
    "quota": "ServiceQuotaExceededException LimitExceededException",
    "auth": "AccessDenied AccessDeniedException UnrecognizedClientException InvalidClientTokenId InvalidSignatureException AuthFailure"
    " ExpiredToken ExpiredTokenException SignatureDoesNotMatch MissingAuthenticationToken MissingAuthenticationTokenException"
    " IncompleteSignature NotAuthorized OptInRequired UnauthorizedOperation InvalidAccessKeyId",
    "not_found": "ResourceNotFoundException",
}
AWS_CODES: dict[str, str] = {code: failure for failure, codes in _AWS_BY_CLASS.items() for code in codes.split()}

GRPC_CODES: dict[str, str] = {
    "UNAVAILABLE": "transient",
    "DEADLINE_EXCEEDED": "transient",
    "ABORTED": "transient",
    "INTERNAL": "transient",
    "UNKNOWN": "transient",
    "DATA_LOSS": "transient",
    "RESOURCE_EXHAUSTED": "rate_limited",
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "auth",
    "NOT_FOUND": "not_found",
    "INVALID_ARGUMENT": "permanent",
    "FAILED_PRECONDITION": "permanent",
    "OUT_OF_RANGE": "permanent",
    "ALREADY_EXISTS": "permanent",
    "UNIMPLEMENTED": "permanent",
}

# Only looked for in a refused request (400, 413, 422) or a 429, where providers send no code that says it.
REFUSAL_TEXTS: tuple[tuple[str, str], ...] = (
    ("maximum context length", "context_window"),
    ("context window", "context_window"),
    ("context length", "context_window"),
    ("context size", "context_window"),
    ("maximum prompt length", "context_window"),
    ("prompt is too long", "context_window"),
    ("input is too long", "context_window"),
    ("input token count", "context_window"),
    ("too many input tokens", "context_window"),
    ("reduce the length of the messages", "context_window"),
    ("content management policy", "content_filter"),
    ("content filter", "content_filter"),
    ("content policy", "content_filter"),
    ("safety system", "content_filter"),
    ("credit balance is too low", "quota"),
    ("api key not valid", "auth"),
    ("api key expired", "auth"),
)
# A single request above the limit per minute: no waiting makes it fit, another account or model may.
LIMIT_TEXTS: tuple[tuple[str, str], ...] = (("insufficient_quota", "quota"), ("request too large", "quota"))
