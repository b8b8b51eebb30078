"""The layer's errors are seawall's and langchain-core's at once."""

from __future__ import annotations

import builtins
import copy
import pickle

import pytest
from langchain_core import exceptions as core
from langgraph.types import default_retry_on

import seawall
from seawall import errors
from seawall.langchain import errors as ours
from seawall.simulator import faults

BOTH = [
    (faults.status(400), "BadRequestError", "ModelInvalidRequestError", False),
    (faults.status(401), "AuthenticationError", "ModelAuthenticationError", False),
    (faults.status(403), "PermissionDeniedError", "ModelPermissionDeniedError", False),
    (faults.unknown_model(), "NotFoundError", "ModelNotFoundError", False),
    (faults.status(408), "APIStatusError", "ModelError", None),
    (faults.status(409), "ConflictError", "ModelError", True),
    (faults.status(422), "UnprocessableEntityError", "ModelInvalidRequestError", False),
    (faults.rate_limit(), "RateLimitError", "ModelRateLimitError", True),
    (faults.quota(), "QuotaExceededError", "ModelRateLimitError", False),
    (faults.context_window(), "ContextWindowExceededError", "ContextOverflowError", False),
    (faults.content_filter(), "ContentFilterError", "ModelInvalidRequestError", False),
    (faults.status(500), "InternalServerError", "ModelAPIError", True),
    (faults.status(503), "ServiceUnavailable", "ModelAPIError", True),
    (faults.reset(), "APIConnectionError", "ModelConnectionError", True),
    (faults.html(), "MalformedResponseError", "ModelError", True),
]


@pytest.mark.parametrize(("fault", "name", "langchains", "retryable"), BOTH, ids=lambda value: str(getattr(value, "name", value)))
async def test_a_failure_is_caught_under_either_name(sim, llm, fault, name, langchains, retryable):
    sim.on("gpt-4", fault)
    model = llm(max_retries=0)
    with pytest.raises(getattr(core, langchains)) as raised:
        model.invoke("hello")
    assert isinstance(raised.value, getattr(errors, name))
    assert isinstance(raised.value, core.LangChainException)
    assert type(raised.value) is getattr(ours, name)
    if retryable is not None:
        assert raised.value.is_retryable is retryable
    for ask in (model.ainvoke("hello"), model.abatch(["hello"])):
        with pytest.raises(getattr(errors, name)):
            await ask
    with pytest.raises(getattr(ours, name)):
        list(model.stream("hello"))


def test_a_timeout_has_all_its_names(sim, llm):
    sim.on("gpt-4", faults.hang())
    with pytest.raises(errors.Timeout) as raised:
        llm(timeout=0.05, max_retries=0).invoke("hello")
    for kind in (core.ModelTimeoutError, core.ModelConnectionError, errors.APIConnectionError, builtins.TimeoutError):
        assert isinstance(raised.value, kind)
    assert raised.value.is_retryable


def test_an_error_tells_what_happened(sim, llm):
    sim.on("gpt-4", faults.status(500, "we are down", error_code="boom"))
    with pytest.raises(ours.APIStatusError) as raised:
        llm().with_retry(stop_after_attempt=2, wait=0.001).invoke("hello")
    error = raised.value
    assert (error.status_code, error.code, error.model) == (500, "boom", "gpt-4")
    assert error.request_id.startswith("req_")
    assert "we are down" in str(error)
    assert error.attempts == 2
    assert any("2 attempts" in note for note in error.__notes__)


@pytest.mark.parametrize("name", ours.__all__)
def test_every_error_of_the_tree_is_here_and_in_both_trees(name):
    mine, theirs = getattr(ours, name), getattr(errors, name)
    assert issubclass(mine, theirs)
    if name != "ConfigurationError":
        assert issubclass(mine, core.ModelError)


def test_no_api_error_is_missing():
    apis = {
        name
        for name in errors.__all__
        if isinstance(getattr(errors, name), type) and issubclass(getattr(errors, name), errors.APIError)
    }
    assert apis <= set(ours.__all__)


# What LangGraph's default rule says of each error: whether a node with a RetryPolicy is run again.
AGAIN = {
    "ConfigurationError": False,
    "ConfigurationTypeError": False,
    # A disk that was full may have room.
    "JournalError": True,
    "APIError": True,
    "APIConnectionError": True,
    "APITimeoutError": True,
    "APIStatusError": True,
    "BadRequestError": False,
    "AuthenticationError": False,
    "PermissionDeniedError": False,
    "NotFoundError": False,
    "ConflictError": True,
    "UnprocessableEntityError": False,
    "RateLimitError": True,
    "InternalServerError": True,
    "ServiceUnavailable": True,
    "QuotaExceededError": False,
    "ContextWindowExceededError": False,
    "ContentFilterError": False,
    "MalformedResponseError": True,
    "StreamInterruptedError": True,
    # A Timeout policy around a whole call: its time is over.
    "CallTimeoutError": False,
    # A refusal may be over when the node is run again.
    "Rejected": True,
    "CircuitBreakerError": True,
    "RateLimitExceededError": True,
    "BulkheadFullError": True,
    "GuardrailError": True,
    "InputRefusedError": False,
    "OutputRefusedError": False,
    "OutputShapeError": True,
    "SeawallError": True,
}


@pytest.mark.parametrize("row", errors.TABLE, ids=lambda row: row.error.__name__)
def test_langgraphs_default_rule_fits_each_error(row):
    name = row.error.__name__
    error = getattr(ours, name, row.error)("x")
    assert default_retry_on(error) is AGAIN[name]
    if isinstance(error, core.ModelError) and row.failure is not None:
        # Both rules agree with each other, and with seawall's own.
        assert error.is_retryable is AGAIN[name] is seawall.transient(error)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_they_copy_and_pickle_with_all_they_know(sim, llm, copied):
    sim.on("*", faults.rate_limit(retry_after_ms=1))
    with pytest.raises(errors.RateLimitError) as raised:
        llm(max_retries=1).with_fallbacks([llm("b", max_retries=0)]).invoke("hello")
    again = copied(raised.value)
    assert type(again) is ours.RateLimitError
    assert str(again) == str(raised.value)
    assert (again.status_code, again.request_id, again.attempts) == (429, raised.value.request_id, 3)
    assert [type(other) for other in again.alternatives] == [ours.RateLimitError]
    assert again.headers["retry-after-ms"] == "1"
