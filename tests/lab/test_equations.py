"""Equations with numbers: the recorded ones, and what is written out comes to what is said."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from everloop import Recurrent, cells
from everloop.compiler.cost import usual_sizes
from everloop.export import formula
from everloop.insight.recording import Recording, record
from everloop.lab import equations
from everloop.lab.equations import Equations, shown
from everloop.testing import FLOAT32, SAME, assert_close

STEPS, UNITS = 4, 6


def recorded(cell: str, bidirectional: bool = False) -> Recording:
    """Some steps of a layer in float64, with biases that are not zero."""
    torch.manual_seed(0)
    found = cells.get(cell)
    sizes = usual_sizes(found.graph, UNITS, UNITS)
    others = {name: length for name, length in sizes.items() if name not in ("input", "hidden")}
    layer = Recurrent(cell, UNITS, UNITS, bidirectional=bidirectional, sizes=others, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return record(layer.eval(), torch.randn(1, STEPS, UNITS, dtype=torch.float64))


@pytest.mark.parametrize("cell", cells.names())
def test_every_named_value_of_every_cell_has_its_number(cell: str) -> None:
    (layer,) = recorded(cell).layers
    made = Equations(layer)
    lines = [line.replace(" &= ", " = ") for line in formula.forward(layer.cell.graph, formula.LATEX)]
    assert [one.latex for one in made.lines] == lines
    for step, unit in ((0, 0), (STEPS - 1, 1)):
        for one in made.with_numbers(step, unit):
            values = layer.values.get(one["name"])
            if values is not None and one["value"] is not None:
                at = min(unit, values.shape[-1] - 1)
                assert_close(one["value"], values[0, step, at], SAME, f"{one['latex']} at step {step}")
                assert one["numbers_latex"]


def test_a_layer_that_reads_from_the_end_has_its_own_past() -> None:
    """The state before the last step of x is the start; of any other, the state of the step behind it."""
    forward, backward = recorded("gru", bidirectional=True).layers
    for layer in (forward, backward):
        for step in range(STEPS):
            for one in Equations(layer).with_numbers(step, 2):
                assert_close(one["value"], layer.values[one["name"]][0, step, 2], SAME, f"{layer.direction} {step}")


class Step:
    """Works out what an equation says in LaTeX, by Python."""

    names: ClassVar[dict[str, Any]] = {
        "sigma": lambda v: 1 / (1 + math.exp(-v)), "tanh": math.tanh, "exp": math.exp, "max": max, "min": min,
        "softplus": lambda v: math.log1p(math.exp(v)), "relu": lambda v: max(v, 0.0), "log": math.log, "sin": math.sin,
    }  # fmt: skip

    @classmethod
    def evaluate(cls, latex: str) -> float:
        text = re.sub(r"\\underbrace\{(.*?)\}_\{\d+\}", r"\1", latex)
        text = re.sub(r"\\times 10\^\{(-?\d+)\}", r"* 10 ** \1", text)
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1) / (\2))", text)
        text = re.sub(r"\\operatorname\{(\w+)\}", r"\1", text)
        for before, after in ((r"\left(", "("), (r"\right)", ")"), (r"\cdot", "*"), ("\\", "")):
            text = text.replace(before, after)
        return eval(text, {"__builtins__": {}}, cls.names)


@pytest.mark.parametrize(
    "cell", ["lstm", "gru", "elman", "sru", "ligru", "peephole_lstm", "mogrifier_lstm", "cfc", "minlstm", "janet"]
)
def test_what_is_written_out_comes_to_the_value(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many places as numbers have, the right side worked out is the left side."""
    monkeypatch.setattr(equations, "PLACES", 17)
    (layer,) = recorded(cell).layers
    worked_out = 0
    for unit in (0, 3):
        for one in Equations(layer).with_numbers(2, unit):
            assert_close(Step.evaluate(one["numbers_latex"]), one["value"], SAME, one["numbers_latex"])
            worked_out += 1
    assert worked_out


def test_products_show_their_largest_terms_and_the_rest() -> None:
    (layer,) = recorded("elman").layers
    (one,) = Equations(layer).with_numbers(1, 4)
    products = layer.weights["W.h"][4] * layer.x[0, 1]
    largest = np.argsort(-np.abs(products))[:5]
    of_x = one["numbers_latex"].removeprefix(r"\tanh(").split(r"\underbrace")[0]
    assert of_x.count(r"\cdot") == 5
    for k in largest:
        assert shown(abs(layer.weights["W.h"][4, k])) in of_x
        assert shown(abs(layer.x[0, 1, k])) in of_x
    rest = products.sum() - products[largest].sum()
    assert shown(abs(rest)) in one["numbers_latex"]
    assert one["numbers_latex"].count("}_{1}") == 2, "one term is left of each product"


def test_a_vector_that_is_too_short_has_symbols_only() -> None:
    (layer,) = recorded("projection_lstm").layers
    width = layer.values["h"].shape[-1]
    assert width < UNITS
    by_name = {one["name"]: one for one in Equations(layer).with_numbers(0, UNITS - 1)}
    assert by_name["h"]["numbers_latex"] is None
    assert by_name["h"]["value"] is None
    assert_close(by_name["c"]["value"], layer.values["c"][0, 0, UNITS - 1], FLOAT32)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (-2.0, "-2"), (0.1234, "0.123"), (-0.5, "-0.500"), (1e-5, r"1.000 \times 10^{-5}"),
        (123456.0, r"1.235 \times 10^{5}"), (math.inf, r"\infty"), (-math.inf, r"-\infty"), (math.nan, r"\mathrm{nan}"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_evaluator_of_these_tests_can_fail() -> None:
    good: Any = r"0.5 \cdot (-2) + \underbrace{(-1)}_{3} - \sigma(0)"
    assert Step.evaluate(good) == -2.5
    with pytest.raises(SyntaxError):
        Step.evaluate(r"0.5 \cdot")
