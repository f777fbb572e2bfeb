"""Cells that no paper has: each is a way in which a schedule, a gradient or a layer could go wrong."""

from __future__ import annotations

import pytest

from everloop.lang.cell import Cell, cell
from everloop.lang.functions import exp, maximum, mean, minimum, norm, sigmoid, tanh, where
from everloop.testing import check_cell

CELLS: dict[str, Cell] = {}


def odd(made: Cell) -> Cell:
    CELLS[made.name] = made
    return made


@odd
@cell(states="h c", gates="h")
def unused_state(x, h, c, W, b):  # the second state is handed on as it is
    return tanh(W.h @ x + b.h), c


@odd
@cell(states="h c", gates="h")
def input_state(x, h, c, W, U, b):  # a state that is the last input
    return tanh(W.h @ x + U.h @ h + b.h + c), W.h @ x


@odd
@cell(states="h", gates="h")
def no_matrix(x, h, u, b):  # no matrix at all
    return tanh(mean(x) * b.h + u.h * h)


@odd
@cell(states="h:input", gates="h")
def average(x, h):  # no parameters, as wide as its input
    return 0.9 * h + 0.1 * x


@odd
@cell(states="h:input", gates="h")
def weighted_average(x, h, u):  # no matrix, as wide as its input
    return u.h * h + (1 - u.h) * x


@odd
@cell(states="h", gates="h")
def separate_output(x, h, W, U, V):  # the output is no state
    n = tanh(W.h @ x + U.h @ h)
    return tanh(V.h @ n) + n, n


@odd
@cell(states="h", gates="h")
def output_of_old(x, h, W, U, V):  # the output depends on the old state only
    return V.h @ h + h, tanh(W.h @ x + U.h @ h)


@odd
@cell(states="h", gates="h")
def output_is_old(x, h, W, U):  # the output is the old state
    return h, tanh(W.h @ x + U.h @ h)


@odd
@cell(states="h", gates="h")
def output_is_input(x, h, W, U):  # the output is the input
    return x, tanh(W.h @ x + U.h @ h)


@odd
@cell(states="h", gates="h")
def output_is_vector(x, h, W, U, b):  # the output is a parameter
    return where(1.0, exp(b.h), h), tanh(W.h @ x + U.h @ h)


@odd
@cell(states="h", gates="h")
def memoryless(x, h, W, b):  # the new state does not depend on the old one
    return tanh(W.h @ x + b.h)


@odd
@cell(states="h c", gates="h")
def delay(x, h, c, W, b):  # states that take each other's place
    return tanh(W.h @ x + b.h) * c, h


@odd
@cell(states="h", gates="h")
def standstill(x, h):  # nothing happens
    return h


@odd
@cell(states="h", gates="h")
def output_beside_standstill(x, h, W):  # only the output sees the input
    return W.h @ x + h, h


@odd
@cell(states="h", gates="h")
def same_product_twice(x, h, W, U):  # U @ h written twice
    a = U.h @ h
    return tanh(W.h @ x + a) + a * 0.1 + (U.h @ h) * 0.2


@odd
@cell(states="h", gates="a b")
def same_matrix_twice(x, h, W, U):  # one matrix meets two vectors
    return tanh(W.a @ x + U.a @ h + U.a @ tanh(h) + 0.1 * (U.b @ h))


@odd
@cell(states="h", gates="h")
def vector_before_and_in_loop(x, h, W, U, b):  # a vector used before and in the loop
    return tanh((W.h @ x) * b.h + U.h @ h * b.h) + b.h


@odd
@cell(states="h", gates="h")
def parameters_only(x, h, W, u):  # an expression of parameters in the loop
    return tanh(W.h @ x + exp(u.h) * h)


@odd
@cell(states="h", gates="h")
def number_of_parameters(x, h, W, u):  # one number per row, made of parameters
    return tanh(W.h @ x + h / (1 + mean(u.h) * mean(u.h)) + u.h)


@odd
@cell(states="h", gates="h")
def matrix_meets_parameter(x, h, W, V, u):  # a product of parameters alone
    return tanh(W.h @ x + (V.h @ u.h) * h + u.h)


@odd
@cell(states="h", gates="h g")
def matrices_meet_parameter(x, h, W, V, u):  # two such products
    return tanh(W.h @ x + (V.h @ u.h) * h + (V.g @ u.h) * h * h + u.h)


@odd
@cell(states="h", gates="h g")
def two_stages(x, h, W, U, b):  # one product feeds another
    return tanh(U.g @ (tanh(W.h @ x + U.h @ h + b.h) + h) + b.g)


@odd
@cell(states="h", gates="a b")
def shared_input(x, h, W, U, b):  # two products are added to one value
    a = W.a @ x + b.a
    return sigmoid(U.a @ h + a) * tanh(U.b @ h + a)


@odd
@cell(states="h", gates="a b")
def shared_input_twice(x, h, W, U, V, b):  # two pairs of products are added to the same two values
    p = W @ x + b
    i, f = sigmoid(U.a @ h + p.a), tanh(U.b @ h + p.b)
    return i * f + tanh(V.a @ tanh(h) + p.a) * sigmoid(V.b @ tanh(h) + p.b)


@odd
@cell(states="h", gates="a b c")
def shared_input_once(x, h, W, U, V, b):  # two pairs of products share one of the values
    p = W @ x + b
    i, f = sigmoid(U.a @ h + p.a), tanh(U.b @ h + b.b)
    return i * f + tanh(V.a @ tanh(h) + p.a) * sigmoid(V.b @ tanh(h) + p.c)


@odd
@cell(states="h", gates="a b")
def added_to_parameters(x, h, W, U, b):  # products added to a vector and to what is made of one
    return sigmoid(U.a @ h + exp(b.a)) * tanh(U.b @ h + b.b) + W.a @ x


@odd
@cell(states="h", gates="a b")
def added_to_both(x, h, W, U, b):  # products added to what is made of a vector and to what is made of the input
    return sigmoid(U.a @ h + exp(b.a)) * tanh(U.b @ h + W.a @ x + b.b)


@odd
@cell(states="h", gates="a b c")
def shared_vector(x, h, W, U, b):  # vectors of a family out of order, one of them twice
    return sigmoid(U.a @ h + b.c) * tanh(U.b @ h + b.a) + W.a @ x + b.c * tanh(U.c @ h + b.c)


@odd
@cell(states="h", gates="h")
def sum_based(x, h, W, u):  # units meet by their mean only
    return tanh(W.h @ x + mean(h) * u.h)


@odd
@cell(states="h", gates="a")
def numbers_in_a_row(x, h, W, w):  # products of numbers and vectors, of states and parameters
    return tanh((h * w.a) * (mean(h) * mean(w.a)) + h * mean(W.a @ x + w.a) + W.a @ x)


@odd
@cell(states="h", gates="h")
def normalised(x, h, W, U):  # a new state of zero mean
    return norm(W.h @ x + U.h @ h)


@odd
@cell(states="h", gates="h")
def normalised_state(x, h, W):  # normalisation of the state itself
    return tanh(W.h @ x + norm(h))


@odd
@cell(states="h", gates="h")
def choices(x, h, W, u):  # comparisons, choices, maxima
    return where(W.h @ x > h, maximum(u.h * h, W.h @ x), minimum(h, u.h) * 0.5)


@odd
@cell(states="h", gates="a")
def jumps(x, h, W):  # nothing has a gradient
    return where(W.a @ x > h, 1.0, 0.0) * where(h > 0, 1.0, 0.5)


@odd
@cell(states="h", gates="a")
def plain_numbers(x, h, W):  # maximum, minimum and comparison of numbers alone
    k = h * 0
    return tanh(W.a @ x + where(maximum(k, 1.0) > minimum(2.0, k), h, 0.3))


@odd
@cell(states="h", gates="h")
def residual(x, h, W, U, b):  # the old state and something more
    return h + 0.1 * tanh(W.h @ x + U.h @ h + b.h)


@odd
@cell(states="h", gates="h g")
def shadowed_family(x, h, W, u, w):  # a local variable of a family's name
    k = tanh(w.h * h)
    w = exp(u.h)
    return tanh(W.h @ x + k + w * h)


@odd
@cell(states="h", gates="h")
def vanishing(x, h, W):  # zeros that fold away
    return 0 * h + W.h @ x * 0 + exp(W.h @ x * 1)


@odd
@cell(states="h c d", gates="h")
def vector_state(x, h, c, d, W, u):  # states that become parameters
    return tanh(W.h @ x + c * h + d), u.h, exp(u.h)


@odd
@cell(states="h c", gates="h")
def twins(x, h, c, W, U):  # two states of one value
    n = tanh(W.h @ x + U.h @ h - c)
    return n, n


@odd
@cell(states="h:proj c:wide", gates="i o")
def two_sizes(x, h, c, W, U, V, P):  # states of different sizes
    c = c + tanh(W.i @ x + U.i @ h + V.i @ c)
    return P.h @ c * sigmoid(W.o @ x + U.o @ h), c


@odd
@cell(states="h", gates="h")
def number_of_input(x, h, W):  # one number per row, made of the input
    return (W.h @ x) * mean(x)


@odd
@cell(states="h", gates="a b c")
def signs(x, h, W, U):  # products with either sign
    return tanh(W.a @ x - U.a @ h + U.b @ (h * h) - U.c @ tanh(h))


@odd
@cell(states="h", gates="a")
def unrolled(x, h, W):  # a fixed loop inside the step, each value read twice
    for _ in range(40):
        h = h + 0.01 * h * (W.a @ x)
    return tanh(h)


@odd
@cell(states="h", gates="fixed")
def gate_called_fixed(x, h, W, u):  # a gate of a name that the compiler uses
    return tanh(W.fixed @ x + exp(u.fixed) * h + u.fixed * h)


@odd
@cell(states="y c", gates="y")
def state_called_y(x, y, c, W, U):  # a state called as the output is
    n = tanh(W.y @ x + U.y @ y)
    return y * n + c, n, c + n


@odd
@cell(states="h", gates="a")
def number_option(x, h, W, *, k=1.0):  # an option that is a number, as a condition
    return tanh(where(k, h, W.a @ x) + W.a @ x)


@pytest.mark.parametrize("name", CELLS)
def test_odd_cells_keep_the_contract(name: str) -> None:
    check_cell(CELLS[name])
