"""Layers with random options, in random forms, against their definition in a loop, until the time is up:

make fuzz                                                  kernels, then layers, then drop-ins
python tests/fuzz_layers.py --seconds 3600 --first 5       an hour, from layer 5 on
python tests/fuzz_layers.py --only 5.17                    call 17 of layer 5 alone, as a failure names it
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode

import everloop
from everloop import Recurrent, cells
from everloop.lang.cell import Cell
from everloop.nn.function import WATCHED, _watching
from everloop.nn.layer import Layer
from everloop.testing import assert_same_results, evaluate_step
from everloop.testing.cells import NUDGE, with_made
from fuzz_kernels import JUMPS, _made, _random_cells

CALLS = 20
"""Of one layer: making its kernels takes longer than running them."""

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)
BATCHES = (0, 1, 1, 2, 3, 4, 5, 8, 9, 17, 20)
STEPS = (0, 1, 1, 2, 3, 4, 5, 7, 8, 13, 20)
LAID = ("plain", "plain", "transposed", "gaps", "expanded")

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Call:
    """What a layer is called with.

    arrays: leaves, in float64: x [B, T, I] (or [1, T, I], which is expanded), side inputs likewise, states. kept: which
    steps count. form: in which these are handed over. how: the way through Recurrence. watched: `return_states`.
    """

    layer: Recurrent
    dtype: torch.dtype
    batch: int
    arrays: Results
    kept: Tensor
    form: str
    how: str
    watched: bool | list[str]
    laid: str
    frozen: frozenset[str]
    seed: int

    def __str__(self) -> str:
        about = {"x": tuple(self.arrays["x"].shape), "kept": self.kept.sum(1).tolist(), "form": self.form}
        about |= {"how": self.how, "watched": self.watched, "laid": self.laid, "training": self.layer.training}
        about |= {"given": [*self.arrays][1:], "frozen": sorted(self.frozen), "dtype": self.dtype}
        return ", ".join(f"{name} {value}" for name, value in about.items())


def main() -> int:
    options = _options()
    only = [int(part) for part in options.only.split(".")] if options.only else []
    began, tried, failed, layers = time.monotonic(), 0, 0, 0
    for number in only[:1] or count(options.first):
        layer, dtype = layer_number(number)
        layers += 1
        for place in only[1:] or range(CALLS):
            call, threads = call_number(number, place, layer, dtype)
            everloop.set_num_threads(threads)
            tried += 1
            try:
                check(call)
            except Exception as error:
                failed += 1
                kind = f"{type(error).__name__}: {error}"
                print(f"{number}.{place}: {layer}, {threads} threads, {call}: {kind}", flush=True)
                if options.only:
                    raise
                if failed >= options.failures:
                    return _report(tried, layers, failed, began)
            if time.monotonic() - began > options.seconds:
                return _report(tried, layers, failed, began)
    return _report(tried, layers, failed, began)


def check(call: Call) -> None:
    """Values, final states, history and gradients are those of the definition."""
    expected_of = reference if call.layer.training else definition
    expected = results(call, expected_of)
    off = results(nudged(call) if call.dtype is torch.float64 else narrowed(call), expected_of)
    found = results(narrowed(call), RUN[call.how])
    assert_same_results(found, expected, off, str(call.dtype).removeprefix("torch."), "the layer")


# -- random layers and calls -----------------------------------------------------------------------------------------


# What a layer of random options may be refused for.
REFUSED = "skip|weight_drop|.* is block-diagonal|.* equal"


def layer_number(number: int) -> tuple[Recurrent, torch.dtype]:
    """Every third layer is of made-up cells, the others are of those of the catalogue."""
    source, made_up = random.Random(f"layer {number}"), number % 3 == 0
    torch.manual_seed(number)
    while True:
        try:
            layer = _layer(source, made_up)
            break
        except ValueError as refusal:
            if not re.match(REFUSED, str(refusal)):
                raise
    jumps = made_up and any(node.op in JUMPS for cell in layer.cells for node in cell.graph.nodes)
    dtype = torch.float64 if layer.training or jumps else source.choice((torch.float32, torch.float64))
    with torch.no_grad():
        for array in layer.parameters():
            # Biases and starts, which begin as constants, as well.
            array.add_(torch.randn_like(array) / 10).copy_(array.to(dtype))
    names = [name for name, _ in layer.named_parameters()]
    for name in source.sample(names, source.choice((0, 0, 0, source.randint(0, len(names))))):
        layer.get_parameter(name).requires_grad_(False)
    return layer, dtype


def _layer(source: random.Random, made_up: bool) -> Recurrent:
    chosen = [_cell(source, made_up) for _ in range(source.choice((1, 1, 2, 3)))]
    if made_up or any(map(_beside, chosen)):
        # Side inputs go to all layers, and are as wide in one as in the other.
        chosen = chosen[:1]
    hidden = [source.choice(SIZES) for _ in chosen]
    if source.random() < 0.5:
        chosen, hidden = chosen[:1] * len(chosen), hidden[:1] * len(hidden)
    reads = source.choice(("forward", "forward", "both", "reverse", "as read"))
    options: dict[str, Any] = {
        "bidirectional": reads == "both",
        "reverse": reads in ("reverse", "as read"),
        "keep_order": reads != "as read",
        "skip": source.choice((None, None, "residual", "dense")),
        "learn_start": source.random() < 0.4,
    }
    training = source.random() < 0.25
    if training or source.random() < 0.1:
        shares = ("dropout", "input_dropout", "output_dropout", "recurrent_dropout", "zoneout", "weight_drop")
        options |= {name: 0.25 for name in shares if source.random() < 0.4}
        # Other masks are drawn as the rows lie in memory, which is the backend's to say.
        options["variational"] = training or source.random() < 0.5
    width = source.choice(SIZES)
    if options["skip"] == "residual":
        hidden = hidden[:1] * len(hidden)
        width = hidden[0] * (2 if reads == "both" else 1)
    named = {name for cell in chosen for name in cell.graph.size_names} - {"input", "hidden"}
    sizes = {name: source.choice(SIZES) for name in sorted(named)}
    return Recurrent(chosen, width, hidden, sizes=sizes, dtype=torch.float64, **options).train(training)


def call_number(number: int, place: int, layer: Recurrent, dtype: torch.dtype) -> tuple[Call, int]:
    of_layer, source = random.Random(f"of layer {number}"), random.Random(f"call {number}.{place}")
    seed = source.randrange(1 << 30)
    draws = torch.Generator().manual_seed(seed)
    batch, steps, laid = source.choice(BATCHES), source.choice(STEPS), source.choice(LAID)
    form = source.choice(("full", "lengths", "mask", "packed", "sorted", "nested", "holes"))
    kept = _kept(source, form, batch, steps)
    if not (batch and steps) and form in ("packed", "sorted"):
        form = "full"
    kept = torch.ones(batch, steps, dtype=torch.bool) if form == "full" else kept

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draws).to(dtype).double()

    rows = 1 if laid == "expanded" else batch
    arrays = {"x": draw(rows, steps, layer.input_size)}
    needed = layer._sides.needed
    for name in layer._sides.taken:
        if name in needed or source.random() < 0.7:
            arrays[name] = 0.25 + draw(rows, steps, layer._sides._width(name)).sigmoid().to(dtype).double()
    if rows == batch:
        for array in arrays.values():
            array[~kept] = torch.nan
    if source.random() < 0.6:
        arrays |= {f"state {name}": (a + draw(*a.shape) / 10).to(dtype).double() for name, a in _states(layer, batch)}
    frozen = frozenset(of_layer.sample([*arrays], of_layer.randint(0, len(arrays) // 2)))
    names = [name for one in layer._all_layers() for name in one.names]
    watched: Any = source.choice((False, False, True, source.sample(names, source.randint(1, len(names)))))
    hows = ["eager", "eager", "operator"]
    if not layer.training and form in ("full", "lengths", "mask"):
        hows += ["func", "vmap"]
    how = source.choice(hows)
    if how in ("func", "vmap") or form == "nested":
        laid = "plain" if laid != "expanded" else laid
    frozen = frozen if source.random() < 0.5 else frozenset()
    return Call(layer, dtype, batch, arrays, kept, form, how, watched, laid, frozen, seed), source.choice((1, 1, 2))


def _cell(source: random.Random, made_up: bool) -> Cell:
    return _made(source, CELLS_MADE) if made_up else cells.get(source.choice(cells.names()))


def _beside(cell: Cell) -> list[str]:
    return [name for name in cell.graph.inputs if name != "x" and name not in cell.graph.draws]


def _kept(source: random.Random, form: str, batch: int, steps: int) -> Tensor:
    """[B, T]: at the front of each sequence, or anywhere."""
    if form == "mask":
        share = source.choice((0.0, 0.3, 0.9, 1.0))
        flags = [[source.random() < share for _ in range(steps)] for _ in range(batch)]
        return torch.tensor(flags, dtype=torch.bool).view(batch, steps)
    least = min(1, steps) if form in ("packed", "sorted") else 0
    lengths = [source.randint(least, steps) for _ in range(batch)]
    if form == "sorted":
        lengths.sort(reverse=True)
    return torch.arange(steps) < torch.tensor(lengths, dtype=torch.int64).view(batch, 1)


def _states(layer: Recurrent, batch: int) -> Iterator[tuple[str, Tensor]]:
    """By layer and name where layers differ."""
    state = layer.start_state(batch)
    for name, part in zip(state._fields, state, strict=True):
        if isinstance(part, Tensor):
            yield name, part.detach().clone()
        else:
            yield from ((f"{name}.{own}", a.detach().clone()) for own, a in zip(part._fields, part, strict=True))


# -- what a call gives -----------------------------------------------------------------------------------------------


def results(call: Call, run: Callable[[Call, Results], Results]) -> Results:
    """Everything that comes out, and the gradients of what is not frozen."""
    leaves = _leaves(call)
    torch.manual_seed(call.seed)
    made = run(call, leaves)
    if any(name.startswith("gradient") for name in made):
        return made
    ends = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    number = _number(made, call.seed)
    if not ends or not number.requires_grad:
        found: Sequence[Tensor] = [torch.zeros_like(end) for end in ends.values()]
    else:
        found = torch.autograd.grad(number, [*ends.values()], materialize_grads=True)
    return {name: a.detach() for name, a in made.items()} | _gradients(ends, found)


def definition(call: Call, leaves: Results) -> Results:
    """Every sequence by itself, step by step."""
    layer, batch, steps = call.layer, call.batch, call.kept.shape[1]
    beside = {name: _over(leaves[name], batch) for name in call.arrays if not name.startswith("state ")}
    directions = 2 if layer.bidirectional else 1
    first, layers = _first(call, leaves), layer._all_layers()
    weights = [_weights(call, leaves, one) for one in layers]
    ys: list[Tensor] = []
    finals: list[list[Results]] = []
    histories: list[list[Results]] = []
    for row in range(batch):
        there = call.kept[row]
        sides = {name: array[row, there] for name, array in beside.items()}
        below, final, history = [sides.pop("x")], [], []
        for depth in range(layer.num_layers):
            given = torch.cat(below, 1) if layer.skip == "dense" else below[-1]
            outputs = []
            for direction in range(directions):
                one, place = layers[len(final)], len(final)
                start = {name: array[row : row + 1] for name, array in first[place].items()}
                reverse = layer.reverse or direction > 0
                y, state, seen = _loop(one, weights[place], {"x": given, **sides}, start, reverse, _watched(call, one))
                outputs.append(y)
                final.append(state)
                history.append(seen)
            y = torch.cat(outputs, 1)
            below.append(y + below[-1] if layer._levels[depth].adds else y)
        finals.append(final)
        histories.append([{name: _spread(a, there, layer.keep_order) for name, a in part.items()} for part in history])
        ys.append(_spread(below[-1], there, layer.keep_order))
    empty = leaves["x"].new_zeros
    made = {"y": torch.stack(ys) if ys else empty(0, steps, layer.output_size)}
    for place, known in enumerate(first):
        for name, array in known.items():
            parts = [final[place][name] for final in finals]
            made[f"final {place} {name}"] = torch.cat(parts) if parts else array
        for name in _watched(call, layers[place]) if batch else ():
            made[f"history {place} {name}"] = torch.stack([one[place][name] for one in histories])
    return made


def reference(call: Call, leaves: Results) -> Results:
    """The same call on the reference, with the same draws."""
    with everloop.use_backend("reference"):
        return eager(call, leaves)


def eager(call: Call, leaves: Results) -> Results:
    return _named(call, call.layer(*_arguments(call, leaves)))


class _Watching(TorchDispatchMode):
    """Sees what is done, and does it: what makes a layer an operator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def by_operator(call: Call, leaves: Results) -> Results:
    with _Watching():
        made = call.layer(*_arguments(call, leaves))
    return _named(call, made)


def by_func(call: Call, leaves: Results) -> Results:
    """With its gradients, by torch.func."""
    ends = {name: leaf.detach() for name, leaf in leaves.items() if leaf.requires_grad}
    rest = {name: leaf for name, leaf in leaves.items() if name not in ends}

    def number(ends: Results) -> tuple[Tensor, Results]:
        made = _functional(call, rest | ends)
        return _number(made, call.seed), made

    found, made = torch.func.grad(number, has_aux=True)(ends) if ends else ({}, number(ends)[1])
    return made | _gradients(ends, [found[name] for name in ends])


def by_vmap(call: Call, leaves: Results) -> Results:
    """The first of two, mapped over some of the leaves, with gradients."""
    source = random.Random(call.seed)
    shares = {name: source.random() < (0.2 if name.startswith("layers.") else 0.6) for name in leaves}
    mapped = {name for name, share in shares.items() if share or name == "x"}
    ends = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}

    def one(now: Results) -> Results:
        def number(ends: Results) -> tuple[Tensor, Results]:
            made = _functional(call, now | ends)
            return _number(made, call.seed), made

        found, made = torch.func.grad(number, has_aux=True)({name: now[name] for name in ends})
        return made | _gradients(ends, [found[name] for name in ends])

    with torch.no_grad():
        both = {name: torch.stack([a, a / 2]) if name in mapped else a.detach() for name, a in leaves.items()}
    with torch.enable_grad():
        made = torch.vmap(one, ({name: 0 if name in mapped else None for name in leaves},))(both)
    return {name: array[0].detach() for name, array in made.items()}


RUN: dict[str, Callable[[Call, Results], Results]] = {
    "eager": eager,
    "operator": by_operator,
    "func": by_func,
    "vmap": by_vmap,
}


def _functional(call: Call, leaves: Results) -> Results:
    weights = {name: leaves[name] for name, _ in call.layer.named_parameters()}
    return _named(call, torch.func.functional_call(call.layer, weights, _arguments(call, leaves)))


def narrowed(call: Call) -> Call:
    """In the type of the call."""
    layer = copy.deepcopy(call.layer).to(call.dtype) if call.dtype is not torch.float64 else call.layer
    return replace(call, layer=layer, arrays={name: a.to(call.dtype) for name, a in call.arrays.items()})


def nudged(call: Call) -> Call:
    """Numbers that are a little off."""
    layer = copy.deepcopy(call.layer)

    def off(array: Tensor) -> Tensor:
        return array * (1 + NUDGE * torch.randn(array.shape, dtype=array.dtype))

    with torch.no_grad():
        for array in layer.parameters():
            array.copy_(off(array))
    return replace(call, layer=layer, arrays={name: off(a) for name, a in call.arrays.items()})


# -- in and out of the forms -----------------------------------------------------------------------------------------


def _arguments(call: Call, leaves: Results) -> tuple[Any, ...]:
    """x, state, lengths, side, mask and return_states."""
    sides = {name: _handed(call, leaves[name]) for name in call.arrays if name in call.layer._sides.taken}
    lengths = {"lengths": _lengths(call), "mask": None}.get(call.form)
    mask = call.kept if call.form == "mask" else None
    return _handed(call, leaves["x"]), _state(call, leaves), lengths, sides, mask, call.watched


def _handed(call: Call, array: Tensor) -> Any:
    """[B, T, F] in the form of the call."""
    laid = _laid(_over(array, call.batch), call.laid)
    lengths = call.kept.sum(1)
    if call.form in ("packed", "sorted"):
        return pack_padded_sequence(laid, lengths, batch_first=True, enforce_sorted=call.form == "sorted")
    if call.form == "nested":
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        return torch.nested.nested_tensor_from_jagged(laid[call.kept], offsets)
    if call.form == "holes":
        steps = call.kept.shape[1]
        offsets = torch.arange(call.batch + 1) * steps
        return torch.nested.nested_tensor_from_jagged(laid.reshape(-1, laid.shape[2]), offsets, lengths=lengths)
    return laid


def _lengths(call: Call) -> Any:
    """As whatever has numbers."""
    lengths = call.kept.sum(1)
    of = call.seed % 5
    if call.how in ("func", "vmap"):
        return lengths
    return [lengths, lengths.tolist(), lengths.to(torch.uint8), lengths.int().numpy(), tuple(lengths.tolist())][of]


def _state(call: Call, leaves: Results) -> Any:
    given = [leaves[name] for name in call.arrays if name.startswith("state ")]
    if not given:
        return None
    shape, rest = call.layer.start_state(call.batch), iter(given)
    laid = "plain" if call.laid == "expanded" else call.laid
    return tuple(
        _laid(next(rest), laid) if isinstance(part, Tensor) else [_laid(next(rest), laid) for _ in part]
        for part in shape
    )


def _laid(array: Tensor, laid: str) -> Tensor:
    if laid == "transposed":
        return array.transpose(0, 1).contiguous().transpose(0, 1)
    if laid == "gaps":
        return torch.stack([array, torch.full_like(array, torch.nan)], -1)[..., 0]
    return array


def _named(call: Call, made: Any) -> Results:
    """What a layer gives, as `definition` names it; histories of no sequences are as empty as they come."""
    y, state = made[:2]
    found = {"y": _padded(call, y)}
    for place, layer in enumerate(call.layer._all_layers()):
        of_one, row = state, place
        if isinstance(state[0], tuple):
            depth, row = divmod(place, 2 if call.layer.bidirectional else 1)
            of_one = state[depth]
        for name, array in zip(layer.widths, of_one, strict=True):
            found[f"final {place} {name}"] = array[row][:, : layer.widths[name]]
        for name in _watched(call, layer) if call.batch else ():
            found[f"history {place} {name}"] = _padded(call, made[2][place][name])
    return found


def _padded(call: Call, y: Any) -> Tensor:
    steps = call.kept.shape[1]
    if isinstance(y, PackedSequence):
        return pad_packed_sequence(y, batch_first=True, total_length=steps)[0]
    if not y.is_nested:
        return y
    values = y.values()
    if call.form == "holes":
        return values.view(call.batch, steps, values.shape[1])
    rows = call.kept.reshape(-1).nonzero()[:, 0]
    flat = values.new_zeros(call.batch * steps, values.shape[1]).index_copy(0, rows, values)
    return flat.view(call.batch, steps, values.shape[1])


# -- the definition's parts ------------------------------------------------------------------------------------------


def _leaves(call: Call) -> Results:
    """The arrays and the parameters, by name."""
    found = {name: a.detach().requires_grad_(name not in call.frozen) for name, a in call.arrays.items()}
    return found | dict(call.layer.named_parameters())


def _first(call: Call, leaves: Results) -> list[Results]:
    """The states [B, F] before the first step, of every layer and direction."""
    found: list[Results] = []
    directions = 2 if call.layer.bidirectional else 1
    for place, layer in enumerate(call.layer._all_layers()):
        depth, direction = divmod(place, directions)
        states = {}
        for name, width in layer.widths.items():
            if f"state {name}" in leaves:
                states[name] = leaves[f"state {name}"][place][:, :width]
            elif f"state layer{depth}.{name}" in leaves:
                states[name] = leaves[f"state layer{depth}.{name}"][direction][:, :width]
            elif hasattr(layer, f"start_{name}"):
                states[name] = leaves[f"layers.{depth}.{direction}.start_{name}"].expand(call.batch, width)
            else:
                start = layer.recurrence.cell.graph.start[name]
                states[name] = leaves["x"].new_full((call.batch, width), start)
        found.append(states)
    return found


def _weights(call: Call, leaves: Results, layer: Layer) -> Results:
    """The parameters by name, and what is made of them."""
    place = next(k for k, one in enumerate(call.layer._all_layers()) if one is layer)
    depth, direction = divmod(place, 2 if call.layer.bidirectional else 1)
    graph, found = layer.recurrence.cell.graph, {}
    for stack, members in graph.stacks.items():
        parts = leaves[f"layers.{depth}.{direction}.{stack}"].split([param.shape(layer.sizes)[0] for param in members])
        found |= zip((param.name for param in members), parts, strict=True)
    return with_made(graph, found, layer.sizes) if found else found


def _loop(
    layer: Layer, weights: Results, inputs: Results, state: Results, reverse: bool, watched: tuple[str, ...]
) -> tuple[Tensor, Results, Results]:
    """One sequence through one layer in one direction: y and what is watched, in the order of x, and the last state."""
    graph, sizes, steps = layer.recurrence.cell.graph, layer.sizes, inputs["x"].shape[0]
    for name, leaf in graph.inputs.items():
        width = 1 if leaf.size is None else sizes[str(leaf.size)]
        if name in graph.draws:
            inputs[name] = inputs["x"].new_full((steps, width), graph.draws[name].mean)
        elif name not in inputs:
            inputs[name] = inputs["x"].new_full((steps, width), graph.start[name])
    seen: list[Results] = []
    whole = _watching(graph, watched)
    for t in reversed(range(steps)) if reverse else range(steps):
        given = {name: inputs[name][t : t + 1] for name in graph.inputs}
        outputs, state = evaluate_step(whole, given | weights, state, sizes)
        seen.append(outputs)
    ordered = seen[::-1] if reverse else seen
    widths = {name: sizes[str(node.size)] for name, node in whole.outputs.items()}
    made = {
        name: torch.cat([one[name] for one in ordered]) if ordered else inputs["x"].new_zeros(0, width)
        for name, width in widths.items()
    }
    return made["y"], state, {name: made[f"{WATCHED}{name}"] for name in watched}


def _watched(call: Call, layer: Layer) -> tuple[str, ...]:
    if isinstance(call.watched, list):
        return tuple(dict.fromkeys(name for name in call.watched if name in layer.names))
    return tuple(layer.names) if call.watched else ()


def _over(array: Tensor, batch: int) -> Tensor:
    return array if array.shape[0] == batch else array.expand(batch, *array.shape[1:])


def _spread(rows: Tensor, there: Tensor, keep_order: bool) -> Tensor:
    """The rows of the steps that count [N, F] as [T, F]."""
    if not keep_order:
        rows = rows.flip(0)
    return rows.new_zeros(len(there), rows.shape[1]).index_copy(0, there.nonzero()[:, 0], rows)


def _number(made: Results, seed: int) -> Tensor:
    """One number of all, in which every value has a weight of its own."""
    parts = []
    for place, (_, array) in enumerate(sorted(made.items())):
        places = torch.arange(array.numel(), dtype=array.dtype).view(array.shape)
        parts.append((array * torch.sin(0.7 * places + seed % 89 + place)).sum())
    return torch.stack(parts).sum()


def _gradients(ends: Results, found: Sequence[Tensor]) -> Results:
    return {f"gradient {name}": grad.detach() for name, grad in zip(ends, found, strict=True)}


def _report(tried: int, layers: int, failed: int, began: float) -> int:
    seconds = time.monotonic() - began
    print(f"{tried} calls of {layers} layers in {seconds:.0f} s: {failed} failed")
    return int(failed > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--first", type=int, default=0, help="the layer to begin with")
    parser.add_argument("--failures", type=int, default=5, help="failures to end after")
    parser.add_argument("--only", default="", help="one layer (5), or one call of it (5.17)")
    return parser.parse_args()


CELLS_MADE = _random_cells()

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        # Thousands of kernels that nobody runs again have no place among those on disk.
        os.environ["EVERLOOP_CACHE"] = folder
        torch.set_num_threads(1)
        sys.exit(main())
