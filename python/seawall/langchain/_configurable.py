"""Chat models that a call's config changes or chooses, whose `with_retry` still reaches each model's pipeline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.configurable import RunnableConfigurableAlternatives, RunnableConfigurableFields
from typing_extensions import Self

from seawall.langchain._bound import BoundChat, structured
from seawall.langchain._resilient import resilient_fallbacks, without_retries

# A config's value makes another model, with the policies of the first.
_POLICIES = ("_retry", "_retries_off", "_own_params", "_others", "_handled")


class _OfModels:
    """What is said to it is said to each model behind it."""

    @abstractmethod
    def _each(self, change: Callable[[Any], Any]) -> Any:
        """The same with each model changed."""

    def with_retry(self, **policy: Any) -> Any:
        """As `ChatOpenAI.with_retry`, for each model."""
        return self._each(lambda model: model.with_retry(**policy))

    def with_fallbacks(
        self, fallbacks: Sequence[Any], *, exceptions_to_handle: Any = None, exception_key: str | None = None
    ) -> Any:
        """The same with alternatives for whichever model is asked."""
        return resilient_fallbacks(self, fallbacks, exceptions_to_handle, exception_key)

    def without_retries(self) -> Any:
        """The same with one attempt a call."""
        return self._each(without_retries)


class ConfigurableChat(_OfModels, RunnableConfigurableFields):  # type: ignore[type-arg]  # parametrised, pydantic would make a copy of `default`
    """A `ChatOpenAI` with fields that a call's config may set."""

    def _each(self, change: Callable[[Any], Any]) -> Self:
        return self.model_copy(update={"default": change(self.default)})

    def _prepare(self, config: RunnableConfig | None = None) -> tuple[Runnable[Any, Any], RunnableConfig]:
        made, config = super()._prepare(config)
        if made is self.default:
            return made, config
        return made._but(**{name: getattr(self.default, name) for name in _POLICIES}), config  # type: ignore[attr-defined]

    def with_bound(self, arguments: Mapping[str, Any]) -> Self:
        """As `ChatOpenAI.with_bound`."""
        return self._each(lambda model: model.with_bound(arguments))

    def bind(self, **kwargs: Any) -> BoundChat:
        """The same with arguments bound to each call."""
        return BoundChat(bound=self, kwargs=kwargs)

    def bind_tools(self, tools: Sequence[Any], **how: Any) -> BoundChat:
        """As `ChatOpenAI.bind_tools`; the fields can still be set."""
        model: Any = self.default
        return BoundChat(bound=self, kwargs=model.bind_tools(tools, **how).kwargs)

    def with_structured_output(self, schema: Any = None, **how: Any) -> Runnable[Any, Any]:
        """As `ChatOpenAI.with_structured_output`; the fields can still be set."""
        return structured(self, schema, **how)


class ChosenChat(_OfModels, RunnableConfigurableAlternatives):  # type: ignore[type-arg]
    """A choice of models."""

    def _each(self, change: Callable[[Any], Any]) -> Self:
        def later(make: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: change(make())

        others = {
            name: change(other) if isinstance(other, Runnable) else later(other) for name, other in self.alternatives.items()
        }
        return self.model_copy(update={"default": change(self.default), "alternatives": others})

    def bind_tools(self, tools: Sequence[Any], **how: Any) -> Self:
        """As `ChatOpenAI.bind_tools`, for each model."""
        return self._each(lambda model: model.bind_tools(tools, **how))

    def with_structured_output(self, schema: Any = None, **how: Any) -> Self:
        """As `ChatOpenAI.with_structured_output`, for each model."""
        return self._each(lambda model: model.with_structured_output(schema, **how))


def chosen(made: Any) -> ChosenChat:
    """langchain-core's choice as one of ours."""
    return ChosenChat(**{name: getattr(made, name) for name in type(made).model_fields if name in made.model_fields_set})


__all__ = ["ChosenChat", "ConfigurableChat", "chosen"]
