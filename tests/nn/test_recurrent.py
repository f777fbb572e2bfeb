"""`Recurrent`: what it answers to wrong arguments, what it keeps, how it starts, how it runs."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop import cells
from everloop.lang.cell import cell
from everloop.lang.functions import blocks, exp, tanh
from everloop.nn import Recurrent
from everloop.nn.packing import Packing
from everloop.testing import BFLOAT16, FLOAT32, SAME, Tolerance, assert_close

DOUBLE = torch.float64


@cell(states="h:input", gates="h")
def average(x, h, *, keep=0.5):
    """No parameters, and as wide as its input."""
    return keep * h + (1 - keep) * x


@cell(states="h", gates="h", inputs="gap")
def paced(x, h, gap, W):
    return h + gap * (W.h @ x)


@cell(states="h", gates="h", inputs="mask:input", start={"mask": 0.5})
def masked(x, h, mask, W):
    return h + W.h @ (mask * x)


@cell(states="h", gates="h")
def headed(x, h, W, U):
    return tanh(W.h @ x + blocks(U, 2).h @ h)


def lstm(**more: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent("lstm", 3, 4, **more)


# -- wrong arguments -------------------------------------------------------------------------------------------------

X = torch.zeros(2, 5, 3)
STATE = torch.zeros(1, 2, 4)
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "hidden size 0": (
        lambda: Recurrent("lstm", 3, 0),
        r"^hidden_size: 0 came; expected a whole number of 1 or more$",
    ),
    "hidden size as a fraction": (
        lambda: Recurrent("lstm", 3, 4.0),  # type: ignore[arg-type]
        r"^hidden_size: 4\.0 came; expected a whole number of 1 or more$",
    ),
    "input size": (lambda: Recurrent("lstm", -1, 4), r"^input_size: -1 came; expected a whole number"),
    "layers": (lambda: Recurrent("lstm", 3, 4, 0), r"^num_layers: 0 came; expected a whole number"),
    "dropout": (lambda: lstm(dropout=1.0), r"^dropout: 1\.0 came; expected a share of 0 or more and less than 1$"),
    "negative dropout": (lambda: lstm(dropout=-0.1), r"^dropout: -0\.1 came; "),
    "cell": (lambda: Recurrent("lstn", 3, 4), r"^no cell is named 'lstn'; did you mean lstm"),
    "missing size": (
        lambda: Recurrent("projection_lstm", 3, 4),
        r'^cell projection_lstm needs a size for proj: sizes=\{"proj": \.\.\.\}$',
    ),
    "unknown size": (
        lambda: lstm(sizes={"proj": 2}),
        r"^sizes: cell lstm has no size 'proj'; it has input, hidden$",
    ),
    "bad size": (
        lambda: Recurrent("projection_lstm", 3, 4, sizes={"proj": 0}),
        r"^sizes: proj: 0 came; expected a whole number of 1 or more$",
    ),
    "hidden as a size": (
        lambda: lstm(sizes={"hidden": 8}),
        r"^sizes: 'hidden' came; that is the argument hidden_size$",
    ),
    "units of a cell as wide as its input": (
        lambda: Recurrent(average, 3, 4),
        r"^hidden_size: 4 came; cell average is as wide as its input: expected 3$",
    ),
    "side input of another name": (
        lambda: lstm()(X, side={"gap": X[..., 0]}),
        r"^side: 'gap' came; lstm has no side inputs$",
    ),
    "side input that is missing": (
        lambda: Recurrent(paced, 3, 3)(X),
        r"^side: gap is missing; paced needs it at every",
    ),
    "side input of another shape": (
        lambda: Recurrent(paced, 3, 3)(X, side={"gap": X}),
        r"^side gap: \(2, 5, 3\) came; expected \(2, 5, 1\) or \(2, 5\)$",
    ),
    "stack of a cell with a side input as wide as x": (
        lambda: Recurrent(masked, 3, 4, 2)(X, side={"mask": X}),
        r"^side: mask came; it is as wide as the input of a layer, and the 2 layers have inputs of 3 and 4",
    ),
    "units that are not equal blocks": (
        lambda: Recurrent(headed, 3, 5),
        r"^U\.h is block-diagonal: hidden = 5 is not 2 equal parts$",
    ),
    "x without batch": (lambda: lstm()(X[0]), r"^x: \(5, 3\) came; expected \[B, T, 3\]$"),
    "x of another width": (lambda: lstm()(X[..., :2]), r"^x: \(2, 5, 2\) came; expected \[B, T, 3\]$"),
    "x of whole numbers": (lambda: lstm()(X.long()), r"^x: torch\.int64 came; expected numbers of a floating type"),
    "state of another batch": (
        lambda: lstm()(X, (STATE, STATE[:, :1])),
        r"^state c: \(1, 1, 4\) came; expected \(1, 2, 4\)$",
    ),
    "state without layers": (lambda: lstm()(X, (STATE[0], STATE)), r"^state h: \(2, 4\) came; expected \(1, 2, 4\)$"),
    "one state too few": (lambda: lstm()(X, (STATE,)), r"^state: 1 values came; expected 2: h, c$"),
    "one tensor for two states": (lambda: lstm()(X, STATE), r"^state: 1 values came; expected 2: h, c$"),
    "lengths of another batch": (
        lambda: lstm()(X, lengths=[5, 5, 5]),
        r"^lengths: \(3,\) came; expected one per sequence of the batch, \(2,\)$",
    ),
    "lengths in two rows": (lambda: lstm()(X, lengths=torch.ones(2, 1)), r"^lengths: \(2, 1\) came; "),
    "half a step": (
        lambda: lstm()(X, lengths=[5, 2.5]),
        r"^lengths: \[5\.0, 2\.5\] came; expected whole numbers of steps$",
    ),
    "length too great": (
        lambda: lstm()(X, lengths=[1, 6]),
        r"^lengths: values from 1 to 6 came; expected 0 to 5, the number of steps of the padded batch$",
    ),
    "negative length": (lambda: lstm()(X, lengths=torch.tensor([-1, 5])), r"^lengths: values from -1 to 5 came; "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_answered(mistake: str) -> None:
    call, words = MISTAKES[mistake]
    with pytest.raises(ValueError, match=words):
        call()


# -- what a layer keeps ----------------------------------------------------------------------------------------------


def test_state_dict_goes_through_a_file() -> None:
    layer, other = lstm(num_layers=2, bidirectional=True), lstm(num_layers=2, bidirectional=True)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert list(layer.state_dict())[:4] == ["layers.0.0.W", "layers.0.0.U", "layers.0.0.b", "layers.0.1.W"]
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert not torch.equal(other(X + 1)[0], layer(X + 1)[0])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(X + 1)[0], layer(X + 1)[0])


def test_a_copy_is_apart() -> None:
    layer = lstm()
    before, _ = layer(X + 1)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(X + 1)[0], before)
    torch.nn.init.normal_(twin.get_parameter("layers.0.0.W"))
    assert torch.equal(layer(X + 1)[0], before)
    assert not torch.equal(twin(X + 1)[0], before)


def test_a_layer_and_its_state_can_be_pickled() -> None:
    layer = lstm(bidirectional=True)
    y, state = layer(X + 1)
    twin = pickle.loads(pickle.dumps(layer))
    assert torch.equal(twin(X + 1)[0], y)
    again = pickle.loads(pickle.dumps(state))
    assert type(again) is type(state)
    assert torch.equal(again.c, state.c)


def test_a_layer_says_what_it_is() -> None:
    assert repr(lstm(num_layers=2, bidirectional=True, dropout=0.5)) == (
        "Recurrent(lstm, 3, 4, num_layers=2, bidirectional=True, dropout=0.5)"
    )


def test_the_state_is_named() -> None:
    y, state = lstm(num_layers=2, bidirectional=True)(X)
    assert y.shape == (2, 5, 8)
    assert state._fields == ("h", "c")
    assert type(state).__name__ == "LstmState"
    assert state.h.shape == state.c.shape == (4, 2, 4)


def test_states_say_which_layer_and_direction_they_belong_to() -> None:
    layer = lstm(num_layers=2, bidirectional=True)
    y, state = layer(X + torch.randn(2, 5, 3), lengths=[5, 2])
    assert torch.equal(y[0, 4, :4], state.h[2, 0])
    assert torch.equal(y[1, 1, :4], state.h[2, 1])
    assert torch.equal(y[:, 0, 4:], state.h[3])


def test_past_the_end_of_a_sequence_there_is_zero() -> None:
    y, _ = lstm()(X + 1, lengths=[5, 2])
    assert y[1, :2].abs().min() > 0
    assert y[1, 2:].abs().max() == 0


def test_the_state_starts_as_the_cell_says() -> None:
    assert torch.equal(Recurrent("slstm", 3, 4).start_state(2).m, torch.full((1, 2, 4), -1e30))
    assert lstm(dtype=DOUBLE).start_state(2).c.dtype == DOUBLE
    layer = lstm()
    assert torch.equal(layer(X + 1)[0], layer(X + 1, layer.start_state(2))[0])


def test_a_start_value_beyond_the_range_of_a_half_type_is_its_end() -> None:
    layer = Recurrent("slstm", 3, 4).half()
    assert layer.start_state(1).m.unique().tolist() == [torch.finfo(torch.float16).min]
    y, state = layer((X + 1).half())
    assert_close(y, copy.deepcopy(layer).double()(X.double() + 1)[0], BFLOAT16)
    assert all(array.isfinite().all() for array in state)


def test_a_cell_without_parameters_is_a_layer() -> None:
    layer = Recurrent(average(keep=0.25), 3, 3)
    assert list(layer.parameters()) == []
    assert layer.output_size == 3
    y, state = layer(torch.ones(2, 2, 3))
    assert_close(y[:, :, 0], [[0.75, 0.9375]] * 2, FLOAT32)
    assert state.h.shape == layer.start_state(2).h.shape == (1, 2, 3)
    assert layer.double().start_state(1).h.dtype == DOUBLE
    assert Recurrent(average, 3, 3, 5)(X)[0].shape == X.shape


def test_a_side_input_that_is_not_given_has_its_start_value_in_every_layer() -> None:
    torch.manual_seed(0)
    layer = Recurrent(masked, 3, 4, 2, bidirectional=True)
    first, second = (Recurrent(masked, width, 4, bidirectional=True) for width in (3, 8))
    for name, parameter in layer.named_parameters():
        one = first if name.startswith("layers.0") else second
        one.get_parameter(name.replace("layers.1", "layers.0")).data.copy_(parameter.data)
    halves = [torch.full((2, 5, width), 0.5) for width in (3, 8)]
    middle, _ = first(X, side={"mask": halves[0]})
    assert_close(layer(X)[0], second(middle, side={"mask": halves[1]})[0], SAME)


# -- start values ----------------------------------------------------------------------------------------------------


def test_start_values_are_those_of_the_cell_and_the_usual() -> None:
    layer = lstm(dtype=DOUBLE).layers[0][0]  # type: ignore[index]
    assert layer.b.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    for gate in layer.U.split(4):
        assert_close(gate @ gate.T, torch.eye(4), SAME)
    bound = (6 / (3 + 4)) ** 0.5
    assert layer.W.abs().max() <= bound
    assert layer.W.abs().max() > bound / 2


def test_start_values_are_drawn_from_where_the_cell_says() -> None:
    torch.manual_seed(0)
    u = Recurrent("indrnn", 3, 200).get_parameter("layers.0.0.u")
    assert 0 <= u.min() < 0.1
    assert 0.9 < u.max() <= 1
    scales = Recurrent("layernorm_lstm", 3, 4)
    assert scales.get_parameter("layers.0.0.s").tolist() == [1.0] * 16
    assert scales.get_parameter("layers.0.0.t").tolist() == [1.0] * 20
    assert scales.get_parameter("layers.0.0.b").tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 12


def test_a_projection_starts_orthogonal() -> None:
    P = Recurrent("projection_lstm", 3, 6, sizes={"proj": 2}, dtype=DOUBLE).get_parameter("layers.0.0.P")
    assert_close(P @ P.T, torch.eye(2), SAME)


def test_a_seed_decides_the_start_values() -> None:
    layer = lstm(num_layers=2)
    first = copy.deepcopy(layer.state_dict())
    assert not torch.equal(first["layers.0.0.U"][:4], first["layers.1.0.U"][:4])
    layer.reset_parameters()
    assert not torch.equal(layer.state_dict()["layers.0.0.U"], first["layers.0.0.U"])
    torch.manual_seed(0)
    layer.reset_parameters()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, first[name])


# -- running ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)], ids=str)
@pytest.mark.parametrize("name", cells.names())
def test_runs_in_other_types(name: str, dtype: torch.dtype, tolerance: Tolerance) -> None:
    torch.manual_seed(0)
    sizes = {"proj": 2} if name == "projection_lstm" else None
    layer = Recurrent(name, 3, 4, sizes=sizes, dtype=dtype)
    x = torch.randn(2, 4, 3, dtype=dtype)
    y, state = layer(x, lengths=[4, 2])
    if y.requires_grad:
        y.sum().backward()
    exact, _ = copy.deepcopy(layer).double()(x.double(), lengths=[4, 2])
    assert y.dtype == dtype
    assert all(array.dtype == dtype for array in state)
    assert_close(y, exact, tolerance)
    for parameter in layer.parameters():
        assert parameter.grad is None or parameter.grad.dtype == dtype
    assert y.requires_grad or name == "esn"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_start_values_can_be_drawn_in_any_type(dtype: torch.dtype) -> None:
    layer = lstm(dtype=dtype)
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    assert layer.get_parameter("layers.0.0.U").float().norm() > 1


def test_dropout_is_for_training_only() -> None:
    layer, plain = lstm(num_layers=2, dropout=0.5), lstm(num_layers=2)
    x = torch.randn(2, 5, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], plain(x)[0])
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_dropout_spares_the_last_layer_and_the_states() -> None:
    layer = lstm(num_layers=1, dropout=0.9)
    x = torch.randn(2, 5, 3)
    assert torch.equal(layer(x)[0], lstm()(x)[0])
    deep = lstm(num_layers=2, dropout=0.9)
    # So that the second layer's output is not zero where all of its input is left out.
    torch.nn.init.constant_(deep.get_parameter("layers.1.0.b"), 0.3)
    y, state = deep(x)
    assert (y != 0).all()
    assert torch.equal(state.h[0], lstm(num_layers=2)(x)[1].h[0])


@pytest.mark.parametrize("name", ["lstm", "gru_before", "mingru", "layernorm_lstm"])
def test_without_gradients_the_same(name: str) -> None:
    torch.manual_seed(0)
    layer = Recurrent(name, 3, 4, 2, bidirectional=True, dtype=DOUBLE)
    x = torch.randn(3, 5, 3, dtype=DOUBLE)
    expected, final = layer(x, lengths=[5, 0, 2])
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y, state = layer(x, lengths=[5, 0, 2])
        assert_close(y, expected, SAME)
        for a, b in zip(state, final, strict=True):
            assert_close(a, b, SAME)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert not layer(x)[0].requires_grad


def test_frozen_weights_get_no_gradient_and_the_others_the_same() -> None:
    x = torch.randn(2, 5, 3, dtype=DOUBLE)

    def grads(*frozen: str) -> dict[str, Tensor | None]:
        layer = lstm(num_layers=2, dtype=DOUBLE)
        for name in frozen:
            layer.get_parameter(name).requires_grad_(False)
        layer(x)[0].square().sum().backward()
        return {name: parameter.grad for name, parameter in layer.named_parameters()}

    free, held = grads(), grads("layers.0.0.U", "layers.1.0.b")
    assert held.pop("layers.0.0.U") is None
    assert held.pop("layers.1.0.b") is None
    for name, grad in held.items():
        assert_close(grad, free[name], SAME, name)


def test_only_the_input_or_only_the_state_may_want_a_gradient() -> None:
    layer = lstm(dtype=DOUBLE).requires_grad_(False)
    x = torch.randn(2, 5, 3, dtype=DOUBLE)
    state = [torch.randn(1, 2, 4, dtype=DOUBLE) for _ in range(2)]
    leaves = [x, *state]
    for leaf in leaves:
        leaf.requires_grad_()
    expected = torch.autograd.grad(layer(x, state)[0].square().sum(), leaves)
    for leaf, grad in zip(leaves, expected, strict=True):
        for other in leaves:
            other.requires_grad_(other is leaf)
        assert_close(torch.autograd.grad(layer(x, state)[0].square().sum(), [leaf])[0], grad, SAME)


def test_gradients_may_be_asked_for_twice() -> None:
    layer = lstm(dtype=DOUBLE)
    y, _ = layer(X.double() + 1)
    number = y.square().sum()
    first = torch.autograd.grad(number, list(layer.parameters()), retain_graph=True)
    again = torch.autograd.grad(number, list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_weight_changed_before_backward_is_an_error_and_not_a_wrong_gradient() -> None:
    layer = lstm()
    number = layer(X + 1)[0].sum()
    with torch.no_grad():
        layer.get_parameter("layers.0.0.U").mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        number.backward()


def test_the_given_state_and_input_stay_as_they_are() -> None:
    layer = lstm()
    x, state = torch.randn(2, 5, 3), [torch.randn(1, 2, 4) for _ in range(2)]
    kept = [array.clone() for array in (x, *state)]
    with torch.no_grad():
        _, final = layer(x, state, [5, 0])
        for array in final:
            array.add_(1)
    for array, before in zip((x, *state), kept, strict=True):
        assert torch.equal(array, before)


def test_input_may_lie_in_memory_in_any_way() -> None:
    layer = lstm(dtype=DOUBLE, bidirectional=True)
    x = torch.randn(5, 2, 6, dtype=DOUBLE)
    odd = x.transpose(0, 1)[..., ::2]
    assert not odd.is_contiguous()
    for given in (odd, x[:1, :1, :3].expand(2, 5, 3)):
        for lengths in (None, [4, 2]):
            assert_close(layer(given, lengths=lengths)[0], layer(given.contiguous(), lengths=lengths)[0], SAME)
    state = [torch.randn(1, 1, 4, dtype=DOUBLE).expand(2, 2, 4) for _ in range(2)]
    assert_close(layer(odd, state)[0], layer(odd, [array.contiguous() for array in state])[0], SAME)


def test_a_gradient_reaches_an_expanded_input_once_for_each_place() -> None:
    layer = lstm(dtype=DOUBLE)
    row = torch.randn(1, 1, 3, dtype=DOUBLE, requires_grad=True)
    full = row.detach().repeat(2, 5, 1).requires_grad_()
    layer(row.expand(2, 5, 3))[0].sum().backward()
    layer(full)[0].sum().backward()
    assert full.grad is not None
    assert_close(row.grad, full.grad.sum((0, 1), keepdim=True), SAME)


def test_lengths_may_be_a_list_or_a_tensor() -> None:
    layer = lstm()
    expected = layer(X + 1, lengths=[5, 2])[0]
    for lengths in ((5, 2), torch.tensor([5, 2]), torch.tensor([5, 2], dtype=torch.int32)):
        assert torch.equal(layer(X + 1, lengths=lengths)[0], expected)


def test_padding_is_not_computed() -> None:
    packing = Packing.of([1, 3, 0], 3, 4, torch.device("cpu"))
    assert packing.batch_sizes == (2, 1, 1)
    assert packing.pack(torch.zeros(3, 4, 2)).shape == (4, 2)


def test_packing_and_unpacking_are_each_others_opposite() -> None:
    x = torch.arange(24.0).reshape(3, 4, 2)
    packing = Packing.of([1, 4, 2], 3, 4, x.device)
    back = packing.unpack(packing.pack(x))
    assert torch.equal(back[1], x[1])
    assert torch.equal(back[0, :1], x[0, :1])
    assert back[0, 1:].abs().sum() + back[2, 2:].abs().sum() == 0
    assert torch.equal(packing.original(packing.sort(x)), x)


def test_a_cell_of_ones_own_is_a_layer() -> None:
    @cell(states="h", gates="h", init={"u": (-2.0, -1.0)})
    def leaky(x, h, W, u):
        return exp(u.h) * h + tanh(W.h @ x)

    torch.manual_seed(0)
    layer = Recurrent(leaky, 3, 4, dtype=DOUBLE)
    x = torch.randn(1, 2, 3, dtype=DOUBLE)
    W, u = (layer.get_parameter(f"layers.0.0.{name}") for name in "Wu")
    first = torch.tanh(x[:, 0] @ W.T)
    assert_close(layer(x)[0][:, 1], torch.exp(u) * first + torch.tanh(x[:, 1] @ W.T), SAME)


@pytest.mark.parametrize(("batch", "time"), [(1, 4), (3, 1), (1, 1), (3, 4), (0, 4), (3, 0)])
def test_a_full_batch_is_packed_turned_and_unpacked_as_one_of_lengths_is(batch: int, time: int) -> None:
    x = torch.randn(batch, time, 2)
    full = Packing.full(batch, time)
    rows = full.pack(x)
    assert torch.equal(rows, x.transpose(0, 1).reshape(batch * time, 2))
    assert torch.equal(full.unpack(rows), x)
    assert torch.equal(full.turned(rows), full.pack(x.flip(1)))
    assert torch.equal(full.turned(rows), rows.index_select(0, full.backwards(x.device)))


def test_a_ragged_batch_is_turned_each_sequence_from_its_own_end() -> None:
    x = torch.arange(1.0, 9.0).reshape(2, 4, 1)
    packing = Packing.of([2, 4], 2, 4, x.device)
    turned = packing.unpack(packing.turned(packing.pack(x)))
    assert turned[..., 0].tolist() == [[2, 1, 0, 0], [8, 7, 6, 5]]
