"""`Recurrent`: any cell as a layer over whole sequences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everloop.lang.cell import Cell
from everloop.nn.arrange import Noise, arrange, each, flag, share, whole
from everloop.nn.forms import Form
from everloop.nn.layer import Layer, dropout, within
from everloop.nn.side import Sides
from everloop.nn.state import States
from everloop.stream import Layers, Stream, StreamPool, save_layer


class Recurrent(nn.Module):
    """Run a cell over sequences: one layer or several, one direction or both, ragged or not.

    Shapes, with B sequences, T steps, I inputs, H units, L layers, D directions (1 or 2):

        x [B, T, I] -> y [B, T, D * H], state: a named tuple with [L * D, B, H] for each state of the cell

    The index of a layer and direction in a state is `layer * D + direction`, as in torch. y holds the last
    layer's output, both directions side by side; past the end of a sequence it is zero. The final state of the
    reverse direction is the one after its last step, the first of the sequence. x may also be a PackedSequence or a
    nested tensor of layout torch.jagged; y comes as x does. `state.detach()` goes on from where a sequence stopped
    without gradients to what came before. `state.last` has the last layer's, both directions side by side, [B, D * H].

    cell: a name (`everloop.cells.names()`) or what `@cell` makes of a function; or a sequence, one per layer.
    hidden_size: units; or a sequence, one per layer. Where layers differ in cell or units, the state is a named tuple
        `layer0`, `layer1`, ... of the states of each, [D, B, H].
    num_layers: as many as cells or units come, else 1.
    dropout: share of the outputs of every layer but the last that are set to zero in training.
    sizes: the sizes that the cell names beside input and hidden, as in `sizes={"proj": 64}`.
    skip: "residual": a layer whose output is as wide as its input adds the input to it, as it was before dropout
        (He et al. 2015; Wu et al. 2016). "dense": every layer is given x and the outputs of all layers below, side by
        side in this order (Huang et al. 2016).
    variational: what dropout, input_dropout and output_dropout leave out, they leave out at all steps of a sequence
        (Gal, Ghahramani 2016).
    input_dropout, output_dropout: share of x, and of y, that is set to zero in training.
    recurrent_dropout: share of the units of the first state that the step does not see, the same units at all steps
        (Gal, Ghahramani 2016): `everloop.recurrent_dropout`.
    zoneout: share of the units that keep their old value, for all states or by name, `{"h": 0.05, "c": 0.5}` (Krueger
        et al. 2016): `everloop.zoneout`.
    weight_drop: share of the entries of the matrices that meet a state that are zero during a call (Merity et al. 2017,
        AWD-LSTM).
    learn_start: the first states are parameters, which begin at the start values of the cell. A state that starts
        beyond 1000, as the running maximum of an sLSTM at -1e30, is not.
    reverse: every sequence is read from its own end. keep_order=False: y in the order in which it was read.

    Differs from torch.nn.LSTM and its like: batch first, always; one bias where one suffices; states are
    named; matrices that meet a state start orthogonal, those that meet the input as Glorot and Bengio 2010,
    biases at zero or as the cell says (`b.f` = 1 for an LSTM). Differs from Keras: a layer returns the whole
    sequence and the state, and is given the state to go on (there `stateful`, which the layer keeps); at a step that
    the mask leaves out, y is zero (there the output before it); `reverse` gives y in the order of x (there
    `go_backwards`, as it was read: keep_order=False).
    """

    def __init__(
        self,
        cell: str | Cell | Sequence[str | Cell],
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        sizes: Mapping[str, int] | None = None,
        skip: str | None = None,
        variational: bool = False,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        weight_drop: float = 0.0,
        learn_start: bool = False,
        reverse: bool = False,
        keep_order: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        given, self.hidden_sizes = each(cell, hidden_size, num_layers)
        input_size = whole("input_size", input_size)
        shares = {"dropout": dropout, "input_dropout": input_dropout, "output_dropout": output_dropout}
        for name, value in (shares | {"weight_drop": weight_drop}).items():
            share(name, value)
        flags = {"bidirectional": bidirectional, "variational": variational, "learn_start": learn_start}
        for name, value in (flags | {"reverse": reverse, "keep_order": keep_order}).items():
            flag(name, value)
        if reverse and bidirectional:
            raise ValueError("reverse=True came with bidirectional=True, which reads in both directions: leave one out")
        if not (keep_order or reverse):
            raise ValueError("keep_order=False came without reverse=True; without it, y is in the order of x anyway")
        self.input_size, self.num_layers, self.bidirectional = input_size, len(given), bidirectional
        self.skip, self.variational, self.learn_start = skip, variational, learn_start
        self.dropout, self.input_dropout, self.output_dropout = dropout, input_dropout, output_dropout
        self.recurrent_dropout, self.zoneout, self.weight_drop = recurrent_dropout, zoneout, weight_drop
        self.reverse, self.keep_order = reverse, keep_order
        directions = 2 if bidirectional else 1
        noise = Noise(zoneout, recurrent_dropout)
        self._levels = arrange(given, self.hidden_sizes, input_size, directions, sizes or {}, skip, noise)
        # Knows the device and type of the layer, which may have no parameters.
        self.register_buffer("_like", torch.empty(0, device=device, dtype=dtype), persistent=False)
        factory = {"device": device, "dtype": dtype}
        self.layers = nn.ModuleList(
            nn.ModuleList(Layer(level.cell, level.sizes, factory, weight_drop, learn_start) for _ in range(directions))
            for level in self._levels
        )
        if weight_drop and not any(layer.drops for layer in self._all_layers()):
            names = ", ".join(dict.fromkeys(one.name for one in given))
            raise ValueError(f"weight_drop: {weight_drop} came, and no matrix of {names} meets a state: leave it out")
        alike = len(set(given)) == len(set(self.hidden_sizes)) == 1
        widths = tuple(layer.widths for (layer, *_) in self.layers)  # type: ignore[misc]
        self._states = States(tuple(one.name for one in given), widths, directions, alike)
        self._sides = Sides.of(self._levels)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What runs in each layer: the cell that it was given, with the noise that was asked for."""
        return tuple(level.cell for level in self._levels)

    @property
    def cell(self) -> Cell:
        """What runs in the first layer."""
        return self._levels[0].cell

    @property
    def layer_sizes(self) -> list[dict[str, int]]:
        """The lengths of the sizes of each layer, `input` and `hidden` among them."""
        return [level.sizes for level in self._levels]

    @property
    def sizes(self) -> dict[str, int]:
        """The lengths of the sizes of the first layer."""
        return self._levels[0].sizes

    @property
    def hidden_size(self) -> int:
        """Units of the first layer."""
        return self.hidden_sizes[0]

    @property
    def output_size(self) -> int:
        """Features of y: those of the last cell's output, for each direction."""
        return self._levels[-1].output

    def stream(self, batch: int = 1, weights: str | None = None) -> Stream:
        """A live sequence (or `batch` side by side), with the weights as they are now: `push` steps, [T, I] or [I],
        NumPy in and NumPy out. All layers are one call per step. ValueError if a layer reads from the end.

        weights: how matrices are stored, "bfloat16" or "int8" (None: as the layer computes).
        """
        return Layers.of(self).stream(batch, self._stream_type(), weights)

    def pool(self, weights: str | None = None, idle: float | None = None) -> StreamPool:
        """Live sequences that come and go, stepped together; one that is not pushed for `idle` seconds is closed."""
        return Layers.of(self).pool(self._stream_type(), weights, idle=idle)

    def _stream_type(self) -> Any:
        return np.float64 if self.get_buffer("_like").dtype == torch.float64 else np.float32

    def save(self, path: str | Path) -> None:
        """Keep the layer in one file, for `everloop.load(path)`, which needs no torch."""
        save_layer(self, path)

    def reset_parameters(self) -> None:
        for layer in self._all_layers():
            layer.reset_parameters()

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Sequence[Any] | Tensor | None = None,
        lengths: Sequence[int] | Tensor | None = None,
        side: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
        return_states: bool | Sequence[str] = False,
    ) -> Any:
        """y and the final state; with `return_states`, also the history.

        x [B, T, I], state as returned (None: the cell's start values), lengths [B] of a padded batch.
        mask [B, T]: True at the steps that count. The others, anywhere in a sequence, leave the state as it was.
        side: the side inputs of the cell by name, known at every step, given to every layer and direction: [B, T, F],
        or [B, T] where the cell has one number per step. One that is not given has the cell's value for that.
        return_states: True, or the names of states and named values of the step, such as `["c", "f"]` of an LSTM. The
        history is a tuple, with a dictionary of [B, T, F] by name at `layer * D + direction`; a state is the one after
        the step.
        """
        form = self._form(x, lengths, mask)
        layers = self._all_layers()
        first = self._first(layers, state, form)
        beside = self._sides.rows(side, form) if side is not None or self._sides.needed else {}
        watched = None if return_states is False or return_states is None else self._watched(return_states)
        rows, packing = form.rows, form.packing
        given = self._left_out(rows, self.input_dropout, form)
        final: list[dict[str, Tensor]] = []
        history: list[dict[str, Any]] = []
        for depth, level in enumerate(self._levels):
            made = []
            for direction in range(2 if self.bidirectional else 1):
                place = len(final)
                inputs = {"x": given}
                if beside:
                    inputs |= {name: beside[name] for name in level.side if name in beside}
                names = watched[place] if watched else ()
                outputs, last = layers[place](inputs, first[place], packing, self.reverse or direction == 1, names)
                made.append(outputs["y"])
                final.append(last)
                if watched:
                    history.append({name: self._back(outputs[name], form) for name in names})
            y = made[0] if len(made) == 1 else torch.cat(made, -1)
            rows = y + rows if level.adds else y
            if depth + 1 < self.num_layers:
                hidden = self._left_out(rows, self.dropout, form)
                given = torch.cat([given, hidden], -1) if self.skip == "dense" else hidden
        y = self._left_out(rows, self.output_dropout, form)
        y = self._back(within(y, packing) if self._levels[-1].adds else y, form)
        if rows.dim() == 2:
            final = [{name: form.original(array) for name, array in last.items()} for last in final]
        state = self._states.join(final)
        return (y, state) if watched is None else (y, state, tuple(history))

    def start_state(self, batch: int) -> Any:
        """The state before the first step, as `forward` takes and returns it."""
        like = self.get_buffer("_like")
        return self._states.join([layer.start(batch, like) for layer in self._all_layers()])

    def _form(self, x: Any, lengths: Sequence[int] | Tensor | None, mask: Tensor | None) -> Form:
        tensor = isinstance(x, Tensor)
        if tensor and x.dim() != 3:
            raise ValueError(f"x: {tuple(x.shape)} came; expected [B, T, {self.input_size}]")
        form = Form.of(x, lengths, mask)
        if form.rows.shape[-1] != self.input_size:
            came = f"{tuple(x.shape)} came; expected [B, T," if tensor else f"{tuple(x.data.shape)} came; expected [N,"
            raise ValueError(f"x: {came} {self.input_size}]")
        return form

    def _first(self, layers: list[Layer], state: Sequence[Any] | Tensor | None, form: Form) -> list[dict[str, Tensor]]:
        """The states before the first step, of every layer and direction, in the order of the rows."""
        batch, like = form.packing.batch, form.rows
        if state is None:
            return [layer.start(batch, like) for layer in layers]
        given = self._states.split(state, batch, like)
        return [{name: form.sort(array) for name, array in states.items()} for states in given]

    def _left_out(self, rows: Tensor, share: float, form: Form) -> Tensor:
        return dropout(rows, share, form.packing, self.variational) if share and self.training else rows

    def _back(self, rows: Tensor, form: Form) -> Any:
        return form.back(rows if self.keep_order else form.packing.turned(rows))

    @torch.compiler.assume_constant_result
    def _watched(self, asked: bool | Sequence[str]) -> list[tuple[str, ...]]:
        """The names whose history is wanted, of every layer and direction."""
        known = [layer.names for layer in self._all_layers()]
        if asked is True:
            wanted = known
        elif not isinstance(asked, Iterable):
            raise TypeError(f"return_states: {asked!r} came; expected True, or names, such as {known[0]}")
        else:
            names = [asked] if isinstance(asked, str) else list(dict.fromkeys(asked))
            there = dict.fromkeys(name for names in known for name in names)
            for name in names:
                if name not in there:
                    raise ValueError(f"return_states: {name!r} came; there are {', '.join(there)}")
            wanted = [[name for name in names if name in one] for one in known]
        return [layer.watch(names) for layer, names in zip(self._all_layers(), wanted, strict=True)]

    def _all_layers(self) -> list[Layer]:
        return [layer for directions in self.layers for layer in directions]  # type: ignore[misc]

    def extra_repr(self) -> str:
        cells = list(dict.fromkeys(level.name for level in self._levels))
        alike = len(set(self.cells)) == 1
        names = cells[0] if alike else f"[{', '.join(level.name for level in self._levels)}]"
        units = str(self.hidden_size) if len(set(self.hidden_sizes)) == 1 else str(list(self.hidden_sizes))
        usual = {"num_layers": 1, "bidirectional": False, "dropout": 0.0, "skip": None, "variational": False}
        usual |= dict.fromkeys(("input_dropout", "output_dropout", "recurrent_dropout", "zoneout", "weight_drop"), 0.0)
        usual |= {"learn_start": False, "reverse": False, "keep_order": True}
        options = {name: getattr(self, name) for name in usual}
        given = [f"{name}={value!r}" for name, value in options.items() if value != usual[name]]
        return ", ".join([names, str(self.input_size), units, *given])

    def __repr__(self) -> str:
        return f"Recurrent({self.extra_repr()})"
