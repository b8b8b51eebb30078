"""Tokens counted with tiktoken, where an estimate of them is taken: in place of four bytes that are one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from seawall import _limits, _response
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from tiktoken import Encoding

# What OpenAI adds to each message, to its name, and for the beginning of the answer.
_A_MESSAGE = 3
_A_NAME = 1
_THE_ANSWER = 3


def encoding_of(argument: str, given: Any) -> Encoding:
    """The encoding that was given, or that has this name.

    Raises:
        ConfigurationError: there is no tiktoken, no encoding of that name, or none to be had.
    """
    if not isinstance(given, str):
        # Whoever has one has imported it.
        tiktoken = sys.modules.get("tiktoken")
        if tiktoken is not None and isinstance(given, tiktoken.Encoding):
            found: Encoding = given
            return found
        raise ConfigurationTypeError(
            f'{argument} must be a function, a tiktoken.Encoding or the name of one such as "o200k_base", not {shown(given)}'
        )
    try:
        tiktoken = import_module("tiktoken")
    except ImportError:
        raise ConfigurationError(
            f"{argument}={given!r} needs tiktoken: pip install 'seawall[tiktoken]', or give a function that counts"
        ) from None
    try:
        known = tiktoken.list_encoding_names()
        if given not in known:
            raise ConfigurationError(
                f"{argument}: tiktoken has no encoding {given!r}{_meant(given)}; it has {', '.join(sorted(known))}"
            )
        named: Encoding = tiktoken.get_encoding(given)
        return named
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"{argument}: the encoding {given!r} cannot be loaded ({type(error).__name__}: {error}). tiktoken downloads its table once: "
            "let it, or set TIKTOKEN_CACHE_DIR to a directory that has it, or give a tiktoken.Encoding made otherwise"
        ) from error


def _meant(given: str) -> str:
    """Of a model's name: which encoding that model has."""
    from tiktoken.model import encoding_name_for_model

    try:
        return f" (that is a model: its encoding is {encoding_name_for_model(given)!r})"
    except KeyError:
        return ""


class _Counted:
    """What counts by an encoding. It is pickled with that, which pickles by its name where tiktoken knows it."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def _text(self, text: str) -> int:
        # What looks like a special token in a user's text is text.
        return len(self.encoding.encode_ordinary(text))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.encoding.name!r}>"


class TextTokens(_Counted):
    """The tokens of a text."""

    def __call__(self, text: str) -> int:
        return self._text(text)


class CallTokens(_Counted):
    """The tokens that a call with these arguments may use: of its texts and messages, and of the longest answer where that is said.

    Messages of a chat are counted as OpenAI's cookbook has it, "How to count tokens with tiktoken", section 6
    (cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken): three more for each, one more for a name, three for the beginning of
    the answer. A picture or a sound in base64 is a thousand, as in the cheap estimate.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        answers = kwargs.get("n")
        several = answers if isinstance(answers, int) and answers > 1 else 1
        tokens, messages = self._of([*args, *(value for name, value in kwargs.items() if name != "model")], _limits.DEEP + 1)
        return tokens + (_THE_ANSWER if messages else 0) + _limits.most(kwargs) * several

    def _of(self, value: Any, deep: int) -> tuple[int, bool]:
        """The tokens of a value, and whether there are messages in it."""
        if isinstance(value, str):
            return (_limits.ATTACHMENT if value.startswith("data:") else self._text(value)), False
        if deep == 0:
            return 0, False
        if isinstance(value, Mapping):
            tokens, inside = self._sum(list(value.values()), deep)
            if "role" not in value or "content" not in value:
                return tokens, inside
            return tokens + _A_MESSAGE + (_A_NAME if value.get("name") else 0), True
        if isinstance(value, (list, tuple)):
            return self._sum(value, deep)
        # A message of LangChain's or an SDK's, or a prompt that holds some.
        messages, content = _response.get(value, "messages"), _response.get(value, "content")
        if isinstance(messages, (list, tuple)):
            return self._of(messages, deep - 1)
        if isinstance(content, (str, list, tuple)):
            name = _response.get(value, "name")
            named = self._text(name) + _A_NAME if isinstance(name, str) and name else 0
            # Its role is one token everywhere.
            return self._of(content, deep - 1)[0] + _A_MESSAGE + 1 + named, True
        return 0, False

    def _sum(self, values: Any, deep: int) -> tuple[int, bool]:
        counted = [self._of(value, deep - 1) for value in values]
        return sum(tokens for tokens, _ in counted), any(messages for _, messages in counted)


def estimate_by(given: Any) -> Callable[..., int]:
    """What counts a call's tokens by an encoding or its name.

    Raises:
        ConfigurationError: it is neither, or cannot be had.
    """
    return CallTokens(encoding_of("estimate", given))


def count_by(given: Any) -> Callable[[str], int]:
    """The same for a text."""
    return TextTokens(encoding_of("count", given))
