"""The body of a cell that is read: each piece of its tree as a small function of ours.

`Evaluate` is what a piece becomes: a function of a run, which holds the variables. For pieces that may not stand in a
cell there is none, so nothing is left that could run.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

from everloop.lang import functions as language
from everloop.lang.expr import Arithmetic, Expr
from everloop.lang.family import Bundle, Family, Matrix
from everloop.lang.refusal import Source, constant, is_plain, levels, unknown

# What a step may ask for: far more than cells need, and too little to keep a server busy.
OPERATIONS = 2_000  # of one trace; each counts as often as there are gates in it
STEPS = 64  # of a shift or a window; families of one name

FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(language, name) for name in language.__all__}
"""What a cell may call: the public functions of the language."""

_TAKES = {name: inspect.signature(function) for name, function in FUNCTIONS.items()}


class Run:
    """One run of a step: its variables, the line it is in, and how much it may still do."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values, self.line, self._left = values, 0, OPERATIONS

    def spend(self, operations: int) -> None:
        self._left -= operations
        if self._left < 0:
            raise ValueError(f"the step has too many operations; {OPERATIONS:,} are possible, counted gate by gate")


Evaluate = Callable[[Run], Any]


def read_body(source: Source, definition: ast.FunctionDef, parameters: Iterable[inspect.Parameter]) -> list[Evaluate]:
    """The statements of a function, as functions of a run; the last gives what the step returns."""
    has_docstring = ast.get_docstring(definition, clean=False) is not None
    body = definition.body[1:] if has_docstring else definition.body
    for statement in body[:-1]:
        if isinstance(statement, ast.Return):
            raise source.refuse(statement, "return is only possible as the last line of a cell")
    stored = {
        node.id
        for level in levels(definition)
        for node in level
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    parameters = list(parameters)
    options = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    reader = _Reader(source, {p.name for p in parameters}, stored, options)
    found = [reader.statement(statement) for statement in body]
    if not body or not isinstance(body[-1], ast.Return):
        raise source.refuse(definition, "a cell ends with return and its new states")
    return found


def read_number(source: Source, node: ast.Constant) -> int | float:
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise source.refuse(node, f"{constant(node.value)} is not possible in a cell; it computes with numbers")
    if not _in_range(node.value):
        raise source.refuse(node, "this number is beyond the range of a float")
    return node.value


def read_keyword(source: Source, keyword: ast.keyword, before: Iterable[str]) -> str:
    if keyword.arg is None:
        raise source.refuse(keyword.value, "** is not possible in a cell; name each argument")
    if keyword.arg in before:
        raise source.refuse(keyword, f"{keyword.arg} came twice")
    return source.name(keyword, keyword.arg)


class _Reader:
    """known: names that have a value at this point; stored: those that are given one anywhere.

    Both are variables, as in Python; any other name is one of the language. options: those that may be functions.
    """

    def __init__(self, source: Source, known: set[str], stored: set[str], options: set[str]) -> None:
        self._source, self._known, self._local, self._options = source, known, known | stored, options

    # Statements

    def statement(self, node: ast.stmt) -> Evaluate:
        match node:
            case ast.Assign(targets=targets, value=value):
                return self._assignment(node, [self._target(target) for target in targets], value)
            case ast.AugAssign(target=ast.Name() as target, op=op, value=value) if type(op) in _AUGMENTED:
                new = self._operation(node, _BINARY[type(op)], self._name(target), self._expression(value))
                return self._store(node, [self._target(target)], new)
            case ast.AugAssign(target=ast.Name(), op=op):
                raise self._source.refuse_piece(op, node)
            case ast.AugAssign(target=target):
                raise self._source.refuse(target, "only to a name can be assigned")
            case ast.Return(value=ast.Tuple(elts=values)):
                return self._operation(node, _together, *map(self._expression, values))
            case ast.Return(value=ast.expr() as value):
                return self._expression(value)
            case ast.Return():
                raise self._source.refuse(node, "return without values is not possible; a cell returns its new states")
        raise self._source.refuse_piece(node)

    def _assignment(self, node: ast.stmt, targets: list[str | list[str]], value: ast.expr) -> Evaluate:
        if not isinstance(value, ast.Tuple):
            return self._store(node, targets, self._expression(value))
        for target in targets:
            if isinstance(target, list) and len(target) != len(value.elts):
                raise self._source.refuse(value, f"{len(value.elts)} values came for {len(target)} names")
        return self._store(node, targets, self._operation(node, _together, *map(self._expression, value.elts)))

    def _target(self, node: ast.expr) -> str | list[str]:
        """The name that is assigned to, or several."""
        elements = node.elts if isinstance(node, ast.Tuple) else [node]
        names = [self._source.name(element, element.id) for element in elements if isinstance(element, ast.Name)]
        if len(names) < len(elements):
            raise self._source.refuse(node, "only to a name can be assigned, or to names with commas between them")
        return names if isinstance(node, ast.Tuple) else names[0]

    def _store(self, node: ast.stmt, targets: list[str | list[str]], found: Evaluate) -> Evaluate:
        for target in targets:
            names = {target} if isinstance(target, str) else set(target)
            self._known = self._known | names
            self._options = self._options - names

        def evaluate(run: Run) -> None:
            value = found(run)
            run.line = node.lineno
            for target in targets:
                if isinstance(target, str):
                    run.values[target] = value
                else:
                    run.values.update(zip(target, _unpacked(value, len(target)), strict=True))

        return evaluate

    # Expressions

    def _expression(self, node: ast.expr) -> Evaluate:
        match node:
            case ast.Name():
                return self._name(node)
            case ast.Constant():
                number = read_number(self._source, node)
                return lambda run: number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._operation(node, _BINARY[type(op)], self._expression(left), self._expression(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return self._operation(node, _UNARY[type(op)], self._expression(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARED:
                return self._operation(node, _COMPARED[type(op)], self._expression(left), self._expression(right))
            case ast.Attribute():
                return self._attribute(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Call():
                return self._call(node)
        raise self._source.refuse_piece(node)

    def _operation(self, node: ast.expr | ast.stmt, function: Callable[..., Any], *operands: Evaluate) -> Evaluate:
        def evaluate(run: Run) -> Any:
            values = [operand(run) for operand in operands]
            run.line = node.lineno
            run.spend(1)
            result = function(*values)
            run.spend(_parts(result))
            return result

        return evaluate

    def _name(self, node: ast.Name) -> Evaluate:
        name = self._source.name(node, node.id)
        if name not in self._known:
            if name in self._local:
                raise self._source.refuse(node, f"{name} is used before it has a value")
            if name in FUNCTIONS:
                raise self._source.refuse(node, f"{name} is a function: call it, as in {name}(v)")
            raise self._source.refuse(node, unknown("value", name, self._known))

        def evaluate(run: Run) -> Any:
            run.line = node.lineno
            if callable(run.values[name]):
                raise TypeError(f"{name} is a function here: call it, as in {name}(v)")
            return run.values[name]

        return evaluate

    def _attribute(self, node: ast.Attribute) -> Evaluate:
        name = self._source.name(node, node.attr)
        if isinstance(node.value, ast.Attribute) and name != "T":
            self._expression(node.value)
            raise self._source.refuse(
                node, f".{node.value.attr}.{name} is not possible; a member has no members but .T"
            )
        return self._operation(node, lambda value: _member(value, name), self._expression(node.value))

    def _subscript(self, node: ast.Subscript) -> Evaluate:
        number = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(number, int) or isinstance(number, bool) or number >= STEPS:
            raise self._source.refuse(node, f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}")
        return self._operation(node, lambda value: _numbered(value, number), self._expression(node.value))

    def _call(self, node: ast.Call) -> Evaluate:
        if not isinstance(node.func, ast.Name):
            raise self._source.refuse(node.func, "only a function of the language can be called, by its name")
        name = self._source.name(node.func, node.func.id)
        if name in self._local and name not in self._options:
            raise self._source.refuse(node.func, f"{name} is a value, which cannot be called")
        if name not in self._local and name not in FUNCTIONS:
            raise self._source.refuse(node.func, unknown("function", name, FUNCTIONS))
        keys = [""] * len(node.args)
        for keyword in node.keywords:
            keys.append(read_keyword(self._source, keyword, keys))
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        kinds = self._kinds(node, name, keys)
        values = [self._argument(value, kind) for value, kind in zip(given, kinds, strict=True)]

        def call(function: Any, *values: Any) -> Any:
            if not callable(function):
                raise TypeError(f"{name} is {function!r} here, which cannot be called")
            plain, named = _sorted(keys, values)
            return function(*plain, **named)

        is_option = name in self._options
        return self._operation(node, call, lambda run: run.values[name] if is_option else FUNCTIONS[name], *values)

    def _kinds(self, node: ast.Call, name: str, keys: list[str]) -> list[str]:
        """What the function expects at each argument, as its annotations say. An option is a function of values."""
        if name in self._options:
            return ["Value"] * len(keys)
        places, named = _sorted(keys, range(len(keys)))
        try:
            bound = _TAKES[name].bind(*places, **named).arguments
        except TypeError as error:
            raise self._source.refuse(node, f"{name}: {error}") from None
        kinds = {place: str(_TAKES[name].parameters[parameter].annotation) for parameter, place in bound.items()}
        return [kinds[place] for place in range(len(keys))]

    def _argument(self, node: ast.expr, kind: str) -> Evaluate:
        """One argument: a value, unless the function says that it takes something else."""
        if kind in ("str", "bool"):
            value = node.value if isinstance(node, ast.Constant) else None
            if kind == "bool" and isinstance(value, bool):
                return lambda run: value
            if kind == "str" and isinstance(value, str) and is_plain(value):
                return lambda run: value
            raise self._source.refuse(
                node, f"expected {'True or False' if kind == 'bool' else 'a name in quotes'} here"
            )
        if kind.startswith("Callable"):
            if not isinstance(node, ast.Lambda):
                raise self._source.refuse(node, "expected lambda here, as in lambda i, j: i + j")
            return self._lambda(node)
        found = self._expression(node)
        return _steps(found) if kind == "int" else found

    def _lambda(self, node: ast.Lambda) -> Evaluate:
        takes = node.args
        if takes.posonlyargs or takes.vararg or takes.kwonlyargs or takes.kwarg or takes.defaults:
            raise self._source.refuse(node, "lambda takes names alone, as in lambda i, j: i + j")
        names = [self._source.name(argument, argument.arg) for argument in takes.args]
        if len(set(names)) < len(names):
            raise self._source.refuse(node, "lambda takes each name once")
        taken = set(names)
        inner = _Reader(self._source, self._known | taken, self._local | taken, self._options - taken)
        body = inner._expression(node.body)

        def function(run: Run, *values: Any) -> Any:
            if len(values) != len(names):
                raise TypeError(f"this lambda takes {len(names)} values; {len(values)} are given to it")
            outer = run.values
            run.values = outer | dict(zip(names, values, strict=True))
            try:
                return body(run)
            finally:
                run.values = outer

        return lambda run: functools.partial(function, run)


# What the operations do


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of Python for values of a cell, and for numbers in the range of a float."""

    def apply(*operands: Any) -> Any:
        for operand in operands:
            if not isinstance(operand, int | float | Arithmetic):
                raise TypeError(f"a cell computes with values and numbers, not with a {type(operand).__name__}")
        try:
            result = function(*operands)
        except ZeroDivisionError:
            raise ValueError("a number is divided by zero") from None
        except OverflowError:
            result = math.inf
        if isinstance(result, int | float) and not _in_range(result):
            raise ValueError("the result is a number beyond the range of a float")
        return result

    return apply


_BINARY: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: _arithmetic(operator.add),
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.MatMult: _arithmetic(operator.matmul),
}
_AUGMENTED = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_UNARY: dict[type[ast.unaryop], Callable[..., Any]] = {
    ast.UAdd: _arithmetic(operator.pos),
    ast.USub: _arithmetic(operator.neg),
}
_COMPARED: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Lt: _arithmetic(operator.lt),
    ast.LtE: _arithmetic(operator.le),
    ast.Gt: _arithmetic(operator.gt),
    ast.GtE: _arithmetic(operator.ge),
}


def _in_range(number: int | float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _sorted(keys: Iterable[str], values: Iterable[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call: those in their places, which have no key, and those by name."""
    pairs = list(zip(keys, values, strict=True))
    return [value for key, value in pairs if not key], {key: value for key, value in pairs if key}


def _together(*values: Any) -> tuple[Any, ...]:
    if any(isinstance(value, tuple) for value in values):
        raise TypeError("a tuple of tuples is not possible in a cell; write each value by itself")
    return values


def _member(value: Any, name: str) -> Any:
    """The member of that name, and nothing else that a Python object has."""
    if isinstance(value, Family):
        return Family.__getattr__(value, name)
    if isinstance(value, Bundle):
        return Bundle.__getattr__(value, name)
    if isinstance(value, Matrix) and name == "T":
        return value.T
    raise AttributeError(f"there is no .{name} here: only a family and a bundle have members, one for each gate")


def _numbered(value: Any, number: int) -> Any:
    if not isinstance(value, Family | tuple):
        raise TypeError(f"[{number}]: only families and windows are numbered")
    if isinstance(value, tuple) and number >= len(value):
        raise ValueError(f"[{number}]: there are {len(value)}, the first being [0]")
    return value[number]


def _unpacked(value: Any, count: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple | Bundle | Expr):
        raise TypeError(f"one value came for {count} names")
    values = tuple(value)
    if len(values) != count:
        raise ValueError(f"{len(values)} values came for {count} names")
    return values


def _steps(found: Evaluate) -> Evaluate:
    """An argument that says how often something is done."""

    def evaluate(run: Run) -> Any:
        value = found(run)
        if isinstance(value, int | float) and value > STEPS:
            raise ValueError(f"{value} steps came; {STEPS} are possible")
        if isinstance(value, int):
            run.spend(max(value, 0))
        return value

    return evaluate


def _parts(result: Any) -> int:
    """How many values an operation made, beyond one."""
    if isinstance(result, tuple):
        return sum(1 + _parts(value) for value in result)  # tuples are flat
    return len(list(result)) - 1 if isinstance(result, Bundle) else 0
