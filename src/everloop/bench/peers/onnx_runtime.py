"""onnxruntime with the operators LSTM, GRU and RNN of ONNX, filled with our weights: called with arrays, and with
buffers bound to it beforehand, which saves what a call allocates and copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from everloop.bench.problem import Arrays, Problem, Rival

NEEDS = ("onnx", "onnxruntime")

OPSET = 17
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "elman": "RNN"}
ORDER = {"lstm": "iofc", "gru": "zrh", "elman": "h"}
OURS = {"lstm": "ifco", "gru": "rzh", "elman": "h"}
"""The gates in ONNX's order and in ours, by ONNX's letters."""


def rivals(problem: Problem) -> dict[str, Rival]:
    if problem.cell.name not in OPERATORS or problem.what == "training":
        return {}
    session = _session(problem)
    if problem.what == "step":
        return {"onnxruntime": _step(problem, session), "onnxruntime, bound": _bound_step(problem, session)}
    x = np.ascontiguousarray(problem.x.numpy().swapaxes(0, 1))
    y = np.empty((problem.shape[1], 1, problem.shape[0], problem.shape[3]), np.float32)
    bound = _Bound(session, {"X": x}, {"Y": y})
    return {
        "onnxruntime": Rival(lambda: session.run(["Y"], {"X": x})[0], _batch_first),
        "onnxruntime, bound": Rival(bound.run, _batch_first),
    }


def _batch_first(y: np.ndarray) -> Arrays:
    """[T, 1, B, H] -> [B, T, H]."""
    return {"y": y[:, 0].swapaxes(0, 1)}


def _step(problem: Problem, session: Any) -> Rival:
    inputs, outputs = _states(problem)
    x = problem.x.numpy()
    state = [np.zeros((1, 1, problem.shape[3]), np.float32) for _ in inputs]

    def run() -> np.ndarray:
        nonlocal state
        y, *state = session.run(outputs, {"X": x} | dict(zip(inputs, state, strict=True)))
        return y

    return Rival(run, _batch_first)


def _bound_step(problem: Problem, session: Any) -> Rival:
    """Two bindings in turn: what one writes as the new state, the other reads as the old one."""
    inputs, outputs = _states(problem)
    units = problem.shape[3]
    x, y = problem.x.numpy(), np.empty((1, 1, 1, units), np.float32)
    buffer = np.empty_like(x)
    states = [[np.zeros((1, 1, units), np.float32) for _ in inputs] for _ in range(2)]
    turns = []
    for old, new in (states, states[::-1]):
        given, found = dict(zip(inputs, old, strict=True)), dict(zip(outputs, [y, *new], strict=True))
        turns.append(_Bound(session, {"X": buffer} | given, found))
    turn = 0

    def run() -> np.ndarray:
        nonlocal turn
        buffer[:] = x
        turn = 1 - turn
        return turns[turn].run()

    return Rival(run, _batch_first)


def _states(problem: Problem) -> tuple[list[str], list[str]]:
    cell = ["c"] if problem.cell.name == "lstm" else []
    return ["h0", *(f"{name}0" for name in cell)], ["Y", "h1", *(f"{name}1" for name in cell)]


class _Bound:
    """A session that reads and writes arrays as they lie in memory, and keeps them: a binding does not."""

    def __init__(self, session: Any, inputs: Arrays, outputs: Arrays) -> None:
        self._session, self._binding, self._kept = session, session.io_binding(), inputs | outputs
        for bind, arrays in ((self._binding.bind_input, inputs), (self._binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def run(self) -> np.ndarray:
        self._session.run_with_iobinding(self._binding)
        return self._kept["Y"]


def _session(problem: Problem) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    model = _model(problem).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(problem: Problem) -> Any:
    from onnx import TensorProto, checker, helper, numpy_helper

    batch, time, inputs, units = problem.shape
    given, found = _states(problem) if problem.what == "step" else ([], ["Y"])
    shapes = {"X": [time, batch, inputs], "Y": [time, 1, batch, units]}

    def values(names: list[str]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name, [1, batch, units]))
            for name in names
        ]

    reset: dict[str, Any] = {"linear_before_reset": 1} if problem.cell.name == "gru" else {}
    wanted = ["X", "W", "R", "B", "", *given]
    node = helper.make_node(
        OPERATORS[problem.cell.name], wanted if given else wanted[:4], found, hidden_size=units, **reset
    )
    weights = [numpy_helper.from_array(array, name) for name, array in _weights(problem).items()]
    graph = helper.make_graph([node], problem.cell.name, values(["X", *given]), values(found), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    checker.check_model(model)
    return model


def _weights(problem: Problem) -> Arrays:
    own, wanted = OURS[problem.cell.name], ORDER[problem.cell.name]

    def sorted_gates(array: torch.Tensor) -> np.ndarray:
        parts = dict(zip(own, array.numpy().reshape(len(own), -1, *array.shape[1:]), strict=True))
        return np.concatenate([parts[gate] for gate in wanted])[None]

    weights = problem.weights
    second = weights.get("d", torch.zeros_like(weights["b"]))
    return {
        "W": sorted_gates(weights["W"]),
        "R": sorted_gates(weights["U"]),
        "B": np.concatenate([sorted_gates(weights["b"]), sorted_gates(second)], 1),
    }
