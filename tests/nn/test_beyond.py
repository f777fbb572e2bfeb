"""`Recurrent` beyond torch's layers: every option against a plain writing of what it means."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from everloop import cells
from everloop.backends import use_backend
from everloop.backends.llvm.kernel import LlvmKernel
from everloop.backends.reference import ReferenceKernel
from everloop.lang import transforms
from everloop.lang.cell import cell
from everloop.lang.functions import tanh
from everloop.nn import Recurrent
from everloop.testing import SAME, assert_close, evaluate_step

DOUBLE = torch.float64
LENGTHS = [5, 0, 2]


@cell(states="h:input", gates="h")
def passing(x, h):
    """Its output is what it is given."""
    return x + 0 * h


@cell(states="h:input", gates="h")
def counting(x, h):
    return x + h


@cell(states="h:input", gates="z h")
def mixed(x, h, W, U):
    """A stack of which one member meets the state, and the other the input."""
    return tanh(W.z @ x + W.h @ h + U.z @ x)


@cell(states="h", gates="h", inputs="gap mask:hidden", start={"mask": 0.5})
def paced(x, h, gap, mask, W, U):
    return h + gap * tanh(W.h @ x + U.h @ (mask * h))


def made(cell: Any = "lstm", inputs: int = 3, units: Any = 4, *more: Any, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    layer = Recurrent(cell, inputs, units, *more, dtype=DOUBLE, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def batch(rows: int = 3, time: int = 5, features: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(rows, time, features, dtype=DOUBLE)


def one(layer: Recurrent, depth: int, cell: Any = None, **options: Any) -> Recurrent:
    """One layer of a stack, as a layer of its own, whose parameters are those of the stack."""
    sizes = layer.layer_sizes[depth]
    more = {name: size for name, size in sizes.items() if name not in ("input", "hidden")}
    alone = Recurrent(
        cell or layer.cells[depth],
        sizes["input"],
        sizes["hidden"],
        bidirectional=layer.bidirectional,
        sizes=more,
        learn_start=layer.learn_start,
        dtype=DOUBLE,
        **options,
    )
    for name, _ in list(alone.named_parameters()):
        _, _, direction, stack = name.split(".")
        alone.layers[0][int(direction)].register_parameter(  # type: ignore[index]
            stack, layer.get_parameter(f"layers.{depth}.{direction}.{stack}")
        )
    return alone


def equal(layer: nn.Module, actual: Sequence[Tensor], expected: Sequence[Tensor], *leaves: Tensor) -> None:
    """The same values, and the same gradients of a number made of them."""
    weights = [torch.randn(array.shape, dtype=DOUBLE) for array in expected]
    wanted = [*leaves, *layer.parameters()]
    grads = []
    for arrays in (actual, expected):
        number = sum((array * weight).sum() for array, weight in zip(arrays, weights, strict=True))
        grads.append(torch.autograd.grad(number, wanted, retain_graph=True, allow_unused=True))  # type: ignore[arg-type]
    for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a, b, SAME, f"value {k}")
    for leaf, a, b in zip(wanted, *grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, SAME, f"the gradient of something of shape {tuple(leaf.shape)}")


def assert_share(drawn: Tensor, share: float) -> None:
    """As many are true as independent draws give, within five standard deviations of their mean."""
    deviation = (share * (1 - share) / drawn.numel()) ** 0.5
    assert abs(drawn.double().mean().item() - share) < 5 * deviation


def step_by_step(
    layer: Recurrent, x: Tensor, first: Mapping[str, Tensor], drawn: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """A layer's only cell, run by a loop: y [B, T, F], and what every state has been. drawn: for every step."""
    graph, sizes = layer.cell.graph, layer.sizes
    params: dict[str, Tensor] = {}
    for stack, members in graph.stacks.items():
        rows = layer.get_parameter(f"layers.0.0.{stack}").split([param.shape(sizes)[0] for param in members])
        params |= {param.name: part for param, part in zip(members, rows, strict=True)}
    now, ys, states = dict(first), [], {name: [value] for name, value in first.items()}
    for t in range(x.shape[1]):
        outputs, now = evaluate_step(graph, {"x": x[:, t], **(drawn or {}), **params}, now, sizes)
        ys.append(outputs["y"])
        for name, value in now.items():
            states[name].append(value)
    return torch.stack(ys, 1), states


# -- wrong arguments -------------------------------------------------------------------------------------------------

X = torch.zeros(2, 5, 3)
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "cells and number of layers": (
        lambda: Recurrent(["lstm", "gru"], 3, 4, 3),
        r"^cell: 2 values came; expected 3, one per layer, as num_layers says$",
    ),
    "units and cells": (
        lambda: Recurrent(["lstm", "gru"], 3, [4, 4, 4]),
        r"^hidden_size: 3 values came; expected 2, one per layer, as cell says$",
    ),
    "no cells": (lambda: Recurrent([], 3, 4), r"^cell: none came; expected one for all layers, or one per layer$"),
    "one of the units": (lambda: Recurrent("lstm", 3, [4, 0]), r"^hidden_size: 0 came; expected a whole number"),
    "size that no cell has": (
        lambda: Recurrent(["lstm", "gru"], 3, 4, sizes={"proj": 2}),
        r"^sizes: cell lstm has no size 'proj'; it has input, hidden; cell gru has no size 'proj'",
    ),
    "skip": (lambda: made(skip="add"), r"^skip: 'add' came; expected one of None, 'residual', 'dense'$"),
    "residual without a layer that can": (
        lambda: made(skip="residual"),
        r"^skip: 'residual' came, and no layer puts out as many features as it is given \(4 of 3\): choose hidden_size",
    ),
    "input dropout": (lambda: made(input_dropout=1.0), r"^input_dropout: 1\.0 came; expected a share of 0 or more"),
    "output dropout": (lambda: made(output_dropout=-1), r"^output_dropout: -1 came; expected a share"),
    "recurrent dropout": (lambda: made(recurrent_dropout=True), r"^recurrent_dropout: True came; expected a share"),
    "zoneout": (lambda: made(zoneout="h"), r"^zoneout: 'h' came; expected a share"),
    "zoneout of one state": (lambda: made(zoneout={"h": 2.0}), r"^zoneout: h: 2\.0 came; expected a share"),
    "zoneout of another state": (lambda: made(zoneout={"q": 0.1}), r"^zoneout: state 'q' came; lstm has h, c$"),
    "weight drop": (lambda: made(weight_drop=1), r"^weight_drop: 1 came; expected a share"),
    "weight drop of nothing": (
        lambda: made("mingru", weight_drop=0.5),
        r"^weight_drop: 0\.5 came, and no matrix of mingru meets a state: leave it out$",
    ),
    "reverse in both directions": (
        lambda: made(reverse=True, bidirectional=True),
        r"^reverse=True came with bidirectional=True, which reads in both directions: leave one out$",
    ),
    "order of what is read in order": (
        lambda: made(keep_order=False),
        r"^keep_order=False came without reverse=True; without it, y is in the order of x anyway$",
    ),
    "state of another number of layers": (
        lambda: Recurrent("lstm", 3, [4, 5])(X, [X]),
        r"^state: 1 values came; expected 2: layer0, layer1$",
    ),
    "state of a layer": (
        lambda: Recurrent(["gru", "lstm"], 3, 4)(X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))),
        r"^state layer1: 1 values came; expected 2: h, c$",
    ),
    "shape of a state of a layer": (
        lambda: Recurrent("gru", 3, [4, 5])(X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))),
        r"^state layer1 h: \(1, 2, 4\) came; expected \(1, 2, 5\)$",
    ),
    "name of a value": (
        lambda: made("minimal_rnn")(X.double(), return_states=["h", "q"]),
        r"^return_states: 'q' came; there are h, .*u",
    ),
    "side input of another width in every layer": (
        lambda: made(paced, 3, [4, 5])(batch(), side={"gap": batch()[..., 0], "mask": batch()}),
        r"^side: mask came; it is as wide as the hidden of a layer, and the 2 layers have hidden sizes of 4 and 5",
    ),
    "packed sequence of another width": (
        lambda: made()(pack_padded_sequence(X.double()[..., :2], torch.tensor([5, 2]), batch_first=True)),
        r"^x: \(7, 2\) came; expected \[N, 3\]$",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_answered(mistake: str) -> None:
    call, words = MISTAKES[mistake]
    with pytest.raises(ValueError, match=words):
        call()


# -- cells, sizes and states per layer -------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(
    ("given", "units"),
    [(["lstm", "gru"], 4), ("lstm", [4, 5, 2]), (["slstm", "qrnn", "lstm"], [4, 5, 2])],
    ids=["cells", "units", "cells and units"],
)
def test_layers_that_differ_are_one_layer_on_top_of_the_other(given: Any, units: Any, both: bool) -> None:
    layer, x = made(given, 3, units, bidirectional=both), batch().requires_grad_()
    y, state = layer(x, lengths=LENGTHS)
    assert state._fields == tuple(f"layer{depth}" for depth in range(layer.num_layers))
    rows, expected = x, []
    for depth in range(layer.num_layers):
        rows, last = one(layer, depth)(rows, lengths=LENGTHS)
        assert state[depth]._fields == last._fields
        assert type(state[depth]) is type(last)
        expected += last
    equal(layer, [y, *(array for part in state for array in part)], [rows, *expected], x)
    whole, end = layer(x)
    first, middle = layer(x[:, :2])
    if not both:
        second, last = layer(x[:, 2:], middle)
        equal(layer, [torch.cat([first, second], 1), *last.layer1], [whole, *end.layer1], x)


def test_a_layer_knows_what_its_layers_are() -> None:
    layer = made(["lstm", "gru"], 3, [4, 5], bidirectional=True)
    assert layer.cells == (cells.get("lstm"), cells.get("gru"))
    assert (layer.hidden_sizes, layer.num_layers) == ((4, 5), 2)
    assert (layer.cell, layer.hidden_size, layer.output_size) == (cells.get("lstm"), 4, 10)
    assert layer.layer_sizes == [{"input": 3, "hidden": 4}, {"input": 8, "hidden": 5}]
    assert [tuple(array.shape) for array in layer.start_state(2).layer1] == [(2, 2, 5)]
    assert Recurrent("lstm", 3, 4, 3).hidden_sizes == (4, 4, 4)


def test_sizes_of_its_own_go_to_the_cells_that_have_them() -> None:
    layer = made(["projection_lstm", "gru"], 3, 4, sizes={"proj": 2})
    assert layer.layer_sizes == [{"input": 3, "hidden": 4, "proj": 2}, {"input": 2, "hidden": 4}]
    assert layer(batch())[0].shape == (3, 5, 4)


def test_a_state_is_given_as_it_came() -> None:
    layer, x = made(["lstm", "gru"], 3, [4, 5]), batch()
    _, state = layer(x)
    again = pickle.loads(pickle.dumps(state))
    assert type(again) is type(state)
    assert type(again.layer0) is type(state.layer0)
    y = layer(x, state)[0]
    plain = [list(part) for part in state]
    for given in (again, plain, copy.deepcopy(state.detach()), [state.layer0, state.layer1.h]):
        assert torch.equal(layer(x, given)[0], y)


@pytest.mark.parametrize("given", ["lstm", ["lstm", "gru"]], ids=str)
def test_detached_states_are_truncated_backpropagation(given: Any) -> None:
    layer, x = made(given, 3, 4, 2), batch(time=6)
    state, total = None, x.new_zeros(())
    for chunk in x.split(2, 1):
        y, state = layer(chunk, None if state is None else state.detach())
        total = total + y.square().sum()
    # By hand: of every chunk, the gradient with the values of the states before it as constants.
    expected = [torch.zeros_like(parameter) for parameter in layer.parameters()]
    for begin in (0, 2, 4):
        with torch.no_grad():
            _, before = layer(x[:, :begin])
        loss = layer(x[:, begin : begin + 2], before)[0].square().sum()
        expected = [a + b for a, b in zip(expected, torch.autograd.grad(loss, list(layer.parameters())), strict=True)]
    found = torch.autograd.grad(total, list(layer.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, SAME)
    whole = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    assert not torch.allclose(whole[0], found[0])
    assert state is not None
    assert not any(array.requires_grad for array in torch.utils._pytree.tree_leaves(state.detach()))


def test_the_final_states_of_a_ragged_batch_are_each_sequences_own() -> None:
    layer, x = made("lstm", 3, 4, 2, bidirectional=True), batch()
    together = layer(x, lengths=LENGTHS)[1]
    alone = [layer(x[k : k + 1, :steps])[1] for k, steps in enumerate(LENGTHS)]
    for name in ("h", "c"):
        assert_close(getattr(together, name), torch.cat([getattr(state, name) for state in alone], 1), SAME)


# -- skip connections ------------------------------------------------------------------------------------------------


def test_residual_layers_add_what_they_are_given() -> None:
    layer, x = made("gru", 3, [4, 4, 3, 3], skip="residual"), batch().requires_grad_()
    rows, states = x, []
    for depth in range(4):
        y, state = one(layer, depth)(rows)
        rows = y + rows if depth in (1, 3) else y
        states.append(state.h)
    y, state = layer(x)
    equal(layer, [y, *(part.h for part in state)], [rows, *states], x)


@pytest.mark.parametrize("both", [False, True])
def test_dense_layers_see_all_that_is_below(both: bool) -> None:
    layer, x = made("gru", 3, 2, 3, bidirectional=both, skip="dense"), batch().requires_grad_()
    outputs, states = [x], []
    for depth in range(3):
        y, state = one(layer, depth)(torch.cat(outputs, -1), lengths=LENGTHS)
        outputs.append(y)
        states.append(state.h)
    y, state = layer(x, lengths=LENGTHS)
    assert [sizes["input"] for sizes in layer.layer_sizes] == ([3, 7, 11] if both else [3, 5, 7])
    equal(layer, [y, state.h], [outputs[-1], torch.cat(states)], x)


@pytest.mark.parametrize("skip", ["residual", "dense"])
def test_padding_stays_out_of_what_skips(skip: str) -> None:
    layer, x = made("lstm", 4, 4, 3, skip=skip), batch(features=4)
    for row, steps in enumerate(LENGTHS):
        x[row, steps:] = torch.nan
    x.requires_grad_()
    y, state = layer(x, lengths=LENGTHS)
    alone = [layer(x[k : k + 1, :steps]) for k, steps in enumerate(LENGTHS)]
    rows = [nn.functional.pad(y, (0, 0, 0, 5 - y.shape[1])) for y, _ in alone]
    equal(layer, [y, state.h], [torch.cat(rows), torch.cat([last.h for _, last in alone], 1)], x)


def test_a_residual_is_what_was_there_before_dropout() -> None:
    layer, x = made(counting, 3, 3, 2, skip="residual", dropout=0.9), batch()
    first = x.cumsum(1) + x
    torch.manual_seed(0)
    y, _ = layer(x)
    torch.manual_seed(0)
    assert_close(y, nn.functional.dropout(first.transpose(0, 1), 0.9).transpose(0, 1).cumsum(1) + first, SAME)


# -- dropout ---------------------------------------------------------------------------------------------------------

DROPS = ("input_dropout", "output_dropout", "dropout")


def masks(form: str, drop: str, share: float, variational: bool, training: bool = True) -> Tensor:
    """What a layer that changes nothing multiplies ones by, [B, T, F], where x comes in some form."""
    options: dict[str, Any] = {drop: share, "variational": variational}
    layer = made(passing, 50, 50, 2 if drop == "dropout" else 1, **options).train(training)
    x, lengths = torch.ones(20, 6, 50, dtype=DOUBLE), torch.arange(20) % 6 + 1
    torch.manual_seed(2)
    if form == "padded":
        return layer(x)[0]
    if form == "lengths":
        return layer(x, lengths=lengths)[0]
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(layer(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize("form", ["padded", "lengths", "packed"])
@pytest.mark.parametrize("drop", DROPS)
def test_variational_masks_are_one_per_sequence(form: str, drop: str) -> None:
    found = masks(form, drop, 0.25, variational=True)
    first = found[:, :1]
    inside = torch.ones(20, 6) if form == "padded" else torch.arange(6) < (torch.arange(20) % 6 + 1)[:, None]
    assert_close(found, first * inside[..., None], SAME)
    assert sorted(first.unique().tolist()) == [0.0, 1 / 0.75]
    assert_share(first == 0, 0.25)
    assert len({tuple(row.tolist()) for row in first[:, 0]}) == 20


@pytest.mark.parametrize("drop", DROPS)
def test_other_masks_are_drawn_at_every_step(drop: str) -> None:
    found = masks("padded", drop, 0.25, variational=False)
    assert sorted(found.unique().tolist()) == [0.0, 1 / 0.75]
    assert_share(found == 0, 0.25)
    assert len({tuple(row.tolist()) for row in found.reshape(-1, 50)}) == 120


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("variational", [False, True])
def test_nothing_is_left_out_in_evaluation(drop: str, variational: bool) -> None:
    assert (masks("padded", drop, 0.25, variational, training=False) == 1).all()


def test_recurrent_dropout_hides_the_same_units_at_all_steps() -> None:
    layer = made(counting, 50, 50, recurrent_dropout=0.5)
    x = torch.ones(20, 4, 50, dtype=DOUBLE)
    y, _ = layer(x)
    # Of a unit that is hidden only x is seen; of another, twice its value.
    assert {tuple(row.tolist()) for row in y.transpose(1, 2).reshape(-1, 4)} == {(1, 1, 1, 1), (1, 3, 7, 15)}
    assert_share(y[:, 3] == 1, 0.5)
    assert_close(layer.eval()(x)[0], x.cumsum(1), SAME)


def test_zoneout_keeps_old_values_in_training_and_mixes_in_evaluation() -> None:
    layer = made(counting, 50, 50, zoneout=0.25)
    x = torch.ones(20, 40, 50, dtype=DOUBLE)
    y, _ = layer(x)
    grown = y.diff(dim=1)
    assert sorted(grown.unique().tolist()) == [0.0, 1.0]
    assert_share(grown == 0, 0.25)
    assert_close(layer.eval()(x)[0], 0.75 * x.cumsum(1), SAME)


@pytest.mark.parametrize("share", [0.3, {"c": 0.3}, {"h": 0.1, "c": 0.3}], ids=str)
def test_zoneout_and_recurrent_dropout_are_the_transforms_of_cells(share: Any) -> None:
    layer = made("lstm", 3, 4, 2, zoneout=share, recurrent_dropout=0.2)
    inner = transforms.recurrent_dropout(cells.get("lstm"), 0.2)
    changed = transforms.zoneout(inner, **share) if isinstance(share, dict) else transforms.zoneout(inner, share)
    other, x = made(changed, 3, 4, 2), batch().requires_grad_()
    other.load_state_dict(layer.state_dict())
    torch.manual_seed(3)
    y, state = layer(x, lengths=LENGTHS)
    torch.manual_seed(3)
    expected, last = other(x, lengths=LENGTHS)
    assert_close(y, expected, SAME)
    assert state._fields == last._fields
    assert_close(layer.eval()(x)[0], other.eval()(x)[0], SAME)


def test_zoneout_with_recurrent_dropout_keeps_the_old_value_and_not_what_the_step_has_seen() -> None:
    layer, x = made("lstm", 3, 4, zoneout=0.25, recurrent_dropout=0.5), batch().requires_grad_()
    graph = layer.cell.graph
    kept = {name: torch.bernoulli(torch.full((3, 4), 0.25, dtype=DOUBLE)) for name in ("keep_h", "keep_c")}
    drawn = kept | {"mask_h": 2 * torch.bernoulli(torch.full((3, 4), 0.5, dtype=DOUBLE))}
    assert set(drawn) == set(graph.draws)
    plain = made("lstm", 3, 4)
    first = {name: torch.randn(3, 4, dtype=DOUBLE) for name in ("h", "c")}
    seen = first | {"h": drawn["mask_h"] * first["h"]}
    _, new = step_by_step(plain, x[:, :1], seen)
    _, found = step_by_step(layer, x[:, :1], first, drawn)
    for name in ("h", "c"):
        keep = drawn[f"keep_{name}"]
        assert_close(found[name][1], keep * first[name] + (1 - keep) * new[name][1], SAME)


def test_zoneout_names_states_of_some_cells() -> None:
    layer = made(["lstm", "gru"], 3, 4, zoneout={"c": 0.5})
    assert [cell.name for cell in layer.cells] == ["zoneout(lstm)", "gru"]
    assert layer.state_dict().keys() == made(["lstm", "gru"], 3, 4).state_dict().keys()


# -- weights ---------------------------------------------------------------------------------------------------------


def test_weight_drop_leaves_out_entries_of_the_matrices_that_meet_a_state() -> None:
    layer, x = made("lstm", 3, 4, 2, weight_drop=0.4), batch().requires_grad_()
    plain = made("lstm", 3, 4, 2)
    torch.manual_seed(5)
    dropped = {name: nn.functional.dropout(layer.get_parameter(name), 0.4) for name in us(2)}
    torch.manual_seed(5)
    y, state = layer(x, lengths=LENGTHS)
    weights = dict(layer.named_parameters()) | dropped
    expected, last = torch.func.functional_call(plain, weights, (x, None, LENGTHS))
    equal(layer, [y, *state], [expected, *last], x)
    assert torch.equal(layer.eval()(x)[0], plain(x)[0])


def us(layers: int) -> list[str]:
    return [f"layers.{depth}.0.U" for depth in range(layers)]


def test_weight_drop_draws_once_per_call() -> None:
    layer, x = made("elman", 3, 40, weight_drop=0.25), batch(time=3)
    U = layer.get_parameter("layers.0.0.U")
    found = [torch.autograd.grad(layer(x)[0].sum(), U)[0] == 0 for _ in range(2)]
    for zero in found:
        # What is dropped at all steps has no gradient.
        assert_share(zero, 0.25)
    assert not torch.equal(*found)


def test_of_a_stack_only_the_members_that_meet_a_state_are_dropped() -> None:
    layer, x = made(mixed, 20, 20, weight_drop=0.5), batch(features=20)
    names = [param.slot for param in layer.cell.graph.stacks["W"]]
    assert sorted(names) == ["h", "z"]
    W, U = (layer.get_parameter(f"layers.0.0.{name}") for name in "WU")
    of_w, of_u = torch.autograd.grad(layer(x)[0].sum(), (W, U))
    zeros = {name: part == 0 for name, part in zip(names, of_w.split(20), strict=True)}
    assert not zeros["z"].any()
    assert_share(zeros["h"], 0.5)
    assert (of_u != 0).all()


def test_a_parametrization_takes_the_place_of_a_parameter() -> None:
    class Half(nn.Module):
        def forward(self, weights: Tensor) -> Tensor:
            return weights / 2

    layer, x = made("lstm", 3, 4, weight_drop=0.3), batch()
    halved = copy.deepcopy(layer)
    halved.get_parameter("layers.0.0.U").data /= 2
    register_parametrization(layer.layers[0][0], "U", Half())  # type: ignore[index]
    for mode in (True, False):
        ys = []
        for one_of in (layer, halved):
            torch.manual_seed(0)
            ys.append(one_of.train(mode)(x)[0])
        assert_close(*ys, SAME)


# -- learned starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["lstm", ["lstm", "qrnn"]], ids=str)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
def test_learned_starts_are_states_like_all(given: Any, lengths: Any) -> None:
    layer, x = made(given, 3, 4, 2, bidirectional=True, learn_start=True), batch().requires_grad_()
    assert {"layers.0.0.start_h", "layers.0.1.start_c"} < layer.state_dict().keys()
    fixed = made(given, 3, 4, 2, bidirectional=True)
    weights = {name: array for name, array in layer.named_parameters() if ".start_" not in name}
    start = layer.start_state(3)
    y, state = layer(x, lengths=lengths)
    expected, last = torch.func.functional_call(fixed, weights, (x, start, lengths))
    leaves = torch.utils._pytree.tree_leaves
    equal(layer, [y, *leaves(state)], [expected, *leaves(last)], x)
    given_state = torch.utils._pytree.tree_map(torch.ones_like, start)
    assert_close(layer(x, given_state)[0], torch.func.functional_call(fixed, weights, (x, given_state))[0], SAME)


def test_learned_starts_begin_where_the_cell_does() -> None:
    @cell(states="h c", gates="h", start={"c": 2.0})
    def begun(x, h, c, W):
        return W.h @ x + c, c + h

    layer, fixed = Recurrent(begun, 3, 4, learn_start=True), Recurrent(begun, 3, 4)
    assert layer.get_parameter("layers.0.0.start_c").tolist() == [2.0] * 4
    assert torch.equal(layer.start_state(2).c, fixed.start_state(2).c)
    nn.init.ones_(layer.get_parameter("layers.0.0.start_h"))
    layer.reset_parameters()
    assert layer.get_parameter("layers.0.0.start_h").tolist() == [0.0] * 4


def test_a_start_that_stands_for_something_is_not_learned() -> None:
    layer = Recurrent("slstm", 3, 4, learn_start=True)
    learned = [name.split("_")[-1] for name in layer.state_dict() if "start_" in name]
    assert learned == ["h", "c", "n"]
    layer(X)[0].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())


# -- the history of states and gates ---------------------------------------------------------------------------------


def test_the_history_of_an_lstm_is_what_its_equations_say() -> None:
    layer, x = made("lstm", 3, 4), batch().requires_grad_()
    W, U, b = (layer.get_parameter(f"layers.0.0.{name}") for name in "WUb")
    h = c = x.new_zeros(3, 4)
    values: dict[str, list[Tensor]] = {name: [] for name in "ifgohc"}
    for t in range(5):
        i, f, g, o = (x[:, t] @ W.T + h @ U.T + b).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        for name, value in zip("ifgohc", (i, f, g, o, h, c), strict=True):
            values[name].append(value)
    expected = {name: torch.stack(value, 1) for name, value in values.items()}
    y, state, history = layer(x, return_states=True)
    assert len(history) == 1
    assert set(expected) < history[0].keys()
    equal(layer, [history[0][name] for name in expected], list(expected.values()), x)
    assert_close(history[0]["h"], y, SAME)
    assert_close(history[0]["c"][:, -1], state.c[0], SAME)
    picked = layer(x, return_states=["c", "f"])[2]
    assert list(picked[0]) == ["c", "f"]
    equal(layer, list(picked[0].values()), [expected["c"], expected["f"]], x)


@pytest.mark.parametrize("name", ["slstm", "gru_before", "qrnn", "mingru", "layernorm_lstm", "gru_d"])
def test_the_history_of_the_states_is_that_of_a_loop(name: str) -> None:
    layer, x = made(name), batch()
    side = {key: 0.5 + torch.rand(3, dtype=DOUBLE)[:, None].expand(3, size) for key, size in sides(layer).items()}
    first = {key: array[0] for key, array in layer.start_state(3)._asdict().items()}
    _, expected = step_by_step(layer, x, first, side)
    whole = {key: value[:, None].expand(3, 5, -1) for key, value in side.items()}
    _, _, (history,) = layer(x, side=whole, return_states=list(first))
    for state, values in expected.items():
        assert_close(history[state], torch.stack(values[1:], 1), SAME, state)


def sides(layer: Recurrent) -> dict[str, int]:
    inputs = layer.cell.graph.inputs
    return {name: layer.sizes[str(leaf.size)] if leaf.size else 1 for name, leaf in inputs.items() if name != "x"}


# One cell of each kind in every run, the rest of the catalogue in the slow one.
SMALL = [
    "elman",
    "lstm",
    "gru",
    "projection_lstm",
    "layernorm_lstm",
    "mingru",
    "qrnn",
    "slstm",
    "lmu",
    "antisymmetric",
    "gru_d",
    "mogrifier_lstm",
]
EVERY = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in cells.names()]


@pytest.mark.parametrize("name", EVERY)
def test_every_cell_gives_all_that_it_names(name: str) -> None:
    layer = made(name, 4, 4, sizes={"proj": 2} if name == "projection_lstm" else None).eval()
    with torch.no_grad():
        y, _, (history,) = layer(batch(2, 3, 4), return_states=True)
        assert_close(y, layer(batch(2, 3, 4))[0], SAME)
    assert set(layer.cell.graph.states) <= history.keys()
    assert all(array.shape[:2] == (2, 3) for array in history.values())


def test_the_history_of_layers_and_directions_lies_as_the_states_do() -> None:
    layer, x = made(["lstm", "gru"], 3, 4, bidirectional=True), batch()
    y, state, history = layer(x, lengths=LENGTHS, return_states=["h", "c"])
    assert [list(part) for part in history] == [["h", "c"], ["h", "c"], ["h"], ["h"]]
    assert_close(torch.cat([history[2]["h"], history[3]["h"]], -1), y, SAME)
    for row, steps in enumerate(LENGTHS):
        for part in history:
            assert all((array[row, steps:] == 0).all() for array in part.values())
        if steps:
            assert_close(history[0]["c"][row, steps - 1], state.layer0.c[0, row], SAME)
            assert_close(history[1]["c"][row, 0], state.layer0.c[1, row], SAME)


def test_a_history_comes_in_the_form_of_x() -> None:
    layer, x = made("lstm", 3, 4), batch()
    packed = pack_padded_sequence(x, torch.tensor([5, 1, 2]), batch_first=True, enforce_sorted=False)
    (found,) = layer(packed, return_states=["c"])[2]
    assert isinstance(found["c"], PackedSequence)
    (padded,) = layer(x, lengths=[5, 1, 2], return_states=["c"])[2]
    assert_close(pad_packed_sequence(found["c"], batch_first=True)[0], padded["c"], SAME)


def test_a_value_that_a_step_calls_y_is_not_the_output() -> None:
    @cell(states="h", gates="h")
    def lettered(x, h, W, U):
        y = W.h @ x
        return tanh(y + U.h @ h)

    layer, x = made(lettered), batch()
    y, _, (history,) = layer(x, return_states=True)
    assert_close(y, layer(x)[0], SAME)
    assert list(history) == ["h"]


def test_a_history_without_names_and_one_with_a_single_name() -> None:
    layer, x = made("lstm", 3, 4), batch()
    assert layer(x, return_states=[])[2] == ({},)
    assert list(layer(x, return_states="c")[2][0]) == ["c"]


# -- reverse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
@pytest.mark.parametrize("name", ["lstm", "qrnn"])
def test_reverse_reads_every_sequence_from_its_end(name: str, lengths: list[int] | None) -> None:
    layer, x = made(name, 3, 4, 2, reverse=True), batch().requires_grad_()
    forward, kept = made(name, 3, 4, 2), made(name, 3, 4, 2, reverse=True, keep_order=False)
    for other in (forward, kept):
        other.load_state_dict(layer.state_dict())
    turned = torch.stack([flipped(row, n) for row, n in zip(x, lengths or [5] * 3, strict=True)])
    weights = dict(layer.named_parameters())
    read, last = torch.func.functional_call(forward, weights, (turned, None, lengths))
    expected = torch.stack([flipped(row, n) for row, n in zip(read, lengths or [5] * 3, strict=True)])
    y, state, history = layer(x, lengths=lengths, return_states=["c"])
    equal(layer, [y, *state], [expected, *last], x)
    other, _, in_order = torch.func.functional_call(kept, weights, (x, None, lengths, None, None, ["c"]))
    equal(layer, [other], [read], x)
    for row, n in enumerate(lengths or [5] * 3):
        assert_close(in_order[1]["c"][row], flipped(history[1]["c"][row], n), SAME)


def flipped(row: Tensor, steps: int) -> Tensor:
    return torch.cat([row[:steps].flip(0), row[steps:]])


def test_a_packed_sequence_is_read_from_its_end() -> None:
    layer, x = made("lstm", 3, 4, reverse=True, keep_order=False), batch()
    packed = pack_padded_sequence(x, torch.tensor([5, 1, 2]), batch_first=True, enforce_sorted=False)
    y, state = layer(packed)
    expected, last = layer(x, lengths=[5, 1, 2])
    assert_close(pad_packed_sequence(y, batch_first=True)[0], expected, SAME)
    assert_close(state.h, last.h, SAME)


# -- everything at once ----------------------------------------------------------------------------------------------

ALL: dict[str, Any] = {
    "dropout": 0.1,
    "skip": "dense",
    "variational": True,
    "input_dropout": 0.1,
    "output_dropout": 0.1,
    "recurrent_dropout": 0.1,
    "zoneout": {"h": 0.1},
    "weight_drop": 0.1,
    "learn_start": True,
    "reverse": True,
    "keep_order": False,
}


def test_a_mask_may_leave_out_any_step() -> None:
    layer, x = made(["lstm", "gru"], 3, [3, 4], learn_start=True, skip="residual", bidirectional=False), batch()
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]]).bool()
    y, state, history = layer(x, mask=mask, return_states=["h"])
    assert (y[~mask] == 0).all()
    for row in range(3):
        alone, last, values = layer(x[row : row + 1, mask[row]], return_states=["h"])
        assert_close(y[row, mask[row]], alone[0], SAME)
        assert_close(history[0]["h"][row, mask[row]], values[0]["h"][0], SAME)
        assert_close(state.layer0.c[:, row], last.layer0.c[:, 0], SAME)


def test_side_inputs_go_with_every_option() -> None:
    options = ALL | {"zoneout": 0.1}
    layer, x = made(paced, 3, 4, 2, **options).eval(), batch()
    side = {"gap": torch.rand(3, 5, dtype=DOUBLE), "mask": torch.rand(3, 5, 4, dtype=DOUBLE)}
    y, state = layer(x, lengths=LENGTHS, side=side)
    for row, steps in enumerate(LENGTHS):
        part = {name: array[row : row + 1, :steps] for name, array in side.items()}
        alone, last = layer(x[row : row + 1, :steps], side=part)
        assert_close(y[row, :steps], alone[0], SAME)
        assert_close(state.h[:, row], last.h[:, 0], SAME)


def test_side_inputs_go_to_the_layers_that_take_them() -> None:
    layer, x = made(["lstm", paced], 3, 4), batch()
    gap = torch.rand(3, 5, dtype=DOUBLE)
    y, _ = layer(x, side={"gap": gap})
    assert_close(y, one(layer, 1)(one(layer, 0)(x)[0], side={"gap": gap})[0], SAME)


def test_a_layer_of_all_options_is_kept_and_copied() -> None:
    layer, x = made(["lstm", "gru"], 3, [4, 5], **ALL), batch()
    layer(x, return_states=True)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)]
    torch.manual_seed(0)
    y, state, history = layer(x, lengths=LENGTHS, return_states=["c"])
    for twin in twins:
        assert repr(twin) == repr(layer)
        torch.manual_seed(0)
        again, last, values = twin(x, lengths=LENGTHS, return_states=["c"])
        assert torch.equal(again, y)
        assert torch.equal(last.layer1.h, state.layer1.h)
        assert torch.equal(values[0]["c"], history[0]["c"])


def test_a_layer_says_every_option_that_is_not_usual() -> None:
    assert repr(made(["lstm", "gru"], 3, [4, 5], **ALL)) == (
        "Recurrent([lstm, gru], 3, [4, 5], num_layers=2, dropout=0.1, skip='dense', variational=True, "
        "input_dropout=0.1, output_dropout=0.1, recurrent_dropout=0.1, zoneout={'h': 0.1}, weight_drop=0.1, "
        "learn_start=True, reverse=True, keep_order=False)"
    )
    assert repr(made("lstm", 3, [4, 4], zoneout=0.5)) == "Recurrent(lstm, 3, 4, num_layers=2, zoneout=0.5)"


@pytest.mark.parametrize(
    ("options", "call"),
    [
        (ALL | {"cell": ["lstm", "gru"], "units": [4, 5]}, {"lengths": torch.tensor(LENGTHS)}),
        ({"skip": "residual", "units": 3, "num_layers": 2}, {"mask": torch.ones(3, 5, dtype=torch.bool).tril()}),
        ({"bidirectional": True}, {"return_states": ["c", "f"]}),
    ],
    ids=["all", "mask", "history"],
)
def test_a_layer_is_compiled_as_one_graph(options: dict[str, Any], call: dict[str, Any]) -> None:
    torch._dynamo.reset()
    layer, x = made(**options), batch()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    results = []
    for one_of in (compiled, layer):
        torch.manual_seed(0)
        results.append(torch.utils._pytree.tree_leaves(one_of(x, **call)))
    equal(layer, *results)


def test_noise_is_the_same_after_the_same_seed() -> None:
    layer, x = made(["lstm", "gru"], 3, [4, 5], **ALL), batch()
    ys = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        ys.append(layer(x, lengths=LENGTHS)[0])
    assert torch.equal(ys[0], ys[1])
    assert not torch.equal(ys[0], ys[2])


@pytest.mark.parametrize("cell", ["lstm", ["gru", "lstm"]], ids=["alike", "not alike"])
def test_the_last_states_of_both_directions_side_by_side(cell: Any) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 3, 4, 2, bidirectional=True, dtype=torch.float64)
    y, state = layer(torch.randn(2, 6, 3, dtype=torch.float64), lengths=[6, 4])
    ends = torch.stack([y[0, 5, :4], y[1, 3, :4]])
    assert_close(state.last.h, torch.cat([ends, y[:, 0, 4:]], 1), SAME)
    assert state.detach().last.c.shape == (2, 8)


@pytest.mark.parametrize("form", ["lengths", "mask", "packed", "nested"])
@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_every_backend_computes_the_steps_that_there_are(
    backend: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Recurrent("gru", 3, 4, 2, bidirectional=True)
    lengths = torch.tensor([6, 1, 0, 3])
    x = torch.randn(4, 6, 3)
    mask = torch.arange(6) < lengths[:, None]
    rows: list[int] = []
    kernels = {"llvm": LlvmKernel, "reference": ReferenceKernel}
    forward = kernels[backend].forward

    def counted(self: Any, inputs: Any, states: Any, weights: Any, batch_sizes: Any, **how: Any) -> Any:
        rows.append(sum(batch_sizes))
        if inputs["x"].dim() == 2:
            assert inputs["x"].shape[0] == rows[-1]
        return forward(self, inputs, states, weights, batch_sizes, **how)

    monkeypatch.setattr(kernels[backend], "forward", counted)
    packed = pack_padded_sequence(x, lengths.clamp_min(1), batch_first=True, enforce_sorted=False)
    nested = torch.nested.nested_tensor([x[b, :n] for b, n in enumerate(lengths.tolist())], layout=torch.jagged)
    given: dict[str, Any] = {"lengths": (x, None, lengths), "packed": (packed,), "nested": (nested,)}
    with use_backend(backend):
        layer(x, mask=mask) if form == "mask" else layer(*given[form])
    assert rows == [11 if form == "packed" else 10] * 4
