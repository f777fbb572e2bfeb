"""torch.nn's own layers and cells: oneDNN for LSTM, operation by operation for GRU and RNN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from everloop.bench.problem import Problem, Rival, module_rival

NEEDS = ("torch",)

LAYERS: dict[str, Any] = {"lstm": nn.LSTM, "projection_lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
CELLS: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "elman": nn.RNNCell}


def rivals(problem: Problem) -> dict[str, Rival]:
    name = problem.cell.name
    if name not in LAYERS:
        return {}
    layer = make_layer(problem)
    if problem.what == "step":
        cells = {"torch.nn cell": _step(problem, _cell(problem))} if name in CELLS else {}
        return {"torch.nn": _step(problem, layer)} | cells
    return {"torch.nn": module_rival(problem, lambda x: layer(x)[0], family_weights(problem, layer))}


def make_layer(problem: Problem) -> nn.Module:
    _, _, inputs, units = problem.shape
    projected = {"proj_size": problem.layer.output_size} if problem.cell.name == "projection_lstm" else {}
    return _filled(LAYERS[problem.cell.name](inputs, units, batch_first=True, **projected), problem, "_l0")


def family_weights(problem: Problem, layer: nn.Module) -> dict[str, Tensor]:
    """torch's second bias is the family d of `gru`, and one too many elsewhere."""
    families = {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b", "bias_hh": "d", "weight_hr": "P"}
    return {families[name.removesuffix("_l0")]: array for name, array in layer.named_parameters()}


def _cell(problem: Problem) -> nn.Module:
    _, _, inputs, units = problem.shape
    return _filled(CELLS[problem.cell.name](inputs, units), problem, "")


def _filled(module: nn.Module, problem: Problem, suffix: str) -> nn.Module:
    weights = problem.weights
    known = {"weight_ih": weights["W"], "weight_hh": weights["U"], "bias_ih": weights["b"]}
    known["bias_hh"] = weights.get("d", torch.zeros_like(weights["b"]))
    if "P" in weights:
        known["weight_hr"] = weights["P"]
    module.load_state_dict({name + suffix: array for name, array in known.items()})
    return module


def _step(problem: Problem, module: nn.Module) -> Rival:
    """A layer gives y and the state; a cell only the state, whose first part is y."""
    is_layer = isinstance(module, nn.RNNBase)
    x = problem.x if is_layer else problem.x[:, 0]
    state: Any = None

    def run() -> Tensor:
        nonlocal state
        with torch.inference_mode():
            if is_layer:
                y, state = module(x, state)
                return y
            state = module(x, state)
            return state[0] if isinstance(state, tuple) else state

    return Rival(run, lambda y: {"y": y.numpy().reshape(1, 1, -1)})
