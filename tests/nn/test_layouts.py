"""Weights in the layouts of Keras and ONNX: against the literal equations, Keras itself, and onnxruntime."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from everloop import cells
from everloop.lang.cell import cell
from everloop.lang.functions import gelu, relu, sigmoid, softplus, softsign, tanh
from everloop.lang.transforms import recurrent_dropout, zoneout
from everloop.nn import Recurrent, drop_in
from everloop.nn.layouts import OnnxNode, from_keras, from_onnx, onnx_nodes, to_keras, to_onnx
from everloop.testing import FLOAT32, SAME, assert_close

# Keras on torch turns tensors into arrays in the way that NumPy 2 leaves behind.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

B, T, IN, H = 4, 6, 3, 5
LENGTHS = {"full": None, "ragged": [3, 6, 1, 4]}
DIRECTIONS: dict[str, dict[str, bool]] = {"forward": {}, "reverse": {"reverse": True}, "both": {"bidirectional": True}}
OPSET = 22
# The newest form of file that onnxruntime reads may be older than the newest that onnx writes.
IR_VERSION = 10

Array = NDArray[Any]

elman = cells.get("elman")


def drawn(layer: Any) -> Any:
    """With weights of which no two are alike, the biases among them."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.eval()


def weights(layer: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in layer.parameters()]


def assert_same_weights(layer: nn.Module, other: nn.Module) -> None:
    for (name, array), expected in zip(layer.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(array, expected), name


# -- Keras: the equations of its documentation -----------------------------------------------------------------------


def logistic(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def keras_lstm(x: Array, h: Array, c: Array, kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(c), c


def keras_gru(x: Array, h: Array, c: Array, kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array]:
    """reset_after=True."""
    xz, xr, xh = np.split(x @ kernel + bias[0], 3, axis=-1)
    hz, hr, hh = np.split(h @ recurrent + bias[1], 3, axis=-1)
    z, r = logistic(xz + hz), logistic(xr + hr)
    return z * h + (1 - z) * np.tanh(xh + r * hh), c


def keras_gru_before(x: Array, h: Array, c: Array, kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array]:
    """reset_after=False."""
    xz, xr, xh = np.split(x @ kernel + bias, 3, axis=-1)
    rz, rr, rh = np.split(recurrent, 3, axis=-1)
    z, r = logistic(xz + h @ rz), logistic(xr + h @ rr)
    return z * h + (1 - z) * np.tanh(xh + (r * h) @ rh), c


def keras_simple(x: Array, h: Array, c: Array, kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array]:
    return np.tanh(x @ kernel + h @ recurrent + bias), c


def keras_rectified(x: Array, h: Array, c: Array, kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array]:
    return np.maximum(x @ kernel + h @ recurrent + bias, 0), c


KERAS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "lstm": keras_lstm,
    "gru": keras_gru,
    "gru_before": keras_gru_before,
    "elman": keras_simple,
    "irnn": keras_rectified,
}


def by_equations(name: str, arrays: Sequence[Array], x: Array) -> Array:
    h = c = np.zeros((x.shape[0], arrays[1].shape[0]))
    ys = []
    for t in range(x.shape[1]):
        h, c = KERAS[name](x[:, t], h, c, *arrays)
        ys.append(h)
    return np.stack(ys, 1)


@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both directions"])
@pytest.mark.parametrize("name", KERAS)
@torch.no_grad()
def test_keras_weights_give_the_same_by_its_equations(name: str, both: bool) -> None:
    layer = drawn(Recurrent(name, IN, H, 2, both, dtype=torch.float64))
    x = torch.randn(B, T, IN, dtype=torch.float64)
    y = x.numpy()
    for arrays in to_keras(layer):
        parts = [by_equations(name, arrays[:3], y)]
        if both:
            parts.append(by_equations(name, arrays[3:], y[:, ::-1])[:, ::-1])
        y = np.concatenate(parts, -1)
    assert_close(layer(x)[0], y, SAME)


# -- Keras itself ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="keras is not installed: pip install keras")


def keras_layers(keras: Any, name: str, sizes: Sequence[int], both: bool = False, **more: Any) -> list[Any]:
    made = {
        "lstm": lambda units: keras.layers.LSTM(units, **given),
        "gru": lambda units: keras.layers.GRU(units, **given),
        "gru_before": lambda units: keras.layers.GRU(units, reset_after=False, **given),
        "elman": lambda units: keras.layers.SimpleRNN(units, **given),
        "irnn": lambda units: keras.layers.SimpleRNN(units, activation="relu", **given),
    }
    given = {"return_sequences": True, **more}
    found = [made[name](units) for units in sizes]
    return [keras.layers.Bidirectional(layer) for layer in found] if both else found


def run_keras(layers: Sequence[Any], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x.detach()


@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both directions"])
@pytest.mark.parametrize("name", KERAS)
@torch.no_grad()
def test_keras_itself_gives_the_same(keras: Any, name: str, both: bool) -> None:
    layer = drawn(Recurrent(name, IN, [H, 2], bidirectional=both))
    x = torch.randn(B, T, IN)
    theirs = keras_layers(keras, name, [H, 2], both)
    run_keras(theirs, x)
    for each, arrays in zip(theirs, to_keras(layer), strict=True):
        each.set_weights(arrays)
    assert_close(layer(x)[0], run_keras(theirs, x), FLOAT32)

    empty = Recurrent(name, IN, [H, 2], bidirectional=both)
    assert from_keras(empty, [each.get_weights() for each in theirs]) is empty
    assert_same_weights(empty, layer)


@torch.no_grad()
def test_keras_layers_without_biases_and_backwards(keras: Any) -> None:
    theirs = keras_layers(keras, "gru", [H], use_bias=False, go_backwards=True)
    x = torch.randn(B, T, IN)
    expected = run_keras(theirs, x)
    given = [each.get_weights() for each in theirs]
    layer = Recurrent("gru", IN, H, reverse=True, keep_order=False)
    assert_close(from_keras(drawn(layer), given)(x)[0], expected, FLOAT32)
    plain = nn.GRU(IN, H, bias=False, batch_first=True)
    assert_close(from_keras(plain, given)(x.flip(1))[0], expected, FLOAT32)
    for array, other in zip(to_keras(plain)[0], given[0], strict=True):
        assert np.array_equal(array, other)


# -- ONNX, by onnxruntime --------------------------------------------------------------------------------------------

ONNX: dict[str, Any] = {name: name for name in ("elman", "irnn", "lstm", "peephole_lstm", "cifg_lstm")}
ONNX |= {name: name for name in ("gru", "gru_before")}
ONNX |= {f"elman, {act.__name__}": elman(act=act) for act in (relu, sigmoid, softplus, softsign)}


def onnx_model(node: OnnxNode, shapes: dict[str, Sequence[int]]) -> Any:
    """A model of one node; shapes: of the inputs beside its weights."""
    inputs = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    given = {**shapes, **{name: array.shape for name, array in node.weights.items()}}
    count = max(inputs.index(name) for name in given) + 1
    outputs = ["Y", "Y_h", "Y_c"][: 3 if node.op_type == "LSTM" else 2]
    last = [len(node.weights["W"]), "batch", node.attributes["hidden_size"]]
    made = helper.make_node(
        node.op_type, [name if name in given else "" for name in inputs[:count]], outputs, **node.attributes
    )
    graph = helper.make_graph(
        [made],
        "layer",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT32 if name == "sequence_lens" else TensorProto.FLOAT, shape
            )
            for name, shape in shapes.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, last if place else ["time", *last])
            for place, name in enumerate(outputs)
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in node.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def run_onnx(node: OnnxNode, x: Array, state: Sequence[Array] = (), lengths: list[int] | None = None) -> list[Array]:
    """x [B, T, I] gives y [B, T, D * H], and the final states [D, B, H]."""
    feeds: dict[str, Array] = {"X": np.ascontiguousarray(x.swapaxes(0, 1))}
    feeds["sequence_lens"] = np.array([x.shape[1]] * len(x) if lengths is None else lengths, dtype=np.int32)
    feeds |= {f"initial_{name}": array for name, array in zip("hc", state, strict=False)}
    model = onnx_model(node, {name: array.shape for name, array in feeds.items()})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, *final = session.run(None, feeds)
    return [y.transpose(2, 0, 1, 3).reshape(*x.shape[:2], -1), *final]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ONNX)
@torch.no_grad()
def test_onnxruntime_gives_the_same(name: str, direction: str, lengths: str) -> None:
    layer = drawn(Recurrent(ONNX[name], IN, H, **DIRECTIONS[direction]))
    x = torch.randn(B, T, IN)
    state = [torch.randn_like(array) for array in layer.start_state(B)]
    y, final = layer(x, state, LENGTHS[lengths])
    (node,) = to_onnx(layer)
    expected, *last = run_onnx(node, x.numpy(), [array.numpy() for array in state], LENGTHS[lengths])
    assert_close(y, expected, FLOAT32, "y")
    for array, other in zip(final, last, strict=True):
        assert_close(array, other, FLOAT32, "state")

    empty = Recurrent(ONNX[name], IN, H, **DIRECTIONS[direction])
    assert from_onnx(empty, [node]) is empty
    assert_same_weights(empty, layer)


@torch.no_grad()
def test_a_stack_of_unlike_layers_is_a_node_each() -> None:
    layer = drawn(Recurrent(["lstm", "gru", elman(act=relu)], IN, [H, 2, 4], bidirectional=True))
    x = torch.randn(B, T, IN)
    y = x.numpy()
    nodes = to_onnx(layer)
    for node in nodes:
        y = run_onnx(node, y, lengths=LENGTHS["ragged"])[0]
    assert_close(layer(x, lengths=LENGTHS["ragged"])[0], y, FLOAT32)
    assert [node.op_type for node in nodes] == ["LSTM", "GRU", "RNN"]
    empty = Recurrent(["lstm", "gru", elman(act=relu)], IN, [H, 2, 4], bidirectional=True)
    assert_same_weights(from_onnx(empty, nodes), layer)


def test_what_a_node_must_be_told() -> None:
    told = {name: to_onnx(Recurrent(ONNX[name], IN, H, bidirectional=True))[0].attributes for name in ONNX}
    both = {"hidden_size": H, "direction": "bidirectional"}
    assert told["lstm"] == told["peephole_lstm"] == told["elman"] == both
    assert told["cifg_lstm"] == {**both, "input_forget": 1}
    assert told["gru"] == {**both, "linear_before_reset": 1}
    assert told["gru_before"] == {**both, "linear_before_reset": 0}
    assert told["irnn"] == told["elman, relu"] == {**both, "activations": ["Relu", "Relu"]}


# -- torch's layers, and ours of the same names ----------------------------------------------------------------------

TORCH: dict[str, tuple[str, dict[str, Any], Any]] = {
    "LSTM": ("LSTM", {}, "lstm"),
    "GRU": ("GRU", {}, "gru"),
    "RNN": ("RNN", {}, "elman"),
    "RNN, relu": ("RNN", {"nonlinearity": "relu"}, elman(act=relu)),
}


@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both directions"])
@pytest.mark.parametrize("home", [nn, drop_in], ids=["torch", "everloop"])
@pytest.mark.parametrize("name", TORCH)
@torch.no_grad()
def test_torch_layers_go_through_onnx_and_keras(name: str, home: Any, both: bool) -> None:
    kind, options, ours = TORCH[name]
    given = {"num_layers": 2, "bidirectional": both, "dtype": torch.float64}
    options = options | given | {"batch_first": True}
    layer = drawn(getattr(home, kind)(IN, H, **options))
    x = torch.randn(B, T, IN, dtype=torch.float64)
    for there, back in ((to_onnx, from_onnx), (to_keras, from_keras)):
        same = back(drawn(Recurrent(ours, IN, H, **given)), there(layer))
        assert_close(same(x)[0], layer(x)[0], SAME, f"{there.__name__}, into Recurrent")
        again = back(getattr(home, kind)(IN, H, **options), there(same))
        assert_close(again(x)[0], layer(x)[0], SAME, f"{there.__name__}, from Recurrent")
    assert_same_weights(from_onnx(getattr(home, kind)(IN, H, **options), to_onnx(layer)), layer)


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("name", TORCH)
@torch.no_grad()
def test_a_model_that_torch_exported_is_read(name: str, bias: bool) -> None:
    kind, options, ours = TORCH[name]
    layer = drawn(getattr(nn, kind)(IN, H, 2, bidirectional=True, bias=bias, batch_first=True, **options))
    x = torch.randn(B, T, IN)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Of the number of sequences, of tracing, and of the exporter's age.
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (x,), file, dynamo=False)
    nodes = onnx_nodes(onnx.load_from_string(file.getvalue()))
    read = from_onnx(drawn(Recurrent(ours, IN, H, 2, True)), nodes)
    assert_close(read(x)[0], layer(x)[0], FLOAT32)


def test_two_biases_become_one_and_one_becomes_two() -> None:
    layer = drawn(nn.LSTM(IN, H))
    total = layer.bias_ih_l0 + layer.bias_hh_l0
    single = from_onnx(Recurrent("lstm", IN, H), to_onnx(layer))
    assert torch.equal(single.get_parameter("layers.0.0.b"), total)
    back = from_onnx(drawn(nn.LSTM(IN, H)), to_onnx(single))
    assert torch.equal(back.bias_ih_l0, total)
    assert back.bias_hh_l0.abs().max() == 0
    assert torch.equal(from_keras(drawn(nn.LSTM(IN, H)), to_keras(layer)).bias_ih_l0, total)


def test_biases_that_do_not_come_are_zero() -> None:
    without = drawn(nn.GRU(IN, H, bias=False))
    assert [sorted(node.weights) for node in to_onnx(without)] == [["R", "W"]]
    filled = from_onnx(drawn(nn.GRU(IN, H)), to_onnx(without))
    assert filled.bias_ih_l0.abs().max() == filled.bias_hh_l0.abs().max() == 0
    assert_same_weights(from_onnx(nn.GRU(IN, H, bias=False), to_onnx(filled)), without)


def test_peepholes_that_do_not_come_are_zero() -> None:
    layer = drawn(Recurrent("peephole_lstm", IN, H))
    from_onnx(layer, to_onnx(drawn(Recurrent("lstm", IN, H))))
    assert layer.get_parameter("layers.0.0.p").abs().max() == 0


# -- in place --------------------------------------------------------------------------------------------------------


def test_the_parameters_stay_the_same_objects_and_share_nothing_with_the_arrays() -> None:
    source, layer = drawn(Recurrent("lstm", IN, H)), Recurrent("lstm", IN, H)
    before, given = list(layer.parameters()), to_keras(source)
    expected = weights(source)
    from_keras(layer, given)
    for arrays in (given, to_keras(layer)):
        for array in arrays[0]:
            array[:] = 0
    for parameter, old, value in zip(layer.parameters(), before, expected, strict=True):
        assert parameter is old
        assert torch.equal(parameter, value)
        assert parameter.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype: torch.dtype) -> None:
    layer = drawn(Recurrent("gru", IN, H, dtype=dtype))
    assert_same_weights(from_keras(Recurrent("gru", IN, H, dtype=dtype), to_keras(layer)), layer)


@torch.no_grad()
def test_a_parametrized_weight_is_written_through_its_parametrization() -> None:
    source = drawn(Recurrent("lstm", IN, H, dtype=torch.float64))
    layer = Recurrent("lstm", IN, H, dtype=torch.float64)
    weight_norm(layer.layers[0][0], "U")  # type: ignore[index]
    from_keras(layer, to_keras(source))
    x = torch.randn(B, T, IN, dtype=torch.float64)
    assert_close(layer(x)[0], source(x)[0], SAME)
    for array, expected in zip(to_keras(layer)[0], to_keras(source)[0], strict=True):
        assert_close(array, expected, SAME)


def test_an_error_in_the_last_layer_leaves_the_first_as_it_was() -> None:
    layer = drawn(Recurrent("lstm", IN, H, 2))
    before, given = weights(layer), to_keras(Recurrent("lstm", IN, H, 2))
    given[1][2] = given[1][2][:-1]
    with pytest.raises(ValueError, match=r"^layer 1, forward, bias: \(19,\) came; expected \(20,\) \(LSTM\)$"):
        from_keras(layer, given)
    nodes = to_onnx(Recurrent("lstm", IN, H, 2))
    with pytest.raises(ValueError, match=r"^layer 1: R is missing; "):
        from_onnx(layer, [nodes[0], OnnxNode("LSTM", {"W": nodes[1].weights["W"]}, nodes[1].attributes)])
    for array, expected in zip(layer.parameters(), before, strict=True):
        assert torch.equal(array, expected)


# -- what is refused -------------------------------------------------------------------------------------------------


@cell(states="h", gates="h")
def mine(x, h, W, U):
    return tanh(W.h @ x - U.h @ h)


mine.step.__name__ = "elman"


def lstm(**more: Any) -> Recurrent:
    return Recurrent("lstm", IN, H, **more)


def gru(**more: Any) -> Recurrent:
    return Recurrent("gru", IN, H, **more)


def with_attributes(layer: Any, **attributes: Any) -> Callable[[], Any]:
    def call() -> Any:
        (node,) = to_onnx(layer)
        return from_onnx(layer, [OnnxNode(node.op_type, node.weights, {**node.attributes, **attributes})])

    return call


def with_weights(layer: Any, **arrays: Array) -> Callable[[], Any]:
    def call() -> Any:
        (node,) = to_onnx(layer)
        return from_onnx(layer, [OnnxNode(node.op_type, {**node.weights, **arrays}, node.attributes)])

    return call


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a cell that Keras has not": (
        lambda: to_keras(Recurrent("peephole_lstm", IN, H)),
        r"^layer 0: peephole_lstm came; Keras has no such cell, its LSTM has no peepholes\. It has elman, irnn, lstm,",
    ),
    "a cell that ONNX has not": (
        lambda: to_onnx(Recurrent("mgu", IN, H)),
        r"^layer 0: mgu came; ONNX has no such cell\. It has elman, irnn, lstm, peephole_lstm, cifg_lstm, gru, gru_be",
    ),
    "a cell that it has not above one that it has": (
        lambda: to_onnx(Recurrent(["lstm", "mgu"], IN, H)),
        r"^layer 1: mgu came; ",
    ),
    "a projection": (
        lambda: to_onnx(Recurrent("projection_lstm", IN, H, sizes={"proj": 2})),
        r"^layer 0: projection_lstm came; ONNX has no such cell, its LSTM has no projection\.",
    ),
    "a projection of torch": (
        lambda: from_keras(nn.LSTM(IN, H, proj_size=2), []),
        r"^layer 0: projection_lstm came; Keras has no such cell, its LSTM has no projection\.",
    ),
    "a cell of the same name": (
        lambda: to_keras(Recurrent(mine, IN, H)),
        r"^layer 0: a cell of your own came; it has the name of elman, whose equations may differ$",
    ),
    "a transformed cell": (
        lambda: to_onnx(Recurrent(zoneout(cells.get("gru"), 0.1), IN, H)),
        r"^layer 0: zoneout.*\(gru\) came; ONNX has no zoneout$",
    ),
    "zoneout of the layer": (lambda: to_keras(gru(zoneout=0.1)), r"^layer 0: zoneout.*\(gru\) came; Keras has no zone"),
    "an activation": (
        lambda: to_onnx(Recurrent(elman(act=gelu), IN, H)),
        r"^layer 0: act=gelu came; ONNX has Tanh, Relu, Sigmoid, Softplus, Softsign$",
    ),
    "connections that skip": (
        lambda: to_keras(Recurrent("gru", IN, IN, skip="residual")),
        r"^skip='residual' came; Keras has plain stacks of layers$",
    ),
    "learned starts": (
        lambda: to_onnx(gru(learn_start=True)),
        r"^learn_start=True came; first states are not among the weights of ONNX$",
    ),
    "the order in which a sequence was read": (
        lambda: to_onnx(gru(reverse=True, keep_order=False)),
        r"^keep_order=False came; Y of ONNX is in the order of X$",
    ),
    "Keras weights of another number of layers": (
        lambda: from_keras(lstm(num_layers=2), to_keras(lstm())),
        r"^weights of 1 layers came; expected a list of arrays for each of 2$",
    ),
    "Keras weights of one direction": (
        lambda: from_keras(lstm(bidirectional=True), to_keras(lstm())),
        r"^layer 0: 3 arrays came; expected kernel, recurrent_kernel, bias of forward and backward: 6, or 4 without",
    ),
    "Keras weights of another input": (
        lambda: from_keras(lstm(), to_keras(Recurrent("lstm", 4, H))),
        r"^layer 0, forward, kernel: \(4, 20\) came; expected \(3, 20\) \(LSTM\)$",
    ),
    "Keras weights of another direction": (
        lambda: from_keras(lstm(bidirectional=True), [to_keras(lstm())[0] + to_keras(Recurrent("lstm", 4, H))[0]]),
        r"^layer 0, backward, kernel: \(4, 20\) came; expected \(3, 20\) \(LSTM\)$",
    ),
    "Keras weights of the other GRU": (
        lambda: from_keras(gru(), to_keras(Recurrent("gru_before", IN, H))),
        r"^layer 0, forward, bias: \(15,\) came; expected \(2, 15\) \(GRU\(reset_after=True\)\)$",
    ),
    "biases for a layer without": (
        lambda: from_keras(nn.LSTM(IN, H, bias=False), to_keras(lstm())),
        r"^layer 0, forward: biases came, and the layer has none \(bias=False\); make one that has$",
    ),
    "nodes of another number of layers": (
        lambda: from_onnx(lstm(num_layers=2), to_onnx(lstm())),
        r"^1 nodes came; expected one for each of 2 layers$",
    ),
    "another operator": (
        lambda: from_onnx(lstm(), to_onnx(gru())),
        r"^layer 0: GRU came; lstm is LSTM in ONNX$",
    ),
    "the other GRU": (
        lambda: from_onnx(gru(), to_onnx(Recurrent("gru_before", IN, H))),
        r"^layer 0: linear_before_reset=0 came; expected 1, with which the node is the layer's gru$",
    ),
    "what ONNX takes for granted": (
        lambda: from_onnx(gru(), [OnnxNode("GRU", to_onnx(gru())[0].weights, {"hidden_size": H})]),
        r"^layer 0: linear_before_reset=0 came; expected 1, ",
    ),
    "another direction": (
        lambda: from_onnx(lstm(), to_onnx(lstm(reverse=True))),
        r"^layer 0: direction='reverse' came; expected 'forward', ",
    ),
    "another activation": (
        with_attributes(lstm(), activations=[b"Sigmoid", b"Relu", b"Tanh"]),
        r"^layer 0: activations=\['Sigmoid', 'Relu', 'Tanh'\] came; expected \['Sigmoid', 'Tanh', 'Tanh'\], ",
    ),
    "clipped values": (with_attributes(lstm(), clip=3.0), r"^layer 0: clip=3\.0 came; expected None, "),
    "peepholes for an lstm": (
        with_weights(lstm(), P=np.ones((1, 3 * H))),
        r"^layer 0: P came; lstm has W, R, B$",
    ),
    "another width": (
        with_weights(lstm(), W=np.ones((1, 4 * H, 4))),
        r"^layer 0, W: \(1, 20, 4\) came; expected \(1, 20, 3\)$",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(what: str) -> None:
    call, words = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        call()


def test_another_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^a Linear came; expected a Recurrent, or an LSTM, GRU or RNN of torch$"):
        to_keras(nn.Linear(3, 4))  # type: ignore[type-var]


def test_a_weight_that_a_model_computes_is_refused() -> None:
    model = onnx_model(to_onnx(lstm())[0], {"X": (T, B, IN)})
    assert from_onnx(lstm(), onnx_nodes(model)).hidden_size == H
    del model.graph.initializer[0]
    model.graph.node[0].name = "first"
    with pytest.raises(ValueError, match=r"^LSTM first: its W is computed; expected an array of the model$"):
        onnx_nodes(model)


def test_dropout_of_training_is_no_part_of_the_function() -> None:
    layer = drawn(Recurrent(recurrent_dropout(cells.get("lstm"), 0.5), IN, H))
    plain = from_onnx(lstm(), to_onnx(layer))
    assert_same_weights(plain, layer)


def test_attributes_that_change_nothing_are_taken() -> None:
    layer = with_attributes(lstm(), layout=1, direction=b"forward", activation_alpha=[])()
    assert layer.hidden_size == H
