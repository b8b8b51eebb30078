"""Editors show what stubs say, and know nothing of the binary: the stub's docstrings are those of the native module.

`python tests/typing/test_hover.py` writes them anew.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STUB = Path(__file__).parents[2] / "python" / "seawall" / "_seawall.pyi"
Told = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def told(body: list[ast.stmt], owner: Any) -> Iterator[tuple[Told, str]]:
    """What the stub has, without a leading underscore and the first of its overloads, and the docstring of the real one."""
    seen = set()
    for node in body:
        if isinstance(node, Told) and node.name not in seen and not node.name.startswith("_"):
            seen.add(node.name)
            real = vars(owner).get(node.name)
            real = real.__func__ if isinstance(real, (staticmethod, classmethod)) else real
            if real is None:
                continue
            yield node, inspect.cleandoc(getattr(real, "__doc__", None) or "")
            if isinstance(node, ast.ClassDef):
                yield from told(node.body, real)


def quoted(said: str, indent: str) -> str:
    """As a docstring."""
    lines = [f"{indent}{line}".rstrip() for line in said.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').splitlines()]
    closing = f"\n{indent}" if len(lines) > 1 else ""
    return f'{indent}"""{lines[0].lstrip()}' + "".join(f"\n{line}" for line in lines[1:]) + f'{closing}"""'


def written(stub: str, module: Any) -> str:
    """The stub with these docstrings."""
    lines = stub.splitlines()
    # From the end, and a class after what is in it, so that the lines still to come stay where they are.
    for node, said in sorted(
        told(ast.parse(stub).body, module), key=lambda one: (-one[0].body[0].lineno, type(one[0]) is ast.ClassDef)
    ):
        first = node.body[0]
        has_one = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
        start, end = first.lineno, first.end_lineno or first.lineno
        indent = " " * (node.col_offset + 4)
        docstring = quoted(said, indent).splitlines() if said else []
        if has_one:
            rest = [] if len(node.body) > 1 or docstring else [f"{indent}..."]
            lines[start - 1 : end] = docstring + rest
        elif docstring and isinstance(first, ast.Expr):
            # `def f(self) -> int: ...`: the docstring is a body.
            lines[start - 1 : end] = [lines[start - 1].removesuffix(" ..."), *docstring]
        elif docstring:
            # Above what stands before the first thing of a class, decorators too.
            above = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", []))])
            lines[above - 1 : above - 1] = docstring
    return "\n".join(lines) + "\n"


def test_the_stub_says_of_everything_what_it_says_itself() -> None:
    from seawall import _seawall

    stub = STUB.read_text(encoding="utf-8")
    differ = [node.name for node, said in told(ast.parse(stub).body, _seawall) if (ast.get_docstring(node) or "") != said]
    assert not differ, "python tests/typing/test_hover.py writes them anew"
    assert len(stub.split('"""')) > 200


if __name__ == "__main__":
    from seawall import _seawall

    STUB.write_text(written(STUB.read_text(encoding="utf-8"), _seawall), encoding="utf-8")
    sys.exit()
