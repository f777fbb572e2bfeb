"""ONNX: a node LSTM, GRU or RNN for each layer, with its weights and its attributes.

Between two nodes, Y [T, D, B, H] has to become the next X [T, B, D * H]: a Transpose (0, 2, 1, 3) and a Reshape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.lang.functions import relu, sigmoid, softplus, softsign, tanh
from everloop.nn.layouts.parts import AnyLayer, Array, Part, RecurrentLayer, check_shape, fill, parts_of, reordered
from everloop.nn.layouts.systems import ONNX
from everloop.nn.recurrent import Recurrent

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
"""The inputs of an LSTM by place; those of GRU and RNN end with initial_h."""

MATRICES = {"W": "W", "R": "U"}

ACTIVATIONS = {tanh: "Tanh", relu: "Relu", sigmoid: "Sigmoid", softplus: "Softplus", softsign: "Softsign"}

USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
"""The activations of a direction that a node has unless it says others."""

# What changes nothing here: the order of axes of X and Y, and the parameters of activations that have none.
BESIDE = {"layout", "activation_alpha", "activation_beta"}


@dataclass(frozen=True)
class OnnxNode:
    """A layer as `onnx.helper.make_node(node.op_type, [...], [...], **node.attributes)` makes it.

    weights: W [D, G * H, I], R [D, G * H, H], B [D, 2 * G * H], P [D, 3 * H]; B and P only where there are any.
    """

    op_type: str
    weights: Mapping[str, Array]
    attributes: Mapping[str, Any]


def to_onnx(layer: RecurrentLayer) -> list[OnnxNode]:
    """A node for each layer."""
    return [OnnxNode(parts[0].written.layer, _weights(parts), _attributes(parts)) for parts in _layers(layer)]


def from_onnx(layer: AnyLayer, nodes: Sequence[OnnxNode]) -> AnyLayer:
    """Fill a layer in place with a node for each layer of it; the layer itself is given back.

    ValueError where a node computes something else than the layer, even if the shapes fit.
    """
    layers = _layers(layer)
    if len(nodes) != len(layers):
        raise ValueError(f"{len(nodes)} nodes came; expected one for each of {len(layers)} layers")
    fill([taken for parts, node in zip(layers, nodes, strict=True) for taken in _taken(parts, node)])
    return layer


def onnx_nodes(model: Any) -> list[OnnxNode]:
    """The nodes LSTM, GRU and RNN of an `onnx.ModelProto`, in its order, with the weights that it holds."""
    held = {array.name: array for array in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            held[node.output[0]] = node.attribute[0].t
    return [_node(node, held) for node in model.graph.node if node.op_type in USUAL]


def _node(node: Any, held: Mapping[str, Any]) -> OnnxNode:
    from onnx import helper, numpy_helper

    given = dict(zip(INPUTS, node.input, strict=False))
    weights = {}
    for name in ("W", "R", "B", "P"):
        source = given.get(name)
        if source:
            if source not in held:
                raise ValueError(f"{node.op_type} {node.name}: its {name} is computed; expected an array of the model")
            weights[name] = numpy_helper.to_array(held[source])
    attributes = {each.name: _text(helper.get_attribute_value(each)) for each in node.attribute}
    return OnnxNode(node.op_type, weights, attributes)


def _layers(layer: RecurrentLayer) -> list[list[Part]]:
    layers = parts_of(layer, ONNX)
    if isinstance(layer, Recurrent) and layer.reverse and not layer.keep_order:
        raise ValueError("keep_order=False came; Y of ONNX is in the order of X")
    return layers


def _weights(parts: Sequence[Part]) -> dict[str, Array]:
    written = parts[0].written
    found = {name: np.stack([part.read(family, written.gates) for part in parts]) for name, family in MATRICES.items()}
    biases = [part.read_biases(written.gates) for part in parts]
    if biases[0]:
        found["B"] = np.stack([np.concatenate(each) for each in biases])
    if written.peepholes:
        found["P"] = np.stack([part.read("p", written.peepholes) for part in parts])
    return found


def _attributes(parts: Sequence[Part]) -> dict[str, Any]:
    """Those that the node must have; what ONNX takes for granted is left out."""
    part = parts[0]
    direction = "bidirectional" if len(parts) == 2 else "reverse" if part.direction == "backward" else "forward"
    found = {"hidden_size": part.hidden, "direction": direction, **part.written.attributes}
    usual = part.written.activation
    activation = part.cell.options.get("act", usual)
    if activation not in (None, *ACTIVATIONS):
        name = getattr(activation, "__name__", activation)
        raise ValueError(f"{part.layer}: act={name} came; ONNX has {', '.join(ACTIVATIONS.values())}")
    if activation not in (None, tanh):
        found["activations"] = [ACTIVATIONS[activation]] * len(parts)
    return found


def _taken(parts: Sequence[Part], node: OnnxNode) -> list[tuple[Part, dict[str, Array]]]:
    _check_function(parts, node)
    arrays = {name: np.asarray(array) for name, array in node.weights.items()}
    layer, shapes = parts[0].layer, _shapes(parts)
    for name in ("W", "R"):
        if name not in arrays:
            raise ValueError(f"{layer}: {name} is missing; a node has W, R and what else it needs")
    for name, array in arrays.items():
        if name not in shapes:
            raise ValueError(f"{layer}: {name} came; {parts[0].cell.name} has {', '.join(shapes)}")
        check_shape(f"{layer}, {name}", array, shapes[name])
    found = []
    for index, part in enumerate(parts):
        own = {name: array[index] for name, array in arrays.items()}
        taken = part.taken(own["W"], own["R"], np.split(own["B"], 2) if "B" in own else [])
        if part.written.peepholes:
            P = own.get("P", np.zeros(shapes["P"][1:], own["W"].dtype))
            taken["p"] = reordered(P, part.written.peepholes, part.gates("p"))
        found.append((part, taken))
    return found


def _shapes(parts: Sequence[Part]) -> dict[str, tuple[int, ...]]:
    part, count = parts[0], len(parts)
    rows = len(part.written.gates) * part.hidden
    shapes = {"W": (count, rows, part.inputs), "R": (count, rows, part.hidden), "B": (count, 2 * rows)}
    return shapes | ({"P": (count, len(part.written.peepholes) * part.hidden)} if part.written.peepholes else {})


def _check_function(parts: Sequence[Part], node: OnnxNode) -> None:
    part = parts[0]
    if node.op_type != part.written.layer:
        raise ValueError(f"{part.layer}: {node.op_type} came; {part.cell.name} is {part.written.layer} in ONNX")
    own = _in_full(node.op_type, len(parts), _attributes(parts))
    given = _in_full(node.op_type, len(parts), {"hidden_size": part.hidden, **node.attributes})
    for name in {**own, **given}:
        if own.get(name) != given.get(name):
            raise ValueError(
                f"{part.layer}: {name}={given.get(name)!r} came; expected {own.get(name)!r}, "
                f"with which the node is the layer's {part.cell.name}"
            )


def _in_full(op_type: str, directions: int, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """With what ONNX takes for granted; text as text."""
    usual = {"direction": "forward", "activations": USUAL[op_type] * directions}
    usual |= {"input_forget": 0, "linear_before_reset": 0}
    return usual | {name: _text(value) for name, value in attributes.items() if name not in BESIDE}


def _text(value: Any) -> Any:
    """onnx gives text as bytes."""
    if isinstance(value, bytes):
        return value.decode()
    return [_text(each) for each in value] if isinstance(value, list | tuple) else value
