"""`record`: every state and named value of every cell, layer, direction and step, and with a target the gradient of the
loss with respect to each of them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everloop.insight.inside import Inside
from everloop.insight.probe import values_of
from everloop.insight.recorder import Kept, Place, Recorder
from everloop.insight.watching import watching
from everloop.lang.cell import Cell
from everloop.nn import Recurrent

MOST = 256 * 2**20


@dataclass(frozen=True)
class LayerRecord:
    """One layer in one direction.

    name: where the module is in the network, such as "recurrent"; "" where it is the network.
    x: what the layer read, [B, T, I]. start: its states before the first step, [B, F].
    values: every state (after the step), every named value of the step, and y, what it put out: [B, T, F], zero past
        the end of a sequence. Step t belongs to input t, in both directions.
    gradients: of the loss with respect to each of these, through everything that follows, later steps too; {} without
        a target.
    weights: by member, such as "W.i".
    """

    name: str
    layer: int
    direction: str
    cell: Cell
    sizes: dict[str, int]
    x: np.ndarray
    values: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    start: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


@dataclass(frozen=True)
class Recording:
    """layers: in the order in which they ran, those that read the input of a task first. Calls of one module with
    different numbers of sequences are records of their own, the further ones called "recurrent (2)" and so on.
    lengths [B] and steps: of the first of the layers; what the steps of a task's input are called, else "1", "2" ...
    left_out: names that were not kept for want of room.
    """

    layers: tuple[LayerRecord, ...]
    lengths: np.ndarray
    steps: tuple[str, ...]
    output: Any
    loss: float | None
    backend: str
    left_out: tuple[str, ...]


def record(
    model: Any,
    input: Any = None,
    target: Any = None,
    *,
    lengths: Sequence[int] | Tensor | None = None,
    names: Sequence[str] | None = None,
    side: Mapping[str, Tensor] | None = None,
    state: Any = None,
    loss: Callable[..., Tensor] | None = None,
    most: int = MOST,
) -> Recording:
    """Run a model once, as it is, and keep what happens inside.

    model: a `Recurrent`; a layer of torch or everloop.nn; any module that has such layers in it, each call of which is
        recorded, several of one layer as one sequence (a decoder, step by step); a fitted task, or what `inside` of one
        gives. A module is left in the mode that it is in, training or evaluation; a task is evaluated.
    input: what a module is called with, a tuple being several arguments. For a layer [B, T, I], with `lengths`, `side`
        and `state` as the layer takes them. For a task, one input as `predict` takes it.
    target: asks for gradients. Of a module: the loss is half the squared distance of the output from it, summed, or
        `loss(output, target)`. Of a task: what its loss is taken against.
    names: which values to keep; None: all.
    most: bytes that values and gradients may take. Where all named values would take more, as many as fit are kept, and
        `left_out` says which are not; ValueError where not even the states fit, or what `names` asks for.

    Nothing of the model is changed by it, and no gradient is added to its parameters. Other threads may use the model
    meanwhile.
    """
    if isinstance(model, nn.Module):
        asked = _Asked.of_module(model, input, target, loss, lengths, side, state)
    else:
        for name, value in (("lengths", lengths), ("side", side), ("state", state)):
            if value is not None:
                raise TypeError(f"record: {name}= came with a {type(model).__name__}; only layers take it")
        asked = _Asked.of_task(model, input, target, loss)
    if isinstance(names, str):
        raise TypeError(f"record: names={names!r} came; expected a list of names")
    recorder = Recorder(names, asked.loss is not None, most)
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(recorder.gradients),
        watching(asked.network, recorder),
        # Within, as only one thread records at a time: the stance is of the process, and each puts back what it found.
        _not_compiled(),
    ):
        output = asked.run(asked.network)
        found = None if asked.loss is None else asked.loss(output)
    _check(recorder, asked.network)
    gradients = {} if found is None else _gradients(found, recorder)
    calls = sorted(recorder.calls.items(), key=lambda one: one[0][0] != asked.reads)
    layers = tuple(_layer_record(place, kept, gradients) for place, kept in calls)
    more = range(len(asked.steps), layers[0].x.shape[1])
    return Recording(
        layers,
        np.sum([_array(kept.call.lengths) for kept in calls[0][1]], 0),
        (*asked.steps, *(str(step + 1) for step in more)),
        _detached(output),
        None if found is None else float(found.detach()),
        ", ".join(recorder.backends),
        tuple(recorder.left_out),
    )


def _not_compiled() -> AbstractContextManager[Any]:
    """What torch has compiled runs as it is written: it would not look who stands in the place of a layer."""
    # The compiler takes seconds to load, and where nobody has loaded it, nothing is compiled.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@dataclass(frozen=True)
class _Asked:
    """What to run, what the loss of what comes out is, and which layers read what the steps are called."""

    network: nn.Module
    run: Callable[[nn.Module], Any]
    loss: Callable[[Any], Tensor] | None
    steps: tuple[str, ...] = ()
    reads: str = ""

    @staticmethod
    def of_module(
        module: nn.Module,
        input: Any,
        target: Any,
        loss: Callable[..., Tensor] | None,
        lengths: Any,
        side: Any,
        state: Any,
    ) -> _Asked:
        given = {"lengths": lengths, "side": side, "state": state}
        more = {name: value for name, value in given.items() if value is not None}
        if more and not isinstance(module, Recurrent):
            raise TypeError(
                f"record: {next(iter(more))}= came with a {type(module).__name__}; only a Recurrent takes it. Give "
                "other modules all of their arguments in input, as a tuple"
            )

        def run(network: nn.Module) -> Any:
            return network(*input, **more) if type(input) is tuple else network(input, **more)

        if target is None and loss is None:
            return _Asked(module, run, None)
        if loss is None:
            return _Asked(module, run, lambda output: _half_squared(output, target, lengths))
        return _Asked(module, run, lambda output: loss(output, target))

    @staticmethod
    def of_task(task: Any, input: Any, target: Any, loss: Callable[..., Tensor] | None) -> _Asked:
        if isinstance(task, Inside):
            if input is not None or target is not None:
                raise TypeError("record: an Inside knows its input and target; input= or target= came with it")
            inside = task
        elif callable(getattr(task, "inside", None)):
            inside = task.inside(input, target)
        else:
            raise TypeError(
                f"record: a {type(task).__name__} came; expected a layer, a module of torch with layers in it, or a "
                "fitted task, such as everloop.load(folder) gives"
            )
        measured = inside.loss if loss is None else lambda output: loss(output, target)
        return _Asked(inside.network, inside.run, measured, tuple(inside.pieces), inside.reads)


def _half_squared(output: Any, target: Any, lengths: Any) -> Tensor:
    """Half the squared distance, summed over the steps that there are."""
    y = output[0] if type(output) is tuple else output
    if isinstance(y, PackedSequence) and isinstance(target, PackedSequence):
        y, target = y.data, target.data
    if not isinstance(y, Tensor) or not isinstance(target, Tensor) or y.shape != target.shape:
        raise ValueError(
            f"record: the target is {_shape(target)} and the output {_shape(y)}; expected tensors of one shape, or a "
            "loss=, called with output and target"
        )
    apart = y - target.to(y)
    if lengths is not None:
        known = torch.as_tensor(lengths, device=y.device)
        apart = torch.where((torch.arange(y.shape[1], device=y.device) < known[:, None])[..., None], apart, 0)
    return apart.square().sum() / 2


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _check(recorder: Recorder, network: nn.Module) -> None:
    """Whether there is something to tell, and every name that was asked for in it."""
    if not recorder.calls:
        raise ValueError(
            f"record: no recurrent layer ran in this {type(network).__name__}; expected a Recurrent, or an RNN, LSTM, "
            "GRU or a cell of these from everloop.nn or torch.nn, called as a module"
        )
    there = dict.fromkeys(name for calls in recorder.calls.values() for name in values_of(calls[0].call.cell.graph))
    for name in recorder.names or ():
        if name not in there:
            raise ValueError(f"record: names: {name!r} came; there are {', '.join(there)}")


def _gradients(loss: Tensor, recorder: Recorder) -> dict[Tensor, Tensor | None]:
    """Of every probe, the gradient of the loss: that of its value."""
    if loss.dim() or not loss.requires_grad:
        raise ValueError(f"record: the loss is {_shape(loss)}; expected a scalar that follows from the recorded layers")
    every = [kept for calls in recorder.calls.values() for kept in calls]
    # A value of several names has one probe.
    probes = list(dict.fromkeys(kept.probe(name) for kept in every for name in kept.values))
    found = torch.autograd.grad(loss, probes, allow_unused=True) if probes else ()
    return dict(zip(probes, found, strict=True))


def _layer_record(place: Place, calls: Sequence[Kept], gradients: Mapping[Tensor, Tensor | None]) -> LayerRecord:
    call = calls[0].call
    return LayerRecord(
        *place,
        call.cell,
        dict(call.sizes),
        _joined([kept.x for kept in calls]),
        {name: _joined([kept.values[name] for kept in calls]) for name in calls[0].values},
        {name: _joined([_gradient(kept, name, gradients) for kept in calls]) for name in calls[0].values}
        if gradients
        else {},
        {name: _array(state) for name, state in call.start.items()},
        {name: _array(member) for name, member in call.weights.items()},
    )


def _gradient(kept: Kept, name: str, gradients: Mapping[Tensor, Tensor | None]) -> Tensor:
    found = gradients[kept.probe(name)]
    return torch.zeros_like(kept.values[name]) if found is None else kept.call.padded(found)


def _joined(parts: Sequence[Tensor]) -> np.ndarray:
    """One after the other over time, [B, T, F]."""
    return _array(parts[0] if len(parts) == 1 else torch.cat(list(parts), 1))


def _array(tensor: Tensor) -> np.ndarray:
    """A copy, as NumPy has it, which knows no bfloat16: weights go on to change, and what is recorded does not."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy(), order="C")


def _detached(output: Any) -> Any:
    """What came out, without what made it."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*map(_detached, output))
    if isinstance(output, tuple | list):
        return type(output)(map(_detached, output))
    if isinstance(output, dict):
        return {key: _detached(value) for key, value in output.items()}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = {
            field.name: _detached(getattr(output, field.name)) for field in dataclasses.fields(output) if field.init
        }
        return dataclasses.replace(output, **fields)
    return output
