"""What a training leaves behind: options, weights, codec and cell, from a run folder or from a fitted task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from everloop import cells
from everloop.data import codecs
from everloop.data.text import TextCodec
from everloop.lang.cell import Cell
from everloop.lang.read import read_cell
from everloop.stream import Engine, Layers, Part
from everloop.stream.layers import array
from everloop.tasks.run import CELL, Run

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Learned:
    """options: of the task, as in config.toml. fitted: what the task noted in run.json. weights: by the names that
    they have in the torch network.
    """

    options: Mapping[str, Any]
    fitted: Mapping[str, Any]
    codec: Any
    cell: Cell
    weights: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, task: Any) -> Learned:
        """Of a task that torch has fitted."""
        weights = {name: array(tensor) for name, tensor in task.network_.state_dict().items()}
        options = task.get_params() | task.resolved()
        return cls(options, task.fitted(), task.codec_, cells.get(task.cell), weights)

    @classmethod
    def read(cls, run: Run) -> Learned:
        options = run.config.get("options", {})
        name = options.get("cell", "")
        cell = read_cell(run.read_text(CELL), str(run.folder / CELL)) if name == CELL else cells.get(name)
        weights, _ = run.read_arrays("model.safetensors")
        return cls(options, run.fitted, codecs.from_json(run.read_text("codec.json")), cell, weights)

    @property
    def layers(self) -> Layers:
        """The recurrent layers of the network."""
        options, front = self.options, "recurrent."
        sizes = {"input": options["embedding"], "hidden": options["hidden"], **self.cell.graph.sizes}
        sizes |= extra_sizes(self.cell, options["hidden"]) or {}
        weights = {name.removeprefix(front): w for name, w in self.weights.items() if name.startswith(front)}
        return Layers.alike(self.cell, sizes, options["layers"], options.get("bidirectional", False), weights)

    def weight(self, name: str, *shape: int) -> np.ndarray:
        """The weights of that name, which have that shape."""
        found = self.weights.get(name)
        if found is None or found.shape != shape:
            came = "nothing" if found is None else f"shape {found.shape}"
            raise ValueError(f"{name}: {came} came; expected shape {shape}")
        return found


def fitting(make: Callable[[Learned], Made], run: Run) -> Made:
    """What `make` makes of a run folder; what does not fit together in it is said by the name of its files."""
    learned = Learned.read(run)
    try:
        return make(learned)
    except KeyError as error:
        raise ValueError(f"{run.folder}: config.toml or run.json has no entry {error}") from None
    except ValueError as error:
        raise ValueError(f"{run.folder / 'model.safetensors'} does not fit config.toml: {error}") from None


def stored(engine: Engine, whole: Part, weights: str | None, made: dict[str, Engine]) -> Engine:
    """The engine of a model, or one with weights stored in fewer bits, packed once: `made` keeps them."""
    if weights is None:
        return engine
    if weights not in made:
        made[weights] = whole.engine(weights=weights)
    return made[weights]


def extra_sizes(cell: str | Cell, hidden: int) -> dict[str, int] | None:
    """A cell that projects its output gets half as many features as it has units."""
    return {"proj": max(1, hidden // 2)} if "proj" in cells.get(cell).graph.size_names else None


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities [..., C] of scores, in float64."""
    wide = scores.astype(np.float64)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def piece_ids(given: Any, codec: TextCodec) -> np.ndarray:
    """The ids [T] of a text, or of what came as ids already."""
    if isinstance(given, str):
        return codec.encode(given) if given else np.zeros(0, np.int64)
    ids = np.asarray(given)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.ndim > 1 or ids.dtype.kind not in "iu":
        raise TypeError(f"push: {ids.dtype} of shape {ids.shape} came; expected a text, an id, or ids [T]")
    ids = ids.reshape(-1).astype(np.int64)
    if len(ids) and (ids.min() < 0 or ids.max() >= len(codec)):
        raise ValueError(f"push: ids from {ids.min()} to {ids.max()} came; the vocabulary has 0 to {len(codec) - 1:,}")
    return ids
