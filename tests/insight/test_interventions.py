"""Units that are held, against loops written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from everloop import Recurrent, cells, read_cell, use_backend
from everloop.insight.interventions import Hold, edit_state, intervene
from everloop.testing import FLOAT32, SAME, assert_close

BATCH, TIME, INPUTS, H = 2, 7, 3, 4


def layer_of(cell: object, seed: int = 0, **how: object) -> Recurrent:
    torch.manual_seed(seed)
    layer = Recurrent(cell, INPUTS, H, dtype=torch.float64, **how)  # type: ignore[arg-type]
    with torch.no_grad():
        for array in layer.parameters():
            array.normal_(std=0.7)
    return layer


def x_of(seed: int = 1) -> Tensor:
    return torch.randn(BATCH, TIME, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lstm_by_hand(layer: Recurrent, x: Tensor, hold_c: dict[int, float], hold_h: dict[int, float], steps: set[int]):
    part = layer.layers[0][0]  # type: ignore[index]
    W, U, b = part.W, part.U, part.b
    h, c, ys = torch.zeros(BATCH, H, dtype=x.dtype), torch.zeros(BATCH, H, dtype=x.dtype), []
    for t in range(TIME):
        i, f, g, o = (x[:, t] @ W.T + h @ U.T + b).split(H, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        for unit, value in hold_c.items() if t in steps else ():
            c = c.index_fill(1, torch.tensor([unit]), value)
        h = o.sigmoid() * c.tanh()
        for unit, value in hold_h.items() if t in steps else ():
            h = h.index_fill(1, torch.tensor([unit]), value)
        ys.append(h)
    return torch.stack(ys, 1), h, c


@pytest.mark.parametrize("backend", ["reference", "llvm"])
@pytest.mark.parametrize("steps", [None, [2, 3]], ids=["always", "twice"])
def test_an_lstm_with_units_held_is_the_loop_by_hand(backend: str, steps: list[int] | None) -> None:
    layer, x = layer_of("lstm"), x_of()
    with use_backend(backend), intervene(layer, Hold(1, 0.5, "c", steps=steps), Hold([0, 2], -0.25, steps=steps)):
        y, state = layer(x)
    expected = lstm_by_hand(layer, x, {1: 0.5}, {0: -0.25, 2: -0.25}, set(range(TIME) if steps is None else steps))
    for found, right in zip((y, state.h[0], state.c[0]), expected, strict=True):
        assert_close(found, right, SAME)


def test_gradients_flow_through_what_is_not_held() -> None:
    layer, x = layer_of("lstm"), x_of().requires_grad_()
    with intervene(layer, Hold(1, 0.5, "c")):
        y, _ = layer(x)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    (right,) = torch.autograd.grad(lstm_by_hand(layer, x, {1: 0.5}, {}, set(range(TIME)))[0].square().sum(), x)
    assert_close(found, right, SAME)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_can_be_held(name: str) -> None:
    """The held unit has its value at every step, and whatever the step puts out under that name; before the first held
    step nothing has changed."""
    cell = cells.get(name)
    torch.manual_seed(0)
    sizes = {size: H for size in cell.graph.size_names if size not in ("input", "hidden", *cell.graph.sizes)}
    layer = Recurrent(cell, H, H, sizes=sizes)
    x = torch.randn(1, 5, H, generator=torch.Generator().manual_seed(0))
    states = [state for state in cell.states if layer.layers[0][0].widths[state]]  # type: ignore[index]
    with use_backend("reference"):
        for state in states:
            _, _, (plain,) = layer(x, return_states=[state])
            with intervene(layer, Hold(0, 0.375, state, steps=range(2, 5))):
                _, _, (changed,) = layer(x, return_states=[state])
            assert (changed[state][:, 2:, 0] == 0.375).all()
            assert_close(changed[state][:, :2], plain[state][:, :2], FLOAT32)


def test_a_cell_typed_now_can_be_held() -> None:
    cell = read_cell(
        "@cell(states='h', gates='h')\ndef typed(x, h, W, U, b):\n    h = tanh(W.h @ x + U.h @ h + b.h)\n    return h\n"
    )
    layer, x = layer_of(cell), x_of()
    with intervene(layer, Hold(3)):
        y, _ = layer(x)
    part, h, ys = layer.layers[0][0], torch.zeros(BATCH, H, dtype=x.dtype), []  # type: ignore[index]
    for t in range(TIME):
        h = torch.tanh(x[:, t] @ part.W.T + h @ part.U.T + part.b)
        h = h.index_fill(1, torch.tensor([3]), 0.0)
        ys.append(h)
    assert_close(y, torch.stack(ys, 1), SAME)


def test_layers_above_see_what_is_held_below() -> None:
    layer, x = layer_of("gru", num_layers=2), x_of()
    with intervene(layer, Hold(range(H), 0.0)):
        y, _ = layer(x)
        again, _ = layer(torch.zeros_like(x))
    assert_close(y, again, SAME, "what the layer above makes of zeros")


def test_both_directions_and_ragged_batches() -> None:
    """Steps are those of the input, in the direction that reads from the end, too; packing changes nothing."""
    layer, x = layer_of("gru", bidirectional=True), x_of()
    with intervene(layer, Hold(2, 0.5, direction=1, steps=[1])):
        padded, _ = layer(x, lengths=[TIME, 3])
        alone, _ = layer(x[1:, :3])
    before, _ = layer(x, lengths=[TIME, 3])
    assert (padded[:, 1, H + 2] == 0.5).all()
    assert_close(padded[1:, :3], alone, SAME)
    assert_close(padded[..., :H], before[..., :H], SAME, "the other direction")
    assert_close(padded[:, 2:, H:], before[:, 2:, H:], SAME, "what was read before")
    assert (padded[:, 0, H:] != before[:, 0, H:]).any()


def test_afterwards_all_is_as_before() -> None:
    layer, x = layer_of("lstm"), x_of()
    y, _ = layer(x)
    with intervene(layer, Hold(0)):
        assert (layer(x)[0][..., 0] == 0).all()
    assert torch.equal(layer(x)[0], y)

    @intervene(layer, Hold(0))
    def stumble() -> None:
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        stumble()
    assert torch.equal(layer(x)[0], y)


def test_a_network_around_the_layers() -> None:
    network = torch.nn.ModuleDict({"low": layer_of("gru"), "high": Recurrent("lstm", H, 3, dtype=torch.float64)})
    with intervene(network, Hold(0, 0.25), Hold(2, 1.0, module="high")):
        low, _ = network["low"](x_of())
        high, _ = network["high"](low)
    assert (low[..., 0] == 0.25).all()
    assert (high[..., 2] == 1.0).all()


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        (Hold(4), r"state h: unit 4 came; expected one of its 4 units, counted from 0"),
        (Hold(0, state="q"), r"state: 'q' came; lstm has h, c"),
        (Hold(0, layer=1), r"layer 1, direction 0 came; there are 1 layers and 1 direction, counted from 0"),
        (Hold(0, module="up"), r"module: 'up' came; there are ''"),
    ],
)
def test_wrong_holds_are_refused(hold: Hold, message: str) -> None:
    with pytest.raises(ValueError, match=message), intervene(layer_of("lstm"), hold):
        pass


# Streams.


@pytest.mark.parametrize("cell", ["lstm", "gru", "sru", "mingru"])
def test_a_stream_goes_on_from_an_edited_state(cell: str) -> None:
    layer, x = layer_of(cell), x_of()
    stream = layer.stream()
    stream.push(x[0, :3].numpy())
    _, state = layer(x[:1, :3])
    name = next(name for name in state._fields if f"0.{name}" in stream.state)
    edit_state(stream, {f"0.{name}": {1: 0.5, 3: -1.0}})
    found = stream.push(x[0, 3:].numpy())
    array = getattr(state, name).clone()
    array[0, 0, 1], array[0, 0, 3] = 0.5, -1.0
    edited = state._replace(**{name: array})
    y, _ = layer(x[:1, 3:], edited)
    assert_close(found, y[0], SAME)


def test_a_whole_array_of_a_batch_of_streams() -> None:
    layer = layer_of("lstm")
    stream = layer.stream(batch=2)
    stream.push(x_of().numpy())
    edit_state(stream, {"0.c": np.arange(H)})
    assert_close(stream.state["0.c"], np.tile(np.arange(H), (2, 1)), SAME)
    edit_state(stream, {"0.c": {0: 7}})
    assert_close(stream.state["0.c"][:, 0], np.full(2, 7), SAME)


def test_wrong_edits_are_refused() -> None:
    stream = layer_of("lstm").stream()
    with pytest.raises(ValueError, match=r"state: '0\.q' came; the stream has 0\.h, 0\.c|0\.c, 0\.h"):
        edit_state(stream, {"0.q": {0: 1}})
    with pytest.raises(ValueError, match="unit 9 came; expected one of its 4 units"):
        edit_state(stream, {"0.h": {9: 1}})
    with pytest.raises(ValueError, match=r"state 0\.h: an array of shape \(2,\) came; expected \(4,\)"):
        edit_state(stream, {"0.h": [1, 2]})
