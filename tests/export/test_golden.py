"""Equations and plans as text, held letter for letter in golden/. To accept a change, look at it and run
`EVERLOOP_WRITE_GOLDEN=1 pytest tests/export`, which fails all the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from everloop import cells
from everloop.compiler.describe import describe
from everloop.compiler.plan import plan
from everloop.export import formula, numpy_source, torch_source
from everloop.lang.cell import cell
from everloop.lang.functions import (
    cos,
    cumsum,
    expm,
    expm1,
    features,
    fixed,
    floor,
    largest,
    position,
    relu,
    sin,
    sized,
    stop_gradient,
    tanh,
    where,
)

GOLDEN = Path(__file__).parent / "golden"


def as_golden(name: str, text: str) -> None:
    """The text equals the file, to the letter."""
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("EVERLOOP_WRITE_GOLDEN"):
        file.write_text(text + "\n", encoding="utf-8")
        pytest.fail(f"{file} written; look at it, then run without EVERLOOP_WRITE_GOLDEN")
    assert text + "\n" == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "slstm", "layernorm_lstm"])
def test_equations(name: str) -> None:
    graph = cells.get(name).graph
    as_golden(f"{name}.equations", "\n".join([*formula.forward(graph), "", *formula.backward(graph)]))


@pytest.mark.parametrize("name", ["lstm", "gru_before"])
def test_latex(name: str) -> None:
    graph = cells.get(name).graph
    lines = formula.forward(graph, formula.LATEX) + formula.backward(graph, formula.LATEX)
    as_golden(f"{name}.latex", "\n".join(formula.aligned(lines)))


@pytest.mark.parametrize(("name", "form"), [("elman", numpy_source), ("lstm", numpy_source), ("gru", torch_source)])
def test_programs(name: str, form: ModuleType) -> None:
    kind = form.__name__.rpartition(".")[2].removesuffix("_source")
    as_golden(f"{name}.{kind}", form.source(cells.get(name)).rstrip("\n"))


def test_the_network_of_the_textbook() -> None:
    """Goodfellow, Bengio, Courville 2016, Deep Learning, equations 10.8 to 10.10 and 10.21 to 10.28: W, U, V, b, c are
    shared over time. What they write as diag(1 - h^2) is the product with 1 - h h; ∂y is the gradient at the output.
    """

    @cell(states="h", gates="h o")
    def network(x, h, W, U, V, b, c):
        h = tanh(b.h + W.h @ h + U.h @ x)
        return sized(c.o + V.o @ h, "output"), h

    assert formula.forward(network.graph) == ["h = tanh(b_h + W_h h₋ + U_h x)", "y = c_o + V_o h"]
    da = "δh ⊙ (1 - h ⊙ h)"
    assert set(formula.backward(network.graph)) == {
        "δh = δh₊ + V_oᵀ ∂y",
        f"δh₋ = W_hᵀ ({da})",
        f"δx = U_hᵀ ({da})",
        f"δb_h = Σₜ ({da})",
        f"δW_h = Σₜ ({da}) h₋ᵀ",
        f"δU_h = Σₜ ({da}) xᵀ",
        "δc_o = Σₜ ∂y",
        "δV_o = Σₜ ∂y hᵀ",
    }


@pytest.mark.parametrize("name", ["lstm", "gru_before", "projection_lstm", "mingru"])
def test_plans(name: str) -> None:
    as_golden(f"{name}.plan", describe(plan(cells.get(name).graph)))


def test_elmans_backward_is_the_classic_one() -> None:
    """Rumelhart, Hinton, Williams 1986, and every textbook since: with a = W x + U h₋ + b and δa = δh (1 - h²)."""
    graph = cells.get("elman").graph
    assert formula.forward(graph) == ["h = tanh(W_h x + U_h h₋ + b_h)"]
    da = "δh ⊙ (1 - h ⊙ h)"
    assert formula.backward(graph) == [
        "δh = ∂y + δh₊",
        f"δh₋ = U_hᵀ ({da})",
        f"δx = W_hᵀ ({da})",
        f"δW_h = Σₜ ({da}) xᵀ",
        f"δU_h = Σₜ ({da}) h₋ᵀ",
        f"δb_h = Σₜ ({da})",
    ]


def test_lstms_equations_are_those_of_the_paper() -> None:
    lines = formula.forward(cells.get("lstm").graph)
    assert {"c = f ⊙ c₋ + i ⊙ g", "h = o ⊙ tanh(c)", "i = σ(a_i)", "a_i = W_i x + U_i h₋ + b_i"} <= set(lines)


def test_a_text_is_the_same_every_time() -> None:
    for name in cells.names():
        first, again = (formula.backward(cells.get(name)().graph) for _ in range(2))
        assert first == again


@pytest.mark.parametrize("name", cells.names())
def test_no_line_is_longer_than_can_be_read(name: str) -> None:
    graph = cells.get(name).graph
    assert max(map(len, formula.forward(graph) + formula.backward(graph))) < 300


def test_a_long_value_that_is_read_often_has_a_line_of_its_own() -> None:
    @cell(states="h", gates="h")
    def unrolled(x, h, W):
        for _ in range(30):
            h = h + h * tanh(W.h @ x - h)
        return h

    lines = formula.forward(unrolled.graph) + formula.backward(unrolled.graph)
    assert len(lines) < 200
    assert max(map(len, lines)) < 300


def test_a_sum_of_a_thousand_terms_is_written() -> None:
    @cell(states="h", gates="h")
    def long(x, h, W):
        a = W.h @ x
        for k in range(1000):
            a = a + k * h
        return tanh(a)

    lines = formula.forward(long.graph) + formula.backward(long.graph)
    assert max(map(len, lines)) < 300
    assert sum(line.count("999 ⊙ h₋") for line in lines) == 1


def test_no_two_values_go_by_one_name() -> None:
    for name in cells.names():
        for lines in (formula.forward(cells.get(name).graph), formula.backward(cells.get(name).graph)):
            heads = [line.partition(" = ")[0] for line in lines]
            assert len(heads) == len(set(heads)), name


def test_a_variable_of_several_values_is_primed() -> None:
    @cell(states="h", gates="h")
    def made(x, h, W, U):
        x = tanh(W.h @ x)
        h = h * x
        return tanh(U.h @ h) + h

    assert formula.forward(made.graph) == ["x′ = tanh(W_h x)", "h′ = h₋ ⊙ x′", "h = tanh(U_h h′) + h′"]
    assert "δx = W_hᵀ (δx′ ⊙ (1 - x′ ⊙ x′))" in formula.backward(made.graph)


def test_matrices_that_are_made_have_lines_of_their_own() -> None:
    @cell(states="h", gates="h")
    def made(x, h, W, U):
        half = fixed(lambda i, j: where(i > j, 0.5, 0))
        return tanh(expm(U.h - U.h.T) @ h + half @ h + W.h @ x)

    assert formula.forward(made.graph)[:2] == ["M_h = expm(U_h - U_hᵀ)", "fixed1 = (0.5 if [i > j] else 0)"]
    backward = [line.partition(" = ")[0] for line in formula.backward(made.graph)]
    assert backward.index("δM_h") < backward.index("δU_h")
    latex = formula.forward(made.graph, formula.LATEX)
    assert latex[0] == r"M_{h} &= \operatorname{expm}(U_{h} - U_{h}^{\top})"


def test_every_function_of_the_language_can_be_written() -> None:
    @cell(states="h", gates="h", inputs="dt", start={"dt": 1.0})
    def made(x, h, dt, W):
        a = W.h @ x + stop_gradient(h)
        b = sin(a) + cos(a) + expm1(floor(a)) + cumsum(a) + cumsum(a, reverse=True)
        return b * largest(a) / features(a) + position(a) * dt

    (_, line, last) = formula.forward(made.graph)
    assert line == "b = sin(a) + cos(a) + (exp(⌊a⌋) - 1) + cumsum(a) + cumsum_back(a)"
    assert last == "h = (b ⊙ max(a)) / n + position ⊙ dt"
    latex = " ".join(formula.forward(made.graph, formula.LATEX) + formula.backward(made.graph, formula.LATEX))
    assert latex.count("{") == latex.count("}")
    assert "δdt = Σ(δh ⊙ position)" in formula.backward(made.graph)


def test_functions_keep_their_names_forward_and_backward() -> None:
    @cell(states="h", gates="h")
    def made(x, h, W):
        return relu(W.h @ x) * relu(h)

    assert formula.forward(made.graph) == ["h = relu(W_h x) ⊙ relu(h₋)"]
    assert "relu(h₋)" in "".join(formula.backward(made.graph))


def test_brackets_stand_where_they_are_needed() -> None:
    @cell(states="h", gates="h")
    def made(x, h, W):
        p = W.h @ x
        return (p - (h - 1)) / (h * p) - (-(h + p)) * 2 + p / (p / h)

    (_, line) = formula.forward(made.graph)
    assert line == "h = (p - (h₋ - 1)) / (h₋ ⊙ p) + (h₋ + p) ⊙ 2 + p / (p / h₋)"
