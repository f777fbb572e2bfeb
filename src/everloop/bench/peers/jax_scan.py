"""jax: lax.scan over the steps, compiled as a whole; the input's product for all steps before it, as one would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from everloop.bench.problem import Arrays, Problem, Rival

NEEDS = ("jax", "jaxlib")


def rivals(problem: Problem) -> dict[str, Rival]:
    cells = _cells()
    if problem.cell.name not in cells:
        return {}
    import jax

    # Handing a call to another thread takes longer than a step.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    cell = cells[problem.cell.name]
    weights = {name: jax.numpy.asarray(_turned(array.numpy())) for name, array in problem.weights.items()}
    if problem.what == "step":
        return {"jax": _step(problem, cell, weights)}
    return {"jax scan": _sequence(problem, cell, weights)}


def _sequence(problem: Problem, cell: Callable[..., Any], weights: dict[str, Any]) -> Rival:
    import jax

    batch, _, _, units = problem.shape
    x, dy = (jax.numpy.asarray(_time_first(array.detach().numpy())) for array in (problem.x, problem.dy))
    start = _start(problem, batch, units)

    def forward(weights: dict[str, Any], x: Any) -> Any:
        before = x @ weights["W"] + weights["b"]
        return jax.lax.scan(lambda state, a: cell(weights, a, *state), start, before)[1]

    def gradient(weights: dict[str, Any], x: Any, dy: Any) -> Any:
        y, back = jax.vjp(forward, weights, x)
        return y, *back(dy)

    if problem.what == "forward":
        infer = jax.jit(forward)
        return Rival(lambda: infer(weights, x).block_until_ready(), lambda y: {"y": _time_first(np.asarray(y))})
    train = jax.jit(gradient)
    return Rival(lambda: jax.block_until_ready(train(weights, x, dy)), _read_gradient)


def _read_gradient(found: Any) -> Arrays:
    y, of_weights, of_x = found
    arrays = {"y": _time_first(np.asarray(y)), "x": _time_first(np.asarray(of_x))}
    return arrays | {name: _turned(np.asarray(array)) for name, array in of_weights.items()}


def _step(problem: Problem, cell: Callable[..., Any], weights: dict[str, Any]) -> Rival:
    import jax

    x = problem.x[:, 0].numpy()
    state = _start(problem, 1, problem.shape[3])
    step = jax.jit(lambda weights, x, state: cell(weights, x @ weights["W"] + weights["b"], *state))

    def run() -> Any:
        nonlocal state
        state, y = step(weights, x, state)
        return y.block_until_ready()

    return Rival(run, lambda y: {"y": np.asarray(y).reshape(1, 1, -1)})


def _start(problem: Problem, batch: int, units: int) -> tuple[Any, ...]:
    from jax import numpy

    return tuple(numpy.zeros((batch, units)) for _ in problem.cell.graph.states)


def _turned(array: np.ndarray) -> np.ndarray:
    """A matrix as jax's libraries keep it, [features in, out], which saves it a copy in every step; and back."""
    return np.ascontiguousarray(array.T)


def _time_first(array: np.ndarray) -> np.ndarray:
    """[B, T, F] -> [T, B, F], and back."""
    return np.ascontiguousarray(array.swapaxes(0, 1))


def _cells() -> dict[str, Callable[..., Any]]:
    """Steps: weights, the input's part, states -> new states, output."""
    from jax import numpy
    from jax.nn import sigmoid

    def lstm(weights: dict[str, Any], a: Any, h: Any, c: Any) -> Any:
        i, f, g, o = numpy.split(a + h @ weights["U"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * numpy.tanh(g)
        h = sigmoid(o) * numpy.tanh(c)
        return (h, c), h

    def gru(weights: dict[str, Any], a: Any, h: Any) -> Any:
        x_r, x_z, x_n = numpy.split(a, 3, -1)
        h_r, h_z, h_n = numpy.split(h @ weights["U"] + weights["d"], 3, -1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = numpy.tanh(x_n + r * h_n)
        h = (1 - z) * n + z * h
        return (h,), h

    def elman(weights: dict[str, Any], a: Any, h: Any) -> Any:
        h = numpy.tanh(a + h @ weights["U"])
        return (h,), h

    return {"lstm": lstm, "gru": gru, "elman": elman}
