"""`convert`: the recurrent layers of a model of torch become those of Everloop, and back."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from everloop.nn import drop_in, drop_in_cells

Model = TypeVar("Model", bound=nn.Module)

PAIRS: tuple[tuple[type[nn.Module], type[nn.Module]], ...] = (
    (nn.RNN, drop_in.RNN),
    (nn.LSTM, drop_in.LSTM),
    (nn.GRU, drop_in.GRU),
    (nn.RNNCell, drop_in_cells.RNNCell),
    (nn.LSTMCell, drop_in_cells.LSTMCell),
    (nn.GRUCell, drop_in_cells.GRUCell),
)


def convert(model: Model, to: str = "everloop") -> Model:
    """Make every torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in a model the one of everloop.nn, wherever it
    is, itself included; to="torch": the other way. The model is changed in place, and returned.

    What changes is the class of those modules and nothing else: they stay the same objects, with their parameters,
    hooks, parametrizations and whatever else belongs to them, so that optimizers, tied weights and modules that are
    used in several places are as before.

    Left alone: classes derived from these, whose `forward` is somebody's own (parametrized modules, for which torch
    derives a class, are converted); `everloop.Recurrent`, which torch has no like of; and what is no such module any
    more: scripted, exported, quantized and sharded ones. Convert before, and before torch.compile. What knows torch's
    classes only (torch.jit.script, torch.fx.symbolic_trace, dynamic quantization) wants them back first.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: {type(model).__name__} came; expected a torch.nn.Module, such as a model or a layer")
    if to not in ("everloop", "torch"):
        raise ValueError(f'convert: to={to!r} came; expected "everloop" or "torch"')
    wanted = dict(PAIRS) if to == "everloop" else {b: a for a, b in PAIRS}
    for module in model.modules():
        found = type(module)
        if found in wanted:
            module.__class__ = wanted[found]
        elif parametrize.is_parametrized(module) and found.__bases__[0] in wanted:
            module.__class__ = _derived(found, wanted[found.__bases__[0]])
    return model


def _derived(parametrized: type[nn.Module], base: type[nn.Module]) -> Any:
    """The class that torch made for one parametrized module, derived from another base."""
    own = {name: value for name, value in vars(parametrized).items() if name not in ("__dict__", "__weakref__")}
    return type(parametrized.__name__, (base,), own)
