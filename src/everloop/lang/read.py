"""`read_cell`: a cell from a text, which is parsed and never executed."""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.lang.body import FUNCTIONS, Run, read_body, read_keyword, read_number
from everloop.lang.cell import Cell, cell
from everloop.lang.refusal import Source, levels, lines, unknown
from everloop.lang.step import located

# What a text may hold: far more than a cell needs, and too little to keep a server busy.
CHARACTERS = 20_000
PIECES = 8_000
DEPTH = 100
NAMES = 64  # of states, of gates, of side inputs


def read_cell(text: str, filename: str = "<cell>") -> Cell:
    """The cell that a text defines: one `def` under `@cell(...)`, written in assignments and a return.

    The same Python as in a file of a cell, and no other. What else the text holds is refused with a SyntaxError that
    names it and its line. The text is parsed, not run: it may come from anywhere. filename: for messages only.
    """
    if not isinstance(text, str):
        raise TypeError(f"read_cell takes the text of a cell, not a {type(text).__name__}")
    source = Source(text, filename)
    definition = _definition(source)
    declared = _declaration(source, definition)
    step = ReadStep(source, definition)
    try:
        return cell(**declared)(step)
    except TypeError as error:
        raise located(error, source.place(definition.decorator_list[0].lineno)) from error


def read_cell_file(path: str | Path) -> Cell:
    """The cell in a file, by `read_cell`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to read a cell from")
    with path.open("rb") as file:
        content = file.read(4 * CHARACTERS + 1)
    if len(content) > 4 * CHARACTERS:
        raise _too_long(str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Source("", str(path)).refuse_line(line, "this is not UTF-8, the encoding of Python files") from None
    return read_cell(text, str(path))


class ReadStep:
    """The function that a text defines, as far as a Cell needs one: to be called, and to say what it takes."""

    def __init__(self, source: Source, definition: ast.FunctionDef) -> None:
        self.__name__ = self.__qualname__ = source.name(definition, definition.name)
        self.__doc__ = ast.get_docstring(definition, clean=False)
        self.__signature__ = _signature(source, definition)
        self.text, self.filename = source.text, source.filename
        self._source = source
        self._statements = read_body(source, definition, self.__signature__.parameters.values())

    @property
    def reduce(self) -> tuple[Callable[..., Cell], tuple[str, str]]:
        """How a pickle makes the cell again."""
        return read_cell, (self.text, self.filename)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.run(self.__signature__.bind(*arguments, **options).arguments, {})[0]

    def run(self, arguments: dict[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What the step returns, and its variables, in the order in which Python would list them."""
        given = arguments | options
        run = Run({p.name: given.get(p.name, p.default) for p in self.__signature__.parameters.values()})
        try:
            *before, last = self._statements
            for statement in before:
                statement(run)
            return last(run), run.values
        except RecursionError:
            raise located(ValueError("the step is nested too deeply"), self._source.place(run.line)) from None
        except Exception as error:
            raise located(error, self._source.place(run.line)) from error


# The text as a whole


def _definition(source: Source) -> ast.FunctionDef:
    """The one function of the text, after a look at all that stands around it."""
    found: ast.FunctionDef | None = None
    for position, statement in enumerate(_parse(source).body):
        if isinstance(statement, ast.ImportFrom):
            _check_import(source, statement)
        elif isinstance(statement, ast.FunctionDef) and found is None:
            found = statement
        elif isinstance(statement, ast.FunctionDef):
            raise source.refuse(statement, "a second def is not possible; a text is one cell")
        elif position > 0 or not _is_text(statement):
            raise source.refuse_piece(statement)
    if found is None:
        raise source.refuse_line(1, "there is no cell here; a cell is a def under @cell(...)")
    return found


def _parse(source: Source) -> ast.Module:
    if len(source.text) > CHARACTERS:
        raise _too_long(source.filename)
    odd = re.search(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]", source.text)
    if odd is not None:
        line = len(lines(source.text[: odd.start()]))
        raise source.refuse_line(line, f"the character U+{ord(odd.group()):04X} is not possible")
    try:
        tree = ast.parse(source.text, "<cell>")
    except SyntaxError as error:
        raise source.refuse_line(error.lineno or 1, error.msg, error.offset or 1) from None
    except (MemoryError, RecursionError):
        raise _too_deep(source) from None
    _check_bounds(source, tree)
    return tree


def _check_bounds(source: Source, tree: ast.AST) -> None:
    count = 0
    for depth, level in enumerate(levels(tree)):
        count += len(level)
        if depth > DEPTH:
            raise _too_deep(source)
    if count > PIECES:
        raise ValueError(f"{source.filename}: the text has {count:,} names, numbers and signs; {PIECES:,} are possible")


def _too_long(filename: str) -> ValueError:
    return ValueError(f"{filename}: the text is too long to be a cell; {CHARACTERS:,} characters are possible")


def _too_deep(source: Source) -> ValueError:
    return ValueError(f"{source.filename}: the text is nested too deeply to be a cell; {DEPTH} levels are possible")


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _check_import(source: Source, statement: ast.ImportFrom) -> None:
    """An import line does nothing, for the functions are known anyway; so it may say nothing else."""
    module = statement.module or ""
    if statement.level or not (module == "everloop" or module.startswith("everloop.lang.")):
        raise source.refuse_piece(statement, hint="only `from everloop import ...` is, of functions of the language")
    for alias in statement.names:
        if alias.name not in ("cell", *FUNCTIONS):
            raise source.refuse(alias, unknown("function", alias.name, FUNCTIONS))
        if alias.asname not in (None, alias.name):
            raise source.refuse(alias, f"{alias.name} as {alias.asname} is not possible; it keeps its name")


# The decorator


_TAKES = inspect.signature(cell).parameters
_KINDS = typing.get_type_hints(cell)


def _declaration(source: Source, definition: ast.FunctionDef) -> dict[str, Any]:
    """What the decorator says, read as literals."""
    if len(definition.decorator_list) != 1:
        count = len(definition.decorator_list)
        raise source.refuse(definition, f"{count or 'no'} decorators came; a cell has one, @cell(...)")
    node = definition.decorator_list[0]
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cell"):
        raise source.refuse(node, 'the decorator must be @cell(...), as in @cell(states="h", gates="h")')
    if node.args:
        raise source.refuse(node.args[0], 'what @cell takes has a name, as in @cell(states="h", gates="h")')
    declared: dict[str, Any] = {}
    for keyword in node.keywords:
        name = read_keyword(source, keyword, declared)
        if name not in _TAKES:
            raise source.refuse(keyword, unknown("argument of @cell", name, _TAKES))
        declared[name] = _literal(source, keyword.value, name)
        if not _fits(declared[name], _KINDS[name]):
            raise source.refuse(keyword.value, f"{name}: {declared[name]!r} came; that is not what @cell takes there")
        _check_names(source, keyword.value, name, declared[name])
    for name, parameter in _TAKES.items():
        if parameter.default is parameter.empty and name not in declared:
            raise source.refuse(node, f"@cell needs {name}=")
    return declared


def _literal(source: Source, node: ast.expr, name: str) -> Any:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return _signed(source, node)
        case ast.Tuple(elts=elements):
            return tuple(_literal(source, element, name) for element in elements)
        case ast.Dict(keys=keys, values=values):
            found: dict[str, Any] = {}
            for key, value in zip(keys, values, strict=True):
                if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                    raise source.refuse(key or node, f"{name}: what stands before : must be a name in quotes")
                found[key.value] = _literal(source, value, name)
            return found
        case ast.Lambda() | ast.Name():
            raise source.refuse(
                node, f"{name}: a function or a name is not possible in a cell that is read; give a number"
            )
    raise source.refuse_piece(node, hint=f"{name} is a text, a number, or a dict of them")


def _signed(source: Source, node: ast.expr) -> int | float:
    """A number, with or without a minus."""
    match node:
        case ast.Constant():
            return read_number(source, node)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as number):
            return -read_number(source, number)
    raise source.refuse(node, "the default of an option must be a number or the name of a function of the language")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a literal is of the kind that an annotation says."""
    inner, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(kind, type) and isinstance(value, kind)


def _check_names(source: Source, node: ast.expr, argument: str, value: Any) -> None:
    """Names in quotes are names all the same: they come to stand in formulas and in generated programs."""
    if argument in ("states", "gates", "inputs"):
        named = value.split()
    else:
        named = list(value) if isinstance(value, dict) else []
    if len(named) > NAMES:
        raise source.refuse(node, f"{argument}: {len(named)} names came; {NAMES} are possible")
    for name in named:
        for part in re.split("[:.]", name):
            source.name(node, part)


# The signature


def _signature(source: Source, definition: ast.FunctionDef) -> inspect.Signature:
    taken = definition.args
    for sign, argument in (("*", taken.vararg), ("**", taken.kwarg)):
        if argument is not None:
            raise source.refuse(argument, f"{sign}{argument.arg} is not possible in a cell; name each argument")
    if taken.posonlyargs:
        raise source.refuse(taken.posonlyargs[0], "/ is not possible in a cell")
    if taken.defaults:
        raise source.refuse(taken.defaults[0], "a default is not possible here; options have one, and come after *")
    for annotation in (definition.returns, *(a.annotation for a in (*taken.args, *taken.kwonlyargs))):
        if annotation is not None:
            raise source.refuse(annotation, "an annotation is not possible in a cell")
    if getattr(definition, "type_params", None):
        raise source.refuse(definition, "a type parameter is not possible in a cell")
    parameters: dict[str, inspect.Parameter] = {}
    for argument, default in zip(
        (*taken.args, *taken.kwonlyargs), (*[None] * len(taken.args), *taken.kw_defaults), strict=True
    ):
        name = source.name(argument, argument.arg)
        if name in parameters:
            raise source.refuse(argument, f"the argument {name} came twice")
        if argument in taken.args:
            parameters[name] = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        elif default is None:
            raise source.refuse(argument, f"the option {name} needs a default: a number or a function of the language")
        else:
            parameters[name] = inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_default(source, default)
            )
    return inspect.Signature(list(parameters.values()))


def _default(source: Source, node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in FUNCTIONS:
        return FUNCTIONS[node.id]
    return _signed(source, node)
