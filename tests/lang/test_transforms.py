"""From cell to cell: what each transform changes, against a second writing of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from everloop.cells import get
from everloop.lang.cell import Cell
from everloop.lang.transforms import (
    layer_norm,
    multiplicative_integration,
    recurrent_dropout,
    residual,
    tie,
    zoneout,
)
from everloop.nn import Recurrent
from everloop.testing import SAME, assert_close, check_cell

DOUBLE = torch.float64
MADE: dict[str, Callable[[], Cell]] = {
    "residual gru": lambda: residual(get("gru")),
    "residual projection_lstm": lambda: residual(get("projection_lstm")),
    "zoneout lstm": lambda: zoneout(get("lstm"), h=0.1, c=0.5),
    "zoneout of all": lambda: zoneout(get("lstm"), 0.2),
    "zoneout of a scan": lambda: zoneout(get("mingru"), 0.2),
    "recurrent_dropout gru": lambda: recurrent_dropout(get("gru"), 0.3),
    "recurrent_dropout of c": lambda: recurrent_dropout(get("lstm"), 0.3, "c"),
    "layer_norm gru": lambda: layer_norm(get("gru")),
    "layer_norm of made weights": lambda: layer_norm(get("antisymmetric")),
    "layer_norm of heads": lambda: layer_norm(get("slstm")(heads=2)),
    "tie gates": lambda: tie(get("lstm"), {"W.f": "W.i", "b.f": "b.i"}),
    "tie families": lambda: tie(get("lstm"), {"U": "W"}),
    "multiplicative_integration lstm": lambda: multiplicative_integration(get("lstm")),
    "several": lambda: residual(zoneout(layer_norm(recurrent_dropout(get("lstm"), 0.2)), 0.1)),
}


def layer_of(cell: Cell, size: int = 4) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, size, size, dtype=DOUBLE)


def x_of(time: int = 6, size: int = 4) -> torch.Tensor:
    return torch.randn(3, time, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MADE)
def test_a_transformed_cell_keeps_the_contract(name: str) -> None:
    check_cell(MADE[name]())


@pytest.mark.parametrize("name", MADE)
def test_a_transformed_cell_is_copied_and_pickled(name: str) -> None:
    cell = MADE[name]()
    again = pickle.loads(pickle.dumps(cell))
    assert again.name == cell.name
    assert list(again.graph.stacks) == list(cell.graph.stacks)
    layer = copy.deepcopy(layer_of(cell))
    assert_close(layer.eval()(x_of())[0], layer_of(cell).eval()(x_of())[0], SAME)


def test_residual_adds_the_input() -> None:
    plain, more = layer_of(get("gru")), layer_of(residual(get("gru")))
    (y, state), (y_more, state_more) = plain(x_of()), more(x_of())
    assert_close(y_more, y + x_of(), SAME)
    assert_close(state_more.h, state.h, SAME)


def test_zoneout_keeps_units_in_training_and_mixes_in_evaluation() -> None:
    layer = layer_of(zoneout(get("elman"), 0.3))
    plain = layer_of(get("elman"))
    h = torch.randn(1, 3, 4, dtype=DOUBLE)
    _, new = plain(x_of(1), h)
    _, mixed = layer.eval()(x_of(1), h)
    assert_close(mixed.h, 0.3 * h + 0.7 * new.h, SAME)
    kept = 0
    for _ in range(200):
        _, state = layer.train()(x_of(1), h)
        old = state.h == h
        assert bool((old | torch.isclose(state.h, new.h)).all())
        kept += int(old.sum())
    # 2400 draws with probability 0.3: five standard deviations are 112.
    assert abs(kept - 720) < 112


def test_zoneout_of_an_lstm_reads_out_its_new_cell_state() -> None:
    """Krueger et al. 2016: h mixes the old h with o tanh(c) of the c before mixing."""
    plain, layer = layer_of(get("lstm")), layer_of(zoneout(get("lstm"), h=0.25, c=0.5)).eval()
    start = [torch.randn(1, 3, 4, dtype=DOUBLE) for _ in range(2)]
    (_, new), (_, mixed) = plain(x_of(1), start), layer(x_of(1), start)
    assert_close(mixed.h, 0.25 * start[0] + 0.75 * new.h, SAME)
    assert_close(mixed.c, 0.5 * start[1] + 0.5 * new.c, SAME)


def test_recurrent_dropout_draws_one_mask_for_a_sequence() -> None:
    """With W = 0, U = 1 and b = 1, a linear cell counts its steps; a unit that is dropped comes to 1 only."""
    counting = recurrent_dropout(get("elman")(act=lambda v: v), 0.5)
    layer = Recurrent(counting, 1, 64, dtype=DOUBLE)
    with torch.no_grad():
        layer.get_parameter("layers.0.0.W").zero_()
        layer.get_parameter("layers.0.0.b").fill_(1.0)
        layer.get_parameter("layers.0.0.U").copy_(torch.eye(64))
    x = torch.zeros(8, 3, 1, dtype=DOUBLE)
    assert_close(layer.eval()(x)[0][:, :, 0], [[1.0, 2.0, 3.0]] * 8, SAME)
    y, _ = layer.train()(x)
    # Scaled by 2: 1, 1 + 2, 1 + 6. Dropped: always 1. Nothing else, since the mask does not change.
    found = {tuple(steps.tolist()) for sequence in y for steps in sequence.T}
    assert found == {(1.0, 3.0, 7.0), (1.0, 1.0, 1.0)}
    assert len({tuple(sequence[-1].tolist()) for sequence in y}) == 8


def test_layer_norm_normalises_each_product() -> None:
    layer = layer_of(layer_norm(get("elman")))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    p = dict(layer.named_parameters())
    W, U, b, gain_w, gain_u = (p[f"layers.0.0.{name}"] for name in ("W", "U", "b", "gain_W", "gain_U"))
    h = torch.zeros(3, 4, dtype=DOUBLE)
    norm = torch.nn.functional.layer_norm
    for t in range(6):
        h = torch.tanh(norm(x_of()[:, t] @ W.T, [4], gain_w) + norm(h @ U.T, [4], gain_u) + b)
    assert_close(layer(x_of())[1].h[0], h, SAME)


def test_gains_and_scales_start_at_one() -> None:
    layer = layer_of(layer_norm(multiplicative_integration(get("lstm"))))
    for name, parameter in layer.named_parameters():
        if name.split(".")[-1] in ("gain_W", "gain_U", "alpha", "beta", "gamma"):
            assert_close(parameter, torch.ones(16), SAME)


def test_multiplicative_integration_of_an_elman_network_is_mi_rnn() -> None:
    layer, other = layer_of(multiplicative_integration(get("elman"))), layer_of(get("mi_rnn"))
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter)
        other.get_parameter(name).data.copy_(parameter.data)
    assert_close(layer(x_of())[0], other(x_of())[0], SAME)


def test_tied_parameters_are_one() -> None:
    cell = tie(get("lstm"), {"W.f": "W.i", "U.f": "U.i", "b.f": "b.i"})
    tied, free = layer_of(cell), layer_of(get("lstm"))
    assert [tuple(parameter.shape) for parameter in tied.parameters()] == [(12, 4), (12, 4), (12,)]
    with torch.no_grad():
        for name, parameter in tied.named_parameters():
            i, g, o = parameter.chunk(3)
            free.get_parameter(name).copy_(torch.cat([i, i, g, o]))
    assert_close(tied(x_of())[0], free(x_of())[0], SAME)
    tied(x_of())[0].sum().backward()
    free(x_of())[0].sum().backward()
    for name, parameter in tied.named_parameters():
        grad = free.get_parameter(name).grad
        assert grad is not None
        i, f, g, o = grad.chunk(4)
        assert_close(parameter.grad, torch.cat([i + f, g, o]), SAME, name)


WRONG: list[tuple[str, Callable[[], Any]]] = [
    (r"^zoneout: lstm has no state 'm'; it has h, c$", lambda: zoneout(get("lstm"), m=0.1)),
    (r"^zoneout: 1\.5 came; expected a share of 0 or more and less than 1$", lambda: zoneout(get("gru"), 1.5)),
    (r"^zoneout: one share for all states", lambda: zoneout(get("gru"))),
    (r"^recurrent_dropout: lstm has no state 'x'; it has h, c$", lambda: recurrent_dropout(get("lstm"), 0.1, "x")),
    (r"^recurrent_dropout: True came; expected a share", lambda: recurrent_dropout(get("lstm"), True)),
    (r"^tie: lstm has no parameter 'W\.q'; it has W\.i, ", lambda: tie(get("lstm"), {"W.q": "W.i"}).graph),
    (r"^tie: W\.i cannot be V\.i; there are W\.f, ", lambda: tie(get("lstm"), {"W.i": "V.i"}).graph),
    (r"^tie: W\.i and b\.i are not of one form$", lambda: tie(get("lstm"), {"W.i": "b.i"}).graph),
    (r"^tie: antisymmetric has matrices made of others", lambda: tie(get("antisymmetric"), {"U.h": "W.h"}).graph),
    (r"^multiplicative_integration: mingru nowhere adds", lambda: multiplicative_integration(get("mingru")).graph),
]


@pytest.mark.parametrize(("words", "make"), WRONG)
def test_a_mistake_is_answered(words: str, make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=words):
        make()
