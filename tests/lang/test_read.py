"""Cells from text: the same as from Python where they are read, refused by name and line where not, never executed."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import pickle
import re
import subprocess
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import everloop
from everloop import cells
from everloop.export import formula
from everloop.lang.body import FUNCTIONS, OPERATIONS, STEPS
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import Expr
from everloop.lang.functions import composites, relu, tanh
from everloop.lang.graph import Graph
from everloop.lang.read import CHARACTERS, DEPTH, NAMES, PIECES, read_cell, read_cell_file

FILES = sorted(Path(cells.__file__).parent.glob("[!_]*.py"))

PLAIN = """\
@cell(states="h", gates="h")
def plain(x, h, W, b, *, act=tanh):
    {line}
    return act(W.h @ x + h)
"""


def plain(line: str = "a = h", old: str = "", new: str = "") -> str:
    text = PLAIN.format(line=line)
    assert old in text
    return text.replace(old, new, 1) if old else text


def structure(graph: Graph) -> list[Any]:
    """All that a graph says, without the identity of its sizes."""
    place = {node: k for k, node in enumerate(graph.nodes)}

    def of(node: Expr) -> Any:
        made = composites.get(node)
        written = (made.function, place.get(made.arg), made.gates) if made else None
        args = [place[arg] for arg in node.args]
        return node.op, args, str(node.attr), str(node.size), graph.names.get(node), written

    params = [(name, str(param.sizes), param.blocks, str(param.made)) for name, param in graph.params.items()]
    roots = [(name, place[node]) for name, node in (*graph.outputs.items(), *graph.new.items())]
    return [*map(of, graph.nodes), params, roots, graph.start, list(graph.names.values()), list(graph.inputs)]


def executed(text: str) -> Cell:
    """The same text as Python, decorated."""
    names: dict[str, Any] = {"cell": cell, **FUNCTIONS}
    exec(text, names)
    return next(value for value in names.values() if isinstance(value, Cell))


# -- what is read is what Python would have made ---------------------------------------------------------------------


def beyond(text: str) -> bool:
    """Whether a file of the catalogue is more than straight lines: loops, functions of its own, values beside it."""
    tree = ast.parse(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    beside = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ImportFrom | ast.Expr)]
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.ListComp | ast.GeneratorExp)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "fixed"]
    fixed = [argument for call in calls for argument in call.args]
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node not in fixed]
    return len(functions) > 1 or bool(beside or loops or lambdas)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_catalogue_is_read_as_it_is_imported(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if beyond(text):
        words = "a loop|a comprehension|a function|a second def|import math|an assignment outside"
        with pytest.raises(SyntaxError, match=rf"^{re.escape(str(file))}, line \d+: .*({words})"):
            read_cell_file(file)
        return
    found, known = read_cell_file(file), cells.get(file.stem)
    assert structure(found.graph) == structure(known.graph)
    for name in ("name", "doc", "states", "gates", "source", "year", "when", "start", "init", "inputs", "sizes"):
        assert getattr(found, name) == getattr(known, name)
    assert repr(found) == repr(known)
    assert inspect.signature(found.step) == inspect.signature(known.step)


GOLDEN = ["elman", "gru", "gru_before", "indrnn", "layernorm_lstm", "lstm", "mingru", "peephole_lstm", "slstm"]


@pytest.mark.parametrize("name", GOLDEN)
def test_its_formulas_are_the_same(name: str) -> None:
    found, known = (made.graph for made in (read_cell_file(FILES[0].with_name(f"{name}.py")), cells.get(name)))
    for style in (formula.TEXT, formula.LATEX):
        assert formula.forward(found, style) == formula.forward(known, style)
        assert formula.backward(found, style) == formula.backward(known, style)


def test_most_of_the_catalogue_is_straight() -> None:
    straight = [file.stem for file in FILES if not beyond(file.read_text(encoding="utf-8"))]
    assert {*GOLDEN, "projection_lstm"} <= set(straight)
    assert len(straight) > len(FILES) / 2


WRITTEN = {
    "assigned again, and to two names": """
        a = q = W @ x + b
        c = tanh(a.i)
        c, i = c * h, sigmoid(q.f)
        c += i
        c -= 2
        c *= -h
        c /= +3
        return c
    """,
    "a bundle by its gates": """
        i, f = sigmoid(W @ x + b)
        t = norm(W @ x).i
        return i * h + f + t
    """,
    "windows and numbers": """
        new, old = window(x, 2)
        w = window(h, 3)
        pair = new, old
        return W[0].i @ pair[0] + W[1].i @ old + w[2] + shift(h, steps=2)
    """,
    "matrices": """
        A = U.i - U.i.T
        turned = expm(A) @ h
        low = fixed(lambda i, j: where(i > j, k, 0)) @ h
        return turned + low + (U - U.T).f @ h + (U.f @ U.i.T) @ h + blocks(U[1], 2).i @ h
    """,
    "comparisons and functions": """
        s = where(h < 0.5, h, where(h >= b.i, tanh(h), cumsum(h, reverse=True)))
        m = where((h > 0) * (h <= 1), mean(h), largest(h))
        r = W.f @ x + sized(W.i @ x, "hidden") * position(h) / features(h)
        return leaky_relu(s, slope=0.2) + m + r
    """,
    "names of functions as variables": """
        total = W.i @ x
        mean = tanh(total) + h
        tanh = mean
        return mean + tanh
    """.replace("tanh(total)", "sigmoid(total)"),
    "lines within brackets": """
        a = (
            W @ x
            + b
        )
        return (
            a.i
            * act(h)
            + a.f
        )
    """,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_text_is_the_cell_that_python_makes_of_it(name: str) -> None:
    body = textwrap.indent(textwrap.dedent(WRITTEN[name]), "    ")
    text = f'@cell(states="h", gates="i f")\ndef made(x, h, W, U, b, *, act=tanh, k=2):\n{body}'
    assert structure(read_cell(text).graph) == structure(executed(text).graph)


def test_imports_and_docstrings_may_stand_there_and_do_nothing() -> None:
    text = (
        f'"""What it is."""\n\nfrom everloop import cell, tanh\nfrom everloop.lang.functions import relu\n\n\n{plain()}'
    )
    assert structure(read_cell(text).graph) == structure(read_cell(plain()).graph)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(newline: str) -> None:
    assert read_cell(plain().replace("\n", newline)).graph.new
    with pytest.raises(SyntaxError, match=r"^line 3: ") as caught:
        read_cell(plain("import os").replace("\n", newline))
    assert caught.value.text == "    import os"


def test_names_may_be_in_any_script() -> None:
    made = read_cell('@cell(states="h", gates="忘")\ndef 门(x, h, W):\n    σ = sigmoid(W.忘 @ x)\n    return σ * h')
    assert made.name == "门"
    assert "σ" in made.graph.names.values()
    assert list(made.graph.params) == ["W.忘"]


# -- as an object ----------------------------------------------------------------------------------------------------


def test_it_is_a_cell_like_any_other() -> None:
    made = read_cell(plain('"""Says so.\n\n    More.\n    """'))
    assert (made.name, made.doc, repr(made)) == ("plain", "Says so.\n\nMore.", "<cell plain: states h, gates h>")
    assert made.__doc__ == made.step.__doc__
    assert made.graph is made.graph
    assert {node.op for node in made.graph.nodes} >= {"tanh", "matmul"}
    assert copy.deepcopy(made) is made
    other = made(act=relu)
    assert "maximum" in {node.op for node in other.graph.nodes}
    with pytest.raises(TypeError, match=r"^plain has no option 'activation'; it has act$"):
        made(activation=relu)


def test_an_option_that_is_a_number() -> None:
    made = read_cell(plain("a = k * h", "act=tanh", "act=tanh, k=-0.5").replace("+ h", "+ a"))
    assert -0.5 in {node.attr for node in made.graph.nodes}
    assert 4.0 in {node.attr for node in made(k=4).graph.nodes}
    with pytest.raises(TypeError, match=r"^act is 3 here, which cannot be called\n  <cell>, line 4: return act\("):
        assert made(act=3).graph
    with pytest.raises(TypeError, match=r"^k is a function here: call it, as in k\(v\)\n  <cell>, line 3: a = k \* h$"):
        assert made(k=tanh).graph


def test_it_is_pickled_by_its_text() -> None:
    made = read_cell(plain())
    again, other = pickle.loads(pickle.dumps((made, made(act=relu))))
    assert structure(again.graph) == structure(made.graph)
    assert other.options == {"act": relu}
    assert structure(other.graph) == structure(made(act=relu).graph)


def test_it_is_traced_beside_others_as_if_it_were_python() -> None:
    step = read_cell(plain()).step
    graph = cell(states="h", gates="h")(lambda x, h, W, b: step(x, h, W, b, act=tanh) + h).graph
    assert graph.new["h"].op == "add"


def test_a_function_of_python_may_be_its_option() -> None:
    with pytest.raises(ZeroDivisionError, match=r"^division by zero\n  <cell>, line 4: return act\("):
        assert read_cell(plain())(act=lambda v: v * (1 / 0)).graph


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_file_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "my_cell.py"
    file.write_text("\ufeff" + plain(), encoding="utf-8")
    assert structure(cells.get(str(file)).graph) == structure(read_cell(plain()).graph)
    file.write_text(plain("import os"), encoding="utf-8")
    with pytest.raises(SyntaxError) as caught:
        cells.get(str(file))
    assert (
        str(caught.value) == f"{file}, line 3: import os is not possible in a cell; a cell is assignments and a return"
    )
    assert caught.value.filename == str(file)
    file.write_text(plain("a = b.q"), encoding="utf-8")
    with pytest.raises(AttributeError) as told:
        assert cells.get(str(file)).graph
    assert str(told.value).endswith(f"\n  {file}, line 3: a = b.q")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*none\.py to read a cell from$"):
        cells.get(str(tmp_path / "none.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder\.py"):
        cells.get(str(tmp_path / "folder.py"))
    file = tmp_path / "latin.py"
    file.write_bytes(plain("a = h  # naïve").encode("latin-1"))
    with pytest.raises(SyntaxError, match=r"latin\.py, line 3: this is not UTF-8"):
        cells.get(str(file))
    file.write_bytes(b"#" * 1_000_000)
    with pytest.raises(
        ValueError, match=r"latin\.py: the text is too long to be a cell; 20,000 characters are possible$"
    ):
        cells.get(str(file))


def test_show_takes_a_file(everloop_command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "my_cell.py").write_text(plain(), encoding="utf-8")
    done = everloop_command("show", "my_cell.py")
    assert (done.code, done.err) == (0, "")
    assert "h = tanh(" in done.out
    (tmp_path / "my_cell.py").write_text(plain("import os"), encoding="utf-8")
    done = everloop_command("show", "my_cell.py")
    assert done.code == 1
    assert "my_cell.py, line 3: import os is not possible in a cell" in done.err


# -- what is refused -------------------------------------------------------------------------------------------------

SIMPLE = "a cell is assignments and a return"
LOOP = "write its rounds out, or make the cell in Python with @cell"
WHERE = "use where(condition, a, b)"
COMPARE = "compare with <, <=, > or >="

IN_A_STEP = {
    "import os": f"import os is not possible in a cell; {SIMPLE}",
    "from os import system": f"import from os is not possible in a cell; {SIMPLE}",
    "if h > 0: a = h": f"if is not possible in a cell; {WHERE}",
    "a = h if x else -h": f"a if ... else b is not possible in a cell; {WHERE}",
    "for i in h: a = i": f"a loop (for) is not possible in a cell; {LOOP}",
    "while True: a = h": f"a loop (while) is not possible in a cell; {LOOP}",
    "with h: a = h": f"with is not possible in a cell; {SIMPLE}",
    "try: a = h\n    except: a = x": f"try is not possible in a cell; {SIMPLE}",
    "try: a = h\n    except* TypeError: a = x": f"try is not possible in a cell; {SIMPLE}",
    "match h:\n        case _: a = h": f"match is not possible in a cell; {WHERE}",
    "def g(): return h": f"def inside a def is not possible in a cell; {SIMPLE}",
    "class A: a = h": f"class is not possible in a cell; {SIMPLE}",
    "async def g(): return h": f"async def is not possible in a cell; {SIMPLE}",
    "global h": f"global is not possible in a cell; {SIMPLE}",
    "nonlocal h": f"nonlocal is not possible in a cell; {SIMPLE}",
    "del h": f"del is not possible in a cell; {SIMPLE}",
    "pass": f"pass is not possible in a cell; {SIMPLE}",
    "raise h": f"raise is not possible in a cell; {SIMPLE}",
    "assert h": f"assert is not possible in a cell; {SIMPLE}",
    "a: float = h": f"an annotation is not possible in a cell; {SIMPLE}",
    "tanh(h)": f"an expression whose value is not kept is not possible in a cell; {SIMPLE}",
    "'a text'; 'another'": f"an expression whose value is not kept is not possible in a cell; {SIMPLE}",
    "return h": "return is only possible as the last line of a cell",
    "a = await h": f"await is not possible in a cell; {SIMPLE}",
    "a = yield h": f"yield is not possible in a cell; {SIMPLE}",
    "a = (yield from h)": f"yield is not possible in a cell; {SIMPLE}",
    "a = (q := h)": "the assignment := is not possible in a cell; assign on a line of its own",
    "a = lambda: h": "lambda is not possible in a cell; it can only be the argument of fixed",
    "a = [v for v in h]": f"a comprehension is not possible in a cell; {LOOP}",
    "a = {v for v in h}": f"a comprehension is not possible in a cell; {LOOP}",
    "a = {v: v for v in h}": f"a comprehension is not possible in a cell; {LOOP}",
    "a = mean(v for v in h)": f"a comprehension is not possible in a cell; {LOOP}",
    "a = f'{h}'": "an f-string is not possible in a cell; a cell computes with numbers",
    "a = 'b' + 'c'": "'b' is not possible in a cell; it computes with numbers",
    "a = h * 'c'": "'c' is not possible in a cell; it computes with numbers",
    "a = '%s' % h": "% is not possible in a cell; write mod(a, b)",
    "a = '{0.__class__}'.format(h)": "only a function of the language can be called, by its name",
    "a = b'c'": "b'c' is not possible in a cell; it computes with numbers",
    "a = None": "None is not possible in a cell; it computes with numbers",
    "a = True": "True is not possible in a cell; it computes with numbers",
    "a = ...": "... is not possible in a cell; it computes with numbers",
    "a = 2j": "2j is not possible in a cell; it computes with numbers",
    "a = 1e999": "this number is beyond the range of a float",
    f"a = 0x{'f' * 300}": "this number is beyond the range of a float",
    "a = [h, x]": "a list is not possible in a cell; write each value by itself",
    "a = {h}": "a set is not possible in a cell; write each value by itself",
    "a = {}": "a dict is not possible in a cell; write each value by itself",
    "a = h, (x, h)": "a tuple is not possible in a cell; it can only be assigned or returned",
    "a = tanh((x, h))": "a tuple is not possible in a cell; it can only be assigned or returned",
    "a = h ** 2": "** is not possible in a cell; write v * v, square(v) or power(v, p)",
    "h **= 2": "** is not possible in a cell; write v * v, square(v) or power(v, p)",
    "h @= x": "@= is not possible in a cell; write v = M @ v",
    "a = h // 2": "// is not possible in a cell; write floor(a / b)",
    "a = ~h": "~ is not possible in a cell; turn the comparison round",
    "a = not h": "not is not possible in a cell; turn the comparison round",
    "a = h and x": "and, or is not possible in a cell; multiply the conditions, or nest where",
    "a = h | x": "| is not possible in a cell; use maximum(a, b) of the conditions",
    "a = h << 2": f"<< is not possible in a cell; {SIMPLE}",
    "a = h == x": f"== is not possible in a cell; {COMPARE}",
    "a = h != x": f"!= is not possible in a cell; {COMPARE}",
    "a = h is x": f"is is not possible in a cell; {COMPARE}",
    "a = h in x": f"in is not possible in a cell; {COMPARE}",
    "a = 0 < h < 1": "a chain of comparisons is not possible in a cell; multiply them: (a < b) * (b < c)",
    "a = __class__": "the name '__class__' is not possible in a cell; a name begins with a letter",
    "a = h.__class__": "the name '__class__' is not possible in a cell; a name begins with a letter",
    "a = ().__class__.__bases__[0].__subclasses__()": "only a function of the language can be called, by its name",
    "a = W._trace": "the name '_trace' is not possible in a cell; a name begins with a letter",
    "_ = h": "the name '_' is not possible in a cell; a name begins with a letter",
    "a = h.__cl\uff41ss__": "the name '__class__' is not possible in a cell; a name begins with a letter",
    "a = W.h.T.q": ".T.q is not possible; a member has no members but .T",
    "a = b.h.h": ".h.h is not possible; a member has no members but .T",
    "a = W[x].h": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = W[-1].h": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = W[0 + 1].h": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = W['h']": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = W[True].h": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = W[1000].h": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = h[1:2]": f"in [ ] only a number is possible in a cell, from 0 to {STEPS - 1}",
    "a = *h, x": "* is not possible in a cell; write each value by itself",
    "a, *c = h": "only to a name can be assigned, or to names with commas between them",
    "a, (c, d) = h": "only to a name can be assigned, or to names with commas between them",
    "h.op = x": "only to a name can be assigned, or to names with commas between them",
    "h[0] = x": "only to a name can be assigned, or to names with commas between them",
    "h.op += x": "only to a name can be assigned",
    "a, c = x, h, h": "3 values came for 2 names",
    "a = tanh(*h)": "* is not possible in a cell; write each value by itself",
    "a = tanh(**h)": "** is not possible in a cell; name each argument",
    "a = tanh(v=h, v=x)": "v came twice",
    "a = tanh(h, x)": "tanh: too many positional arguments",
    "a = tanh()": "tanh: missing a required argument: 'v'",
    "a = tanh(w=h)": "tanh: missing a required argument: 'v'",
    "a = leaky_relu(h, slop=1)": "leaky_relu: got an unexpected keyword argument 'slop'",
    "a = tanh": "tanh is a function: call it, as in tanh(v)",
    "a = h(x)": "h is a value, which cannot be called",
    "a = tanh(h)(x)": "only a function of the language can be called, by its name",
    "a = W.exp(x)": "only a function of the language can be called, by its name",
    "a = tamh(h)": "there is no function tamh; did you mean tanh?",
    "a = t\u0430nh(h)": "there is no function t\u0430nh (in letters that are not all Latin: 't\\u0430nh'); did",
    "a = q": "there is no value q; there are W act b h x",
    "a = os.path": "there is no value os; there are W act b h x",
    "a = c; c = h": "there is no value c; there are",
    "c += h": "c is used before it has a value",
    "a = fixed(tanh)": "expected lambda here, as in lambda i, j: i + j",
    "a = fixed(lambda i, j=h: i)": "lambda takes names alone, as in lambda i, j: i + j",
    "a = fixed(lambda *i: h)": "lambda takes names alone, as in lambda i, j: i + j",
    "a = fixed(lambda i, j: [i])": "a list is not possible in a cell; write each value by itself",
    "a = fixed(lambda i, i: i)": "lambda takes each name once",
    "a = sized(h, h)": "expected a name in quotes here",
    "a = sized(h, '__class__')": "expected a name in quotes here",
    "a = cumsum(h, reverse=x)": "expected True or False here",
    "a = (": "'(' was never closed",
    "a = h \u037e": "invalid character ",
    "a = 'h": "unterminated string literal (detected at line 3)",
    "a = \x00": "the character U+0000 is not possible",
    "a = '\ud800'": "the character U+D800 is not possible",
    "a = 5x": "invalid decimal literal",
    f"a = {'9' * 5000}": "Exceeds the limit (4300 digits) for integer string conversion",
}  # fmt: skip
IN_A_STEP["a = c; c = h"] = "c is used before it has a value"


@pytest.mark.parametrize("line", IN_A_STEP, ids=lambda line: ascii(line)[:50])
def test_a_line_that_is_refused(line: str) -> None:
    with pytest.raises(SyntaxError) as caught:
        read_cell(plain(line))
    assert str(caught.value).startswith(f"line 3: {IN_A_STEP[line]}")
    assert (caught.value.filename, caught.value.lineno) == ("<cell>", 3)
    assert caught.value.text == plain(line).splitlines()[2]


AROUND: dict[str, tuple[tuple[str, str], str]] = {
    "no decorator": (('@cell(states="h", gates="h")\n', ""), "line 1: no decorators came; a cell has one, @cell"),
    "two decorators": (("@cell", "@exec\n@cell"), "line 3: 2 decorators came; a cell has one, @cell(...)"),
    "one that is not called": (('@cell(states="h", gates="h")', "@cell"), "line 1: the decorator must be @cell"),
    "another decorator": (("@cell", "@eval"), "line 1: the decorator must be @cell"),
    "a decorator of a module": (("@cell", "@everloop.cell"), "line 1: the decorator must be @cell"),
    "a decorator that calls another": (("@cell(", "@cell()("), "line 1: the decorator must be @cell"),
    "unnamed": (('states="h"', '"h"'), "line 1: what @cell takes has a name"),
    "starred": (('states="h"', '**{"states": "h"}'), "line 1: ** is not possible in a cell; name each argument"),
    "unknown": (("states=", "state="), "line 1: there is no argument of @cell state; did you mean states?"),
    "missing": (('states="h", ', ""), "line 1: @cell needs states="),
    "twice": (('states="h"', 'states="h", states="c"'), "line 1: states came twice"),
    "a call": (('"h", g', 'open("f"), g'), "line 1: a call is not possible in a cell; states is a text, a"),
    "a name": (('states="h"', "states=h"), "line 1: states: a function or a name is not possible in a cell that"),
    "a sum": (('states="h"', 'states="h" + "c"'), "line 1: + is not possible in a cell; states is a text, a"),
    "an f-string": (('states="h"', 'states=f"h"'), "line 1: an f-string is not possible in a cell; states is a text"),
    "a number": (('states="h"', "states=3"), "line 1: states: 3 came; that is not what @cell takes there"),
    "a list": (('states="h"', 'states=["h"]'), "line 1: a list is not possible in a cell; states is a text"),
    "a start value in quotes": (('gates="h"', 'gates="h", start={"h": "1"}'), "line 1: start: {'h': '1'} came; that"),
    "three in a range": (('gates="h"', 'gates="h", init={"b": (1, 2, 3)}'), "line 1: init: {'b': (1, 2, 3)} came"),
    "a function as a start": (
        ('gates="h"', 'gates="h", init={"b": lambda u, k, n: u}'),
        "line 1: init: a function or a name is not possible in a cell that is read; give a number",
    ),
    "a number as a key": (('gates="h"', 'gates="h", init={1: 2}'), "line 1: init: what stands before : must be a"),
    "a dict taken apart": (('gates="h"', 'gates="h", init={**b}'), "line 1: init: what stands before : must be a"),
    "beyond range": (('gates="h"', 'gates="h", start={"h": 1e999}'), "line 1: this number is beyond the range of"),
    "a hidden state": (('states="h"', 'states="h _c"'), "line 1: the name '_c' is not possible in a cell"),
    "a size that is code": (('states="h"', 'states="h:a;b()"'), "line 1: the name 'a;b()' is not possible in a cell"),
    "a gate of look-alikes": (('gates="h"', 'gates="\ufb01"'), "line 1: the name '\ufb01' is not possible in a cell"),
    "a dunder": (('gates="h"', 'gates="__class__"'), "line 1: the name '__class__' is not possible in a cell"),
    "too many": (('gates="h"', f'gates="{"h " * 65}"'), f"line 1: gates: 65 names came; {NAMES} are possible"),
    "a default": (("b, *", "b=open('f'), *"), "line 2: a default is not possible here; options have one, and come"),
    "an option without": (("act=tanh", "act"), "line 2: the option act needs a default: a number or a function"),
    "an option that calls": (("=tanh", "=open('f')"), "line 2: the default of an option must be a number or the"),
    "an option in quotes": (("=tanh", "='tanh'"), "line 2: 'tanh' is not possible in a cell; it computes with numbers"),
    "an unknown option": (("=tanh", "=tamh"), "line 2: the default of an option must be a number or the"),
    "*": (("b, *, act=tanh", "*b"), "line 2: *b is not possible in a cell; name each argument"),
    "**": (("act=tanh", "act=tanh, **more"), "line 2: **more is not possible in a cell; name each argument"),
    "/": (("x, h,", "x, /, h,"), "line 2: / is not possible in a cell"),
    "an annotation": (("x, h,", "x: open('f'), h,"), "line 2: an annotation is not possible in a cell"),
    "what it returns": (("):", ") -> open('f'):"), "line 2: an annotation is not possible in a cell"),
    "an argument twice": (("x, h,", "x, h, h,"), "line 2: the argument h came twice"),
    "a hidden argument": (("x, h,", "x, h, _q,"), "line 2: the name '_q' is not possible in a cell; a name"),
    "a hidden function": (("plain", "__init__"), "line 2: the name '__init__' is not possible in a cell"),
    "no return": (("    return", "    c ="), "line 2: a cell ends with return and its new states"),
    "nothing returned": (("return act(W.h @ x + h)", "return"), "line 4: return without values is not possible"),
    "async": (("def", "async def"), f"line 2: async def is not possible in a cell; {SIMPLE}"),
    "a class": (("def plain(x, h, W, b, *, act=tanh)", "class plain"), "line 2: class is not possible in a cell; a"),
    "an import": (("@cell", "import os\n@cell"), f"line 1: import os is not possible in a cell; {SIMPLE}"),
    "an import from": (("@cell", "from os import path\n@cell"), "line 1: import from os is not possible in a cell; on"),
    "an import of ours": (("@cell", "from everloop import nn\n@cell"), "line 1: there is no function nn; "),
    "all of ours": (("@cell", "from everloop import *\n@cell"), "line 1: there is no function *; "),
    "from elsewhere of ours": (("@cell", "from everloop.cli import exp\n@cell"), "line 1: import from everloop.cli is"),
    "from beside us": (("@cell", "from everloopy import exp\n@cell"), "line 1: import from everloopy is not possible"),
    "from here": (("@cell", "from . import exp\n@cell"), "line 1: import from . is not possible in a cell; only"),
    "another name": (("@cell", "from everloop import exp as e\n@cell"), "line 1: exp as e is not possible; it keeps"),
    "a value beside": (("@cell", "k = 2\n@cell"), "line 1: an assignment outside the def is not possible in a cell"),
    "a call beside": (("@cell", "open('f')\n@cell"), "line 1: an expression whose value is not kept is not possible"),
    "a call after": (("x + h)\n", "x + h)\nopen('f')\n"), "line 5: an expression whose value is not kept is not"),
    "two": (("x + h)\n", "x + h)\ndef two(): return\n"), "line 5: a second def is not possible; a text is one cell"),
    "nothing": ((plain(), ""), "line 1: there is no cell here; a cell is a def under @cell(...)"),
    "an indent": (("    a", "  a"), "line 4: unexpected indent"),
    "tabs": (("    return", "\treturn"), "line 4: inconsistent use of tabs"),
}  # fmt: skip


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_is_refused(name: str) -> None:
    (old, new), words = AROUND[name]
    with pytest.raises(SyntaxError) as caught:
        read_cell(plain("a = h", old, new))
    assert str(caught.value).startswith(words)


def test_a_refusal_is_shown_by_python_with_its_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        read_cell(plain("a = 门 + import_"))
    shown = "".join(traceback.format_exception_only(caught.value))
    assert '  File "<cell>", line 3\n    a = 门 + import_\n        ^' in shown
    with pytest.raises(SyntaxError) as caught:
        read_cell(plain("a = h + 'ü' + 'q'"))
    assert caught.value.offset == len("    a = h + ") + 1


@pytest.mark.parametrize("text", [None, b"@cell", 3, ["@cell"]])
def test_only_text_is_read(text: Any) -> None:
    with pytest.raises(TypeError, match=r"^read_cell takes the text of a cell, not a "):
        read_cell(text)


# -- what the language says carries the line -------------------------------------------------------------------------

WRONG: dict[str, tuple[type[Exception], str]] = {
    "a = b.q": (AttributeError, "b.q: no gate or state of that name; there are h"),
    "a = (W @ x).q": (AttributeError, "a bundle has no gate 'q'; it has h"),
    "a = h.op": (AttributeError, "there is no .op here: only a family and a bundle have members, one for each gate"),
    "a = h.T": (AttributeError, "there is no .T here: only a family and a bundle have members, one for each gate"),
    "a = W.h._value": (SyntaxError, "line 3: the name '_value'"),
    "a = h + W.h": (TypeError, "W.h cannot meet the value"),
    "a = h @ x": (TypeError, "state(h) @ ...: only a matrix acts with @"),
    "a = 2 @ h": (TypeError, "unsupported operand type(s) for @: 'int' and 'Expr'"),
    "a = W.h @ mean(x)": (TypeError, "W.h @ ...: a matrix acts on a vector of features, not on "),
    "a = x + h": (TypeError, "sizes differ: input and hidden"),
    "a = h[1]": (TypeError, "[1]: only families and windows are numbered"),
    "a = window(h, 2)[2]": (ValueError, "[2]: there are 2, the first being [0]"),
    "a, c = h": (TypeError, "a value of a cell cannot be looped over"),
    "a, c = 3": (TypeError, "one value came for 2 names"),
    "a, c = W @ x": (ValueError, "1 values came for 2 names"),
    "a = window(h, 2) * 1000000000": (TypeError, "a cell computes with values and numbers, not with a tuple"),
    "a = h, x; c = a, a": (TypeError, "a tuple of tuples is not possible in a cell"),
    "a = act + 1": (TypeError, "act is a function here: call it, as in act(v)"),
    "a = 1 / 0": (ValueError, "a number is divided by zero"),
    "a = 1e300 * 1e300": (ValueError, "the result is a number beyond the range of a float"),
    "a = tanh(0.5)": (TypeError, "tanh works on the values of a cell while it is traced, not on 0.5"),
    "a = where(1 < 2, h, x)": (TypeError, "a cell computes with its own values and plain numbers; True is a bool"),
    "a = fixed(lambda i: i)": (TypeError, "this lambda takes 1 values; 2 are given to it"),
    "a = shift(h, -1)": (TypeError, "shift: -1 steps came; expected a whole number of 0 or more"),
    "a = shift(h, 1000000000)": (ValueError, f"1000000000 steps came; {STEPS} are possible"),
    "a = window(h, steps=1e300)": (ValueError, f"1e+300 steps came; {STEPS} are possible"),
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_that_the_language_finds_carries_its_line(line: str) -> None:
    error, words = WRONG[line]
    with pytest.raises(error) as caught:
        assert read_cell(plain(line)).graph
    assert str(caught.value).startswith(words)
    assert "line 3" in str(caught.value)
    if error is not SyntaxError:
        assert type(caught.value) is error
        assert str(caught.value).endswith(f"\n  <cell>, line 3: {line}")


def test_a_mistake_in_the_declaration_carries_its_line() -> None:
    with pytest.raises(TypeError, match=r"^start: there is no state 'q'; there are h\n  <cell>, line 1: @cell\("):
        read_cell(plain("a = h", 'gates="h"', 'gates="h", start={"q": 1}'))


def test_the_line_is_that_of_the_piece_within_a_long_statement() -> None:
    with pytest.raises(AttributeError, match=r"\n  <cell>, line 5: \+ b\.q$"):
        assert read_cell(plain("a = (\n        h\n        + b.q\n    )")).graph


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (plain("#" * CHARACTERS), f"the text is too long to be a cell; {CHARACTERS:,} characters are possible"),
        (plain("a = " + "h+" * 3000 + "h"), f"the text is nested too deeply to be a cell; {DEPTH} levels are possible"),
        (plain("a = " + "-" * 9000 + "h"), "the text is nested too deeply to be a cell"),
        (plain("a = h" + ".h" * 5000), "the text is nested too deeply to be a cell"),
        (plain("a=h;" * 2000), f"names, numbers and signs; {PIECES:,} are possible"),
        (plain("a = " + "(" * 10_000 + "h" + ")" * 9_000), "line 3: too many nested parentheses"),
        (plain("a = " + "(" * 10_000), "line 3: too many nested parentheses"),
        (plain("a = " + "[" * 199 + "h" + "]" * 199), "the text is nested too deeply to be a cell"),
    ],
    ids=["long", "sum", "minus", "members", "lines", "parentheses", "open parentheses", "brackets"],
)
def test_a_text_too_large(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read_cell(text)


def test_a_step_too_long() -> None:
    lines = "\n    ".join(["a = tanh(W @ x)"] * 20)
    text = plain(lines, 'gates="h"', f'gates="{" ".join(f"g{k}" for k in range(NAMES))}"')
    with pytest.raises(
        ValueError, match=f"^the step has too many operations; {OPERATIONS:,} are possible, counted gate"
    ):
        assert read_cell(text).graph
    with pytest.raises(ValueError, match=r"^the step has too many operations"):
        assert read_cell(plain("\n    ".join(["a = window(h, 60)"] * 30))).graph


def test_long_texts_are_within_the_limits() -> None:
    lines = "\n    ".join(["h = tanh(W.h @ x + h) * 0.5"] * 200)
    assert len(read_cell(plain(lines)).graph.nodes) > 600
    assert len(read_cell(plain("\n    ".join(["h = h + h"] * 600))).graph.nodes) > 600


def test_a_value_that_would_fill_the_disk_is_not_written_out() -> None:
    """Sixty doublings share their parts; written out, they would be 2^60 terms."""
    matrix = read_cell(plain("\n    ".join(["M = W.h", *["M = M + M"] * 60, "h = M @ x"]))).graph
    assert all(len(name) < 100 for name in matrix.params)
    value = read_cell(plain("\n    ".join(["a = mean(h)", *["a = a + a"] * 60, "h = W.h @ a"])))
    with pytest.raises(TypeError, match=r"^W\.h @ \.\.\.: a matrix acts on a vector") as caught:
        assert value.graph
    assert len(str(caught.value)) < 4_000


# -- the functions ---------------------------------------------------------------------------------------------------


def test_what_can_be_called_is_what_is_public() -> None:
    assert {"tanh", "where", "shift", "window", "sized", "blocks", "expm", "fixed", "norm"} <= FUNCTIONS.keys()
    assert all(inspect.isfunction(function) for function in FUNCTIONS.values())
    assert all(function.__module__.startswith("everloop.lang.") for function in FUNCTIONS.values())
    assert not [name for name in FUNCTIONS if name.startswith("_") or name in dir(__builtins__)]
    assert FUNCTIONS.keys() >= {
        name for name in everloop.__all__ if everloop._HOME.get(name) == FUNCTIONS["tanh"].__module__
    }


# -- nothing is executed ---------------------------------------------------------------------------------------------

EXPECTED = {"Cell", "Refused", "SyntaxError", "TypeError", "ValueError", "AttributeError"}


class Canary:
    """Another Python that reads cells and tells what happened in it: see canary.py."""

    def __init__(self, folder: Path) -> None:
        # Without warnings: to print one (of an odd escape in a text, say), Python would open modules of its own.
        command = [sys.executable, "-W", "ignore", Path(__file__).with_name("canary.py"), folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)

    def ask(self, **question: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def check(self, text: str) -> str:
        """Read the text; nothing may happen, and no error may be of an unexpected kind."""
        found = self.ask(text=text)
        assert found["seen"] == []
        assert found["outcome"] in EXPECTED, found
        assert found["seconds"] < 1
        return found["outcome"]

    def stop(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted.py").write_text("import builtins\nbuiltins.planted = True\nopen('sprung', 'w').close()\n")
    watched = Canary(folder)
    yield watched
    watched.stop()
    assert {path.name for path in folder.iterdir()} <= {"planted.py", "__pycache__"}


@pytest.mark.parametrize(
    ("python", "noted"),
    [
        ("pass", "exec("),
        ("eval('1')", "builtin eval"),
        ("open('/dev/null').close()", "open('/dev/null'"),
        ("import os; os.system('true')", "os.system"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("compile('1', '<cell>', 'eval')", "builtin compile to code"),
        ("import json.tool", "import('json.tool'"),
        ("import os; os.listdir('.')", "os.listdir"),
        ("(lambda: 0).__code__", "object.__getattr__"),
        ("__import__('sys')", "builtin __import__"),
    ],
)
def test_the_canary_notes_what_is_executed(canary: Canary, python: str, noted: str) -> None:
    assert any(noted in event for event in canary.ask(python=python)["seen"])


def test_the_canary_notes_an_import(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import builtins\nbuiltins.planted = True\n")
    watched = Canary(tmp_path)
    assert watched.ask(python="import planted")["planted"]
    watched.stop()


@pytest.mark.parametrize("name", ["lines", "around", "mistakes"])
def test_nothing_is_executed_of_what_is_refused(canary: Canary, name: str) -> None:
    texts = {
        "lines": [plain(line) for line in IN_A_STEP],
        "around": [plain("a = h", *change) for change, _ in AROUND.values()],
        "mistakes": [plain(line) for line in WRONG],
    }[name]
    assert {canary.check(text) for text in texts} <= EXPECTED - {"Cell"}


HOSTILE = [
    "__import__('planted')", "__import__('os').system('touch sprung')", "().__class__.__bases__[0].__subclasses__()",
    "exec('import planted')", "eval('__import__(\"planted\")')", "open('sprung', 'w')", "getattr(h, '__class__')",
    "h.__class__", "h.__init__.__globals__", "f'{h.__class__}'", "f'{exec(chr(0))}'", "'{0.__class__}'.format(h)",
    "'%s' % h", "(lambda: __import__('planted'))()", "[c for c in ().__class__.__mro__]", "h.op", "h.args", "h.size",
    "h.size.unify(x)", "W._trace", "W.h._value", "W._trace.params", "act.__globals__", "tanh.__code__", "globals()",
    "fixed(lambda i, j: __import__('planted'))", "fixed(lambda i, j=exec('import planted'): i)", "fixed(exec)",
    "fixed(lambda i, j: fixed(lambda k, l: i))", "(y := h)", "sized(h, '__class__')", "sized(h, f'{h}')",
    "window(h, 999999999)", "shift(h, 9 ** 9)", "9 ** 9 ** 9",
    "1e999", "0xffffffffffffffffffffffff * 1e300", "print(x)",
    "breakpoint()", "input()", "vars()", "type(h)", "h['__class__']", "h[0:1]", "W[1][2].h", "W[exec('1')].h", "sum(h)",
    "tanh(**{'v': h})", "tanh(*h)", "power(h, 1e300)", "blocks(W, 1e300)", "(yield h)", "(await h)", "not h", "h == x",
    "lambda: exec('import planted')",
    "(h, x)", "h if x else exec('import planted')", "'a' * 999999999", "(h,) * 9999999",
    "h.__class__.__mro__[-1]", "_", "__name__",
    "__builtins__", "__debug__", "cell", "read_cell('')", "b''", "{**h}", "-'a'",
]  # fmt: skip

STATEMENTS = [
    "import planted", "from planted import *", "from everloop import planted", "from everloop.planted import tanh",
    "global h", "nonlocal h", "del h", "raise SystemExit", "raise h", "while True: pass", "for i in h: exec('1')",
    "with open('sprung', 'w'): pass", "class A(metaclass=exec('import planted')): pass", "class A: import planted",
    "def g(q=__import__('planted')): return q", "def g(q: __import__('planted')): return q", "async def g(): pass",
    "a: __import__('planted') = h", "a: exec('import planted')", "h.__class__ = x", "h.op = x", "h[0] = x",
    "assert exec('import planted')", "try: h = q\nexcept: import planted", "if exec('import planted'): pass", "pass",
    "lambda: 0", "return h", "'''text'''", "*a, c = h", "a, c = h", "a, c = W @ x", "(a := h)", "h **= 9", "h @= x",
    "@__import__('planted')\ndef g(): pass", "match h:\n    case _: pass", "a = c = h", "a = h,", "x = act", "act = h",
    "tanh = h", "print(h)",
    "exec('import planted')", "h += exec('import planted')", "a = tanh", "k = 9; k *= k; k *= k",
]  # fmt: skip

DECORATORS = [
    '@cell(states="h", gates="h")', '@cell(states="h c", gates="h")', '@cell(states="h", gates="h", start={"h": 1})',
    '@cell(states="h", gates="h", init={"b.h": -1.0, "W": "identity", "b": (0, 1)}, year=2000, inputs="dt")',
    '@cell(states="h", gates=__import__("planted"))', '@cell(states="h:__class__", gates="h")', "@cell", "@cell()", "",
    '@exec\n@cell(states="h", gates="h")', '@cell(**{"states": "h", "gates": "h"})', "@__import__('planted').cell",
    '@cell(states="h", gates="h", init={"b.h": lambda u, k, n: exec("import planted")})', "@(lambda f: f)",
    '@cell(states="h", gates="h", init={"b.h": exec("import planted")})', '@cell(states=f"{exec(chr(32))}", gates="h")',
    '@cell(states="h", gates="h" * 99999999)', '@cell(states="h", gates="h", sizes={"rank": True}, when="w")',
    '@cell(states=("h",), gates=None)', '@cell(states="h", gates="h", step=exec)', '@cell(states="h", gates="h")(exec)',
]  # fmt: skip

SIGNATURES = [
    "x, h, W, b", "x, h, W, b, *, act=tanh", "x, h, c, W, U, b, *, act=relu, k=2", "x, h, W, b, dt", "x, h, *args",
    "x, h, **options", "x, /, h", "x, h, W, b=__import__('planted')", "x: __import__('planted'), h", "x, h, __class__",
    "x, h, W, b, *, act=__import__('planted')", "x, h, W, b, *, act=exec", "h, x, Wb", "x, x", "x, h, tanh", "x",
]  # fmt: skip

VALUES = ["h", "a", "W.h @ x", "U.h @ h", "b.h", "W[1].h @ x", "0.5", "k", "(U.h - U.h.T) @ h", "window(h, 2)[1]"]
ODD = [*VALUES, "x", "W", "b", "U.h.T", "W.h", "-2", "c", "dt", "1e300", "(h, x)"]
SIGNS = ["+", "-", "*", "/", "<", "<=", ">", ">="]
ALONE = "tanh sigmoid norm softmax mean largest cumsum shift position features act absolute total identity".split()  # noqa: SIM905


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Values of a cell, mostly possible ones."""
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(SIGNS), inner),
        st.builds("{}({})".format, st.sampled_from(ALONE), inner),
        st.builds("{}({}, {})".format, st.sampled_from(["maximum", "minimum", "mod", "power"]), inner, inner),
        st.builds("where({} > 0, {}, {})".format, inner, inner, inner),
        st.builds("(-{})".format, inner),
    )


def combined_oddly(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    signs, calls = [*SIGNS, "@", "**", "%", "//", "==", "and", "in"], [*sorted(FUNCTIONS), "cell", "h"]
    return st.one_of(
        combined(inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(signs), inner),
        st.builds("{}({})".format, st.sampled_from(calls), inner),
        st.builds("{}({}, {})".format, st.sampled_from(calls), inner, inner),
        st.builds("{}({}, steps={})".format, st.sampled_from(calls), inner, inner),
        st.builds("fixed(lambda i, j: {})".format, inner),
        st.builds("({}){}".format, inner, st.sampled_from([".h", ".T", ".op", "[1]", "(h)"])),
    )


def program(decorator: str, signature: str, lines: list[str], result: str) -> str:
    body = textwrap.indent("\n".join(["a = h", *lines, f"return {result}"]), "    ")
    return f"{decorator}\ndef made({signature}):\n{body}\n"


def statements(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("a = {}".format, value),
        st.builds("h {}= {}".format, st.sampled_from("+-*/"), value),
        st.builds("a, c = {}, {}".format, value, value),
    )


def in_order() -> st.SearchStrategy[str]:
    """Programs of which many are cells."""
    value = st.recursive(st.sampled_from(VALUES), combined, max_leaves=8)
    result = st.one_of(st.just("h"), value, st.builds("{}, h".format, value))
    usual = st.just("x, h, W, U, b, *, act=tanh, k=2")
    return st.builds(program, st.just(DECORATORS[0]), usual, st.lists(statements(value), max_size=4), result)


def hostile() -> st.SearchStrategy[str]:
    """Programs with anything in them, most of it out of place."""
    leaf = st.one_of(st.sampled_from(VALUES), st.sampled_from(ODD), st.sampled_from(HOSTILE))
    value = st.recursive(leaf, combined_oddly, max_leaves=6)
    line = st.one_of(statements(value), statements(st.sampled_from(VALUES)), st.sampled_from(STATEMENTS))
    usual = st.just(DECORATORS[0]), st.just("x, h, W, U, b, *, act=tanh, k=2")
    decorator, signature = st.sampled_from(DECORATORS) | usual[0], st.sampled_from(SIGNATURES) | usual[1]
    return st.builds(program, decorator, signature, st.lists(line, max_size=3), value | st.just("h"))


REAL = [file.read_text(encoding="utf-8") for file in FILES]
PIECES_OF_TEXT = st.one_of(st.sampled_from(HOSTILE), st.sampled_from(STATEMENTS), st.text(max_size=6))


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A real cell with some places changed."""
    text = draw(st.sampled_from(REAL))
    for _ in range(draw(st.integers(1, 3))):
        piece, kind = draw(PIECES_OF_TEXT), draw(st.sampled_from(["line", "name", "span", "again"]))
        if kind == "line":
            lines = text.split("\n")
            at = draw(st.integers(0, len(lines) - 1))
            indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
            text = "\n".join([*lines[:at], textwrap.indent(piece, indent), *lines[at:]])
        elif kind == "name":
            found = list(re.finditer(r"\b\w+\b", text.partition('"""\n    ')[2] or text))
            if found:
                match = draw(st.sampled_from(found))
                offset = len(text) - len(text.partition('"""\n    ')[2] or text)
                text = text[: offset + match.start()] + piece + text[offset + match.end() :]
        else:
            start = draw(st.integers(0, len(text)))
            stop = min(len(text), start + draw(st.integers(0, 30)))
            text = text[:start] + (text[start:stop] * 2 if kind == "again" else piece) + text[stop:]
    return text


def outcomes(strategy: st.SearchStrategy[str], canary: Canary, examples: int) -> Counter[str]:
    counted: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(strategy)
    def check(text: str) -> None:
        counted[canary.check(text)] += 1

    check()
    return counted


def test_random_programs_with_hostile_pieces_execute_nothing(canary: Canary) -> None:
    counted = outcomes(hostile(), canary, 400)
    assert counted["Refused"] > 100


def test_random_programs_execute_nothing(canary: Canary) -> None:
    counted = outcomes(in_order(), canary, 200)
    assert counted["Cell"] > 50


def test_real_cells_with_places_changed_execute_nothing(canary: Canary) -> None:
    counted = outcomes(mutations(), canary, 400)
    assert counted["Refused"] > 100
    assert counted["Cell"] > 20


def test_any_text_at_all_executes_nothing(canary: Canary) -> None:
    tokens = st.lists(
        st.one_of(st.sampled_from([*HOSTILE, *STATEMENTS, *DECORATORS, "\n", "    ", "def f(x, h):", "("]))
    )
    outcomes(st.one_of(st.text(), tokens.map(" ".join), tokens.map("\n".join)), canary, 200)


def test_random_programs_are_what_python_makes_of_them() -> None:
    alike: Counter[bool] = Counter()

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(in_order())
    def check(text: str) -> None:
        try:
            found = structure(read_cell(text).graph)
        except (TypeError, ValueError, AttributeError):
            return
        alike[found == structure(executed(text).graph)] += 1

    check()
    assert alike.keys() == {True}
    assert alike[True] > 50
