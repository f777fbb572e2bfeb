"""Functions that somebody wrote, as text that stands alone."""

from __future__ import annotations

import ast
import builtins
import linecache
import math
from collections.abc import Callable
from typing import Any

from everloop.export._names import Names

UNTOLD = "the cell has a function of its own for this, which cannot be told here"


def spelled(function: Callable[..., Any], names: Names, written: dict[Any, tuple[str, str]]) -> str:
    """The source of a function of plain numbers as a lambda, or its name; empty if it cannot be had: it may use the
    module `math`, numbers of its module, and functions there of which the same is true.

    written: the functions that it calls, and the name and source of each; grows.
    """

    def rewrite(tree: ast.Lambda | ast.FunctionDef, space: dict[str, Any]) -> bool:
        own = {argument.arg for argument in tree.args.args}
        for node in [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id not in own]:
            value = space.get(node.id)
            if isinstance(value, int | float):
                node.id = f"({value!r})"
            elif callable(value) and (name := spelled(value, names, written)):
                node.id = name
            elif value is not math and (value is not None or node.id not in dir(builtins)):
                return False
        return True

    if function in written:
        return written[function][0]
    tree = _definition(function)
    if tree is None or function.__closure__ or not rewrite(tree, function.__globals__):
        return ""
    if isinstance(tree, ast.Lambda):
        return ast.unparse(tree)
    tree.name = names.fresh(tree.name)
    written[function] = tree.name, ast.unparse(tree)
    return tree.name


def _definition(function: Callable[..., Any]) -> ast.Lambda | ast.FunctionDef | None:
    """The syntax of a function, from the file that it is in."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    text = "".join(linecache.getlines(code.co_filename))
    # Where the first instruction comes from that is not the call itself.
    place = next(((line, begin) for line, _, begin, end in code.co_positions() if end), (0, 0))
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Lambda | ast.FunctionDef)
        and [argument.arg for argument in node.args.args] == list(code.co_varnames[: code.co_argcount])
        and code.co_name == getattr(node, "name", "<lambda>")
        and (node.lineno, node.col_offset) <= place < (node.end_lineno, node.end_col_offset)
    ]
    return found[-1] if found else None
