"""What stands in the place of a network's recurrent layers while it is recorded, and what it collects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from everloop.backends import AUTO, asked, choose, use_backend
from everloop.insight.probe import Probed, probed, values_of, width
from everloop.lang.cell import Cell
from everloop.nn import GRU, LSTM, RNN, Recurrent
from everloop.nn.convert import convert
from everloop.nn.drop_in import recurrence_of
from everloop.nn.forms import Form
from everloop.nn.layer import Layer, within
from everloop.nn.packing import Packing

DROP_INS = (RNN, LSTM, GRU)
LAYERS_OF_TORCH = (nn.RNN, nn.LSTM, nn.GRU)

Place = tuple[str, int, str]
"""The name of a module, the layer in it, and the direction."""

Made = tuple[dict[str, Tensor], dict[str, Tensor]]
"""The outputs of a layer, as rows, and its final states."""


@dataclass(frozen=True)
class Call:
    """What one call of a layer reads: x as rows, the first states [B, F], the weights by stack. padded: from rows to
    [B, T, F], zero past the end of a sequence.
    """

    cell: Cell
    sizes: dict[str, int]
    x: Tensor
    states: Mapping[str, Tensor]
    stacks: Mapping[str, Tensor]
    packing: Packing
    padded: Callable[[Tensor], Tensor]

    @property
    def bytes(self) -> int:
        """Of one feature at all steps, [B, T]."""
        return self.x.element_size() * self.packing.batch * self.packing.time

    @property
    def lengths(self) -> Tensor:
        """Of each sequence, the steps up to its last that counts, [B]."""
        there = self.padded(self.x.new_ones(*self.x.shape[:-1], 1))[..., 0]
        place = torch.arange(1, there.shape[1] + 1, device=there.device)
        return (there.ne(0) * place).amax(1) if there.shape[1] else place.new_zeros(there.shape[0])

    @property
    def start(self) -> dict[str, Tensor]:
        """The first states, in the order of the caller."""
        original = self.packing.original if self.x.dim() == 2 else lambda state: state
        return {name: original(state.detach()) for name, state in self.states.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """By member."""
        found = {}
        for stack, members in self.cell.graph.stacks.items():
            parts = self.stacks[stack].detach().split([param.shape(self.sizes)[0] for param in members])
            found |= {param.name: part for param, part in zip(members, parts, strict=True)}
        return found


@dataclass(frozen=True)
class Kept:
    """What one call left: x and values [B, T, F], and the probes, as rows, whose gradients are those of the values."""

    call: Call
    x: Tensor
    values: dict[str, Tensor]
    probes: dict[str, Tensor]
    keys: Mapping[str, str]


@dataclass
class Recorder:
    """names: which values are kept; None: all, and where there is no room for all, fewer of the named ones. most: how
    many bytes may be kept.
    """

    names: Sequence[str] | None
    gradients: bool
    most: int
    calls: dict[Place, list[Kept]] = field(default_factory=dict)
    used: int = 0
    left_out: list[str] = field(default_factory=list)
    backends: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """While this lasts, every call of a recurrent layer in the network is recorded."""
        with ExitStack() as undo:
            for name, module in list(network.named_modules()):
                if isinstance(module, LAYERS_OF_TORCH):
                    undo.enter_context(_converted(module))
                if isinstance(module, Recurrent):
                    self._watch_recurrent(name, module, undo)
                elif isinstance(module, DROP_INS):
                    self._watch_drop_in(name, module, undo)
            yield

    # -- Recurrent -------------------------------------------------------------------------------------------------

    def _watch_recurrent(self, name: str, module: Recurrent, undo: ExitStack) -> None:
        forms: list[Form] = []

        def noted(*given: Any) -> Form:
            # Where the steps of a mask lie, which the layers do not know.
            forms[:] = [Recurrent._form(module, *given)]
            return forms[0]

        undo.enter_context(_in_place_of(module, "_form", noted))
        for depth, directions in enumerate(module.layers):
            for layer in directions:  # type: ignore[attr-defined]
                run = partial(self._run_layer, name, depth, layer, forms)
                undo.enter_context(_in_place_of(layer, "forward", run))

    def _run_layer(
        self,
        name: str,
        depth: int,
        layer: Layer,
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

        return self._recorded((name, depth, _direction(reverse)), call, run, watched)

    # -- the layers of torch ---------------------------------------------------------------------------------------

    def _watch_drop_in(self, name: str, module: Any, undo: ExitStack) -> None:
        original, ran = module.forward, []

        def run(*given: Any) -> Any:
            ran.append(name)
            return self._run_drop_in(name, module, *given)

        def forward(*args: Any, **kwargs: Any) -> Any:
            ran.clear()
            with use_backend(_backend_of(module)):
                made = original(*args, **kwargs)
            if not ran:
                raise ValueError(
                    f"record: torch itself ran {name or type(module).__name__}, where nothing can be read: turn autocast "
                    "off, and leave weights in the shape and type that the constructor makes"
                )
            return made

        undo.enter_context(_in_place_of(module, "_run", run))
        undo.enter_context(_in_place_of(module, "forward", forward))

    def _run_drop_in(
        self,
        name: str,
        module: Any,
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
                made, last = self._recorded((name, depth, _direction(reverse)), call, _of_kernel(call, reverse))
                outputs.append(made["y"])
                finals.append(last)
            rows = torch.cat(outputs, -1)
            if module.dropout and module.training and depth < module.num_layers - 1:
                rows = nn.functional.dropout(rows.contiguous(), module.dropout)
        return rows, [torch.stack([last[state] for last in finals]) for state in names]

    # -- what is kept ----------------------------------------------------------------------------------------------

    def _recorded(
        self,
        place: Place,
        call: Call,
        run: Callable[[Probed, dict[str, Tensor]], Made],
        watched: Sequence[str] = (),
    ) -> Made:
        names = self._with_room(place, call)
        probe = probed(call.cell, call.sizes, {*names, *watched}, self.gradients)
        probes = probe.probes(call.x)
        outputs, final = run(probe, probe.given(probes))
        found = probe.kept(outputs)
        values = {name: call.padded(found[name].detach()) for name in names}
        kept = Kept(call, call.padded(call.x.detach()), values, probes, probe.keys)
        self.calls.setdefault(self._of_as_many(place, call), []).append(kept)
        self.used += self._bytes(call, names)
        self.backends[probe.recurrence.ran_on(call.x)] = None
        return {"y": outputs["y"]} | {name: found[name] for name in watched}, final

    def _of_as_many(self, place: Place, call: Call) -> Place:
        """Where a call belongs: calls of as many sequences are one record, others another."""
        name, *rest = place
        for count in itertools.count(1):
            found = (name if count == 1 else f"{name} ({count})", *rest)
            if found not in self.calls or self.calls[found][0].call.packing.batch == call.packing.batch:
                return found
        raise AssertionError

    def _with_room(self, place: Place, call: Call) -> list[str]:
        """The names to record of a call, after others were given up where there is no room."""
        while True:
            names = self._wanted(call.cell)
            needed = self.used + self._bytes(call, names)
            if needed <= self.most:
                return names
            spare = [name for cell in (*(kept.call.cell for kept in self._all()), call.cell) for name in self._spare(cell)]
            if not spare:
                raise ValueError(
                    f"record: {_megabytes(needed)} came together at layer {place[1]} of {place[0] or 'the layer'}; there "
                    f"is room for {_megabytes(self.most)}: ask for fewer values with names=[...], give fewer or shorter "
                    f"sequences, or make room with most={needed} or more"
                )
            self._leave_out(spare[-1])

    def _leave_out(self, name: str) -> None:
        self.left_out.append(name)
        for kept in self._all():
            if kept.values.pop(name, None) is not None:
                self.used -= self._bytes_of(kept.call, name)

    def _all(self) -> list[Kept]:
        return [kept for calls in self.calls.values() for kept in calls]

    def _wanted(self, cell: Cell) -> list[str]:
        there = values_of(cell.graph)
        return [n for n in there if n not in self.left_out and (self.names is None or n in self.names)]

    def _spare(self, cell: Cell) -> list[str]:
        """What may be left out: named values that nobody asked for."""
        if self.names is not None:
            return []
        return [n for n in self._wanted(cell) if n not in cell.graph.new and n not in ("y", "output")]

    def _bytes(self, call: Call, names: Collection[str]) -> int:
        return call.bytes * call.sizes["input"] + sum(self._bytes_of(call, n) for n in names)

    def _bytes_of(self, call: Call, name: str) -> int:
        """Of a value, and of its gradient."""
        wide = width(values_of(call.cell.graph)[name], call.sizes)
        return call.bytes * wide * (2 if self.gradients else 1)


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MB"


IN_PLACE = ("recorded",)
"""What a layer watches while it is recorded, which is no name of a value."""


def _of_kernel(call: Call, reverse: bool) -> Callable[[Probed, dict[str, Tensor]], Made]:
    def run(probe: Probed, probes: dict[str, Tensor]) -> Made:
        return probe.recurrence({"x": call.x} | probes, call.states, call.stacks, call.packing, reverse)

    return run


def _direction(reverse: bool) -> str:
    return "backward" if reverse else "forward"


def _back(form: Form, rows: Tensor) -> Tensor:
    """Rows as [B, T, F], in the places that they had in x, zero where no step counts."""
    if rows.dim() == 2:
        return form.packing.unpack(rows)
    return form.back(within(rows, form.packing))


def _backend_of(module: Any) -> str:
    """The backend to ask for by name: of itself, a module leaves short sequences to torch."""
    if asked() != AUTO:
        return asked()
    cell = recurrence_of(module.mode, module.input_size, module.hidden_size, module.proj_size).cell
    like = next(module.parameters())
    return choose(cell.graph, like.device.type, str(like.dtype), AUTO).name


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
    """While this lasts, a method of one module is another function."""
    before = vars(module).get(name)
    object.__setattr__(module, name, function)
    try:
        yield
    finally:
        object.__delattr__(module, name)
        if before is not None:
            object.__setattr__(module, name, before)
