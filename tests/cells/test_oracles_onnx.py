"""The cells that ONNX has, against onnxruntime: gate orders, biases, peepholes, both directions, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from everloop import cells
from everloop.lang.functions import relu
from everloop.nn import Recurrent
from everloop.testing import FLOAT32, assert_close

B, T, IN, H = 4, 6, 3, 5
OPSET = 22
# The newest form of file that onnxruntime reads may be older than the newest that onnx writes.
IR_VERSION = 10

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """How a cell is written in ONNX.

    gates: ONNX's order by the cell's own names, - for one that it has not; peepholes: theirs.
    second: the cell has two biases, of which ONNX's second is d.
    """

    cell: Any
    op: str
    gates: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    peepholes: str = ""
    second: bool = False


CASES = {
    "elman": Case("elman", "RNN", "h"),
    "elman, relu": Case(cells.get("elman")(act=relu), "RNN", "h", {"activations": ["Relu"]}),
    "lstm": Case("lstm", "LSTM", "iofg"),
    "peephole_lstm": Case("peephole_lstm", "LSTM", "iofg", peepholes="iof"),
    # The forget gate's own weights must be there, and are not looked at.
    "cifg_lstm": Case("cifg_lstm", "LSTM", "io-g", {"input_forget": 1}),
    "gru": Case("gru", "GRU", "zrn", {"linear_before_reset": 1}, second=True),
    "gru_before": Case("gru_before", "GRU", "zrn", {"linear_before_reset": 0}),
}
LENGTHS = {"full": None, "ragged": [3, 6, 1, 4]}


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both directions"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_equals_onnxruntime(name: str, both: bool, lengths: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    layer = Recurrent(case.cell, IN, H, bidirectional=both)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(B, T, IN)
    state = [torch.randn_like(array) for array in layer.start_state(B)]

    y, final = layer(x, state, LENGTHS[lengths])
    expected, *last = _run(case, layer, x, state, LENGTHS[lengths])
    # Y is [T, D, B, H]; ours has both directions side by side.
    assert_close(y, expected.transpose(2, 0, 1, 3).reshape(B, T, -1), FLOAT32, "y")
    for array, other in zip(final, last, strict=True):
        assert_close(array, other, FLOAT32, "state")


@torch.no_grad()
def test_the_order_of_the_peepholes_matters() -> None:
    """ONNX has i o f, ours i f o: the test above would not pass with the two exchanged."""
    torch.manual_seed(0)
    layer = Recurrent("peephole_lstm", IN, H)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, state = torch.randn(B, T, IN), [torch.randn_like(array) for array in layer.start_state(B)]
    exchanged = Case("peephole_lstm", "LSTM", "iofg", peepholes="ifo")
    expected = _run(exchanged, layer, x, state, None)[0]
    with pytest.raises(AssertionError, match="values differ"):
        assert_close(layer(x, state)[0], expected[:, 0].transpose(1, 0, 2), FLOAT32)


def _run(case: Case, layer: Recurrent, x: Tensor, state: Sequence[Tensor], lengths: list[int] | None) -> list[Array]:
    """Y, Y_h and, of an LSTM, Y_c."""
    directions = len(state[0])
    stacked = [_inputs(case, layer, direction) for direction in range(directions)]
    feeds: dict[str, NDArray[Any]] = {"X": x.numpy().transpose(1, 0, 2)}
    feeds |= {name: np.stack([arrays[name] for arrays in stacked]) for name in stacked[0]}
    feeds["sequence_lens"] = np.array([T] * B if lengths is None else lengths, dtype=np.int32)
    feeds |= {f"initial_{name}": array.numpy() for name, array in zip(layer.cell.states, state, strict=True)}
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    given = order[: max(order.index(name) for name in feeds) + 1]
    last = (directions, B, H)
    outputs = {"Y": (T, *last), "Y_h": last} | ({"Y_c": last} if case.op == "LSTM" else {})

    attributes = dict(case.attributes)
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * directions
    node = helper.make_node(
        case.op,
        [name if name in feeds else "" for name in given],
        list(outputs),
        hidden_size=H,
        direction="bidirectional" if directions == 2 else "forward",
        **attributes,
    )
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        case.op,
        [helper.make_tensor_value_info(name, kinds[array.dtype], array.shape) for name, array in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(outputs), feeds)  # type: ignore[return-value]


def _inputs(case: Case, layer: Recurrent, direction: int) -> dict[str, Array]:
    """W, R, B and P of one direction, in ONNX's order; of a gate that the cell has not (-), numbers without meaning."""
    weights = {}
    for stack, members in layer.cell.graph.stacks.items():
        array = layer.get_parameter(f"layers.0.{direction}.{stack}").numpy()
        parts = np.split(array, len(members))
        weights |= {param.name: part for param, part in zip(members, parts, strict=True)}

    def member(family: str, gate: str) -> Array:
        like = weights[f"{family}.{case.gates[0]}"]
        return weights[f"{family}.{gate}"] if gate != "-" else np.full_like(like, 7.0)

    def joined(family: str) -> Array:
        return np.concatenate([member(family, gate) for gate in case.gates])

    second = joined("d") if case.second else np.zeros_like(joined("b"))
    found = {"W": joined("W"), "R": joined("U"), "B": np.concatenate([joined("b"), second])}
    if case.peepholes:
        found["P"] = np.concatenate([weights[f"p.{gate}"] for gate in case.peepholes])
    return found
