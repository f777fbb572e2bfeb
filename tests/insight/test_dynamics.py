"""Gradients through time: against closed forms, finite differences and what is known of linear systems."""

from __future__ import annotations

from math import inf, log

import numpy as np
import pytest
import torch

from everloop import Recurrent, cells, read_cell, use_backend
from everloop.insight import LayerRecord, record
from everloop.insight.alone import alone, turned
from everloop.insight.dynamics import (
    clipping,
    gradient_norms,
    half_life,
    lyapunov,
    reach,
    saturation,
    spectrum,
    step_jacobians,
)
from everloop.insight.gates import EDGES
from everloop.testing import FINITE_DIFFERENCES, FINITE_STEP, FLOAT32, SAME, assert_close

LINEAR = """
@cell(states="h", gates="h")
def linear(x, h, W, U):
    return W.h @ x + U.h @ h
"""

TYPED = """
@cell(states="h c", gates="f g")
def typed(x, h, c, W, U, u, b):
    f = sigmoid(W.f @ x + U.f @ h + u.f * c + b.f)
    c = f * c + (1 - f) * tanh(W.g @ x + U.g @ h + b.g)
    return tanh(c) * f, c
"""

CELLS = ["elman", "lstm", "gru", "lru", "qrnn", "cornn", "peephole_lstm", "mogrifier_lstm", read_cell(TYPED)]


def layer_of(cell, inputs: int = 3, hidden: int = 4, **options) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, inputs, hidden, dtype=torch.float64, **options)


def input_of(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def weight(layer: Recurrent, name: str) -> torch.Tensor:
    return dict(layer.named_parameters())[f"layers.0.0.{name}"].detach()


def fill(layer: Recurrent, **values) -> None:
    with torch.no_grad():
        for name, value in values.items():
            weight(layer, name).copy_(torch.as_tensor(value, dtype=torch.float64))


# -- Jacobians --------------------------------------------------------------------------------------------------------


def test_the_jacobian_of_an_elman_network_is_known() -> None:
    layer, x = layer_of("elman"), input_of(2, 6, 3)
    h = layer(x)[0].detach()
    expected = (1 - h**2)[..., None] * weight(layer, "U")
    assert_close(step_jacobians(layer, x), expected)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: getattr(cell, "name", cell))
def test_jacobians_are_finite_differences(cell) -> None:
    layer, x = layer_of(cell), input_of(2, 5, 3)
    state = layer(input_of(2, 3, 3))[1]
    found = step_jacobians(layer, x, state)
    with torch.no_grad():
        for step in range(x.shape[1]):
            columns = [differences(layer, x[:, step : step + 1], state, part, unit) for part, unit in units(state)]
            assert_close(found[:, step], torch.stack(columns, -1), FINITE_DIFFERENCES, f"step {step}")
            _, state = layer(x[:, step : step + 1], state)


def units(state) -> list[tuple[int, int]]:
    return [(part, unit) for part, array in enumerate(state) for unit in range(array.shape[-1])]


def differences(layer: Recurrent, x: torch.Tensor, state, part: int, unit: int) -> torch.Tensor:
    """The change of all new states, [B, N], as one old one changes."""
    ends = []
    for sign in (1, -1):
        moved = [array.clone() for array in state]
        moved[part][..., unit] += sign * FINITE_STEP
        ends.append(torch.cat([array[0] for array in layer(x, type(state)(*moved))[1]], -1))
    return (ends[0] - ends[1]) / (2 * FINITE_STEP)


def test_layers_stand_side_by_side() -> None:
    """The lower layer does not hear the upper one; each by itself is a layer by itself."""
    stack, x = layer_of(["gru", "elman"], 3, [4, 2]), input_of(1, 5, 3)
    found = step_jacobians(stack, x)
    assert found.shape == (1, 5, 6, 6)
    assert not found[..., :4, 4:].any()
    assert found[..., 4:, :4].any()
    lower, upper = record(stack, x).layers
    assert_close(found[..., :4, :4], step_jacobians(*alone(lower)))
    assert_close(found[..., 4:, 4:], step_jacobians(*alone(upper)))


def test_backends_agree() -> None:
    layer, x = layer_of("lstm"), input_of(2, 5, 3)
    with use_backend("reference"):
        expected = step_jacobians(layer, x)
    assert_close(step_jacobians(layer, x), expected)


def test_side_inputs_count() -> None:
    layer, x = layer_of("time_aware_lstm"), input_of(2, 4, 3)
    gaps = {"dt": torch.rand(2, 4, generator=torch.Generator().manual_seed(2)).double() * 5}
    with_gaps = step_jacobians(layer, x, side=gaps)
    assert not np.allclose(with_gaps, step_jacobians(layer, x))
    state = layer.start_state(2)
    for step in range(4):
        given = {"dt": gaps["dt"][:, step : step + 1]}
        assert_close(step_jacobians(layer, x[:, step : step + 1], state, side=given)[:, 0], with_gaps[:, step])
        _, state = layer(x[:, step : step + 1], state, side=given)


def test_noise_is_off_and_the_layer_stays_as_it_was() -> None:
    layer, x = layer_of("lstm", zoneout=0.5), input_of(2, 5, 3)
    frozen = next(layer.parameters()).requires_grad_(False)
    assert layer.training
    first = step_jacobians(layer, x)
    assert layer.training
    assert [parameter.requires_grad for parameter in layer.parameters()].count(False) == 1
    assert not frozen.requires_grad
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert_close(step_jacobians(layer, x), first)
    with torch.no_grad():
        assert_close(step_jacobians(layer.eval(), x), first)


@pytest.mark.parametrize("way", ["bidirectional", "reverse"])
def test_a_direction_has_to_be_chosen(way: str) -> None:
    layer, x = layer_of("gru", **{way: True}), input_of(2, 5, 3)
    with pytest.raises(ValueError, match=f"{way}=True came.*alone"):
        step_jacobians(layer, x)
    one = record(layer, x).layers[-1]
    assert one.direction == "backward"
    forward = layer_of("gru")
    with torch.no_grad():
        for theirs, own in zip(layer.layers[0][-1].parameters(), forward.parameters(), strict=True):
            own.copy_(theirs)
    assert_close(step_jacobians(*alone(one)), step_jacobians(forward, x.flip(1)))


def test_a_ragged_batch_is_turned_row_by_row() -> None:
    rows = np.arange(8).reshape(2, 4)
    assert turned(rows, [4, 2]).tolist() == [[3, 2, 1, 0], [5, 4, 6, 7]]
    assert turned(rows).tolist() == [[3, 2, 1, 0], [7, 6, 5, 4]]


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_has_jacobians_and_gates(name: str) -> None:
    graph = cells.get(name).graph
    open_ = {size: 2 for size in graph.size_names if size not in ("input", "hidden", *graph.sizes)}
    layer, x = layer_of(name, 4, 4, sizes=open_), input_of(2, 4, 4)
    with use_backend("reference"):
        (one,) = record(layer, x).layers
        assert_close(step_jacobians(*alone(one)), step_jacobians(layer, x))
    assert set(half_life(one)) <= set(graph.states)
    assert all((steps >= 0).all() for steps in half_life(one).values())
    gates = saturation(one)
    assert len(gates) == sum(node.op in EDGES for node in graph.nodes)
    assert all(((gate.low >= 0) & (gate.low + gate.high <= 1)).all() for gate in gates.values())


# -- spectrum and growth ----------------------------------------------------------------------------------------------


def test_the_spectrum_of_known_matrices() -> None:
    turn = 0.5 * np.array([[0.0, -1.0], [1.0, 0.0]])
    shear = np.array([[1.0, 1.0], [0.0, 1.0]])
    found = spectrum(np.stack([turn, np.diag([-0.2, 0.9]), shear])[None])
    assert_close(found.moduli, [[[0.5, 0.5], [0.9, 0.2], [1.0, 1.0]]])
    golden = (1 + 5**0.5) / 2
    assert_close(found.singular, [[[0.5, 0.5], [0.9, 0.2], [golden, 1 / golden]]])


def test_the_exponents_of_a_linear_system_are_the_logarithms_of_its_eigenvalues() -> None:
    """More steps than are looked at together; the directions have turned after some of them."""
    basis, _ = np.linalg.qr(input_of(4, 4).numpy())
    skewed = basis @ np.array([[1.1, 0.3, 0, 0.2], [0, -0.8, 0.1, 0], [0, 0, 0.4, 0.5], [0, 0, 0, 0.1]]) @ basis.T
    layer = layer_of(read_cell(LINEAR))
    fill(layer, U=skewed)
    found = lyapunov(layer, input_of(2, 200, 3), skip=150)
    assert_close(found, np.log([[1.1, 0.8, 0.4, 0.1]] * 2))
    assert_close(lyapunov(layer, input_of(2, 200, 3), skip=150, count=2), np.log([[1.1, 0.8]] * 2))


@pytest.mark.parametrize("cell", ["elman", "gru", read_cell(TYPED)], ids=["elman", "gru", "typed"])
def test_the_exponents_add_up_to_the_growth_of_volume(cell) -> None:
    layer, x = layer_of(cell), input_of(2, 100, 3)
    _, volume = np.linalg.slogdet(step_jacobians(layer, x))
    assert_close(lyapunov(layer, x).sum(-1), volume.mean(1))


def test_what_is_not_handed_on_dies_at_once() -> None:
    """The hidden state of an LSTM of constant gates is made anew at every step; c keeps its forget gate's share."""
    layer = layer_of("lstm", 3, 2)
    fill(layer, U=np.zeros((8, 2)), W=np.zeros((8, 3)), b=np.zeros(8))
    found = lyapunov(layer, input_of(1, 50, 3), skip=40)
    assert_close(found[:, :2], np.full((1, 2), log(0.5)))
    assert (found[:, 2:] == -inf).all()


def test_a_step_has_to_be_left() -> None:
    with pytest.raises(ValueError, match="skip: 5 came; expected at least one step of 5"):
        lyapunov(layer_of("gru"), input_of(1, 5, 3), skip=5)


# -- the gradient on its way ------------------------------------------------------------------------------------------


def test_gradients_are_products_of_jacobians() -> None:
    layer, x = layer_of("elman"), input_of(2, 8, 3)
    (one,) = record(layer, x, loss=lambda output, _: output[0][:, -1].sum()).layers
    jacobians, back = step_jacobians(layer, x), np.ones((2, 4))
    found = gradient_norms(one)["h"]
    for step in reversed(range(8)):
        assert_close(found[:, step], np.linalg.norm(back, axis=-1))
        back = np.einsum("bn,bnm->bm", back, jacobians[:, step])


def test_a_record_without_a_target_has_no_gradients() -> None:
    (one,) = record(layer_of("gru"), input_of(2, 5, 3)).layers
    with pytest.raises(ValueError, match="give a target"):
        gradient_norms(one)


def test_how_far_a_loss_reaches() -> None:
    """Halved at every step: the seventh step back has less than a hundredth."""
    norms = 0.5 ** np.arange(20)[::-1]
    assert reach(norms) == 6
    assert reach(norms, 0.1) == 3
    assert reach(np.ones(20)) == 19
    both = np.stack([norms, np.concatenate([norms[10:], np.zeros(10)])])
    assert reach(both, lengths=[20, 10]).tolist() == [6, 6]
    assert reach(both[:, ::-1], direction="backward")[0] == 6


def test_a_leaky_unit_reaches_as_far_as_its_leak_lets_it() -> None:
    layer = layer_of("leaky_rnn")
    fill(layer, U=np.zeros((4, 4)))
    (one,) = record(layer, input_of(1, 80, 3), loss=lambda output, _: output[0][:, -1].sum()).layers
    assert reach(gradient_norms(one)["h"]).tolist() == [int(log(0.01) / log(0.9))]


# -- gates ------------------------------------------------------------------------------------------------------------


def recorded(layer: Recurrent, x: torch.Tensor, **options) -> LayerRecord:
    return record(layer, x, **options).layers[0]


def test_the_half_life_of_a_leaky_unit() -> None:
    one = recorded(layer_of("leaky_rnn"), input_of(2, 6, 3))
    assert_close(half_life(one)["h"], np.full(4, log(2) / -log(0.9)))


def test_the_half_life_of_an_lstm_is_that_of_its_forget_gate() -> None:
    layer, x = layer_of("lstm"), input_of(2, 7, 3)
    one = recorded(layer, x)
    forget = one.values["f"][:, 1:].reshape(-1, 4)
    assert_close(half_life(one)["c"], log(2) / -np.log(forget).mean(0))
    assert list(half_life(one)) == ["c"]


def test_the_half_life_of_a_gru_and_of_a_typed_cell() -> None:
    one = recorded(layer_of("gru"), input_of(2, 7, 3))
    assert_close(half_life(one)["h"], log(2) / -np.log(one.values["z"][:, 1:].reshape(-1, 4)).mean(0))
    # c has a part in its own gate, so that f is not all there is to it.
    layer, x = layer_of(read_cell(TYPED)), input_of(2, 7, 3)
    fill(layer, U=np.zeros((8, 4)))
    own = np.diagonal(step_jacobians(layer, x)[:, 1:, 4:, 4:], axis1=-2, axis2=-1).reshape(-1, 4)
    assert_close(half_life(recorded(layer, x))["c"], log(2) / -np.log(np.abs(own)).mean(0))


def test_two_states_that_turn_into_each_other_have_one_half_life() -> None:
    layer = layer_of("lru")
    found = half_life(recorded(layer, input_of(2, 40, 3)))
    modulus = np.exp(-np.exp(weight(layer, "nu").numpy()))
    assert_close(found["s"], log(2) / -np.log(modulus))
    assert_close(found["r"], found["s"])


def test_who_lives_by_matrices_alone_has_none() -> None:
    assert half_life(recorded(layer_of("elman"), input_of(2, 6, 3))) == {}


def test_what_loses_nothing_lives_for_ever() -> None:
    layer = layer_of("lstm")
    fill(layer, U=np.zeros((16, 4)), W=np.zeros((16, 3)), b=np.repeat([-50.0, 50.0, 0.0, 0.0], 4))
    assert (half_life(recorded(layer, input_of(1, 6, 3)))["c"] == inf).all()


@pytest.mark.parametrize("direction", [0, 1])
def test_padding_counts_for_nothing(direction: int) -> None:
    layer, x = layer_of("gru", bidirectional=True), input_of(3, 6, 3)
    lengths = [6, 4, 1]
    ragged = record(layer, x, lengths=lengths)
    garbled = ragged.layers[direction]
    alone_ = [record(layer, x[k : k + 1, :length]).layers[direction] for k, length in enumerate(lengths)]
    each = [saturation(one)["z"].high * one.x.shape[1] for one in alone_]
    assert_close(saturation(garbled, ragged.lengths)["z"].high, np.sum(each, 0) / sum(lengths))
    longer = alone_[:2]
    logs = [(one.x.shape[1] - 1) * log(2) / -half_life(one)["h"] for one in longer]
    assert_close(log(2) / -half_life(garbled, ragged.lengths)["h"], np.sum(logs, 0) / (5 + 3))


def test_saturation_counts_the_ends() -> None:
    layer = layer_of("lstm", 1, 2)
    shut, open_, half = -5.0, 5.0, 0.0
    fill(layer, U=np.zeros((8, 2)), W=np.zeros((8, 1)), b=[shut, half, open_, open_, half, shut, half, half])
    found = saturation(recorded(layer, input_of(1, 4, 1)))
    assert found["i"].low.tolist() == [1, 0]
    assert found["f"].high.tolist() == [1, 1]
    assert found["g"].low.tolist() == [0, 1]
    assert (found["g"].op, found["i"].op) == ("tanh", "sigmoid")
    assert found["o"].low.tolist() == found["o"].high.tolist() == [0, 0]
    assert set(found) == {"i", "f", "g", "o", "tanh(c)"}


def test_saturation_is_counted_from_the_values() -> None:
    one = recorded(layer_of("gru"), 3 * input_of(4, 30, 3))
    for name, gate in saturation(one).items():
        low, high = (0.1, 0.9) if name in "rz" else (-0.9, 0.9)
        assert_close(gate.low, (one.values[name] < low).mean((0, 1)))
        assert_close(gate.high, (one.values[name] > high).mean((0, 1)))


def test_float32_will_do() -> None:
    layer, x = layer_of("lstm").float(), input_of(2, 7, 3).float()
    assert_close(step_jacobians(layer, x), step_jacobians(layer.double(), x.double()), FLOAT32)


# -- clipping ---------------------------------------------------------------------------------------------------------


def test_where_clipping_struck(tmp_path) -> None:
    history = [
        {"epoch": 1, "clipped": 0.25, "largest_norm": 7.5, "seconds": 1.0},
        {"epoch": 2, "clipped": 0.0, "largest_norm": 0.5, "seconds": 1.0},
    ]
    rows = [",".join(history[0]), *(",".join(str(value) for value in row.values()) for row in history)]
    (tmp_path / "metrics.csv").write_text("\n".join(rows), encoding="utf-8")
    for given in (history, tmp_path / "metrics.csv"):
        found = clipping(given)
        assert_close(found.epochs, [1, 2], SAME)
        assert_close(found.share, [0.25, 0.0], SAME)
        assert_close(found.largest, [7.5, 0.5], SAME)
    with pytest.raises(ValueError, match="expected clipped, largest_norm too"):
        clipping([{"epoch": 1}])
