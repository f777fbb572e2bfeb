"""Keras: lists of arrays, as `get_weights` of a layer gives them and `set_weights` takes them.

A layer in one direction has its kernel [I, G * H], its recurrent kernel [H, G * H] and its bias, [G * H] or, of
GRU(reset_after=True), [2, G * H]; none with use_bias=False. A `Bidirectional` has forward's arrays, then backward's.
The weights do not say which way a layer runs (go_backwards, after which its outputs lie in the order in which it read,
for the next layer too), or which activation SimpleRNN has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from everloop.nn.layouts.parts import AnyLayer, Array, Part, RecurrentLayer, check_shape, fill, parts_of
from everloop.nn.layouts.systems import KERAS

NAMES = ("kernel", "recurrent_kernel", "bias")


def to_keras(layer: RecurrentLayer) -> list[list[Array]]:
    """For each layer, what `set_weights` of its Keras layer takes, in both directions of its `Bidirectional`."""
    return [[array for part in parts for array in _arrays(part)] for parts in parts_of(layer, KERAS)]


def from_keras(layer: AnyLayer, weights: Sequence[Sequence[Array]]) -> AnyLayer:
    """Fill a layer in place, with what `get_weights` gave for each Keras layer; the layer itself is given back."""
    layers = parts_of(layer, KERAS)
    if len(weights) != len(layers):
        raise ValueError(f"weights of {len(weights)} layers came; expected a list of arrays for each of {len(layers)}")
    fill([taken for parts, arrays in zip(layers, weights, strict=True) for taken in _taken(parts, arrays)])
    return layer


def _arrays(part: Part) -> list[Array]:
    gates = part.written.gates
    kernels = [np.ascontiguousarray(part.read(family, gates).T) for family in ("W", "U")]
    biases = part.read_biases(gates)
    return [*kernels, *(biases if len(biases) < 2 else [np.stack(biases)])]


def _taken(parts: list[Part], arrays: Sequence[Array]) -> list[tuple[Part, dict[str, Array]]]:
    count, rest = divmod(len(arrays), len(parts))
    if rest or count not in (2, 3):
        raise ValueError(
            f"{parts[0].layer}: {len(arrays)} arrays came; expected {', '.join(NAMES)} of "
            f"{' and '.join(part.direction for part in parts)}: {3 * len(parts)}, or {2 * len(parts)} without biases"
        )
    return [
        (part, _read(part, [np.asarray(array) for array in arrays[place * count : (place + 1) * count]]))
        for place, part in enumerate(parts)
    ]


def _read(part: Part, arrays: list[Array]) -> dict[str, Array]:
    rows, two = len(part.written.gates) * part.hidden, part.written.biases == 2
    shapes = ((part.inputs, rows), (part.hidden, rows), (2, rows) if two else (rows,))
    for name, array, shape in zip(NAMES, arrays, shapes, strict=False):
        check_shape(f"{part.where}, {name}", array, shape, f" ({part.written.layer})")
    kernel, recurrent, *bias = arrays
    return part.taken(kernel.T, recurrent.T, list(bias[0]) if bias and two else bias)
