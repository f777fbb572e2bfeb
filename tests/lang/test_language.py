"""The language: what a step may say, what is worked out from it, and what it is told when it is wrong."""

from __future__ import annotations

import copy
import linecache
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from everloop.cells import get
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import Expr, apply, const, lift, toposort
from everloop.lang.functions import exp, identity, mean, norm, relu, sigmoid, sized, softplus, tanh, where
from everloop.lang.read import read_cell

# -- mistakes, by the words that they are answered with -------------------------------------------------------------

MISTAKES: list[tuple[str, type[Exception], Callable[[], Cell]]] = []


def answered(words: str, error: type[Exception] = TypeError) -> Callable[[Callable[[], Cell]], Callable[[], Cell]]:
    def remember(make: Callable[[], Cell]) -> Callable[[], Cell]:
        MISTAKES.append((words, error, make))
        return make

    return remember


def one(step: Callable[..., Any], states: str = "h", gates: str = "i f g o", **more: Any) -> Cell:
    return cell(states=states, gates=gates, **more)(step)


@answered(r"^W\.q: no gate or state of that name; there are i f g o h$", AttributeError)
def unknown_gate() -> Cell:
    return one(lambda x, h, W: W.q @ x)


@answered(r"^W\.forget: no gate .*; there are input forgot h \(did you mean W\.forgot\?\)$", AttributeError)
def nearly_a_gate() -> Cell:
    return one(lambda x, h, W: W.forget @ x, gates="input forgot")


@answered(r"^a bundle has no gate 'q'; it has i f g o$", AttributeError)
def unknown_gate_of_a_bundle() -> Cell:
    return one(lambda x, h, W: (W @ x).q)


@answered(r"^b @ \.\.\.: b is a family of vectors; matrices have upper-case names$")
def vectors_as_matrices() -> Cell:
    return one(lambda x, h, b: b @ x)


@answered(r"^W\.i cannot meet the value h entry by entry: a matrix acts on a vector with @, and only numbers and")
def matrices_as_vectors() -> Cell:
    return one(lambda x, h, W: W * h)


@answered(r"^W\.i cannot meet the value h entry by entry")
def a_matrix_as_a_value() -> Cell:
    return one(lambda x, h, W: W.i + h)


@answered(r"^W\.i @ \.\.\.: a matrix acts on a vector of features, not on ")
def a_matrix_on_a_number() -> Cell:
    return one(lambda x, h, W: W.i @ mean(x))


@answered(r"^sizes differ: hidden and input$")
def sizes_that_differ() -> Cell:
    return one(lambda x, h: h + x)


@answered(r"^W\.i is used with vectors of different sizes: sizes differ: input and hidden$")
def a_matrix_of_two_sizes() -> Cell:
    return one(lambda x, h, W: h + W.i @ x + W.i @ h)


@answered(r"the new h does not have the size of h: sizes differ: proj and hidden$")
def a_new_state_of_another_size() -> Cell:
    return one(lambda x, h, c: (c + 1, c), states="h:proj c")


@answered(r"^a bundle of i f g o cannot meet a bundle of ")
def bundles_of_different_gates() -> Cell:
    def step(x: Any, h: Any, W: Any, p: Any) -> Any:
        a = W @ x
        del a._parts["o"]
        return (W @ x + a).i

    return one(step)


@answered(r"returns 1 values; expected its new states \(h, c\), or the output and then the states$")
def too_few_states() -> Cell:
    return one(lambda x, h, c, W: tanh(W.i @ x + c), states="h c")


@answered(r"returns 4 values; expected its new states")
def too_many_states() -> Cell:
    return one(lambda x, h, c: (h, h, c, c), states="h c")


@answered(r"must return values of the step, not None$")
def nothing_returned() -> Cell:
    return one(lambda x, h: None)


@answered(r"must return values of the step, not Bundle\(i f g o\)$")
def a_bundle_returned() -> Cell:
    return one(lambda x, h, W: W @ x)


@answered(r"the new h is one number per row; a state is a vector$")
def a_number_returned() -> Cell:
    return one(lambda x, h: mean(h))


@answered(r"^a value of a cell has no truth value while it is traced: use where\(condition, a, b\)$")
def a_state_as_a_truth_value() -> Cell:
    return one(lambda x, h: h if h > 0 else -h)


@answered(r"^a value of a cell cannot be looped over")
def a_loop_over_a_value() -> Cell:
    return one(lambda x, h: sum(h))


@answered(r"^a cell computes with its own values and plain numbers; 'a' is a str$")
def text_in_an_equation() -> Cell:
    return one(lambda x, h: h + "a")


@answered(r"^a cell computes with .* plain numbers; True is a bool$")
def a_truth_value_in_an_equation() -> Cell:
    return one(lambda x, h: h * True)


@answered(r"^tanh works on the values of a cell while it is traced, not on 0\.5; .* use math, numpy or torch$")
def a_function_of_a_number() -> Cell:
    return one(lambda x, h: h + tanh(0.5))


@answered(r"the size of W\.i cannot be told from the step; add it to a value of known size")
def an_undetermined_size() -> Cell:
    return one(lambda x, h, W, V: h + mean(tanh(W.i @ x)))


@answered(r"init names 'b\.g'; the step uses W\.i, b\.i$")
def init_of_no_parameter() -> Cell:
    return one(lambda x, h, W, b: tanh(h + W.i @ x + b.i), init={"b.g": 1.0})


@answered(r"\*args is not possible; name each family of parameters$")
def starred_arguments() -> Cell:
    return one(lambda x, h, *args: h)


@answered(r"argument Wx must be upper case \(a family of matrices\) or lower case \(a family of vectors\)$")
def mixed_case() -> Cell:
    return one(lambda x, h, Wx: h)


@answered(r"must take x, its states and its side inputs as arguments; x, c is missing$")
def missing_arguments() -> Cell:
    return one(lambda h: h, states="h c")


@answered(r"^mean needs a vector of features, not ")
def a_mean_of_a_number() -> Cell:
    return one(lambda x, h: h + mean(mean(h)))


@answered(r"^start: there is no state 'q'; there are h$")
def start_of_no_state() -> Cell:
    return one(lambda x, h: h, start={"q": 1.0})


@answered(r"^'1' cannot name a state, gate or size: use letters and digits$")
def a_name_that_is_none() -> Cell:
    return one(lambda x, h: h, gates="1")


@answered(r"^states: none came; a cell has one or more, by name")
def no_states() -> Cell:
    return one(lambda x: x, states="")


@answered(r"^<lambda>: init of b is 'identity', which fills a matrix; b is a vector$")
def a_vector_filled_as_a_matrix() -> Cell:
    return one(lambda x, h, b: h + b.i, init={"b": "identity"})


@answered(r"^<lambda>: init of W is a function, which fills a vector; W is a matrix$")
def a_matrix_filled_as_a_vector() -> Cell:
    return one(lambda x, h, W: h + W.i @ x, init={"W": lambda u, k, n: u})


@answered(r"^init: 'W' is 'unity'; by name there are identity, orthogonal, glorot, normal$")
def a_start_of_no_known_name() -> Cell:
    return one(lambda x, h, W: h + W.i @ x, init={"W": "unity"})


@answered(r"^W\.i is multiplied by 0: a matrix of zeros does nothing; leave it out$")
def a_matrix_of_zeros() -> Cell:
    return one(lambda x, h, W: h + (0 * W.i) @ x)


@answered(r"^states: x is the input; choose another name$")
def a_state_called_as_the_input() -> Cell:
    return one(lambda x: x, states="x")


@pytest.mark.parametrize(("words", "error", "make"), MISTAKES, ids=[make.__name__ for *_, make in MISTAKES])
def test_a_mistake_is_answered(words: str, error: type[Exception], make: Callable[[], Cell]) -> None:
    with pytest.raises(error) as caught:
        assert make().graph
    message, *where = str(caught.value).split("\n")
    assert re.search(words, message), message
    if where:
        # Where it is the step that is wrong, the line of the step is shown.
        found = re.fullmatch(r"  (.*), line (\d+): (.*)", "\n".join(where))
        assert found is not None
        assert found[1] == __file__
        assert int(found[2]) in range(make.__code__.co_firstlineno, make.__code__.co_firstlineno + 8)
        assert linecache.getline(__file__, int(found[2])).strip() == found[3]


# -- options --------------------------------------------------------------------------------------------------------


def test_options_make_another_cell() -> None:
    elman = get("elman")
    other = elman(act=relu)
    assert "maximum" in {node.op for node in other.graph.nodes}
    assert "tanh" in {node.op for node in elman.graph.nodes}
    assert other(act=identity).options == {"act": identity}
    assert other.name == "elman"


def test_an_option_is_a_function_or_a_number() -> None:
    with pytest.raises(TypeError, match=r"^elman: option act must be a function or a number, not 'relu'$"):
        get("elman")(act="relu")


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match=r"^elman has no option 'activation'; it has act$"):
        get("elman")(activation=relu)
    with pytest.raises(TypeError, match=r"^lstm has no option 'act'; it has none$"):
        get("lstm")(act=relu)


# -- what is worked out ---------------------------------------------------------------------------------------------


@cell(states="h:proj c", gates="i o")
def sizes(x, h, c, W, U, b, P):
    a = W @ x + U @ h + b
    c = c + sigmoid(a.i)
    return P.h @ (c * a.o), c


def test_sizes_are_inferred() -> None:
    found = {name: [str(size) for size in param.sizes] for name, param in sizes.graph.params.items()}
    assert found == {
        "W.i": ["hidden", "input"],
        "W.o": ["hidden", "input"],
        "U.i": ["hidden", "proj"],
        "U.o": ["hidden", "proj"],
        "b.i": ["hidden"],
        "b.o": ["hidden"],
        "P.h": ["proj", "hidden"],
    }
    assert sizes.graph.size_names == ["input", "proj", "hidden"]


def test_only_what_is_mentioned_exists() -> None:
    made = one(lambda x, h, W, U, b: tanh(W.i @ x + U.f @ h), gates="i f")
    assert list(made.graph.params) == ["W.i", "U.f"]


def test_a_family_whose_members_differ_in_width_is_not_one_array() -> None:
    made = one(lambda x, h, W: tanh(W.i @ x + W.f @ h), gates="i f")
    assert {stack: [p.name for p in members] for stack, members in made.graph.stacks.items()} == {
        "W_i": ["W.i"],
        "W_f": ["W.f"],
    }


def test_the_output_is_the_first_state_or_one_value_more() -> None:
    graph = one(lambda x, h, c, W: (tanh(h), h, c + W.i @ x), states="h c").graph
    assert graph.outputs["y"].op == "tanh"
    assert list(graph.new) == ["h", "c"]
    assert graph.new["h"] is graph.states["h"]


def test_equal_values_are_one_object() -> None:
    """The LSTM written at length is the LSTM: the same operations on the same leaves, as often."""

    @cell(states="h c", gates="i f g o")
    def at_length(x, h, c, W, U, b):
        i = sigmoid(W.i @ x + U.i @ h + b.i)
        f = sigmoid(W.f @ x + U.f @ h + b.f)
        g = tanh(W.g @ x + U.g @ h + b.g)
        o = sigmoid(W.o @ x + U.o @ h + b.o)
        c_next = f * c + i * g
        return sigmoid(W.o @ x + U.o @ h + b.o) * tanh(f * c + i * g), c_next + o * 0

    def shape(made: Cell) -> tuple[list[str], list[str]]:
        return [repr(root) for root in made.graph.roots], sorted(repr(node) for node in made.graph.nodes)

    assert shape(at_length) == shape(get("lstm"))


def test_a_value_is_shared_whoever_writes_it() -> None:
    h = get("lstm").graph.states["h"]
    assert tanh(h) is tanh(h)
    assert h + 1 is h + 1.0
    assert h + 1 is not 1 + h
    assert apply("neg", -h) is h


def test_an_expression_cannot_be_changed() -> None:
    h = get("lstm").graph.states["h"]
    with pytest.raises(AttributeError, match="an expression cannot be changed: op"):
        h.op = "input"


def test_numbers_fold_and_zeros_and_ones_vanish() -> None:
    h = get("lstm").graph.states["h"]
    zero, one_ = const(0), const(1)
    assert apply("add", 2, 3) is const(5)
    for value in (h + 0, 0 + h, h - 0, h * 1, 1 * h, h / 1, -(0 - h)):
        assert value is h
    for value in (h * 0, 0 * h, 0 / h):
        assert value is zero
    assert h - (-h) is h + h
    assert h + (-h) is h - h
    assert h * (-h) is -(h * h)
    assert lift(1) is one_


def test_python_comparisons_turn_the_right_way() -> None:
    h = get("lstm").graph.states["h"]
    assert (h < 2).op == "gt"
    assert (h < 2).args == (const(2), h)
    assert (h >= 2).args == (h, const(2))
    assert (h <= 2).args == (const(2), h)


def test_nodes_come_after_their_arguments_in_a_deterministic_order() -> None:
    graph = get("slstm").graph
    seen: set[Expr] = set()
    for node in graph.nodes:
        assert seen.issuperset(node.args)
        seen.add(node)
    assert toposort(graph.roots) == graph.nodes
    assert [repr(node) for node in get("slstm")().graph.nodes] == [repr(node) for node in graph.nodes]


def test_a_bundle_is_normalised_jointly_and_a_gate_by_itself() -> None:
    made = one(lambda x, h, W, U: tanh(norm(W @ x).i + norm(U.f @ h) + h), gates="i f")
    totals = [node for node in made.graph.nodes if node.op == "sum"]
    assert len(totals) == 4 + 2
    assert {str(size) for param in made.graph.params.values() for size in param.sizes[:1]} == {"hidden"}


def test_functions_work_gate_by_gate() -> None:
    def step(x: Any, h: Any, W: Any, b: Any) -> Any:
        a = softplus(W @ x + exp(b)) + h
        return a.f * where(h > 0, h, -h)

    graph = one(step, gates="i f").graph
    assert {node.attr for node in graph.nodes if node.op == "vector"} == {"b.f"}
    assert set(graph.params) == {"W.i", "W.f", "b.i", "b.f"}


# -- a cell as an object ----------------------------------------------------------------------------------------------


def test_a_cell_is_copied_as_itself_and_pickled_by_name() -> None:
    lstm = get("lstm")
    assert copy.deepcopy(lstm) is lstm
    assert pickle.loads(pickle.dumps(lstm)) is lstm
    other = pickle.loads(pickle.dumps(get("elman")(act=relu)))
    assert other.options == {"act": relu}
    assert other.name == "elman"


def test_a_cell_says_what_it_is() -> None:
    lstm = get("lstm")
    assert repr(lstm) == "<cell lstm: states h c, gates i f g o>"
    assert lstm.doc.startswith("The cell state c is kept by f")
    assert lstm.__doc__ == lstm.step.__doc__


# -- where the mistake is ---------------------------------------------------------------------------------------------


@cell(states="h", gates="h")
def of_unknown_size(x, h, W, V):
    hidden = W.h @ x
    return h + mean(V.h @ hidden)


@cell(states="h c", gates="h")
def of_one_value(x, h, c):
    new = h + 1
    return new + c


@cell(states="h:wide", gates="h")
def of_two_sizes(x, h, W):
    narrow = sized(x, "narrow")
    return W.h @ h + narrow


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (of_unknown_size, "hidden = W.h @ x"),
        (of_one_value, "return new + c"),
        (of_two_sizes, 'narrow = sized(x, "narrow")'),
    ],
)
def test_what_is_found_after_the_step_has_run_shows_its_line_too(wrong: Cell, line: str) -> None:
    with pytest.raises(TypeError) as caught:
        assert wrong.graph
    place = re.fullmatch(r"  (.*), line (\d+): (.*)", str(caught.value).splitlines()[-1])
    assert place is not None
    assert (place[1], place[3]) == (__file__, line)
    assert linecache.getline(__file__, int(place[2])).strip() == line
    text = "@cell(states='h', gates='h')\ndef read(x, h, W, V):\n    a = W.h @ x\n    return h + mean(V.h @ a)"
    with pytest.raises(TypeError, match=r"the size of W\.h cannot be told .*\n  <cell>, line 3: a = W\.h @ x$"):
        assert read_cell(text).graph
