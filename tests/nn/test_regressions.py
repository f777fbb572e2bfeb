"""What random layers, and somebody new to them, have come upon."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import everloop.nn
from everloop import Recurrent, cell, cells, tanh, use_backend
from everloop.testing import assert_close

DOUBLE = torch.float64


class Watching(TorchDispatchMode):
    """Sees what is done, and does it: what makes a layer an operator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_name_that_is_asked_for_twice_comes_once() -> None:
    layer, x = Recurrent("lstm", 3, 4, dtype=DOUBLE), torch.randn(2, 5, 3, dtype=DOUBLE)
    *_, (expected,) = layer(x, return_states=["c", "i"])
    with Watching():
        *_, (found,) = layer(x, return_states=["c", "i", "c"])
    assert [*found] == ["c", "i"]
    for name, history in expected.items():
        assert_close(found[name], history)


def watched(layer: Recurrent, x: torch.Tensor) -> None:
    with Watching():
        layer(x)


WAYS: dict[str, Callable[[Recurrent, torch.Tensor], Any]] = {
    "eager": lambda layer, x: layer(x),
    "mode": watched,
    "vmap": lambda layer, x: torch.vmap(lambda one: layer(one[None])[0])(x),
}


@pytest.mark.parametrize("name", ["lstm", "mingru"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", list(WAYS))
def test_x_of_another_type_than_the_weights_is_refused(name: str, dtype: torch.dtype, way: str) -> None:
    """A kernel would read over the end of the weights."""
    layer, x = Recurrent(name, 3, 4), torch.randn(2, 5, 3, dtype=dtype)
    with pytest.raises(ValueError, match=rf"x: {dtype} came; expected torch.float32, as the weights are"):
        WAYS[way](layer, x)


def test_the_operator_reads_arrays_of_one_type_only() -> None:
    layer = Recurrent("lstm", 3, 4)
    weights = [getattr(layer.layers[0][0], name) for name in ("W", "U", "b")]  # type: ignore[index]
    x, states = torch.randn(5, 2, 3, dtype=DOUBLE), [torch.zeros(2, 4, dtype=DOUBLE)] * 2
    wanted, key = [True] * 6, layer.layers[0][0].recurrence.key  # type: ignore[index]
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.ops.everloop.recurrence([x], states, weights, None, key, "auto", False, wanted)


def test_x_elsewhere_than_the_weights_is_refused() -> None:
    layer = Recurrent("lstm", 3, 4, device="meta")
    with pytest.raises(ValueError, match="x: came on cpu; expected meta, where the weights are"):
        layer(torch.randn(2, 5, 3))


def test_numbers_of_numpy_are_numbers() -> None:
    layer = Recurrent("projection_lstm", np.int64(3), [np.int64(4)], np.int32(1), sizes={"proj": np.int64(2)})  # type: ignore[list-item, dict-item]
    y, _ = layer(torch.randn(2, 5, 3), lengths=np.array([2, 5])[::-1])  # type: ignore[arg-type]
    assert y.shape == (2, 5, 2)
    assert type(layer.input_size) is type(layer.hidden_size) is int
    ours = everloop.nn.LSTM(3, 4, proj_size=np.int64(2))
    assert ours(torch.randn(5, 2, 3))[0].shape == (5, 2, 2)


@pytest.mark.parametrize("name", ["bidirectional", "variational", "learn_start", "reverse", "keep_order"])
@pytest.mark.parametrize("value", ["no", 0.5, None, 1])
def test_a_flag_is_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: {value!r} came; expected True or False"):
        Recurrent("lstm", 3, 4, **{name: value})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"hidden_size": True}, ValueError, "hidden_size: True came; expected a whole number"),
        (
            {"hidden_size": np.array([4, 5])},
            ValueError,
            r"hidden_size: array\(\[4, 5\]\) came; expected a whole number",
        ),
        ({"sizes": 3}, ValueError, "sizes: 3 came; expected lengths by name"),
    ],
)
def test_a_wrong_argument_of_a_layer_is_named(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Recurrent("lstm", **{"input_size": 3, "hidden_size": 4, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [None, 3]}, r"lengths: \[None, 3\] came; expected a list or a tensor"),
        ({"lengths": {3, 5}}, r"lengths: \{3, 5\} came; expected a list or a tensor"),
        ({"mask": [[True], [True, False]]}, r"mask: \[\[True\], \[True, False\]\] came"),
        ({"state": 3}, "state: a int came; expected a tuple of h, c"),
        ({"state": {"h": 0, "c": 0}}, "state: a dict came; expected a tuple of h, c"),
        ({"state": [np.zeros((1, 2, 4)), None]}, "state h: a ndarray came; expected a tensor"),
        ({"side": torch.zeros(2, 5)}, "side: a Tensor came; expected a dictionary"),
        ({"return_states": 1}, "return_states: 1 came; expected True, or names"),
    ],
)
def test_a_wrong_argument_of_a_call_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Recurrent("lstm", 3, 4)(torch.randn(2, 5, 3), **given)


def test_no_names_are_no_history() -> None:
    assert len(Recurrent("lstm", 3, 4)(torch.randn(2, 5, 3), return_states=None)) == 2


FORMS: dict[str, Callable[[Recurrent, torch.Tensor], Any]] = {
    "lengths": lambda layer, x: layer(x, lengths=[5, 0, 2]),
    "mask": lambda layer, x: layer(x, mask=x[..., 0] > 0),
    "packed": lambda layer, x: layer(pack_padded_sequence(x, [5, 3, 1], batch_first=True)),
    "nested": lambda layer, x: layer(torch.nested.as_nested_tensor([x[0], x[1, :3]], layout=torch.jagged)),
}


@pytest.mark.parametrize("name", ["lstm", "qrnn", "tau_gru"])
@pytest.mark.parametrize("form", list(FORMS))
def test_the_device_that_torch_takes_by_default_is_of_no_account(name: str, form: str) -> None:
    layer, x = Recurrent(name, 3, 4, bidirectional=True), torch.randn(3, 5, 3)
    for backend in ("auto", "reference"):
        with use_backend(backend):
            _, expected = FORMS[form](layer, x)
            with torch.device("meta"):
                _, found = FORMS[form](layer, x)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_is_made_on_meta(name: str) -> None:
    sizes = {size: 4 for size in cells.get(name).graph.size_names if size not in ("input", "hidden")}
    with torch.device("meta"):
        layer = Recurrent(name, 4, 4, sizes=sizes)
    assert all(array.is_meta for array in layer.parameters())


def test_a_size_of_true_is_a_size_of_one_for_all_modules() -> None:
    for size in (True, 1):
        y, _ = everloop.nn.LSTM(size, 23)(torch.randn(5, 2, 1))
        assert y.shape == (5, 2, 23)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("sizes", [(3, 0), (0, 3)])
def test_a_cell_of_nothing_is_what_it_is_in_torch(name: str, sizes: tuple[int, int]) -> None:
    with use_backend("llvm"):
        ours = getattr(everloop.nn, name)(*sizes)(torch.randn(2, sizes[0]))
    expected = getattr(nn, name)(*sizes)(torch.randn(2, sizes[0]))
    for one, other in zip(tree_leaves(ours), tree_leaves(expected), strict=True):
        assert one.shape == other.shape


@pytest.mark.parametrize("place", [0, 1])
def test_states_of_too_many_layers_beside_a_packed_sequence_do_not_end_the_process(place: int) -> None:
    """As they do with torch's own LSTM."""
    packed = pack_padded_sequence(torch.randn(2, 9, 3), [9, 4], batch_first=True)
    states = [torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)]
    for shape in ([2, 2, 5], [1, 1, 2, 5]):
        states[place] = torch.zeros(shape)
        with pytest.raises(RuntimeError, match=re.escape(f"Expected hidden[{place}] size (1, 2, 5), got {shape}")):
            everloop.nn.LSTM(3, 5)(packed, tuple(states))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("given", [{"bidirectional": 1}, {"num_layers": True}])
def test_what_torch_refuses_in_a_call_is_refused_in_its_words(name: str, given: dict[str, Any]) -> None:
    said = []
    for home in (nn, everloop.nn):
        torch.manual_seed(0)
        module = getattr(home, name)(3, 4, **given)
        with pytest.raises(TypeError) as refusal:
            module(torch.randn(9, 2, 3))
        said.append(str(refusal.value))
    assert said[0] == said[1]


def test_a_state_called_y_that_is_not_put_out_does_not_take_the_place_of_the_output() -> None:
    @cell(states="h y", gates="n")
    def two_states(x, h, y, W, U, b):
        y = 0.5 * y + tanh(b.n)
        return tanh(W.n @ x + U.n @ h), y

    layer, x = Recurrent(two_states, 4, 4), torch.randn(2, 3, 4)
    plain, _ = layer(x)
    watched, _, (history,) = layer(x, return_states=True)
    assert torch.equal(plain, watched)
    assert set(history) == {"h"}
    with pytest.raises(ValueError, match="return_states: 'y' came; there are h"):
        layer(x, return_states=["y"])
