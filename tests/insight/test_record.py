"""`record`: every value of every step and its gradient, against a loop by hand that torch differentiates."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import everloop.insight.recording
import everloop.nn
from everloop import Recurrent, cells, read_cell, record, use_backend, zoneout
from everloop.backends._spelling import SPELLING, cumulative
from everloop.insight import LayerRecord, Recording
from everloop.insight.probe import _probed, values_of
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph
from everloop.testing import FLOAT32, SAME, assert_close
from everloop.testing.cells import with_made

TYPED = """
@cell(states="h slow", gates="i z", start={"slow": 0.5})
def typed(x, h, slow, W, U, b):
    a = W @ x + U @ h + b
    gate = sigmoid(a.i + mean(h))
    level = largest(tanh(a.z))
    unused = gate * 2
    slow = gate * slow + (1 - gate) * shift(a.i, 1) * level
    return tanh(slow + a.z), slow
"""


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
        found[node] = made if made.requires_grad and node.args else made.clone()
        if not found[node].requires_grad:
            found[node] = found[node].detach().requires_grad_()
    return found


def whole(graph: Graph, name: str, given: dict[str, Tensor]) -> Tensor:
    """A matrix [R, C], whether or not it is kept as diagonal blocks."""
    blocks = graph.params[name].blocks
    return torch.block_diag(*given[name].chunk(blocks)) if blocks > 1 else given[name]


class ByHand:
    """The layers of a recording once more, one sequence and one step after another, by the weights that it holds."""

    def __init__(
        self, layers: Sequence[LayerRecord], x: Tensor, lengths: Sequence[int], side: dict[str, Tensor]
    ) -> None:
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
        every = [value for layer in self.values for steps in layer for step in steps for value in step.values()]
        grads = torch.autograd.grad(loss, every, allow_unused=True)
        gradient = dict(zip(every, grads, strict=True))
        for layer, sequences in zip(recording.layers, self.values, strict=True):
            for name in layer.values:
                what = f"{layer.cell.name}, layer {layer.layer}, {layer.direction}: {name}"
                values, gradients = np.zeros_like(layer.values[name]), np.zeros_like(layer.values[name])
                for row, steps in enumerate(sequences):
                    for t, step in enumerate(steps):
                        found = gradient[step[name]]
                        values[row, t] = step[name].detach()[0]
                        gradients[row, t] = 0 if found is None else found[0]
                assert_close(layer.values[name], values, SAME, what)
                assert_close(layer.gradients[name], gradients, SAME, f"{what}, its gradient")


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
    for row, steps in enumerate(lengths):
        x[row, steps:] = torch.nan
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
@pytest.mark.parametrize(
    "options", [{"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]
)
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
    assert {*found.values} == {"h", "slow", "y", "a_i", "a_z", "gate", "level", "unused", "v0_1"}
    assert found.values["level"].shape == (2, 5, 1), "one number per row"
    assert not found.gradients["unused"].any(), "the loss does not depend on it"


def test_the_transforms_of_cells() -> None:
    check_layer(layer_of(zoneout(cells.get("lstm"), 0.2)), [4, 5])
    check_layer(layer_of(everloop.layer_norm(cells.get("gru"))), [4, 5])
    check_layer(layer_of("elman", recurrent_dropout=0.3, zoneout=0.1), [4, 5])


def test_a_state_called_y_that_is_not_the_output() -> None:
    text = '@cell(states="h y", gates="i")\ndef odd(x, h, y, W):\n    return tanh(W.i @ x + y), h * 0.5\n'
    found = check_layer(layer_of(read_cell(text)), [5]).layers[0]
    assert_close(found.values["y"][:, 1:], found.values["h"][:, :-1] / 2)
    assert_close(found.values["output"], found.values["h"])


# -- forms of input and output ---------------------------------------------------------------------------------------


def same(one: Recording, other: Recording, name: str | None = None) -> None:
    """Two recordings of the same numbers."""
    for a, b in zip(one.layers, other.layers, strict=True):
        assert (a.layer, a.direction, a.values.keys()) == (b.layer, b.direction, b.values.keys())
        if name is not None:
            assert (a.name, b.name) == (name, "")
        assert_close(a.x, b.x)
        for key in a.values:
            assert_close(a.values[key], b.values[key], SAME, key)
            assert_close(a.gradients[key], b.gradients[key], SAME, f"gradient of {key}")
        for key in a.start:
            assert_close(a.start[key], b.start[key], SAME, f"start of {key}")


def test_values_are_those_of_the_history() -> None:
    layer, x = layer_of("lstm", num_layers=2, bidirectional=True), numbers(3, 5, 3)
    recording = record(layer, x, lengths=[5, 2, 3])
    y, state, history = layer(x, lengths=[5, 2, 3], return_states=True)
    for found, expected in zip(recording.layers, history, strict=True):
        for name, array in expected.items():
            assert_close(found.values[name], array, SAME, name)
        assert found.gradients == {}
    assert recording.loss is None
    assert_close(recording.output[0], y)
    assert_close(recording.output[1].h, state.h)
    assert not recording.output[0].requires_grad
    assert recording.steps == ("1", "2", "3", "4", "5")


def test_weights_sizes_and_first_states() -> None:
    layer, x = layer_of("projection_lstm"), numbers(2, 4, 3)
    state = type(layer.start_state(2))(numbers(1, 2, 4), numbers(1, 2, 4))
    (found,) = record(layer, x, state=state).layers
    assert found.cell is layer.cell
    assert found.sizes == layer.sizes
    assert found.weights.keys() == found.cell.graph.params.keys()
    assert_close(np.concatenate([found.weights[f"U.{gate}"] for gate in "ifgo"]), layer.layers[0][0].U)
    assert_close(found.start["c"], state.c[0])
    assert_close(found.x, x)


def test_packed_nested_and_masked_batches() -> None:
    layer, lengths = layer_of("gru", num_layers=2, bidirectional=True), [2, 5, 3]
    x, state, target = numbers(3, 5, 3), numbers(4, 3, 4), numbers(3, 5, 8)
    parts, targets = ([one[row, :n] for row, n in enumerate(lengths)] for one in (x, target))
    plain = record(layer, x, target, lengths=lengths, state=state)
    packed, wanted = (pack_sequence(several, enforce_sorted=False) for several in (parts, targets))
    same(record(layer, packed, wanted, state=state), plain)
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged)

    def loss(output: Any, _: Any) -> Tensor:
        errors = [(y - one).square().sum() for y, one in zip(output[0].unbind(), targets, strict=True)]
        return torch.stack(errors).sum() / 2

    same(record(layer, nested, loss=loss, state=state), plain)
    # The steps that count lie anywhere: their values lie where they do.
    mask = torch.tensor([[False, True, False, True, False], [True] * 5, [False, False, True, True, True]])
    spread = numbers(3, 5, 3)
    spread[mask] = torch.cat(parts)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer

        def forward(self, given: Tensor) -> Tensor:
            return self.inner(given, state, mask=mask)[0]

    aim = torch.zeros(3, 5, 8, dtype=torch.float64)
    aim[mask] = torch.cat(targets)
    found = record(Masked(), spread, aim)
    assert found.lengths.tolist() == [4, 5, 5]
    for one, other in zip(found.layers, plain.layers, strict=True):
        assert one.name == "inner"
        for name, values in other.values.items():
            inside = np.arange(5) < np.array(lengths)[:, None]
            assert_close(one.values[name][mask.numpy()], values[inside], SAME, name)
            assert_close(one.gradients[name][mask.numpy()], other.gradients[name][inside], SAME, name)
            assert not one.values[name][~mask.numpy()].any()


@pytest.mark.parametrize("keep_order", [True, False])
def test_a_layer_that_reads_from_the_end(keep_order: bool) -> None:
    """Step t belongs to input t, however the output comes."""
    layer = layer_of("lstm", reverse=True, keep_order=keep_order)
    x, target = numbers(2, 4, 3), numbers(2, 4, 4)
    found = record(layer, x, target if keep_order else target.flip(1)).layers[0]
    assert found.direction == "backward"
    both = layer_of("lstm", bidirectional=True)
    both.layers[0][1].load_state_dict(layer.layers[0][0].state_dict())
    expected = record(both, x, loss=lambda output, _: (output[0][..., 4:] - target).square().sum() / 2).layers[1]
    for name, values in expected.values.items():
        assert_close(found.values[name], values, SAME, name)
        assert_close(found.gradients[name], expected.gradients[name], SAME, name)


def test_what_training_draws_is_recorded() -> None:
    layer, x = layer_of("lstm", zoneout=0.5, dropout=0.3, num_layers=2, weight_drop=0.2).train(), numbers(2, 6, 3)
    recording = record(layer, x, numbers(2, 6, 4))
    for found in recording.layers:
        before = np.concatenate([found.start["c"][:, None], found.values["c"][:, :-1]], 1)
        kept, new = found.values["c"] == before, found.values["c"] == found.values["c_new"]
        assert (kept | new).all()
        assert 0.2 < kept.mean() < 0.8
    assert layer.training
    assert_close(recording.output[0], recording.layers[1].values["y"])


def test_learned_starts_and_parametrized_weights() -> None:
    layer = layer_of("gru", learn_start=True)
    torch.nn.utils.parametrizations.orthogonal(layer.layers[0][0], "U")
    (found,) = check_layer(layer, [3, 5]).layers
    assert_close(found.start["h"][0], layer.layers[0][0].start_h)
    assert_close(np.concatenate([found.weights[f"U.{gate}"] for gate in "rzn"]), layer.layers[0][0].U)


def test_what_a_network_watches_itself() -> None:
    class Gates(Recurrent):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            y, _, history = super().forward(x, return_states=["f", "c"])
            return y + history[0]["f"] * history[1]["c"]

    layer, x = Gates("lstm", 3, 4, 2, dtype=torch.float64), numbers(2, 5, 3)
    target = numbers(2, 5, 4)
    for names in (None, ["h"]):
        recording = record(layer, x, target, names=names)
        assert_close(recording.output, layer(x))
        assert {*recording.layers[0].values} == ({"h"} if names else {*recording.layers[0].gradients})
    whole = record(layer, x, target)
    below, above = whole.layers
    apart = whole.output.numpy() - target.numpy()
    assert_close(above.gradients["c"][:, -1], (apart * below.values["f"] + apart * through(above))[:, -1])


def through(found: LayerRecord) -> np.ndarray:
    """dh / dc of the last step of an LSTM."""
    return found.values["o"] * (1 - np.tanh(found.values["c"]) ** 2)


@pytest.mark.parametrize(("batch", "time", "lengths"), [(2, 0, None), (0, 4, None), (2, 3, [0, 0])])
def test_nothing_to_do(batch: int, time: int, lengths: list[int] | None) -> None:
    layer = layer_of("gru", num_layers=2, bidirectional=True)
    recording = record(layer, numbers(batch, time, 3), numbers(batch, time, 8), lengths=lengths)
    assert recording.loss == 0
    assert recording.lengths.tolist() == [0 if lengths else time] * batch
    for found in recording.layers:
        assert {array.shape for array in found.gradients.values()} == {(batch, time, 4)}
        assert not any(array.any() for array in (*found.values.values(), *found.gradients.values()))


def test_types_of_numbers() -> None:
    layer = Recurrent("lstm", 3, 4)
    found = record(layer, torch.randn(2, 4, 3), torch.randn(2, 4, 4)).layers[0]
    assert {array.dtype for array in (*found.values.values(), *found.gradients.values())} == {np.dtype("float32")}
    exact = layer_of("lstm")
    exact.load_state_dict(layer.state_dict())
    expected = record(exact, torch.from_numpy(found.x).double()).layers[0]
    assert_close(found.values["c"], expected.values["c"], FLOAT32)
    half = record(layer.bfloat16(), torch.randn(2, 4, 3).bfloat16()).layers[0]
    assert half.values["h"].dtype == np.float32, "NumPy has no bfloat16"


# -- layers of torch -------------------------------------------------------------------------------------------------

MODULES: dict[str, Callable[[Any], nn.Module]] = {
    "lstm": lambda of: of.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
    "lstm without bias": lambda of: of.LSTM(3, 4, bias=False),
    "lstm with a projection": lambda of: of.LSTM(3, 4, 2, proj_size=2, batch_first=True),
    "gru": lambda of: of.GRU(3, 4, 2, bidirectional=True),
    "rnn": lambda of: of.RNN(3, 4, batch_first=True),
    "rnn with relu": lambda of: of.RNN(3, 4, nonlinearity="relu", bidirectional=True),
}


@pytest.mark.parametrize("time", [1, 6])
@pytest.mark.parametrize("home", [everloop.nn, nn], ids=["ours", "torch"])
@pytest.mark.parametrize("kind", MODULES)
def test_layers_of_torch(kind: str, home: Any, time: int) -> None:
    module = MODULES[kind](home).double()
    before = type(module)
    x, target = numbers(3, time, 3), numbers(3, time, module(numbers(3, time, 3))[0].shape[-1])
    shown, wanted = (x, target) if module.batch_first else (x.transpose(0, 1), target.transpose(0, 1))
    recording = record(module, shown, wanted)
    assert type(module) is before
    assert_close(recording.output[0], module(shown)[0])
    hand = ByHand(recording.layers, x, [time] * 3, {})
    hand.check(recording, (torch.stack(hand.y) - target).square().sum() / 2)
    assert recording.lengths.tolist() == [time] * 3


def test_packed_and_single_sequences_of_torch() -> None:
    module, x = nn.LSTM(3, 4, 2, bidirectional=True).double(), numbers(2, 5, 3)
    packed = pack_sequence([x[0, :2], x[1]], enforce_sorted=False)
    target = pack_sequence([numbers(2, 8), numbers(5, 8)], enforce_sorted=False)
    recording = record(module, packed, target)
    assert_close(recording.output[0].data, module(packed)[0].data)
    hand = ByHand(recording.layers, x, [2, 5], {})
    hand.check(recording, (torch.cat(hand.y) - torch.cat(unpacked(target))).square().sum() / 2)
    alone = record(module, x[1], torch.zeros(5, 8, dtype=torch.float64))
    assert_close(alone.layers[0].x, x[1:])
    assert_close(alone.layers[3].values["c"], recording.layers[3].values["c"][1:])


def unpacked(packed: Any) -> list[Tensor]:
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    return [row[:n] for row, n in zip(padded, lengths.tolist(), strict=True)]


class Decoder(nn.Module):
    """Step by step, each output being the next input, as many decoders of torch are written."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"cell": cell})
        self.out = nn.Linear(4, 3).double()

    def forward(self, x: Tensor, steps: int) -> Tensor:
        state, made = None, []
        for _ in range(steps):
            cell: Any = self.inner["cell"]
            if isinstance(cell, nn.RNNCellBase):
                state = cell(x, state)
                h = state[0] if isinstance(state, tuple) else state
            else:
                y, state = cell(x[:, None], state)
                h = y[:, 0]
            x = self.out(h)
            made.append(x)
        return torch.stack(made, 1)


CELLS: dict[str, Callable[[], nn.Module]] = {
    "Recurrent": lambda: layer_of("lstm"),
    "LSTM": lambda: nn.LSTM(3, 4, batch_first=True).double(),
    "LSTMCell": lambda: nn.LSTMCell(3, 4).double(),
    "GRUCell": lambda: nn.GRUCell(3, 4).double(),
    "RNNCell": lambda: nn.RNNCell(3, 4, nonlinearity="relu").double(),
}


@pytest.mark.parametrize("kind", CELLS)
def test_the_loop_of_a_decoder_is_one_sequence(kind: str) -> None:
    decoder = Decoder(CELLS[kind]())
    first, target = numbers(2, 3), numbers(2, 6, 3)
    plain = decoder(first, 6)
    recording = record(decoder, (first, 6), loss=lambda output, _: (output - target).square().sum() / 2)
    (found,) = recording.layers
    assert found.name == "inner.cell"
    assert_close(recording.output, plain)
    assert found.values["h"].shape == (2, 6, 4)
    assert_close(found.x[:, 1:], plain[:, :-1], SAME, "what is read is what was put out before")
    assert recording.lengths.tolist() == [6, 6]
    # By hand: the loop with the loss, through the linear layer and into the next step.
    losses, by_step = torch.zeros((), dtype=torch.float64), []
    params = {name: torch.from_numpy(array) for name, array in found.weights.items()}
    state, x = {name: torch.from_numpy(array) for name, array in found.start.items()}, first
    for t in range(6):
        made = step_values(found.cell.graph, {"x": x, **params, **state}, found.sizes, 2)
        by_step.append({name: made[node] for name, node in values_of(found.cell.graph).items()})
        state = {name: by_step[-1][name] for name in found.cell.graph.new}
        x = decoder.out(by_step[-1]["h"])
        losses = losses + (x - target[:, t]).square().sum() / 2
    for name, array in found.gradients.items():
        grads = torch.autograd.grad(losses, [step[name] for step in by_step], retain_graph=True)
        assert_close(array, torch.stack(grads, 1), SAME, name)


def test_calls_with_other_batches_are_records_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer_of("gru")

        def forward(self, x: Tensor) -> Tensor:
            _, state = self.layer(x)
            many = type(state)(*(array.repeat_interleave(3, 1) for array in state))
            y, _ = self.layer(x.new_ones(3 * len(x), 1, 3), many)
            return y

    recording = record(Twice(), numbers(2, 5, 3), numbers(6, 1, 4))
    assert [(layer.name, layer.x.shape) for layer in recording.layers] == [
        ("layer", (2, 5, 3)),
        ("layer (2)", (6, 1, 3)),
    ]
    assert_close(recording.layers[1].start["h"], recording.layers[0].values["h"][:, -1].repeat(3, 0))
    assert recording.layers[0].gradients["h"][:, 0].any(), "through the second call into the first"


# -- what is kept, and what it takes ---------------------------------------------------------------------------------


def test_names_pick() -> None:
    layer, x = layer_of("lstm"), numbers(2, 5, 3)
    whole = record(layer, x, numbers(2, 5, 4)).layers[0]
    some = record(layer, x, torch.zeros(2, 5, 4, dtype=torch.float64), names=["f", "c"])
    assert {*some.layers[0].values} == {*some.layers[0].gradients} == {"c", "f"}
    assert_close(some.layers[0].values["f"], whole.values["f"])
    assert some.left_out == ()
    assert record(layer, x, numbers(2, 5, 4), names=[]).layers[0].gradients == {}
    with pytest.raises(ValueError, match="names: 'q' came; there are h, c, y, i, f, g, o, a_i"):
        record(layer, x, names=["q"])
    with pytest.raises(TypeError, match="names='c' came; expected a list of names"):
        record(layer, x, names="c")


def test_memory_is_bounded_and_said() -> None:
    layer, x, target = layer_of("lstm", num_layers=2), numbers(2, 5, 3), numbers(2, 5, 4)
    whole = record(layer, x, target)
    step = 2 * 5 * 8  # bytes of a feature
    states = step * (3 + 4) + 2 * 2 * step * 3 * 4  # x of both layers; h, c and y, and their gradients
    room = states + 2 * 2 * step * 2 * 4
    some = record(layer, x, target, most=room)
    assert some.left_out == ("a_o", "a_g", "a_f", "a_i", "o", "g")
    assert {*some.layers[0].values} == {*some.layers[1].values} == {"h", "c", "y", "i", "f"}
    for one, other in zip(some.layers, whole.layers, strict=True):
        assert_close(one.gradients["f"], other.gradients["f"])
    assert kept_bytes(some) == room
    assert record(layer, x, target, most=kept_bytes(whole)).left_out == ()
    with pytest.raises(ValueError, match=rf"0\.0 MB have come .* names=\[\.\.\.\].* with most={states} or more"):
        record(layer, x, target, most=states - 1)
    with pytest.raises(ValueError, match="ask for fewer values"):
        record(layer, x, target, names=["h", "f"], most=step * 7)


def kept_bytes(recording: Recording) -> int:
    return sum(
        array.nbytes
        for layer in recording.layers
        for array in (layer.x, *layer.values.values(), *layer.gradients.values())
    )


def test_a_long_loop_gives_up_what_it_has_no_room_for() -> None:
    decoder = Decoder(layer_of("lstm"))
    step = 2 * 8
    room = 8 * step * (3 + 5 * 4)
    recording = record(decoder, (numbers(2, 3), 8), most=room)
    assert recording.left_out == ("a_o", "a_g", "a_f", "a_i", "o", "g")
    assert recording.layers[0].values["f"].shape == (2, 8, 4)
    assert kept_bytes(recording) == room


def test_nothing_is_changed() -> None:
    network = nn.ModuleDict({"a": layer_of("lstm"), "b": nn.LSTM(3, 4).double(), "c": nn.GRUCell(3, 4).double()})
    before = {name: (type(module), {**vars(module)}) for name, module in network.named_modules()}
    x = numbers(2, 5, 3).requires_grad_()
    record(network["a"], x, numbers(2, 5, 4))
    record(network["b"], x, numbers(2, 5, 4))
    for bad in ("a", "b"):
        with pytest.raises((RuntimeError, ValueError)):
            record(network[bad], numbers(2, 5, 7), numbers(2, 5, 4))
    for name, module in network.named_modules():
        kind, held = before[name]
        assert type(module) is kind
        assert vars(module).keys() == held.keys()
        assert all(vars(module)[key] is value for key, value in held.items() if key != "training")
    assert x.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())
    layer: Any = network["a"]
    assert {*layer.layers[0][0]._watching} == {()}


def test_a_recording_stays_as_it_was() -> None:
    layer, x = layer_of("lstm", learn_start=True), numbers(1, 5, 3)
    recording = record(layer, x, numbers(1, 5, 4))
    (found,) = recording.layers
    before = copy.deepcopy(found)
    with torch.no_grad():
        for array in (x, recording.output[0], *layer.parameters()):
            array += 1
    found.values["y"] += 1
    for part in ("weights", "start", "gradients"):
        for name, array in getattr(found, part).items():
            assert (array == getattr(before, part)[name]).all(), name
    assert (found.x == before.x).all()
    assert (found.values["h"] == before.values["h"]).all()


def test_in_a_mode_without_gradients() -> None:
    layer, x, target = layer_of("gru"), numbers(2, 5, 3), numbers(2, 5, 4)
    expected = record(layer, x, target)
    with torch.no_grad():
        same(record(layer, x, target), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        same(record(layer, x, target), expected)


def test_other_threads_go_on_meanwhile() -> None:
    layer, x, target = layer_of("gru"), numbers(2, 5, 3), numbers(2, 5, 4)
    expected = record(layer, x, target)
    y = layer(x)[0]
    inside, done = threading.Event(), threading.Event()

    def slow(output: Any, _: Any) -> Tensor:
        inside.set()
        assert done.wait(30)
        return (output[0] - target).square().sum() / 2

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(record, layer, x, loss=slow)
        assert inside.wait(30)
        second = pool.submit(record, layer, x, target)
        assert torch.equal(layer(x)[0], y)
        assert not second.done(), "one recording at a time"
        done.set()
        same(first.result(30), expected)
        same(second.result(30), expected)


def test_compiled_models() -> None:
    layer, x, target = layer_of("gru"), numbers(2, 5, 3), numbers(2, 5, 4)
    same(record(torch.compile(layer), x, target), record(layer, x, target))


def test_kernels_are_made_once() -> None:
    record(layer_of("mgu"), numbers(2, 5, 3), numbers(2, 5, 4))
    before = _probed.cache_info().misses
    record(layer_of("mgu"), numbers(3, 4, 3), numbers(3, 4, 4))
    assert _probed.cache_info().misses == before


# -- what is refused -------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    layer, x = layer_of("gru"), numbers(2, 5, 3)
    with pytest.raises(
        TypeError, match="a str came; expected a layer, a module of torch with layers in it, or a fitted"
    ):
        record("gru", x)
    with pytest.raises(ValueError, match="no recurrent layer ran in this Linear"):
        record(nn.Linear(3, 4).double(), x)
    with pytest.raises(
        ValueError, match=r"the target is \(2, 5, 3\) and the output \(2, 5, 4\); expected tensors of one"
    ):
        record(layer, x, x)
    with pytest.raises(ValueError, match=r"the loss is \(2, 5, 4\); expected a scalar that follows from"):
        record(layer, x, loss=lambda output, _: output[0])
    with pytest.raises(ValueError, match=r"the loss is \(\); expected a scalar that follows from"):
        record(layer, x, loss=lambda output, _: x.sum())
    with pytest.raises(TypeError, match="lengths= came with a LSTM; only a Recurrent takes it"):
        record(nn.LSTM(3, 4).double(), x, lengths=[5, 5])
    with pytest.raises(ValueError, match="lengths: values from 5 to 6 came"):
        record(layer, x, lengths=[5, 6])
    module = nn.LSTM(3, 4)
    with (
        torch.autocast("cpu"),
        pytest.raises(ValueError, match="torch itself runs this LSTM, where nothing can be read"),
    ):
        record(module, torch.randn(5, 2, 3))


def test_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "insight.md"
    ((code, shown),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```\n", page.read_text("utf-8"), re.DOTALL)
    exec(compile(code, page.name, "exec"), {})
    assert capsys.readouterr().out == shown


def test_it_can_be_imported_from_where_it_is_used() -> None:
    assert everloop.record is everloop.insight.record is everloop.insight.recording.record


def test_compiled_functions_are_compiled_again_after_threads_have_recorded() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    layer, x = Recurrent("lstm", 3, 4), torch.randn(2, 5, 3)
    # Loads the compiler, as a recording leaves it alone where nobody has.
    torch.compile(torch.sin, backend=backend)(x)
    started = threading.Barrier(4)

    def recording() -> None:
        started.wait()
        for _ in range(5):
            record(layer, x)

    threads = [threading.Thread(target=recording) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    graphs.clear()
    torch.compile(torch.cos, backend=backend)(x)
    assert len(graphs) == 1
