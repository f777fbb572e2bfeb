"""Units of a network held at a value for as long as the page says so, and the states that it then goes through."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from everloop.insight.interventions import Hold, intervene
from everloop.nn import Recurrent

# The recurrent layers of a task are under this name in its network.
MODULE = "recurrent"


class Held:
    """The first state of the last layer; where there are two directions, the units of the one that reads backwards
    come behind those of the other.
    """

    def __init__(self, network: nn.Module) -> None:
        recurrent = getattr(network, MODULE, None)
        if not isinstance(recurrent, Recurrent):
            raise ValueError(f"a {type(network).__name__} came; expected a network with layers {MODULE!r}")
        self.network, self.recurrent = network, recurrent
        self.values: dict[int, float] = {}
        self._undo = ExitStack()
        self.directions = 2 if recurrent.bidirectional else 1
        self.state = next(iter(recurrent.cells[-1].states))
        first = recurrent.start_state(1)
        self.width = self._last(first)[0].shape[-1]

    @property
    def units(self) -> int:
        return self.directions * self.width

    def set(self, unit: int, value: float | None) -> None:
        """Hold a unit from now on, or (None) let it go."""
        if unit >= self.units:
            raise ValueError(f"unit: {unit} came; there are {self.units}, counted from 0")
        self.values.pop(unit, None)
        if value is not None:
            self.values[unit] = value
        self._undo.close()
        holds = [
            Hold(unit % self.width, value, self.state, self.recurrent.num_layers - 1, unit // self.width, module=MODULE)
            for unit, value in self.values.items()
        ]
        if holds:
            self._undo.enter_context(intervene(self.network, *holds))

    def listed(self) -> list[list[float]]:
        """[unit, value] of each that is held."""
        return [[unit, value] for unit, value in self.values.items()]

    def of_state(self, state: Any) -> np.ndarray:
        """[U], of a state as the layers give it back, of one sequence."""
        return torch.cat([rows[0] for rows in self._last(state)]).numpy()

    def _last(self, state: Any) -> list[torch.Tensor]:
        """[B, F] of each direction of the last layer."""
        last = getattr(state, f"layer{self.recurrent.num_layers - 1}", state)
        return list(getattr(last, self.state)[-self.directions :])

    def states(self, run: Callable[[], Any]) -> tuple[Any, np.ndarray]:
        """What `run` gives, which has the network read one sequence, and the state after each step: [T, U]."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append((args, kwargs))

        handle = self.recurrent.register_forward_pre_hook(note, with_kwargs=True)
        try:
            with torch.no_grad():
                made = run()
        finally:
            handle.remove()
        args, kwargs = calls[0]
        with torch.no_grad():
            *_, history = self.recurrent(*args, **{**kwargs, "return_states": [self.state]})
        return made, torch.cat([one[self.state][0] for one in history[-self.directions :]], -1).numpy()
