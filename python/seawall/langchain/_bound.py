"""Chat models with bound arguments or a schema, whose `with_retry` and `with_fallbacks` still reach the model's pipeline."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnableParallel, RunnablePassthrough, RunnableSequence
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from seawall._chat_batch import Said
from seawall._model import retry_policy
from seawall._seawall import Pipeline
from seawall.errors import ConfigurationError
from seawall.langchain import _batch
from seawall.langchain._resilient import Binding, BoundRunnable, Resilient, pipeline_name, resilient_fallbacks, without_retries


class BoundChat(BoundRunnable):
    """A `ChatOpenAI` with arguments or a config bound to each call."""

    @property
    def is_plain(self) -> bool:
        """Whether arguments are all that is bound."""
        return not (self.config or self.config_factories or self.custom_input_type or self.custom_output_type)

    def with_fallbacks(self, fallbacks: Sequence[Any], **how: Any) -> Any:
        """As `ChatOpenAI.with_fallbacks`; what is bound here is this model's own, the alternatives have theirs."""
        model: Any = self.bound
        whole = model.with_bound(self.kwargs).with_fallbacks(fallbacks, **how)
        if self.is_plain:
            return whole
        kind = BoundRunnable if isinstance(whole, Resilient) else BoundChat
        return kind(
            bound=whole,
            config=self.config,
            config_factories=self.config_factories,
            custom_input_type=self.custom_input_type,
            custom_output_type=self.custom_output_type,
        )

    def bind_tools(self, tools: Sequence[Any], **how: Any) -> BoundChat:
        """As `ChatOpenAI.bind_tools`, keeping what is bound."""
        bound: Any = self.bound
        both: BoundChat = self.model_copy(update={"kwargs": {**self.kwargs, **bound.bind_tools(tools, **how).kwargs}})
        return both

    def with_structured_output(self, schema: Any = None, **how: Any) -> Runnable[Any, Any]:
        """As `ChatOpenAI.with_structured_output`, keeping what is bound."""
        return structured(self, schema, **how)


class StructuredChat(Binding, _batch.Batching, RunnableSequence[Any, Any]):  # type: ignore[misc]  # more said of batches
    """A chat model and the parser of its answers. Retries around it are for both: one call of the model an attempt.

    A journal of a batch has the model's answers, which are parsed again each time they are given: so it is whole messages that are kept,
    and an answer that does not parse is no failure in it.
    """

    def _of_the_model(self, configs: Any, said: Said, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The model alone, and what its batch is asked."""
        first: Any = self.first
        model = first.steps__["raw"] if isinstance(first, RunnableParallel) else first
        return model, {"config": configs, "return_exceptions": True, **said._asdict(), **kwargs}

    def _unparsed(self, message: Any) -> Any:
        return {"raw": message} if isinstance(self.first, RunnableParallel) else message

    def _parsed(self, message: Any, config: Any) -> Any:
        """What the steps after the model make of its answer, or the exception in its place."""
        given = self._unparsed(message)
        try:
            for step in self.steps[1:]:
                given = step.invoke(given, config)
        except Exception as error:
            return error
        return given

    async def _aparsed(self, message: Any, config: Any) -> Any:
        given = self._unparsed(message)
        try:
            for step in self.steps[1:]:
                given = await step.ainvoke(given, config)
        except Exception as error:
            return error
        return given

    def _kept(self, inputs: Any, configs: Any, said: Said, kwargs: dict[str, Any]) -> Generator[tuple[int, Any], None, None]:
        model, asked = self._of_the_model(configs, said, kwargs)
        with closing(model.batch_as_completed(inputs, **asked)) as completed:
            for at, answer in completed:
                yield at, answer if isinstance(answer, BaseException) else self._parsed(answer, configs[at])

    async def _akept(
        self, inputs: Any, configs: Any, said: Said, kwargs: dict[str, Any]
    ) -> AsyncGenerator[tuple[int, Any], None]:
        model, asked = self._of_the_model(configs, said, kwargs)
        async with aclosing(model.abatch_as_completed(inputs, **asked)) as completed:
            async for at, answer in completed:
                yield at, answer if isinstance(answer, BaseException) else await self._aparsed(answer, configs[at])

    def with_retry(self, **policy: Any) -> Resilient:
        """As `ChatOpenAI.with_retry`; an answer that does not parse is a failure as well."""
        return Resilient(without_retries(self), Pipeline(retry_policy(**policy), name=pipeline_name(self)))

    def with_fallbacks(
        self, fallbacks: Sequence[Any], *, exceptions_to_handle: Any = None, exception_key: str | None = None
    ) -> Any:
        """Alternatives for the model and its parser together."""
        return resilient_fallbacks(self, fallbacks, exceptions_to_handle, exception_key)


def _sequence(*steps: Any) -> StructuredChat:
    made: Callable[..., StructuredChat] = StructuredChat
    return made(*steps)


def _unanswered(result: Any) -> OutputParserException:
    message = result[0].message if result else None
    text = getattr(message, "additional_kwargs", {}).get("refusal") or getattr(message, "text", "")
    return OutputParserException(f"the model did not answer in the form asked for; it said: {str(text)[:200]!r}")


class _ObjectParser(PydanticToolsParser):
    """Says so when there is nothing to parse, where `None` would pass for an answer."""

    def parse_result(self, result: Any, *, partial: bool = False) -> Any:
        parsed = super().parse_result(result, partial=partial)
        if parsed is None and not partial:
            raise _unanswered(result)
        return parsed


class _DictParser(JsonOutputKeyToolsParser):
    """Says so when there is nothing to parse, where `None` would pass for an answer."""

    def parse_result(self, result: Any, *, partial: bool = False) -> Any:
        parsed = super().parse_result(result, partial=partial)
        if parsed is None and not partial:
            raise _unanswered(result)
        return parsed


def structured(
    model: Any,
    schema: Any = None,
    *,
    include_raw: bool = False,
    method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
    strict: bool | None = None,
    **more: Any,
) -> Runnable[Any, Any]:
    """A chat model that answers with objects of the schema."""
    if more:
        raise ConfigurationError(f"with_structured_output takes no {', '.join(sorted(more))}")
    if schema is None and method != "json_mode":
        raise ConfigurationError(f"with_structured_output(method={method!r}) needs a schema")
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    parser: Any
    if method == "function_calling":
        tool = convert_to_openai_tool(schema, strict=strict)
        llm = model.bind_tools(
            [tool],
            tool_choice="any",
            ls_structured_output_format={"kwargs": {"method": method, "strict": strict}, "schema": tool},
        )
        name = tool["function"]["name"]
        if is_class:
            parser = _ObjectParser(tools=[schema], first_tool_only=True)
        else:
            parser = _DictParser(key_name=name, first_tool_only=True)
    elif method in ("json_schema", "json_mode"):
        response_format: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            described = convert_to_json_schema(schema, strict=strict)
            form = {"name": described.get("title", "answer"), "schema": described}
            response_format = {"type": "json_schema", "json_schema": form if strict is None else {**form, "strict": strict}}
        llm = model.bind(
            response_format=response_format,
            ls_structured_output_format={"kwargs": {"method": method, "strict": strict}, "schema": schema},
        )
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    else:
        raise ConfigurationError(f"method must be 'function_calling', 'json_schema' or 'json_mode', not {method!r}")
    if not include_raw:
        return _sequence(llm, parser)
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return _sequence(RunnableMap(raw=llm), parsed.with_fallbacks([unparsed], exception_key="parsing_error"))
