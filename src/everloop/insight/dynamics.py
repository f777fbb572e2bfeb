"""Gradients through time: what a step does to a small change of the state, and what becomes of it over many steps.

A gradient on its way back is multiplied by the transposed Jacobian of every step that it passes. All that is called
vanishing and exploding is in the singular values of these matrices, and in the growth of their products per step, the
Lyapunov exponents.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from everloop.insight.alone import alone, evaluating
from everloop.insight.gates import Saturation, half_life, saturation
from everloop.insight.recording import LayerRecord
from everloop.nn import Recurrent

__all__ = [
    "Clipping",
    "Saturation",
    "Spectrum",
    "alone",
    "clipping",
    "gradient_norms",
    "half_life",
    "lyapunov",
    "reach",
    "saturation",
    "spectrum",
    "step_jacobians",
]

# Steps whose Jacobians are there at once: of 512 states in float64, 128 MB.
CHUNK = 64


def step_jacobians(
    layer: Recurrent, x: Tensor, state: Any = None, *, side: Mapping[str, Tensor] | None = None
) -> np.ndarray:
    """The derivative of the states after each step by those before it: [B, T, N, N], [..., n, m] of new n by old m.

    All states of all layers stand side by side: those of the first layer in the order of the cell, then the second's.
    Any cell; as it computes in evaluation, so noise is off. For a layer inside a model, or one direction of two:
    `step_jacobians(*alone(recording.layers[k]))`.
    """
    _check_one_way(layer)
    batch, time = x.shape[:2]
    with evaluating(layer):
        old = _states_before(layer, x, state, side)
        leaves = [{name: array.requires_grad_() for name, array in states.items()} for states in old]
        beside = {name: array.flatten(0, 1)[:, None] for name, array in (side or {}).items()}
        with torch.enable_grad():
            _, made = layer(x.detach().flatten(0, 1)[:, None], _joined(layer, leaves), side=beside)
            new = _side_by_side(_split(layer, made, batch * time, x))
            arrays = [array for states in leaves for array in states.values()]
            rows = [_gradient(new[:, unit], arrays) for unit in range(new.shape[1])]
    return torch.stack(rows, 1).reshape(batch, time, len(rows), len(rows)).cpu().numpy()


@dataclass(frozen=True)
class Spectrum:
    """Of every matrix, largest first. singular: by how much the step stretches at most, and in other directions;
    moduli: of the eigenvalues, by how much it would stretch if it were repeated. [B, T, N] each.
    """

    singular: np.ndarray
    moduli: np.ndarray


def spectrum(jacobians: np.ndarray) -> Spectrum:
    """Of Jacobians [..., N, N], as `step_jacobians` gives them."""
    singular = np.linalg.svd(jacobians, compute_uv=False)
    moduli = -np.sort(-np.abs(np.linalg.eigvals(jacobians)), -1)
    return Spectrum(singular, moduli)


def lyapunov(
    layer: Recurrent,
    x: Tensor,
    state: Any = None,
    *,
    side: Mapping[str, Tensor] | None = None,
    count: int | None = None,
    skip: int = 0,
) -> np.ndarray:
    """The growth per step, in nats, of small changes of the state along a sequence: [B, count], largest first.

    Below 0 changes die out, and gradients vanish; above 0 they grow, and gradients explode: the norm over k steps goes
    as exp(k * exponent). By the QR method of Benettin et al. 1980. count: how many (all); skip: steps at the
    beginning that turn the directions and are not counted.
    """
    batch, time = x.shape[:2]
    if not 0 <= skip < time:
        raise ValueError(f"skip: {skip} came; expected at least one step of {time} to be left")
    kept, sums = None, np.zeros(())
    for begin in range(0, time, CHUNK):
        part = slice(begin, begin + CHUNK)
        beside = {name: array[:, part] for name, array in (side or {}).items()}
        jacobians = step_jacobians(layer, x[:, part], state, side=beside).astype(np.float64)
        if kept is None:
            units = jacobians.shape[-1]
            kept = np.broadcast_to(np.eye(units)[:, : count or units], (batch, units, count or units))
            sums = np.zeros((batch, kept.shape[-1]))
        for step in range(jacobians.shape[1]):
            kept, triangle = np.linalg.qr(jacobians[:, step] @ kept)
            if begin + step >= skip:
                # A direction of which nothing is left: its growth is minus infinity.
                with np.errstate(divide="ignore"):
                    sums = sums + np.log(np.abs(np.diagonal(triangle, axis1=-2, axis2=-1)))
        with evaluating(layer), torch.no_grad():
            _, state = layer(x[:, part], state, side=beside)
    return -np.sort(-sums / (time - skip), -1)


def gradient_norms(one: LayerRecord) -> dict[str, np.ndarray]:
    """The norm over the units of dL/dh_t, for each state h of a layer: [B, T], zero past the end of a sequence.

    dL/dh_t is what a small change of h after step t would do to the loss, through everything that follows.
    """
    if not one.gradients:
        raise ValueError("the record has no gradients: give a target, record(model, input, target)")
    return {name: np.linalg.norm(one.gradients[name], axis=-1) for name in one.start}


def reach(
    norms: ArrayLike, share: float = 0.01, *, lengths: ArrayLike | None = None, direction: str = "forward"
) -> np.ndarray:
    """How many steps back a loss at the end reaches: over how many the norm stays above that share of the last one.

    norms: [B, T] or [T], as `gradient_norms` gives them. A number for each sequence; the length less 1 means as far as
    the sequence goes, if not further. Where every step has a loss of its own, no norm falls: ask for one step's loss.
    """
    rows = np.atleast_2d(np.asarray(norms, dtype=np.float64))
    ends = np.full(len(rows), rows.shape[1]) if lengths is None else np.asarray(lengths)
    found = []
    for row, length in zip(rows, ends, strict=True):
        back = row[:length] if direction == "backward" else row[:length][::-1]
        below = np.flatnonzero(back < share * back[:1])
        found.append(below[0] - 1 if len(below) else length - 1)
    return np.array(found) if np.ndim(norms) > 1 else np.array(found[0])


@dataclass(frozen=True)
class Clipping:
    """Of each epoch: the share of updates whose gradient was shortened, and the largest norm before that."""

    epochs: np.ndarray
    share: np.ndarray
    largest: np.ndarray


def clipping(history: str | Path | Sequence[Mapping[str, Any]]) -> Clipping:
    """Where clipping struck in a training: its history, or the metrics.csv of a run folder."""
    if isinstance(history, str | Path):
        with Path(history).open(encoding="utf-8", newline="") as file:
            history = list(csv.DictReader(file))
    columns = ("epoch", "clipped", "largest_norm")
    missing = [name for name in columns if history and name not in history[0]]
    if missing:
        raise ValueError(
            f"history: {', '.join(history[0])} came; expected {', '.join(missing)} too, as a run writes it"
        )
    return Clipping(*(np.array([float(row[name]) for row in history]) for name in columns))


def _check_one_way(layer: Recurrent) -> None:
    if layer.bidirectional or layer.reverse:
        way = "bidirectional=True" if layer.bidirectional else "reverse=True"
        raise ValueError(
            f"a layer with {way} came, whose step is not one from past to future: take one direction of a recording, "
            "step_jacobians(*alone(record(layer, x).layers[0]))"
        )


def _states_before(
    layer: Recurrent, x: Tensor, state: Any, side: Mapping[str, Tensor] | None
) -> list[dict[str, Tensor]]:
    """The states before each step, of every layer: [B * T, F], sequence after sequence."""
    first = _split(layer, layer.start_state(x.shape[0]) if state is None else state, x.shape[0], x)
    with torch.no_grad():
        *_, history = layer(x, state, side=side, return_states=list(dict.fromkeys(n for one in first for n in one)))
    return [
        {name: torch.cat([array[:, None], told[name][:, :-1]], 1).flatten(0, 1) for name, array in begun.items()}
        for begun, told in zip(first, history, strict=True)
    ]


def _joined(layer: Recurrent, states: list[dict[str, Tensor]]) -> Any:
    return layer._states.join(states)


def _split(layer: Recurrent, state: Any, batch: int, like: Tensor) -> list[dict[str, Tensor]]:
    return layer._states.split(state, batch, like)


def _side_by_side(states: list[dict[str, Tensor]]) -> Tensor:
    return torch.cat([array for one in states for array in one.values()], -1)


def _gradient(unit: Tensor, arrays: list[Tensor]) -> Tensor:
    """Rows do not meet, so the gradient of the sum over rows holds that of each: [B * T, N]."""
    if not unit.requires_grad:
        return torch.cat([torch.zeros_like(array) for array in arrays], -1)
    return torch.cat(torch.autograd.grad(unit.sum(), arrays, retain_graph=True, materialize_grads=True), -1)
