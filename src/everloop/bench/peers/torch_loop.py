"""A cell as one writes it by hand in torch: the operations of a step, in a Python loop over time.

This is what somebody has whose cell is not built in, so it is written as one would: all gates that see the same values
in one product, and what needs no state for all steps at once where nothing else needs a product. A cell that is not
here is a program made from it (`everloop show CELL --as torch`), which has a product for every gate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, sigmoid, tanh
from torch.nn.functional import layer_norm, linear, logsigmoid

from everloop.bench.problem import Problem, Rival, module_rival
from everloop.export import torch_source

NEEDS = ("torch",)

Step = Callable[..., tuple[Tensor, ...]]


def rivals(problem: Problem) -> dict[str, Rival]:
    if problem.cell.name not in STEPS:
        return {} if problem.what == "step" else {"torch loop": _generated(problem)}
    loop = Loop(problem)
    if problem.what == "step":
        return {"torch loop": _stepping(problem, loop)}
    return {"torch loop": module_rival(problem, loop.run, dict(loop.named_parameters()))}


class Loop(nn.Module):
    """A step function over time. Its keyword arguments are the weights, its result the new states, the output first."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        for name, array in problem.weights.items():
            self.register_parameter(name, nn.Parameter(array.clone()))
        self.before, self.step = STEPS[problem.cell.name]
        graph, sizes = problem.cell.graph, problem.layer.sizes
        self.starts = [(sizes[str(leaf.size)], graph.start[name]) for name, leaf in graph.states.items()]

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.new_full((x.shape[0], width), value) for width, value in self.starts)

    def fed(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.before(x, **self._parameters) if self.before else (x,)

    def run(self, x: Tensor) -> Tensor:
        """x [B, T, I] -> y [B, T, F]."""
        states, ys = self.start(x), []
        for fed in zip(*(part.unbind(1) for part in self.fed(x)), strict=True):
            states = self.step(*fed, *states, **self._parameters)
            ys.append(states[0])
        return torch.stack(ys, 1)


def _stepping(problem: Problem, loop: Loop) -> Rival:
    x = problem.x[:, 0]
    states = loop.start(x)

    def run() -> Tensor:
        nonlocal states
        with torch.inference_mode():
            states = loop.step(*loop.fed(x), *states, **loop._parameters)
            return states[0]

    return Rival(run, lambda y: {"y": y.numpy().reshape(1, 1, -1)})


def _generated(problem: Problem) -> Rival:
    made: dict[str, Any] = {"__name__": "generated"}
    exec(torch_source.source(problem.cell), made)
    kind = next(v for v in made.values() if isinstance(v, type) and v.__module__ == "generated")
    names = kind.__init__.__code__.co_varnames[1 : kind.__init__.__code__.co_argcount]
    sizes = problem.layer.sizes
    module = kind(**{name: sizes[name.removesuffix("_size")] for name in names})
    module.load_state_dict(problem.weights)
    return module_rival(problem, lambda x: module(x, **problem.side)[0], dict(module.named_parameters()))


def lstm(x, h, c, *, W, U, b):
    i, f, g, o = (linear(x, W, b) + linear(h, U)).chunk(4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru(x, h, *, W, U, b, d):
    x_r, x_z, x_n = linear(x, W, b).chunk(3, -1)
    h_r, h_z, h_n = linear(h, U, d).chunk(3, -1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = tanh(x_n + r * h_n)
    return (n + z * (h - n),)


def elman(x, h, *, W, U, b):
    return (tanh(linear(x, W, b) + linear(h, U)),)


def peephole_lstm(x, h, c, *, W, U, b, p):
    i, f, g, o = (linear(x, W, b) + linear(h, U)).chunk(4, -1)
    p_i, p_f, p_o = p.chunk(3)
    c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * tanh(g)
    return sigmoid(o + p_o * c) * tanh(c), c


def layernorm_lstm(x, h, c, *, W, U, b, s, t):
    units = h.shape[-1]
    t, t_c = t.split([4 * units, units])
    b, b_c = b.split([4 * units, units])
    both = layer_norm(linear(x, W), (4 * units,), s, b) + layer_norm(linear(h, U), (4 * units,), t)
    i, f, g, o = both.chunk(4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(layer_norm(c, (units,), t_c, b_c)), c


def projection_lstm(x, h, c, *, W, U, b, P):
    i, f, g, o = (linear(x, W, b) + linear(h, U)).chunk(4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return linear(sigmoid(o) * tanh(c), P), c


def gru_before(x, h, *, W, U, b):
    units = h.shape[-1]
    x_gates, x_n = linear(x, W, b).split([2 * units, units], -1)
    r, z = sigmoid(x_gates + linear(h, U[: 2 * units])).chunk(2, -1)
    n = tanh(x_n + linear(r * h, U[2 * units :]))
    return (n + z * (h - n),)


def mgu(x, h, *, W, U, b):
    units = h.shape[-1]
    x_f, x_n = linear(x, W, b).chunk(2, -1)
    f = sigmoid(x_f + linear(h, U[:units]))
    n = tanh(x_n + linear(f * h, U[units:]))
    return (h + f * (n - h),)


def slstm(x, h, c, n, m, *, W, U, b):
    i, f, z, o = (linear(x, W, b) + linear(h, U)).chunk(4, -1)
    kept = logsigmoid(f) + m
    m = torch.maximum(kept, i)
    i, f = torch.exp(i - m), torch.exp(kept - m)
    c = f * c + i * tanh(z)
    n = f * n + i
    return sigmoid(o) * c / n, c, n, m


def lem(x, y, z, *, W, U, V, b):
    units = y.shape[-1]
    of_x, x_y = linear(x, W, b).split([3 * units, units], -1)
    dy, dz, new_z = (of_x + linear(y, U)).chunk(3, -1)
    z = z + sigmoid(dz) * (tanh(new_z) - z)
    y = y + sigmoid(dy) * (tanh(x_y + linear(z, V)) - y)
    return y, z


def before_indrnn(x, *, W, u, b):
    return (linear(x, W, b),)


def indrnn(a, h, *, W, u, b):
    return (torch.relu(a + u * h),)


def before_mingru(x, *, W, b):
    z, n = linear(x, W, b).chunk(2, -1)
    z = sigmoid(z)
    return 1 - z, z * n


def mingru(keep, add, h, *, W, b):
    return (keep * h + add,)


STEPS: dict[str, tuple[Step | None, Step]] = {
    step.__name__: (None, step)
    for step in (lstm, gru, elman, peephole_lstm, layernorm_lstm, projection_lstm, gru_before, mgu, slstm, lem)
}
STEPS |= {"indrnn": (before_indrnn, indrnn), "mingru": (before_mingru, mingru)}
"""What is worked out for all steps at once, if anything, and the step."""
