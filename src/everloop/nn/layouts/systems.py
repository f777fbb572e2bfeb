"""How other systems write our cells: the one table that the rest is derived from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop import cells
from everloop.lang.cell import Cell
from everloop.lang.functions import relu, tanh
from everloop.lang.transforms import RecurrentDropout


@dataclass(frozen=True)
class Written:
    """A cell as another system has it.

    layer:     its name there.
    gates:     their order there by our names, a letter each; - is one that must be there and is not looked at.
    biases:    how many there are for each gate. Two of them are summed, unless our cell has two as well.
    peepholes: the order of those. attributes, activation: what the layer must be told for it to be our cell.
    """

    layer: str
    gates: str
    biases: int
    peepholes: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    activation: Any = None


@dataclass(frozen=True)
class System:
    """The cells that another system has, by our names; lacks: what it has not that a cell of ours needs."""

    name: str
    cells: Mapping[str, Written]
    lacks: Mapping[str, str]

    def written(self, cell: Cell, where: str) -> Written:
        """ValueError if the system has no such cell."""
        name = cell.step.__name__
        for rewrite in cell.rewrites:
            # In evaluation it is not there.
            if not isinstance(rewrite, RecurrentDropout):
                raise ValueError(f"{where}: {cell.name} came; {self.name} has no {type(rewrite).__name__.lower()}")
        if name not in self.cells:
            why = f", {self.lacks[name]}" if name in self.lacks else ""
            raise ValueError(f"{where}: {name} came; {self.name} has no such cell{why}. It has {', '.join(self.cells)}")
        if cells.get(name).step is not cell.step:
            raise ValueError(f"{where}: a cell of your own came; it has the name of {name}, whose equations may differ")
        return self.cells[name]


KERAS = System(
    "Keras",
    {
        "elman": Written("SimpleRNN", "h", 1),
        "irnn": Written('SimpleRNN(activation="relu")', "h", 1),
        "lstm": Written("LSTM", "ifgo", 1),
        "gru": Written("GRU(reset_after=True)", "zrn", 2),
        "gru_before": Written("GRU(reset_after=False)", "zrn", 1),
    },
    {
        "projection_lstm": "its LSTM has no projection",
        "peephole_lstm": "its LSTM has no peepholes",
        "cifg_lstm": "its LSTM has a forget gate of its own",
        "layernorm_lstm": "its LSTM has no norms",
        "layernorm_gru": "its GRU has no norms",
    },
)

ONNX = System(
    "ONNX",
    {
        "elman": Written("RNN", "h", 2, activation=tanh),
        "irnn": Written("RNN", "h", 2, activation=relu),
        "lstm": Written("LSTM", "iofg", 2),
        "peephole_lstm": Written("LSTM", "iofg", 2, peepholes="iof"),
        "cifg_lstm": Written("LSTM", "io-g", 2, attributes={"input_forget": 1}),
        "gru": Written("GRU", "zrn", 2, attributes={"linear_before_reset": 1}),
        "gru_before": Written("GRU", "zrn", 2, attributes={"linear_before_reset": 0}),
    },
    {
        "projection_lstm": "its LSTM has no projection",
        "layernorm_lstm": "its LSTM has no norms",
        "layernorm_gru": "its GRU has no norms",
    },
)
