"""`record`: every value of every step and its gradient, against a loop by hand that torch differentiates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

import everloop
from everloop import Recurrent, cells, read_cell, record, use_backend, zoneout
from everloop.backends._spelling import SPELLING, cumulative
from everloop.insight import LayerRecord, Recording
from everloop.insight.probe import values_of
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph
from everloop.testing import FLOAT32, SAME, assert_close
from everloop.testing.cells import with_made

TYPED = '''
@cell(states="h slow", gates="i z", start={"slow": 0.5})
def typed(x, h, slow, W, U, b):
    a = W @ x + U @ h + b
    gate = sigmoid(a.i + mean(h))
    level = largest(tanh(a.z))
    unused = gate * 2
    slow = gate * slow + (1 - gate) * shift(x, 1) * level
    return tanh(slow + a.z), slow
'''


def step_values(graph: Graph, given: dict[str, Tensor], sizes: dict[str, int], batch: int) -> dict[Expr, Tensor]:
    """Every value of one step, [B, F] each, as something that a gradient can be taken with respect to."""
    given = with_made(graph, given, sizes)
    found: dict[Expr, Tensor] = {}

    def width(node: Expr) -> int:
        return 1 if node.size is None else sizes[str(node.size)]

    for node in toposort([*graph.roots, *values_of(graph).values()]):
        args = [found[arg] for arg in node.args]
        made: Any
        match node.op:
            case "input" | "vector" | "state":
                made = given[node.attr]
            case "const":
                made = torch.tensor(node.attr, dtype=torch.float64)
            case "count":
                made = torch.tensor(float(sizes[str(node.attr)]), dtype=torch.float64)
            case "index":
                made = torch.arange(width(node), dtype=torch.float64)
            case "matmul":
                made = args[0] @ whole(graph, node.attr[0], given).t()
            case "cumsum":
                made = cumulative(args[0], node.attr)
            case _:
                made = SPELLING[node.op](*args)
        made = made.expand(batch, width(node))
        # What follows from nothing that is trained has a gradient, too; and a state that only hands on what came in
        # is another value than that.
        found[node] = made if made.requires_grad and not node.args == () else made.clone()
        if not found[node].requires_grad:
            found[node] = found[node].detach().requires_grad_()
    return found


def whole(graph: Graph, name: str, given: dict[str, Tensor]) -> Tensor:
    """A matrix [R, C], whether or not it is kept as diagonal blocks."""
    blocks = graph.params[name].blocks
    return torch.block_diag(*given[name].chunk(blocks)) if blocks > 1 else given[name]


class ByHand:
    """The layers of a recording once more, one sequence and one step after another, by the weights that it holds."""

    def __init__(self, layers: Sequence[LayerRecord], x: Tensor, lengths: Sequence[int], side: dict[str, Tensor]) -> None:
        self.values: list[list[list[dict[str, Tensor]]]] = []  # by layer, sequence and step
        directions = 1 + max(layer.layer for layer in layers)
        below = [x[row, :steps] for row, steps in enumerate(lengths)]
        for depth in range(directions):
            outputs = []
            for layer in layers:
                if layer.layer == depth:
                    self.values.append([self.sequence(layer, row, of, side) for row, of in enumerate(below)])
                    outputs.append([[self.output(layer, step) for step in steps] for steps in self.values[-1]])
            below = [
                torch.stack([torch.cat(parts) for parts in zip(*several, strict=True)]) if several[0] else x[row, :0]
                for row, several in enumerate(zip(*outputs, strict=True))
            ]
        self.y = below

    @staticmethod
    def output(layer: LayerRecord, step: dict[str, Tensor]) -> Tensor:
        return step["y" if "output" not in step else "output"][0]

    @staticmethod
    def sequence(layer: LayerRecord, row: int, x: Tensor, side: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        graph = layer.cell.graph
        params = {name: torch.from_numpy(array) for name, array in layer.weights.items()}
        drawn = {name: torch.full((1, 1), draw.mean, dtype=torch.float64) for name, draw in graph.draws.items()}
        now = {name: torch.from_numpy(array[row : row + 1]) for name, array in layer.start.items()}
        steps: list[dict[str, Tensor]] = [{}] * len(x)
        order = range(len(x)) if layer.direction == "forward" else range(len(x) - 1, -1, -1)
        for t in order:
            beside = {name: array[row, t : t + 1] for name, array in side.items()}
            given = {"x": x[t : t + 1], **beside, **drawn, **params, **now}
            found = step_values(graph, given, layer.sizes, 1)
            named = {name: found[node] for name, node in values_of(graph).items()}
            # What a state hands on as it came: a value of its own.
            named |= {k: found[node].clone() for k, node in graph.new.items() if node.op in ("input", "state")}
            now = {name: named[name] for name in graph.new}
            steps[t] = named
        return steps

    def check(self, recording: Recording, loss: Tensor) -> None:
        """Values and gradients are those of the recording, and nothing lies past the end of a sequence."""
        for layer, sequences in zip(recording.layers, self.values, strict=True):
            for row, steps in enumerate(sequences):
                for name, array in layer.values.items():
                    where = f"{layer.cell.name}, layer {layer.layer}, {layer.direction}, sequence {row}: {name}"
                    assert not array[row, len(steps) :].any(), where
                    assert not layer.gradients[name][row, len(steps) :].any(), where
                    for t, step in enumerate(steps):
                        assert_close(array[row, t], step[name][0], SAME, f"{where}, step {t}")
                        (grad,) = torch.autograd.grad(loss, [step[name]], retain_graph=True, allow_unused=True)
                        grad = torch.zeros_like(step[name]) if grad is None else grad
                        assert_close(layer.gradients[name][row, t], grad[0], SAME, f"gradient of {where}, step {t}")


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def layer_of(cell: Any, **options: Any) -> Recurrent:
    """A layer of three inputs and four units in float64, with weights that are not small."""
    found = cells.get(cell)
    sizes = {name: 4 for name in found.graph.size_names if name not in ("input", "hidden")}
    made = Recurrent(found, 3, 4, sizes=sizes, dtype=torch.float64, **options).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def check_layer(layer: Recurrent, lengths: Sequence[int], time: int = 5) -> Recording:
    """A recording of a layer, with half the squared distance to a target as the loss, against the loop by hand."""
    graph = layer.cell.graph
    x, target = numbers(len(lengths), time, 3), numbers(len(lengths), time, layer.output_size)
    side = {
        name: 0.25 + torch.rand(len(lengths), time, 1 if leaf.size is None else 3, dtype=torch.float64)
        for name, leaf in graph.inputs.items()
        if name != "x" and name not in graph.draws
    }
    recording = record(layer, x, target, lengths=lengths, side=side or None)
    hand = ByHand(recording.layers, x, lengths, side)
    errors = [(y - target[row, : len(y)]).square().sum() for row, y in enumerate(hand.y) if len(y)]
    loss = torch.stack(errors).sum() / 2
    assert recording.loss is not None
    assert_close(recording.loss, loss, SAME)
    assert recording.lengths.tolist() == list(lengths)
    hand.check(recording, loss)
    return recording


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- every cell ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cells.names())
def test_every_value_of_every_cell_and_its_gradient(name: str) -> None:
    recording = check_layer(layer_of(name), [2, 5, 0])
    (found,) = recording.layers
    graph = found.cell.graph
    assert {*graph.new, "y"} <= {*found.values}
    assert {*found.values} == {*graph.names.values(), *graph.new, "y"}
    assert recording.left_out == ()
    assert (found.name, found.layer, found.direction) == ("", 0, "forward")


@pytest.mark.parametrize("name", ["lstm", "gru", "lem", "rwkv4", "qrnn", "mingru", "slstm", "higher_order_rnn", "lmu"])
@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}])
def test_layers_and_directions(name: str, options: dict[str, Any]) -> None:
    recording = check_layer(layer_of(name, **options), [3, 5, 1, 5])
    places = [(layer.layer, layer.direction) for layer in recording.layers]
    both = ["forward", "backward"][: 1 + options.get("bidirectional", False)]
    assert places == [(depth, way) for depth in range(options.get("num_layers", 1)) for way in both]


@pytest.mark.parametrize("backend", ["reference", "llvm"])
@pytest.mark.parametrize("name", ["lstm", "hgrn", "qrnn_f", "mogrifier_lstm"])
def test_on_any_backend(name: str, backend: str) -> None:
    with use_backend(backend):
        recording = check_layer(layer_of(name, bidirectional=True), [4, 2, 4])
    assert recording.backend == backend


def test_a_cell_that_was_just_typed() -> None:
    recording = check_layer(layer_of(read_cell(TYPED)), [5, 3])
    (found,) = recording.layers
    assert {*found.values} == {"h", "slow", "x_1", "y", "a_i", "a_z", "gate", "level", "unused"}
    assert found.values["level"].shape == (2, 5, 1), "one number per row"
    assert not found.gradients["unused"].any(), "the loss does not depend on it"


def test_the_transforms_of_cells() -> None:
    check_layer(layer_of(zoneout(cells.get("lstm"), 0.2)), [4, 5])
    check_layer(layer_of(everloop.layer_norm(cells.get("gru"))), [4, 5])
    check_layer(layer_of("elman", recurrent_dropout=0.3, zoneout=0.1), [4, 5])


def test_a_state_called_y_that_is_not_the_output() -> None:
    text = '@cell(states="h y", gates="i")\ndef odd(x, h, y, W, U):\n    return tanh(W.i @ x + y), h * 0.5\n'
    found = check_layer(layer_of(read_cell(text.replace("W, U", "W"))), [4]).layers[0]
    assert_close(found.values["y"][:, 1:], found.values["h"][:, :-1] / 2)
    assert_close(found.values["output"] if "output" in found.values else found.values["h"], found.values["h"])
