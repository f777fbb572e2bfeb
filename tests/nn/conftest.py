"""Layers of every kind, as the tests of what torch does with modules take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from everloop.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell

INPUT, UNITS = 3, 4


@dataclass
class Subject:
    """A module in float64, with what it is called with.

    make: it once more, with other start values, and device and dtype as they are asked for.
    """

    name: str
    make: Callable[..., nn.Module]
    module: nn.Module

    @property
    def steps(self) -> bool:
        """Whether it takes sequences, not one step."""
        return not isinstance(self.module, nn.RNNCellBase)

    def x(self, batch: int = 3, time: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
        shape = (batch, time, INPUT) if self.steps else (batch, INPUT)
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    def beside(self, batch: int = 3, time: int = 5) -> dict[str, Any]:
        """What comes beside x."""
        if self.name == "lengths":
            return {"lengths": torch.arange(1, 2 * batch, 2) % (time + 1)}
        if self.name == "mask":
            return {"mask": torch.arange(batch * time).view(batch, time) % 3 > 0}
        return {"return_states": True} if self.name == "history" else {}

    def results(self, x: Tensor, module: Any = None, **beside: Any) -> list[Tensor]:
        """All tensors that come out. beside: what comes beside x, if it is something else than usual."""
        called = self.module if module is None else module
        return tree_leaves(called(x, **(beside or self.beside(*x.shape[:2]))))

    def gradients(self, x: Tensor, module: Any = None, parameters: Sequence[Tensor] = ()) -> list[Tensor]:
        """What comes out, and the gradients of x and of the parameters (by default, of the subject's own)."""
        leaf = x.detach().requires_grad_()
        made = self.results(leaf, module)
        ends = [leaf, *(parameters or self.module.parameters())]
        found = torch.autograd.grad(weighed(made), ends, materialize_grads=True)
        return [*made, *found]


def weighed(results: Any) -> Tensor:
    """A number that every value has another weight in."""
    parts = [y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view(y.shape) for y in results]
    return torch.stack([part.sum() for part in parts]).sum()


def _recurrent(*args: Any, **options: Any) -> Callable[..., nn.Module]:
    return lambda **factory: Recurrent(*args, **options, **factory)


SUBJECTS: dict[str, Callable[..., nn.Module]] = {
    "deep": _recurrent("lstm", INPUT, UNITS, 2, bidirectional=True),
    "lengths": _recurrent("gru", INPUT, UNITS, bidirectional=True),
    "mask": _recurrent("gru", INPUT, UNITS, bidirectional=True),
    "scan": _recurrent("mingru", INPUT, UNITS),
    "mixed": _recurrent(["lstm", "qrnn"], INPUT, [UNITS, 5], skip="dense", learn_start=True),
    "history": _recurrent("lstm", INPUT, UNITS, 2),
    "LSTM": lambda **factory: LSTM(INPUT, UNITS, 2, bidirectional=True, batch_first=True, **factory),
    "GRU": lambda **factory: GRU(INPUT, UNITS, batch_first=True, **factory),
    "RNN": lambda **factory: RNN(INPUT, UNITS, batch_first=True, **factory),
    "LSTMCell": lambda **factory: LSTMCell(INPUT, UNITS, **factory),
    "GRUCell": lambda **factory: GRUCell(INPUT, UNITS, **factory),
    "RNNCell": lambda **factory: RNNCell(INPUT, UNITS, **factory),
}


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    torch.manual_seed(0)
    make = SUBJECTS[request.param]
    return Subject(request.param, make, make(dtype=torch.float64))


@pytest.fixture
def total() -> Callable[[Any], Tensor]:
    """A number of all that comes out, with a weight of its own for every value."""
    return lambda results: weighed(tree_leaves(results))
