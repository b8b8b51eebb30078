"""The command line: `python -m seawall.batch in.jsonl out.jsonl --model gpt-4o-mini` asks for each line, and goes on where it was broken off."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seawall import RateLimit, _batch, journal
from seawall._batch import Question
from seawall._chat_batch import messages as as_messages
from seawall.errors import APIError, ConfigurationError, JournalError, SeawallError
from seawall.llm import Chat

# Errors told of one file; nobody reads more.
_MOST = 20
_URL = "/v1/chat/completions"


class Line(NamedTuple):
    """What a line asks."""

    number: int
    custom_id: str
    messages: str | list[Any]
    params: dict[str, Any]
    model: str | None


class _WrongLine(Exception):
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seawall.batch",
        description="Asks a model for each line of a file. What has finished is in a journal before it counts: begun again after whatever "
        "ended it, the same command asks only for the rest. The key comes from OPENAI_API_KEY or from the configuration file.",
        epilog="The exit code is 0 if all lines are answered, 1 if some failed or the service ended it, 2 if it could not begin, and 130 "
        "after Ctrl-C.",
    )
    parser.add_argument(
        "input", metavar="IN", help="a line each: OpenAI's batch format, an object with prompt or messages, or a JSON string"
    )
    parser.add_argument(
        "output", metavar="OUT", nargs="?", help="written whole at the end, in the order of the lines, in OpenAI's batch format"
    )
    parser.add_argument("--model", metavar="NAME", help="the model; default: what the lines of OpenAI's format say")
    parser.add_argument("--base-url", metavar="URL", help="the service (OPENAI_BASE_URL, or OpenAI's)")
    parser.add_argument("--config", metavar="FILE", help="a configuration file that describes the model, with --name")
    parser.add_argument("--name", metavar="NAME", help="the model's name in the configuration file")
    parser.add_argument("--max-concurrency", type=int, default=64, metavar="N", help="requests under way at a time (%(default)s)")
    parser.add_argument("--rpm", type=float, metavar="N", help="requests a minute")
    parser.add_argument("--tpm", type=float, metavar="N", help="tokens a minute")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one attempt (%(default)s)")
    parser.add_argument(
        "--max-retries", type=int, default=2, metavar="N", help="attempts of a line beyond its first (%(default)s)"
    )
    parser.add_argument(
        "--patience", type=float, default=3600.0, metavar="SECONDS", help="how long nothing may be answered (%(default)s)"
    )
    parser.add_argument("--journal", metavar="FILE", help="where finished lines are kept (OUT.db)")
    parser.add_argument(
        "--retry-failures",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask again for what failed in an earlier run",
    )
    parser.add_argument("--errors", metavar="FILE", help="where failed lines go; else they are in OUT")
    parser.add_argument("--check", action="store_true", help="only look whether all lines can be sent")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _line(text: str, number: int) -> Line:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _WrongLine(f"no JSON: {error}") from None
    custom_id, body = f"line-{number}", said
    if isinstance(said, str):
        body = {"prompt": said}
    elif not isinstance(said, dict):
        raise _WrongLine(f"a line must be an object or a string, not {_kind(said)}")
    if "custom_id" in body:
        body = dict(body)
        custom_id = body.pop("custom_id")
        if not isinstance(custom_id, str):
            raise _WrongLine(f"custom_id must be a string, not {_kind(custom_id)}")
    if "body" in body:
        body = _wrapped(body)
    body = dict(body)
    asked = [name for name in ("prompt", "messages") if name in body]
    if len(asked) != 1:
        raise _WrongLine(
            "a line needs prompt, messages, or a body with messages" if not asked else "a line has prompt or messages, not both"
        )
    content, model = body.pop(asked[0]), body.pop("model", None)
    if asked == ["prompt"] and not isinstance(content, str):
        raise _WrongLine(f"prompt must be a string, not {_kind(content)}")
    if asked == ["messages"] and not isinstance(content, list):
        raise _WrongLine(f"messages must be a list, not {_kind(content)}")
    if model is not None and not isinstance(model, str):
        raise _WrongLine(f"model must be a string, not {_kind(model)}")
    if body.pop("stream", False):
        raise _WrongLine("stream is not for batches: leave it out")
    try:
        sent = as_messages(content, asked[0])
        Chat._check(body)
        # Half a character can be written in JSON, and not be sent.
        json.dumps([sent, body], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _WrongLine("it holds a lone surrogate (half a character), which cannot be sent") from None
    except (TypeError, ValueError) as error:
        raise _WrongLine(str(error)) from None
    return Line(number, custom_id, sent, body, model)


def _wrapped(said: dict[str, Any]) -> dict[str, Any]:
    """The body of a line in OpenAI's batch format."""
    more = sorted(said.keys() - {"method", "url", "body"})
    if more:
        raise _WrongLine(f"beside body there is {more[0]!r}, which OpenAI's batch format does not have")
    if said.get("method", "POST") != "POST":
        raise _WrongLine(f"method must be POST, not {said['method']!r}")
    if said.get("url", _URL) != _URL:
        raise _WrongLine(f"url must be {_URL}, not {said['url']!r}")
    body = said["body"]
    if not isinstance(body, dict):
        raise _WrongLine(f"body must be an object, not {_kind(body)}")
    if "messages" not in body:
        raise _WrongLine("body has no messages")
    return body


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


class Lines(Iterable[Question]):
    """What a file asks, read as it is needed: it may be larger than the memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.model: str | None = None

    def read(self) -> Iterator[Line]:
        """Its lines; empty ones are none."""
        with self.path.open(encoding="utf-8-sig") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield _line(text, number)

    def problems(self, model: str | None) -> list[tuple[int, str]]:
        """All that is wrong in it, by the lines' numbers; the count and the model are known afterwards."""
        found: list[tuple[int, str]] = []
        # Of each id its hash: a collision of two is as likely as none ever is.
        seen: dict[int, int] = {}
        self.model = model
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                self.count += 1
                try:
                    line = _line(raw.decode("utf-8-sig" if number == 1 else "utf-8"), number)
                    before = seen.setdefault(hash(line.custom_id), number)
                    if before != number:
                        raise _WrongLine(f"custom_id {line.custom_id!r} is that of line {before} too")
                    self.model = self.model or line.model
                    if line.model is not None and line.model != self.model:
                        raise _WrongLine(
                            f"its model is {line.model!r}, and the batch's {self.model!r}: make a batch for each model"
                        )
                except UnicodeDecodeError as error:
                    found.append((number, f"no UTF-8: {error.reason} at byte {error.start}"))
                except _WrongLine as error:
                    found.append((number, str(error)))
        return found

    def __iter__(self) -> Iterator[Question]:
        return (Question(line.messages, line.params) for line in self.read())

    def __len__(self) -> int:
        return self.count


def _model(given: argparse.Namespace, lines: Lines) -> Chat:
    if given.config is not None:
        from seawall.configuration import load

        models = load(given.config).models
        chat = models[given.name]
        if not isinstance(chat, Chat):
            raise ConfigurationError(f"{given.config}: {given.name!r} is no chat model")
        return chat
    limit = None
    if given.rpm is not None or given.tpm is not None:
        limit = RateLimit(requests=given.rpm, tokens=given.tpm, per=60)
    if lines.model is None:
        raise ConfigurationError("no model: give --model, or model in the lines' bodies")
    return Chat(lines.model, base_url=given.base_url, timeout=given.timeout, max_retries=given.max_retries, rate_limit=limit)


def _answered(line: Line, reply: Any) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": reply.request_id, "body": reply.raw}
    return {"id": f"line-{line.number}", "custom_id": line.custom_id, "response": response, "error": None}


def _failed(line: Line, error: Exception) -> dict[str, Any]:
    told: dict[str, Any] = {"code": type(error).__name__, "message": str(error)}
    if isinstance(error, APIError):
        told.update(status_code=error.status_code, request_id=error.request_id)
    return {"id": f"line-{line.number}", "custom_id": line.custom_id, "response": None, "error": told}


class _Whole:
    """A file that is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor, self._name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        self._file = open(descriptor, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor, closed by `put` or `drop`

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def put(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        Path(self._name).replace(self._path)

    def drop(self) -> None:
        self._file.close()
        Path(self._name).unlink(missing_ok=True)


def _write(lines: Lines, path: str, unsent: Mapping[int, Exception], output: Path, errors: Path | None) -> int:
    """Writes what the journal has, in the order of the lines; how many of them failed. What could not be sent is in no journal."""
    failures = 0
    files = [_Whole(output), *([] if errors is None else [_Whole(errors)])]
    try:
        with journal.open(path) as written:
            rows = written.results()
            for place, line in enumerate(lines.read()):
                at, result = (place, unsent[place]) if place in unsent else next(rows)
                if at != place:
                    raise JournalError(
                        f"the journal {path} has nothing of line {line.number}: was {lines.path} changed meanwhile?"
                    )
                if isinstance(result, Exception):
                    failures += 1
                    files[-1].write(_failed(line, result))
                else:
                    files[0].write(_answered(line, result))
        for file in files:
            file.put()
    except BaseException:
        for file in files:
            file.drop()
        raise
    return failures


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _usage(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuses arguments that do not fit together."""
    if given.output is None and not given.check:
        parser.error("OUT is missing: the file that the answers go to")
    if (given.config is None) != (given.name is None):
        parser.error("--config and --name go together: the file, and the model's name in it")
    if given.config is not None and any(each is not None for each in (given.model, given.base_url, given.rpm, given.tpm)):
        parser.error("--model, --base-url, --rpm and --tpm are for a batch without --config, which says all that")
    files = [Path(each).resolve() for each in (given.input, given.output, given.journal, given.errors) if each is not None]
    if len(set(files)) < len(files):
        parser.error("IN, OUT, the journal and the errors need a file each")
    for each in (given.output, given.journal, given.errors):
        if each is not None and not Path(each).resolve().parent.is_dir():
            parser.error(f"the directory of {each} is not there")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; what it returns is the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    _usage(parser, given)
    lines = Lines(Path(given.input))
    try:
        problems = lines.problems(given.model)
    except OSError as error:
        _say(f"{given.input}: {error.strerror or error}")
        return 2
    for number, what in problems[:_MOST]:
        _say(f"{given.input}:{number}: {what}")
    if len(problems) > _MOST:
        _say(f"{given.input}: and {len(problems) - _MOST:,} more")
    if problems:
        return 2
    if given.check:
        _say(f"{given.input}: {lines.count:,} lines, all of which can be sent")
        return 0
    return _run(given, lines)


def _run(given: argparse.Namespace, lines: Lines) -> int:
    path = given.journal or f"{given.output}.db"
    try:
        chat = _model(given, lines)
        results = chat.batch_as_completed(
            lines,
            max_concurrency=given.max_concurrency,
            return_exceptions=True,
            journal=path,
            progress=not given.quiet,
            patience=given.patience,
            retry_failures=given.retry_failures,
        )
        unsent: dict[int, Exception] = {}

        def keep(at: int, result: Any) -> None:
            if isinstance(result, (TypeError, ValueError)):  # the journal has all others
                unsent[at] = result

        _batch.each(results, keep)
        failures = _write(lines, path, unsent, Path(given.output), None if given.errors is None else Path(given.errors))
    except KeyboardInterrupt as error:
        _say("\n".join(["interrupted", *getattr(error, "__notes__", ())]))
        return 130
    except (ConfigurationError, JournalError) as error:
        _say(str(error))
        return 2
    except SeawallError as error:
        _say("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))
        return 1
    except OSError as error:
        _say(f"{error.filename or given.output}: {error.strerror or error}")
        return 2
    where = f", which are in {given.errors or given.output}" if failures else ""
    _say(f"{lines.count - failures:,} lines answered, {failures:,} failed{where}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
