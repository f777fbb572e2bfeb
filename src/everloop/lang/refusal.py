"""What a text is told that is not a cell: the construct in words, its line, and what to write instead."""

from __future__ import annotations

import ast
import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator

WHERE = "use where(condition, a, b)"
LOOP = "write its rounds out, or make the cell in Python with @cell"
SIMPLE = "a cell is assignments and a return"

# What stands in the text, and what to do about it.
WORDS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Import: ("import", SIMPLE),
    ast.ImportFrom: ("import", SIMPLE),
    ast.If: ("if", WHERE),
    ast.IfExp: ("a if ... else b", WHERE),
    ast.For: ("a loop (for)", LOOP),
    ast.AsyncFor: ("async for", LOOP),
    ast.While: ("a loop (while)", LOOP),
    ast.Break: ("break", SIMPLE),
    ast.Continue: ("continue", SIMPLE),
    ast.Match: ("match", WHERE),
    ast.Try: ("try", SIMPLE),
    ast.TryStar: ("try", SIMPLE),
    ast.With: ("with", SIMPLE),
    ast.AsyncWith: ("async with", SIMPLE),
    ast.Raise: ("raise", SIMPLE),
    ast.Assert: ("assert", SIMPLE),
    ast.Delete: ("del", SIMPLE),
    ast.Global: ("global", SIMPLE),
    ast.Nonlocal: ("nonlocal", SIMPLE),
    ast.Pass: ("pass", SIMPLE),
    ast.FunctionDef: ("def inside a def", SIMPLE),
    ast.AsyncFunctionDef: ("async def", SIMPLE),
    ast.ClassDef: ("class", SIMPLE),
    ast.Return: ("return outside a def", SIMPLE),
    ast.Assign: ("an assignment outside the def", "give the number as an option: *, k=2"),
    ast.AnnAssign: ("an annotation", SIMPLE),
    ast.AugAssign: ("an assignment outside the def", SIMPLE),
    ast.Expr: ("an expression whose value is not kept", SIMPLE),
    ast.Lambda: ("lambda", "it can only be the argument of fixed"),
    ast.NamedExpr: ("the assignment :=", "assign on a line of its own"),
    ast.Starred: ("*", "write each value by itself"),
    ast.ListComp: ("a comprehension", LOOP),
    ast.SetComp: ("a comprehension", LOOP),
    ast.DictComp: ("a comprehension", LOOP),
    ast.GeneratorExp: ("a comprehension", LOOP),
    ast.Yield: ("yield", SIMPLE),
    ast.YieldFrom: ("yield", SIMPLE),
    ast.Await: ("await", SIMPLE),
    ast.JoinedStr: ("an f-string", "a cell computes with numbers"),
    ast.List: ("a list", "write each value by itself"),
    ast.Dict: ("a dict", "write each value by itself"),
    ast.Set: ("a set", "write each value by itself"),
    ast.Tuple: ("a tuple", "it can only be assigned or returned"),
    ast.Slice: ("a slice", "write each value by itself"),
    ast.BoolOp: ("and, or", "multiply the conditions, or nest where"),
    ast.Not: ("not", "turn the comparison round"),
    ast.Invert: ("~", "turn the comparison round"),
    ast.Pow: ("**", "write v * v, square(v) or power(v, p)"),
    ast.Mod: ("%", "write mod(a, b)"),
    ast.FloorDiv: ("//", "write floor(a / b)"),
    ast.MatMult: ("@=", "write v = M @ v"),
    ast.Add: ("+", SIMPLE),
    ast.Sub: ("-", SIMPLE),
    ast.Mult: ("*", SIMPLE),
    ast.Div: ("/", SIMPLE),
    ast.UAdd: ("+", SIMPLE),
    ast.USub: ("-", SIMPLE),
    ast.Call: ("a call", SIMPLE),
    ast.Attribute: ("a member of a value", SIMPLE),
    ast.Subscript: ("[ ]", SIMPLE),
    ast.BitAnd: ("&", "multiply the conditions"),
    ast.BitOr: ("|", "use maximum(a, b) of the conditions"),
    ast.BitXor: ("^", "for a power write power(v, p)"),
    ast.LShift: ("<<", SIMPLE),
    ast.RShift: (">>", SIMPLE),
    ast.Eq: ("==", "compare with <, <=, > or >="),
    ast.NotEq: ("!=", "compare with <, <=, > or >="),
    ast.Is: ("is", "compare with <, <=, > or >="),
    ast.IsNot: ("is not", "compare with <, <=, > or >="),
    ast.In: ("in", "compare with <, <=, > or >="),
    ast.NotIn: ("not in", "compare with <, <=, > or >="),
    ast.Compare: ("a chain of comparisons", "multiply them: (a < b) * (b < c)"),
}


class Refused(SyntaxError, ValueError):
    """A text that is not a cell. The message begins with the line, and is whole without a traceback."""

    def __str__(self) -> str:
        return str(self.msg)


class Source:
    """The text of a cell, and the errors that point into it."""

    def __init__(self, text: str, filename: str) -> None:
        self.text, self.filename = text, filename

    def refuse(self, node: ast.AST, message: str) -> Refused:
        line: int = getattr(node, "lineno", 1)
        before = self._line(line).encode()[: getattr(node, "col_offset", 0)]
        return self.refuse_line(line, message, len(before.decode(errors="ignore")) + 1)

    def refuse_line(self, line: int, message: str, offset: int = 1) -> Refused:
        file = "" if self.filename == "<cell>" else f"{self.filename}, "
        return Refused(f"{file}line {line}: {message}", (self.filename, line, offset, self._line(line)))

    def refuse_piece(self, piece: ast.AST, at: ast.AST | None = None, hint: str = "") -> Refused:
        """A piece of the tree that has no place in a cell. at: where it is, if it does not know."""
        shown, usual = _words(piece)
        return self.refuse(at or piece, f"{shown} is not possible in a cell; {hint or usual}")

    def name(self, node: ast.AST, name: str) -> str:
        """The name, if it is a plain one."""
        if not is_plain(name):
            raise self.refuse(node, f"the name {name!r} is not possible in a cell; a name begins with a letter")
        return name

    def place(self, line: int) -> str:
        return f"{self.filename}, line {line}: {self._line(line).strip()}"

    def _line(self, line: int) -> str:
        found = lines(self.text)
        return found[line - 1] if 0 < line <= len(found) else ""


def lines(text: str) -> list[str]:
    """Lines as Python counts them."""
    return re.split(r"\r\n|\r|\n", text)


def levels(tree: ast.AST) -> Iterator[list[ast.AST]]:
    """The pieces of a tree, level by level."""
    level = [tree]
    while level:
        yield level
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def is_plain(name: str) -> bool:
    """Python folds look-alikes (ﬁ, ＿) when it parses a name. One in a string would stay as it is: it is no name."""
    return name.isidentifier() and not name.startswith("_") and unicodedata.normalize("NFKC", name) == name


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """That there is no such name, and which is near."""
    letters = "" if name.isascii() else f" (in letters that are not all Latin: {name!a})"
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"there is no {what} {name}{letters}; " + (
        f"did you mean {near[0]}?" if near else f"there are {' '.join(known)}"
    )


def constant(value: object) -> str:
    """A constant in words; a long one by its kind."""
    shown = "..." if value is ... else repr(value)
    return shown if len(shown) < 40 else f"a {type(value).__name__}"


def _words(piece: ast.AST) -> tuple[str, str]:
    match piece:
        case ast.BinOp(op=inner) | ast.UnaryOp(op=inner) | ast.Compare(ops=[inner]):
            return _words(inner)
        case ast.ImportFrom(module=module):
            return f"import from {module or '.'}", WORDS[ast.ImportFrom][1]
        case ast.Import(names=names):
            return f"import {names[0].name}", WORDS[ast.Import][1]
    return WORDS.get(type(piece), (type(piece).__name__, SIMPLE))
