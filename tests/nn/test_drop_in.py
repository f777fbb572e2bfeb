"""everloop.nn.RNN, LSTM, GRU and their cells beside torch's: what they give, and what else programs do with them."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import everloop.nn
from everloop import use_backend
from everloop.testing import BFLOAT16, FLOAT32, SAME, assert_close

DOUBLE = torch.float64
LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")

every_layer = pytest.mark.parametrize("name", LAYERS)
every_cell = pytest.mark.parametrize("name", CELLS)
every_module = pytest.mark.parametrize("name", [*LAYERS, *CELLS])


@pytest.fixture(autouse=True, params=["auto", "llvm"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """As it comes, and with all kernels in use: few steps, and cells, run torch's own forward if none is asked for."""
    with use_backend(request.param):
        yield request.param


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """torch's module and ours, both made from one seed."""
    made = []
    for home in (nn, everloop.nn):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.append(getattr(home, name)(*args, **{"dtype": DOUBLE, **kwargs}))
    return made[0], made[1]


def leaves(value: Any) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    return [value] if isinstance(value, Tensor) else [leaf for part in value for leaf in leaves(part)]


def draw(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def states_for(module: Any, name: str, *batch: int, dtype: torch.dtype = DOUBLE) -> Any:
    """Initial states of a layer, for so many sequences, or for one by itself."""
    count = module.num_layers * (2 if module.bidirectional else 1)
    h = draw(count, *batch, module.proj_size or module.hidden_size, dtype=dtype).requires_grad_()
    return (h, draw(count, *batch, module.hidden_size, dtype=dtype).requires_grad_()) if name == "LSTM" else h


def cell_states_for(module: Any, name: str, *batch: int) -> Any:
    h = draw(*batch, module.hidden_size).requires_grad_()
    return (h, draw(*batch, module.hidden_size).neg().requires_grad_()) if name == "LSTMCell" else h


def assert_same(expected: Any, ours: Any, x: Any, hx: Any = None, tolerance: Any = SAME) -> None:
    """Results of the same form, and gradients of a function of all of them."""
    found = []
    for module in (expected, ours):
        given, states = copy.deepcopy(x), copy.deepcopy(hx)
        out = module(given, states) if states is not None else module(given)
        total = sum((leaf * torch.linspace(-1, 1, leaf.numel()).reshape(leaf.shape)).sum() for leaf in leaves(out))
        inputs = [leaf for leaf in leaves([given] if states is None else [given, states]) if leaf.requires_grad]
        wanted = [*inputs, *(weight for weight in module.parameters() if weight.requires_grad)]
        grads = torch.autograd.grad(total, wanted) if wanted else ()
        found.append((out, [*leaves(out), *grads]))
    (right, rights), (mine, arrays) = found
    assert form(right) == form(mine)
    for k, (a, b) in enumerate(zip(arrays, rights, strict=True)):
        assert a.dtype is b.dtype
        assert_close(a, b, tolerance, f"{ours}, number {k}")


def form(value: Any) -> Any:
    """The types of what comes out, and what a PackedSequence says."""
    if isinstance(value, PackedSequence):
        return [None if part is None else part.tolist() for part in value[1:]]
    return type(value) if isinstance(value, Tensor) else [type(value), *(form(part) for part in value)]


# -- what they give ---------------------------------------------------------------------------------------------------


def layouts(name: str) -> Iterator[dict[str, Any]]:
    for layers, both, bias, proj in product((1, 2, 3), (False, True), (False, True), (0, 2)):
        if not proj or name == "LSTM":
            yield {"num_layers": layers, "bidirectional": both, "bias": bias} | ({"proj_size": proj} if proj else {})


@every_layer
def test_layers_of_every_layout_give_the_same(name: str) -> None:
    """Batches, sequences by themselves, packed ones; with states and without."""
    packed = pack_sequence([draw(4, 3), draw(1, 3), draw(5, 3)], enforce_sorted=False)
    for layout in layouts(name):
        for first in (False, True):
            expected, ours = pair(name, 3, 4, batch_first=first, **layout)
            x = draw(2, 5, 3) if first else draw(5, 2, 3)
            assert_same(expected, ours, x)
            assert_same(expected, ours, x, states_for(ours, name, 2))
            assert_same(expected, ours, draw(5, 3), states_for(ours, name))
            assert_same(expected, ours, packed, states_for(ours, name, 3))


@every_layer
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("time", [1, 2, 40])
def test_batches_of_every_size_give_the_same(name: str, batch: int, time: int) -> None:
    expected, ours = pair(name, 3, 4)
    assert_same(expected, ours, draw(time, batch, 3).requires_grad_(), states_for(ours, name, batch))


@every_layer
def test_relu_and_float32(name: str) -> None:
    more = {"nonlinearity": "relu"} if name == "RNN" else {}
    expected, ours = pair(name, 3, 4, dtype=torch.float32, **more)
    assert_same(expected, ours, draw(6, 2, 3, dtype=torch.float32), tolerance=FLOAT32)


@every_layer
@pytest.mark.parametrize("both", [False, True])
def test_packed_sequences_of_every_kind(name: str, both: bool) -> None:
    expected, ours = pair(name, 3, 4, bidirectional=both)
    padded = draw(6, 3, 3)
    for lengths, ordered in (([6, 4, 4], True), ([6, 6, 6], True), ([1, 6, 3], False), ([2, 1, 2], False)):
        x = pack_padded_sequence(padded, torch.tensor(lengths), enforce_sorted=ordered)
        x.data.requires_grad_()
        assert_same(expected, ours, x)
        assert_same(expected, ours, x, states_for(ours, name, 3))


@every_cell
@pytest.mark.parametrize("bias", [False, True])
def test_cells_give_the_same(name: str, bias: bool) -> None:
    expected, ours = pair(name, 3, 4, bias=bias)
    for batch in ((), (1,), (5,)):
        x = draw(*batch, 3).requires_grad_()
        assert_same(expected, ours, x)
        assert_same(expected, ours, x, cell_states_for(ours, name, *batch))


@every_cell
@pytest.mark.parametrize("bias", [False, True])
def test_steps_without_a_gradient_give_the_same(name: str, bias: bool) -> None:
    """Of arrays that lie in any way, after weights have changed behind everybody's back, too."""
    expected, ours = pair(name, 3, 20, bias=bias)
    for batch in (0, 1, 5, 1, 40):
        wide = cell_states_for(ours, name, batch, 2)
        hx = tuple(array[:, 0].detach() for array in wide) if isinstance(wide, tuple) else wide[:, 0].detach()
        for module in (expected, ours):
            for weight in module.parameters():
                weight.data.mul_(0.9)
        for x in (draw(batch, 3), draw(3, batch).t(), draw(3).expand(batch, 3)):
            with torch.no_grad():
                for states in ((), (hx,)):
                    found, right = ours(x, *states), expected(x, *states)
                    assert form(found) == form(right)
                    for a, b in zip(leaves(found), leaves(right), strict=True):
                        assert_close(a, b)


@every_cell
def test_steps_run_where_they_are_quicker(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own forward runs steps of an RNNCell, and those that have a gradient, unless a backend is named."""
    _, ours = pair(name, 3, 4)

    def refuse(*_: Any) -> None:
        raise AssertionError("torch's own")

    monkeypatch.setattr(getattr(nn, name), "forward", refuse)
    for grad in (False, True):
        torchs = backend == "auto" and (grad or name == "RNNCell")
        with torch.set_grad_enabled(grad), pytest.raises(AssertionError) if torchs else nullcontext():
            ours(draw(5, 3))


@every_cell
def test_cells_under_transforms_of_functions(name: str, backend: str) -> None:
    expected, ours = pair(name, 3, 4)
    x = draw(6, 5, 3)

    def of(module: Any) -> Callable[[Tensor], Tensor]:
        return lambda rows: leaves(module(rows))[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(torch.func.vmap(of(ours))(x), torch.stack([of(expected)(rows) for rows in x]))
    weighed = [torch.func.grad(lambda rows, module=module: of(module)(rows).sum())(x[0]) for module in (ours, expected)]
    assert_close(*weighed)
    if backend == "auto":
        along = [torch.func.jvp(of(module), (x[0],), (x[1],))[1] for module in (ours, expected)]
        assert_close(*along)


def test_a_cell_of_relu_gives_the_same() -> None:
    expected, ours = pair("RNNCell", 3, 4, nonlinearity="relu")
    assert_same(expected, ours, draw(5, 3), draw(5, 4))


@every_module
def test_arrays_may_lie_in_memory_in_any_way(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    shape = (5, 2) if name in LAYERS else (5,)
    states = states_for(ours, name, 2) if name in LAYERS else cell_states_for(ours, name, 5)
    strided = [leaf.detach().repeat_interleave(2, -1)[..., ::2] for leaf in leaves([states])]
    hx = tuple(strided) if len(strided) > 1 else strided[0]
    for x in (draw(3, *shape).movedim(0, -1), draw(3).expand(*shape, 3), draw(*shape, 6)[..., ::2]):
        assert not x.is_contiguous()
        assert_same(expected, ours, x, hx)


@every_layer
def test_what_comes_out_can_be_viewed_as_torch_says(name: str) -> None:
    """Outputs are contiguous, so that directions, or steps and sequences, can be told apart by `view`."""
    for both in (False, True):
        _, ours = pair(name, 3, 4, bidirectional=both)
        y, _ = ours(draw(5, 2, 3))
        assert y.view(5 * 2, -1).shape == (10, 8 if both else 4)
        assert all(array.is_contiguous() for array in leaves(ours(draw(5, 2, 3))))


@every_layer
def test_what_comes_out_can_be_changed_in_place(name: str) -> None:
    """As by a mask, or Dropout(inplace=True), on the way to a loss."""
    for both, first, batch in product((False, True), (False, True), (1, 3)):
        grads = []
        for module in pair(name, 3, 4, bidirectional=both, batch_first=first):
            x = draw(*((batch, 7) if first else (7, batch)), 3).requires_grad_()
            y, *states = leaves(module(x))
            y.mul_(2)
            y[0] = 0
            states[0][:, 0] = 1
            grads.append(torch.autograd.grad(y.sum() + states[0].mul_(2).sum(), x)[0])
        assert_close(grads[1], grads[0])


@every_module
def test_frozen_weights_have_no_gradient(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    for module in (expected, ours):
        for key, weight in module.named_parameters():
            weight.requires_grad_("hh" in key)
    assert_same(expected, ours, draw(5, 2, 3) if name in LAYERS else draw(5, 3))
    for weight in ours.parameters():
        weight.requires_grad_(False)
    out = leaves(ours(draw(5, 2, 3) if name in LAYERS else draw(5, 3)))
    assert not any(leaf.requires_grad for leaf in out)


@every_module
def test_no_sequences(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    assert_same(expected, ours, draw(5, 0, 3) if name in LAYERS else draw(0, 3))


@every_layer
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("first", [False, True])
def test_dropout_draws_what_torch_draws(name: str, share: float, first: bool) -> None:
    """The same seed gives the same masks, so that a converted model trains to the same numbers."""
    for both in (False, True):
        expected, ours = pair(name, 3, 4, num_layers=3, dropout=share, bidirectional=both, batch_first=first)
        packed = pack_padded_sequence(draw(6, 3, 3), torch.tensor([2, 6, 4]), enforce_sorted=False)
        for x in (draw(6, 5, 3), draw(6, 3), packed):
            results = []
            for module in (expected, ours):
                torch.manual_seed(1)
                results.append((leaves(module(x)), torch.get_rng_state()))
            (right, after), (found, mine) = results
            assert torch.equal(after, mine)
            for a, b in zip(found, right, strict=True):
                assert_close(a, b, SAME, str(ours))
        ours.eval()
        assert_same(expected.eval(), ours, draw(6, 5, 3))


@every_layer
def test_dropout_follows_the_seed(name: str) -> None:
    _, ours = pair(name, 3, 4, num_layers=2, dropout=0.5)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return ours(draw(6, 5, 3))[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@every_module
def test_second_gradients_are_there_in_training(name: str) -> None:
    _, ours = pair(name, 3, 4)
    x = (draw(3, 2, 3) if name in LAYERS else draw(5, 3)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: tuple(leaves(ours(x))), x, fast_mode=True)


# -- what they refuse, as torch does ----------------------------------------------------------------------------------


def refused(do: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as found:
        do()
    return found.type, str(found.value)


WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((3,), {}),
    ((3, 4), {"units": 3}),
    ((0, 4), {}),
    ((3.0, 4), {}),
    ((3, "4"), {}),
    ((3, 4), {"num_layers": -1}),
    ((3, 4), {"dropout": 1.5}),
    ((3, 4), {"dropout": True}),
    ((3, 4), {"proj_size": 4}),
    ((3, 4), {"proj_size": -1}),
    ((3, 4), {"bias": None}),
    ((3, 4), {"batch_first": "yes"}),
    ((3, 4), {"nonlinearity": "sigmoid"}),
    ((3, 4, 1, "softsign"), {}),
    ((3, 4, 1, "tanh"), {"nonlinearity": "tanh"}),
    ((3, 4, 1, "tanh", 5), {}),
]


@every_layer
@pytest.mark.parametrize(("args", "kwargs"), WRONG, ids=str)
def test_wrong_constructors_are_refused_in_the_same_words(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    def words(home: Any) -> Any:
        try:
            getattr(home, name)(*args, **kwargs)
        except Exception as error:
            return type(error), str(error)
        return None

    assert words(everloop.nn) == words(nn)


def wrong_calls(name: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of a layer of 3 inputs, 4 units, 2 layers."""
    x, h = draw(5, 2, 3), draw(2, 2, 4)

    def state(h: Any, c: Any = None) -> Any:
        return (h, h if c is None else c) if name == "LSTM" else h

    packed = pack_padded_sequence(x, torch.tensor([5, 3]))
    wide = pack_padded_sequence(draw(5, 2, 4), torch.tensor([5, 3]))
    return {
        "a list": ([[[1.0, 2.0, 3.0]]],),
        "nothing": (None,),
        "one axis": (draw(3),),
        "four axes": (draw(5, 2, 3, 1),),
        "too wide": (draw(5, 2, 4),),
        "no steps": (draw(0, 2, 3),),
        "float32": (x.float(),),
        "whole numbers": (torch.ones(5, 2, 3, dtype=torch.int64),),
        "state too wide": (x, state(draw(2, 2, 5))),
        "state of another batch": (x, state(draw(2, 3, 4))),
        "state of other layers": (x, state(draw(1, 2, 4))),
        "state of two axes": (x, state(draw(2, 4))),
        "state of three axes for one sequence": (draw(5, 3), state(h)),
        "state in float32": (x, state(h.float())),
        "state as a list": (x, [h]),
        "three states": (x, (h, h, h)),
        "state of another kind": (x, h if name == "LSTM" else (h, h)),
        "state of numbers": (x, state(1.0)),
        "second state too wide": (x, state(h, draw(2, 2, 5))),
        "packed, too wide": (wide,),
        "packed, state of another batch": (packed, state(draw(2, 3, 4))),
        "packed, float32": (PackedSequence(packed.data.float(), packed.batch_sizes),),
        "packed, state too wide": (packed, state(draw(2, 2, 5))),
    }


@every_layer
@pytest.mark.parametrize("case", wrong_calls("LSTM"))
def test_wrong_calls_are_refused_in_the_same_words(name: str, case: str) -> None:
    given = wrong_calls(name)[case]
    expected, ours = pair(name, 3, 4, 2)
    if name != "LSTM" and case == "second state too wide":
        assert_same(expected, ours, *given)
    else:
        assert refused(lambda: ours(*given)) == refused(lambda: expected(*given))


@every_layer
def test_weights_that_do_not_fit_are_refused_in_the_same_words(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    gates = ours.weight_hh_l0.shape[0]
    for key, weight in (
        ("weight_hh_l0", draw(gates, 5)),
        ("bias_ih_l0", draw(gates + 1)),
        ("weight_ih_l0", draw(gates, 3).float()),
    ):
        given = {key: weight}
        words = [
            refused(lambda m=m, w=given: torch.func.functional_call(m, w, draw(5, 2, 3))) for m in (ours, expected)
        ]
        assert words[0] == words[1]


def wrong_steps(name: str) -> dict[str, tuple[Any, ...]]:
    x, h = draw(2, 3), draw(2, 4)

    def state(h: Any) -> Any:
        return (h, h) if name == "LSTMCell" else h

    return {
        "three axes": (draw(1, 2, 3),),
        "no axis": (draw(3)[0],),
        "too wide": (draw(2, 4),),
        "float32": (x.float(),),
        "a list": ([1.0],),
        "state too wide": (x, state(draw(2, 5))),
        "state of another batch": (x, state(draw(3, 4))),
        "state of three axes": (x, state(draw(2, 1, 4))),
        "state in float32": (x, state(h.float())),
        "state of another kind": (x, h if name == "LSTMCell" else (h, h)),
        "state of one sequence": (x, state(draw(4))),
    }


@every_cell
@pytest.mark.parametrize("case", wrong_steps("LSTMCell"))
def test_wrong_steps_are_refused_in_the_same_words(name: str, case: str) -> None:
    given = wrong_steps(name)[case]
    expected, ours = pair(name, 3, 4)
    assert refused(lambda: ours(*given)) == refused(lambda: expected(*given))


def test_an_unknown_nonlinearity_of_a_cell_is_refused_when_it_runs() -> None:
    expected, ours = pair("RNNCell", 3, 4, nonlinearity="softsign")
    assert refused(lambda: ours(draw(2, 3))) == refused(lambda: expected(draw(2, 3)))


# -- what else programs do with them ----------------------------------------------------------------------------------


@every_module
def test_they_look_like_torch_s(name: str) -> None:
    for args, kwargs in (
        ((3, 4), {}),
        ((3, 4), {"bias": False}),
        ((3, 4), {"num_layers": 2, "batch_first": True, "bidirectional": True, "dropout": 0.5}),
        ((3, 4), {"proj_size": 2}),
    ):
        if (name in CELLS and "bias" not in kwargs and kwargs) or ("proj_size" in kwargs and name != "LSTM"):
            continue
        expected, ours = pair(name, *args, **kwargs)
        assert repr(ours) == repr(expected)
        assert ours.extra_repr() == expected.extra_repr()
        assert [*ours.state_dict()] == [*expected.state_dict()]
        assert {*vars(ours)} == {*vars(expected)}
        # The same seed draws the same start values, and as many of them.
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), expected.parameters(), strict=True))
        if name in LAYERS:
            assert isinstance(ours, nn.RNNBase)
            shapes = [[weight.shape for weight in weights] for weights in expected.all_weights]
            assert [[weight.shape for weight in weights] for weights in ours.all_weights] == shapes
            assert ours.flatten_parameters() is None


@every_layer
def test_positional_arguments_mean_what_they_mean_in_torch(name: str) -> None:
    args = (3, 4, 2, "relu", False, True, 0.0, True) if name == "RNN" else (3, 4, 2, False, True, 0.0, True)
    expected, ours = pair(name, *args)
    assert repr(ours) == repr(expected)
    assert_same(expected, ours, draw(2, 5, 3))


@every_layer
def test_the_warning_of_useless_dropout_is_torch_s(name: str) -> None:
    words = []
    for home in (nn, everloop.nn):
        with pytest.warns(UserWarning, match="dropout option adds dropout") as seen:
            getattr(home, name)(3, 4, dropout=0.5)
        words.append([str(one.message) for one in seen])
    assert words[0] == words[1]


@every_module
def test_weights_go_both_ways(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    with torch.no_grad():
        for weight in expected.parameters():
            weight.mul_(2)
    x = draw(5, 2, 3) if name in LAYERS else draw(5, 3)
    ours.load_state_dict(expected.state_dict())
    assert_same(expected, ours, x)
    expected.reset_parameters()
    expected.load_state_dict(ours.state_dict())
    assert_same(expected, ours, x)
    assert refused(lambda: ours.load_state_dict({}))[1].endswith(refused(lambda: expected.load_state_dict({}))[1][-40:])


@every_module
def test_copies_and_pickles(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    x = draw(5, 2, 3) if name in LAYERS else draw(5, 3)
    ours(x)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)):
        assert type(other) is type(ours)
        assert_same(expected, other, x)
        with torch.no_grad():
            next(iter(other.parameters())).zero_()
        assert_same(expected, ours, x)


@every_layer
def test_old_weight_norm(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    for module in (expected, ours):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(module, "weight_hh_l0")
    assert [*ours.state_dict()] == [*expected.state_dict()]
    assert_same(expected, ours, draw(5, 2, 3))
    for module in (expected, ours):
        nn.utils.remove_weight_norm(module, "weight_hh_l0")
    assert_same(expected, ours, draw(5, 2, 3))


@every_module
@pytest.mark.parametrize(
    "how", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_parametrizations(name: str, how: Callable[..., Any]) -> None:
    expected, ours = pair(name, 3, 4)
    key = "weight_hh_l0" if name in LAYERS else "weight_hh"
    for module in (expected, ours):
        torch.manual_seed(3)
        how(module, key)
        module.eval()
    assert [*ours.state_dict()] == [*expected.state_dict()]
    x = draw(5, 2, 3) if name in LAYERS else draw(5, 3)
    assert_same(expected, ours, x)
    for module in (expected, ours):
        parametrize.remove_parametrizations(module, key)
    assert_same(expected, ours, x)


@every_layer
def test_old_spectral_norm(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    for module in (expected, ours):
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.spectral_norm(module, "weight_hh_l0")
        module.eval()
    assert_same(expected, ours, draw(5, 2, 3))


@every_module
def test_clipping_vectors_and_swapped_weights(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    x = draw(5, 2, 3) if name in LAYERS else draw(5, 3)
    norms = []
    for module in (expected, ours):
        (leaves(module(x))[0].square().sum() * 100).backward()
        norms.append(nn.utils.clip_grad_norm_(module.parameters(), 1.0))
        vector = nn.utils.parameters_to_vector(module.parameters())
        nn.utils.vector_to_parameters(
            vector - 0.1 * torch.cat([w.grad.ravel() for w in module.parameters()]), module.parameters()
        )
        module.zero_grad()
    assert_close(norms[1], norms[0])
    assert_same(expected, ours, x)
    other = {key: weight.detach() * 2 for key, weight in ours.named_parameters()}
    right, found = (torch.func.functional_call(module, other, x) for module in (expected, ours))
    for a, b in zip(leaves(found), leaves(right), strict=True):
        assert_close(a, b)
    # A weight that is replaced is the one that runs.
    key = next(iter(dict(ours.named_parameters())))
    for module in (expected, ours):
        setattr(module, key, nn.Parameter(getattr(module, key).detach() * 3))
    assert_same(expected, ours, x)


@every_module
def test_hooks_and_modes(name: str) -> None:
    _, ours = pair(name, 3, 4)
    seen: list[str] = []
    ours.register_forward_pre_hook(lambda module, args: seen.append("before"))
    ours.register_forward_hook(lambda module, args, out: seen.append("after"))
    ours.register_full_backward_hook(lambda module, grad, out: seen.append("backward"))
    x = (draw(5, 2, 3) if name in LAYERS else draw(5, 3)).requires_grad_()
    leaves(ours(x))[0].sum().backward()
    assert seen == ["before", "after", "backward"]
    assert ours.train() is ours
    assert ours.training
    assert not ours.eval().training


@every_module
def test_types_and_devices_can_be_changed(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    ours.to(torch.float32)
    x = draw(5, 2, 3) if name in LAYERS else draw(5, 3)
    assert_same(expected.float(), ours, x.float(), tolerance=FLOAT32)
    assert_same(expected.double(), ours.double(), x)
    right, found = (module.to("meta")(x.to("meta")) for module in (expected, ours))
    assert [leaf.shape for leaf in leaves(found)] == [leaf.shape for leaf in leaves(right)]


@every_module
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_give_the_same(name: str, dtype: torch.dtype) -> None:
    expected, ours = pair(name, 3, 4, dtype=dtype)
    x = (draw(5, 2, 3) if name in LAYERS else draw(5, 3)).to(dtype)
    assert_same(expected, ours, x, tolerance=BFLOAT16)


@every_module
def test_autocast_is_torch_s_own(name: str) -> None:
    """Which of its results are narrow is told by no rule."""
    expected, ours = pair(name, 3, 4, dtype=torch.float32)
    x = draw(5, 2, 3, dtype=torch.float32) if name in LAYERS else draw(5, 3, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        right, found = leaves(expected(x)), leaves(ours(x))
    assert all(torch.equal(a, b) and a.dtype is b.dtype for a, b in zip(found, right, strict=True))


@every_module
def test_the_reference_runs_where_it_is_asked_for(name: str) -> None:
    expected, ours = pair(name, 3, 4)
    with use_backend("reference"):
        assert_same(expected, ours, draw(5, 2, 3) if name in LAYERS else draw(5, 3))


def test_they_compile_in_one_piece() -> None:
    """Sizes that nobody has run before, and another number of steps."""
    torch.compiler.reset()
    layer = everloop.nn.LSTM(6, 9, 2, bidirectional=True, dtype=DOUBLE)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for time in (4, 7):
        x = draw(time, 2, 6)
        found = compiled(x)
        wanted = torch.autograd.grad(found[0].sum(), list(layer.parameters()))
        right = layer(x)
        for a, b in zip(leaves(found), leaves(right), strict=True):
            assert_close(a, b)
        for a, b in zip(wanted, torch.autograd.grad(right[0].sum(), list(layer.parameters())), strict=True):
            assert_close(a, b)
