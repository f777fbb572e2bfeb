"""What stands in the place of the recurrent layers of a network while it is recorded: nothing at other times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor, nn

from everloop.backends import AUTO, asked, choose, use_backend
from everloop.insight.probe import Probed
from everloop.insight.recorder import Call, Made, Recorder, Run
from everloop.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell
from everloop.nn.convert import convert
from everloop.nn.drop_in import recurrence_of
from everloop.nn.drop_in_cells import MODES, _weights
from everloop.nn.forms import Form
from everloop.nn.layer import Layer, within
from everloop.nn.packing import Packing

OF_TORCH = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)

IN_PLACE = ("recorded",)
"""What a layer watches while it is recorded, which is no name of a value."""


ONE_AT_A_TIME = RLock()


@contextmanager
def watching(network: nn.Module, recorder: Recorder) -> Iterator[None]:
    """While this lasts, every call of a recurrent layer in the network is recorded, if this thread makes it. Other
    threads may use the network; those that record wait.
    """
    with ONE_AT_A_TIME, ExitStack() as undo:
        for name, module in list(network.named_modules()):
            if isinstance(module, OF_TORCH):
                undo.enter_context(_converted(module))
            if isinstance(module, Recurrent):
                _watch_recurrent(name, module, recorder, undo)
            elif isinstance(module, RNN | LSTM | GRU):
                _watch_layers_of_torch(name, module, recorder, undo)
            elif isinstance(module, RNNCell | LSTMCell | GRUCell):
                run = partial(_run_cell_of_torch, name, module, recorder, module.forward)
                undo.enter_context(_in_place_of(module, "forward", run))
        yield


# -- Recurrent -------------------------------------------------------------------------------------------------------


def _watch_recurrent(name: str, module: Recurrent, recorder: Recorder, undo: ExitStack) -> None:
    forms: list[Form] = []
    form_of = module._form

    def noted(*given: Any) -> Form:
        # Where the steps of a mask lie, which the layers do not know.
        forms[:] = [form_of(*given)]
        return forms[0]

    undo.enter_context(_in_place_of(module, "_form", noted))
    for depth, directions in enumerate(module.layers):
        for layer in directions:  # type: ignore[attr-defined]
            run = partial(_run_layer, name, depth, layer, recorder, forms)
            undo.enter_context(_in_place_of(layer, "forward", run))


def _run_layer(
    name: str,
    depth: int,
    layer: Layer,
    recorder: Recorder,
    forms: list[Form],
    inputs: dict[str, Tensor],
    states: dict[str, Tensor],
    packing: Packing,
    reverse: bool = False,
    watched: tuple[str, ...] = (),
) -> Made:
    cell = layer.recurrence.cell
    stacks = {stack: getattr(layer, stack) for stack in cell.graph.stacks}
    call = Call(cell, layer.sizes, inputs["x"], states, stacks, packing, partial(_back, forms[0]))

    def run(probe: Probed, probes: dict[str, Tensor]) -> Made:
        layer._watching[IN_PLACE] = probe.recurrence
        try:
            return Layer.forward(layer, inputs | probes, states, packing, reverse, IN_PLACE)
        finally:
            del layer._watching[IN_PLACE]

    return recorder.recorded((name, depth, _direction(reverse)), call, run, watched)


def _back(form: Form, rows: Tensor) -> Tensor:
    """Rows as [B, T, F], in the places that they had in x, zero where no step counts."""
    if rows.dim() == 2:
        return form.packing.unpack(rows)
    return form.back(within(rows, form.packing))


# -- the layers and cells of torch -----------------------------------------------------------------------------------


def _watch_layers_of_torch(name: str, module: Any, recorder: Recorder, undo: ExitStack) -> None:
    original, ran = module.forward, []

    def run(*given: Any) -> Any:
        ran.append(name)
        return _run_layers_of_torch(name, module, recorder, *given)

    def forward(*args: Any, **kwargs: Any) -> Any:
        ran.clear()
        with use_backend(_backend_of(module)):
            made = original(*args, **kwargs)
        if not ran:
            raise ValueError(_by_torch(name, module))
        return made

    undo.enter_context(_in_place_of(module, "_run", run))
    undo.enter_context(_in_place_of(module, "forward", forward))


def _run_layers_of_torch(
    name: str,
    module: Any,
    recorder: Recorder,
    rows: Tensor,
    packing: Packing,
    starts: list[Sequence[Tensor]],
    weights: list[dict[str, Tensor]],
) -> tuple[Tensor, list[Tensor]]:
    """What the module does with the same arguments, layer by layer."""
    names = "hc"[: len(starts)]
    finals: list[dict[str, Tensor]] = []
    for depth in range(module.num_layers):
        plain = recurrence_of(module.mode, rows.shape[-1], module.hidden_size, module.proj_size)
        outputs = []
        for reverse in (False, True)[: 2 if module.bidirectional else 1]:
            place = len(finals)
            states = {state: of[place] for state, of in zip(names, starts, strict=True)}
            call = Call(plain.cell, plain.sizes, rows, states, weights[place], packing, packing.unpack)
            made, last = recorder.recorded((name, depth, _direction(reverse)), call, _by_kernel(call, reverse))
            outputs.append(made["y"])
            finals.append(last)
        rows = torch.cat(outputs, -1)
        if module.dropout and module.training and depth < module.num_layers - 1:
            rows = nn.functional.dropout(rows.contiguous(), module.dropout)
    return rows, [torch.stack([last[state] for last in finals]) for state in names]


def _run_cell_of_torch(
    name: str, module: Any, recorder: Recorder, original: Callable[..., Any], input: Tensor, hx: Any = None
) -> Any:
    """One step; several calls make one sequence."""
    mode = MODES.get(getattr(module, "nonlinearity", ""), type(module).__name__.removesuffix("Cell"))
    weights = _weights(module, mode, input)
    if weights is None or torch.is_autocast_enabled(input.device.type):
        raise ValueError(_by_torch(name, module))
    # What does not fit is refused in torch's words.
    with torch.no_grad():
        original(input, hx)
    names = "hc" if mode == "LSTM" else "h"
    shape = (*input.shape[:-1], module.hidden_size)
    given = [input.new_zeros(shape)] * len(names) if hx is None else hx if mode == "LSTM" else (hx,)
    states = {state: array.reshape(-1, module.hidden_size) for state, array in zip(names, given, strict=True)}
    rows = input.reshape(1, -1, module.input_size)
    packing = Packing.full(rows.shape[1], 1)
    plain = recurrence_of(mode, module.input_size, module.hidden_size)
    call = Call(plain.cell, plain.sizes, rows, states, weights, packing, packing.unpack)
    _, final = recorder.recorded((name, 0, "forward"), call, _by_kernel(call, reverse=False))
    found = tuple(final[state].reshape(shape) for state in names)
    return found if mode == "LSTM" else found[0]


def _by_kernel(call: Call, reverse: bool) -> Run:
    def run(probe: Probed, probes: dict[str, Tensor]) -> Made:
        return probe.recurrence({"x": call.x} | probes, call.states, call.stacks, call.packing, reverse)

    return run


def _by_torch(name: str, module: nn.Module) -> str:
    return (
        f"record: torch itself runs {name or 'this'} {type(module).__name__}, where nothing can be read: turn autocast "
        "off, and leave weights in the shape and type that the constructor makes"
    )


def _backend_of(module: Any) -> str:
    """The backend to ask for by name: of itself, a module leaves short sequences to torch."""
    if asked() != AUTO:
        return asked()
    cell = recurrence_of(module.mode, module.input_size, module.hidden_size, module.proj_size).cell
    like = next(module.parameters())
    return choose(cell.graph, like.device.type, str(like.dtype), AUTO).name


# -- putting in place, and back --------------------------------------------------------------------------------------


def _direction(reverse: bool) -> str:
    return "backward" if reverse else "forward"


@contextmanager
def _converted(module: nn.Module) -> Iterator[None]:
    """While this lasts, a layer of torch is one of Everloop."""
    before = module.__class__
    convert(module)
    try:
        yield
    finally:
        module.__class__ = before


@contextmanager
def _in_place_of(module: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, a method of one module is another function, for this thread."""
    before, original, thread = vars(module).get(name), getattr(module, name), get_ident()

    def either(*args: Any, **kwargs: Any) -> Any:
        return (function if get_ident() == thread else original)(*args, **kwargs)

    object.__setattr__(module, name, either)
    try:
        yield
    finally:
        object.__delattr__(module, name)
        if before is not None:
            object.__setattr__(module, name, before)
