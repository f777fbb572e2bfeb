"""The contracts of cells and backends. Every tolerance of every test is written down here, once, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck

from everloop import cells
from everloop.backends import Kernel, choose
from everloop.backends._spelling import SPELLING, cumulative, outer
from everloop.backends._values import length, make_matrix
from everloop.backends.reference import ReferenceKernel
from everloop.compiler.differentiate import differentiate
from everloop.compiler.weights import through_made
from everloop.lang.cell import Cell
from everloop.lang.expr import Expr, Size, toposort
from everloop.lang.graph import Graph
from everloop.nn import Recurrent
from everloop.nn.function import Recurrence

__all__ = [
    "AMPLIFIED",
    "BFLOAT16",
    "FINITE_DIFFERENCES",
    "FINITE_STEP",
    "FLOAT32",
    "FUNCTION",
    "KERNEL",
    "SAME",
    "TRIALS",
    "Drawn",
    "Tolerance",
    "Trial",
    "assert_close",
    "assert_same_results",
    "check_backend",
    "check_cell",
    "check_kernel",
    "derived_gradient",
    "evaluate_step",
    "kernel_of",
]


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from what is expected: `absolute + relative * |expected|`."""

    relative: float
    absolute: float


# The same sums and products in another order, in float64 (rounding 1e-16): some thousand roundings.
SAME = Tolerance(1e-12, 1e-12)

# A function of one number, in float64: a few roundings of the last place, however small the result.
FUNCTION = Tolerance(1e-14, 0.0)

# Central differences in float64: with this step, what they leave out (step squared times a third derivative)
# and what they round (1e-16 by the step) are both some 1e-11; third derivatives and values reach some hundreds.
FINITE_STEP = 1e-5
FINITE_DIFFERENCES = Tolerance(1e-6, 1e-8)

# float32 rounds to 6e-8, bfloat16 to 4e-3; a short recurrence rounds a few dozen times and does not amplify.
FLOAT32 = Tolerance(1e-5, 1e-5)
BFLOAT16 = Tolerance(1e-1, 1e-1)

# A whole kernel against the reference, in float64 and in float32: the absolute part is meant for an array whose largest
# value is 1 or less, and grows with that value, since sums over all rows and steps lose digits that cancel. On top
# comes, so many times, what the reference itself is off in float32, or, in float64, for numbers that differ by NUDGE:
# some cells amplify what is rounded at every step, and no kernel can do better. An array of which the reference itself
# has lost all but two digits so says nothing.
KERNEL = {"float64": Tolerance(1e-11, 1e-12), "float32": Tolerance(1e-4, 1e-5)}
AMPLIFIED = 10.0
NUDGE = 1e-15
LOST = 1e-2


def assert_close(actual: Any, expected: Any, tolerance: Tolerance = SAME, what: str = "the value") -> None:
    """Two numbers, arrays or tensors of one shape are equal within the tolerance. NaN equals NaN only."""
    a, b = (
        v.detach().to("cpu", torch.float64) if isinstance(v, Tensor) else torch.as_tensor(v, dtype=torch.float64)
        for v in (actual, expected)
    )
    if a.shape != b.shape:
        raise AssertionError(f"{what}: shape {tuple(a.shape)} came; expected {tuple(b.shape)}")
    far = ~torch.isclose(a, b, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True)
    if far.any():
        place = tuple(far.nonzero()[0].tolist())
        worst = (a - b).abs()[far].nan_to_num(nan=float("inf")).max().item()
        raise AssertionError(
            f"{what}: {int(far.sum())} of {far.numel()} values differ, by up to {worst:.3g}; "
            f"the first at {place}: {a[place].item():.17g} came; expected {b[place].item():.17g}"
        )


def check_cell(cell: str | Cell, *, sizes: Mapping[str, int] | None = None) -> None:
    """Everything that a cell promises as a step and as a layer, in float64 on the CPU, at small sizes.

    - The derived backward step is the gradient: by finite differences, and by torch through the step's operations.
    - The layer computes what the step says when it is run one time step after another, and so do its gradients;
      those are also held against finite differences, and can be differentiated once more.
    - A sequence in two parts, the state carried over, gives what the whole gives.
    - Sequences of different lengths in one batch, none excluded, give what each gives alone, whatever the
      padding holds: outputs, final states, gradients.
    - No steps and no sequences are possible: the state stays as it is.
    - The reverse direction is the forward one on the reversed sequences.
    - bfloat16 gives what float64 gives, as far as it goes; what is not a number stays in its sequence and its future.

    cell: a name or what `@cell` makes. sizes: those that the cell names beside input and hidden (5 unless given).
    Takes about a second.
    """
    found, given = cells.get(cell), dict(sizes or {})
    # Wider than long and each size another, so that an exchange of two of them is an error.
    check = _Check(found, {"input": 3, "hidden": 4} | given)
    small = _Check(found, {"input": 2, "hidden": 3} | given)
    # The layers' start values come from torch's own generator, which the caller finds as it was.
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        for part in (
            check.step_gradient,
            check.step_by_step,
            small.finite_differences,
            check.chunks,
            check.lengths,
            check.empty,
            check.directions,
            check.half,
            check.not_a_number,
        ):
            torch.manual_seed(0)
            part()


@dataclass(frozen=True)
class Trial:
    """One use of a kernel, as `check_kernel` makes it up.

    batch_sizes: the rows of each step. idle: sequences of no step, which only the states have. frozen: inputs, states
    and stacks whose gradient is not wanted. unused: outputs and final states that come without a gradient.
    strided: arrays lie in others, transposed or with gaps, and the gradient of every row is the same row in memory.
    """

    batch_sizes: tuple[int, ...] = (3, 3, 2, 1)
    idle: int = 0
    dtype: str = "float64"
    frozen: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    strided: bool = False
    seed: int = 0


# What each cell is tried with: lengths of all kinds; nobody to run, and nothing to do; gradients of some things only.
TRIALS = (
    Trial((5, 5, 4, 2, 2, 1), idle=2),
    Trial((2, 2, 1), strided=True),
    Trial((), idle=3),
    Trial(()),
    Trial((3,), unused=frozenset({"y"})),
    Trial((2,) * 150, dtype="float32"),
)


def check_backend(
    name: str,
    some: Iterable[str | Cell] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    trials: Iterable[Trial] = TRIALS,
    device: str = "cpu",
) -> None:
    """The kernels of a backend do what the reference does in float64: `check_kernel` for every cell and trial, and once
    for each kind of gradient that is not wanted.

    some: cells, by name or as `@cell` makes them, none of which the backend may refuse; all of the catalogue unless
    given. sizes: as for `check_cell`.
    """
    for one, of_type in product(cells.names() if some is None else some, _by_type(trials).items()):
        dtype, several = of_type
        all_sizes = {"input": 3, "hidden": 4} | dict(sizes or {})
        kernel, recurrence = kernel_of(name, cells.get(one), all_sizes, dtype, device)
        graph = recurrence.graph
        for trial in several:
            check_kernel(kernel, graph, recurrence.sizes, trial, device)
            if trial is TRIALS[0]:
                for frozen in ({"x"}, graph.states, graph.stacks, {*graph.inputs, *graph.states}):
                    check_kernel(kernel, graph, recurrence.sizes, replace(trial, frozen=frozenset(frozen)), device)


def _by_type(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.dtype, []).append(trial)
    return found


def kernel_of(
    backend: str, cell: Cell, sizes: Mapping[str, int], dtype: str = "float64", device: str = "cpu"
) -> tuple[Kernel, Recurrence]:
    """The kernel that a backend makes of a cell, and the cell as layers run it, with all of its sizes.

    NotImplementedError, with the reason, if the backend refuses.
    """
    recurrence = Recurrence(cell, _Check(cell, dict(sizes)).sizes)
    chosen = choose(recurrence.graph, device, f"torch.{dtype}", backend)
    return chosen.compile(recurrence.graph, recurrence.sizes, device, f"torch.{dtype}"), recurrence


def check_kernel(kernel: Kernel, graph: Graph, sizes: Mapping[str, int], trial: Trial, device: str = "cpu") -> None:
    """One trial of a kernel against the reference in float64, on the same numbers.

    - Outputs, final states and gradients agree; with nothing kept as well.
    - Everything that is given, and what is kept, stays as it was; backward a second time gives the same bits.
    """
    dtype = getattr(torch, trial.dtype)
    drawn = Drawn.of(graph, dict(sizes), trial)
    reference = ReferenceKernel(graph, dict(sizes))
    expected = drawn.run(reference)
    off = (drawn.nudged() if trial.dtype == "float64" else drawn.to(dtype)).run(reference)
    given = drawn.to(dtype, device)
    given = given.strided() if trial.strided else given
    before = given.copied()
    with torch.no_grad():
        found = given.run(kernel, again=True)
        without = given.forward(kernel)
    what = f"{graph.name}, {trial}"
    assert_same_results(found, expected, off, trial.dtype, what)
    assert_same_results(without, {key: expected[key] for key in without}, off, trial.dtype, f"{what}, nothing kept")
    for (name, array), old in zip(given.arrays(), before, strict=True):
        if not torch.equal(array.nan_to_num(), old.nan_to_num()):
            raise AssertionError(f"{what}: {name} came out changed")


def assert_same_results(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    off: Mapping[str, Tensor],
    dtype: str = "float64",
    what: str = "the kernel",
) -> None:
    """Results by name agree within what the type allows. off: what the reference gives in float32, or when nudged."""
    near = KERNEL[dtype]
    for name, right in expected.items():
        finite = right[right.isfinite()].abs()
        scale = max(1.0, finite.max().item()) if finite.numel() else 1.0
        apart = (off[name].double() - right).abs().nan_to_num(0.0, 0.0, 0.0)
        slack = apart.max().item() if apart.numel() else 0.0
        if slack > LOST * scale:
            continue
        absolute = near.absolute * scale + AMPLIFIED * slack
        assert_close(found[name], right, Tolerance(near.relative, absolute), f"{what}: {name}")


@dataclass(frozen=True)
class Drawn:
    """What a kernel is called with, forward and backward."""

    trial: Trial
    inputs: dict[str, Tensor]
    states: dict[str, Tensor]
    weights: dict[str, Tensor]
    grads: dict[str, Tensor | None]
    final_grads: dict[str, Tensor | None]

    @staticmethod
    def of(graph: Graph, sizes: dict[str, int], trial: Trial) -> Drawn:
        """In float64, of numbers that the type of the trial has; the states are such as the cell comes to by itself."""
        source = torch.Generator().manual_seed(trial.seed)
        kind = getattr(torch, trial.dtype)

        def width(leaf: Expr) -> int:
            return 1 if leaf.size is None else sizes[str(leaf.size)]

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=source).to(kind).double()

        def inputs(rows: int) -> dict[str, Tensor]:
            side = {name: draw(rows, width(leaf)) for name, leaf in graph.inputs.items()}
            # Something that could be a time gap, or the better part of a mask.
            return {
                name: array if name == "x" else 0.25 + array.sigmoid().to(kind).double() for name, array in side.items()
            }

        weights = {}
        for stack, members in graph.stacks.items():
            rows = sum(sizes[str(param.sizes[0])] for param in members)
            columns = sizes[str(members[0].sizes[1])] // members[0].blocks if members[0].is_matrix else 1
            array = draw(*((rows, columns) if members[0].is_matrix else (rows,)))
            weights[stack] = (array * min(0.5, columns**-0.5)).to(kind).double()
        total, batch = sum(trial.batch_sizes), max(trial.batch_sizes, default=0) + trial.idle
        states = {
            name: torch.full((batch, width(leaf)), graph.start.get(name, 0.0), dtype=torch.float64)
            for name, leaf in graph.states.items()
        }
        if batch:
            _, states, _ = ReferenceKernel(graph, sizes).forward(
                inputs(3 * batch), states, weights, (batch,) * 3, keep=False
            )
        states = {name: (array + draw(*array.shape) / 100).to(kind).double() for name, array in states.items()}
        of_outputs = {
            name: None if name in trial.unused else draw(total, width(node)) for name, node in graph.outputs.items()
        }
        of_states = {name: None if name in trial.unused else draw(*array.shape) for name, array in states.items()}
        if trial.strided:
            of_outputs = {name: grad if grad is None else grad[:1].expand_as(grad) for name, grad in of_outputs.items()}
        return Drawn(trial, inputs(total), states, weights, of_outputs, of_states)

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Drawn:
        return self.each(lambda array: array.to(device, dtype))

    def nudged(self) -> Drawn:
        """Numbers that are a little off."""
        source = torch.Generator().manual_seed(self.trial.seed)
        return self.each(
            lambda array: array * (1 + NUDGE * torch.randn(array.shape, dtype=array.dtype, generator=source))
        )

    def strided(self) -> Drawn:
        """The same numbers, with gaps between them and with NaN there."""
        return self.each(_apart)

    def each(self, do: Callable[[Tensor], Tensor]) -> Drawn:
        """With other arrays in the place of these."""

        def of(arrays: Mapping[str, Tensor | None]) -> dict[str, Any]:
            return {name: array if array is None else do(array) for name, array in arrays.items()}

        parts = (of(part) for part in (self.inputs, self.states, self.weights, self.grads, self.final_grads))
        return Drawn(self.trial, *parts)

    def arrays(self) -> list[tuple[str, Tensor]]:
        parts = (self.inputs, self.states, self.weights, self.grads, self.final_grads)
        return [(name, array) for part in parts for name, array in part.items() if array is not None]

    def copied(self) -> list[Tensor]:
        return [array.clone() for _, array in self.arrays()]

    @property
    def wanted(self) -> frozenset[str]:
        return frozenset([*self.inputs, *self.states, *self.weights]) - self.trial.frozen

    def forward(self, kernel: Kernel) -> dict[str, Tensor]:
        """Outputs and final states, nothing kept."""
        outputs, final, _ = kernel.forward(
            self.inputs, self.states, self.weights, self.trial.batch_sizes, keep=False, wanted=frozenset()
        )
        return outputs | {f"final {name}": array for name, array in final.items()}

    def run(self, kernel: Kernel, *, again: bool = False) -> dict[str, Tensor]:
        """Outputs, final states and the wanted gradients (zero where the kernel gives none). again: backward twice."""
        sizes, wanted = self.trial.batch_sizes, self.wanted
        outputs, final, saved = kernel.forward(self.inputs, self.states, self.weights, sizes, keep=True, wanted=wanted)
        results = outputs | {f"final {name}": array for name, array in final.items()}
        if all(grad is None for grad in (*self.grads.values(), *self.final_grads.values())):
            return results
        kept = {name: array.clone() for name, array in saved.items()}
        made = kernel.backward(saved, self.grads, self.final_grads, self.weights, sizes, wanted)
        if again:
            second = kernel.backward(saved, self.grads, self.final_grads, self.weights, sizes, wanted)
            for one, other in ((saved, kept), *zip(made, second, strict=True)):
                for name, array in one.items():
                    if not _same_bits(array, other[name]):
                        raise AssertionError(f"backward twice: {name} is not the same afterwards")
        for part, of_part in zip((self.inputs, self.states, self.weights), made, strict=True):
            for name, array in part.items():
                if name in wanted:
                    grad = of_part.get(name)
                    results[f"gradient of {name}"] = torch.zeros_like(array) if grad is None else grad
        return results


def _same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))


def _apart(array: Tensor) -> Tensor:
    """The same numbers at other places: with gaps in every row and between rows, or transposed."""
    if array.dim() == 2 and array.shape[0] > 1 and array.stride(0) == 0:
        return _apart(array[:1]).expand_as(array)
    shape = array.shape
    if array.dim() == 2 and shape[1] % 2:
        return array.t().contiguous().t()
    room = array.new_full((*shape[:-1], shape[-1] + 3), torch.nan)[..., 1:-2]
    return room.copy_(array)


def evaluate_step(
    graph: Graph, given: Mapping[str, Tensor], state: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step of a graph, value by value in torch: its outputs and its new states by name, [B, F] each.

    given: inputs [B, F] and parameters by name; state: the states [B, F]. Without a schedule, so that it can
    judge one.
    """
    like = next(iter(state.values()))
    given = with_made(graph, given, sizes)
    values: dict[Expr, Any] = {}
    for node in graph.nodes:
        args = [values[arg] for arg in node.args]
        match node.op:
            case "input" | "vector":
                values[node] = given[node.attr]
            case "state":
                values[node] = state[node.attr]
            case "const":
                values[node] = node.attr
            case "count":
                values[node] = float(length(node.attr, sizes))
            case "index":
                values[node] = torch.arange(length(node.size, sizes)).to(like)
            case "matmul":
                values[node] = args[0] @ _whole(graph, node.attr[0], given).t()
            case "matmul_t":
                values[node] = sum(arg @ _whole(graph, name, given) for name, arg in zip(node.attr, args, strict=True))
            case "cumsum":
                values[node] = cumulative(args[0], node.attr)
            case "spread":
                values[node] = args[0] * like.new_ones(length(node.size, sizes))
            case _:
                values[node] = SPELLING[node.op](*args)

    def rows(node: Expr) -> Tensor:
        value = values[node] if isinstance(values[node], Tensor) else like.new_tensor(values[node])
        return value.expand(like.shape[0], 1 if node.size is None else length(node.size, sizes))

    return (
        {name: rows(node) for name, node in graph.outputs.items()},
        {name: rows(node) for name, node in graph.new.items()},
    )


@torch.no_grad()
def derived_gradient(
    graph: Graph,
    given: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    outputs_grad: Mapping[str, Tensor],
    new_grad: Mapping[str, Tensor],
    sizes: Mapping[str, int],
) -> dict[str, Tensor]:
    """The gradient of each input and parameter given to `evaluate_step` and of each state, all by name, from the
    step's derived backward step.

    outputs_grad, new_grad: the gradients of the outputs and of the new states, [B, F] each.
    """
    held = given
    given = with_made(graph, given, sizes)
    adjoint = differentiate(graph)
    handed = {f"d:{name}": grad for name, grad in outputs_grad.items()}
    back_grad = {f"d:{name}": grad for name, grad in new_grad.items()}
    found, back = evaluate_step(adjoint.graph, {**given, **state, **handed}, back_grad, sizes)
    grads = {name: found[key] for name, key in adjoint.inputs.items()}
    grads |= {name: back[f"d:{name}"] for name in graph.states}
    grads |= {name: found[key].sum(0) for name, key in adjoint.vectors.items()}
    for name, param in graph.params.items():
        if param.is_matrix:
            pairs = adjoint.matrices.get(name, ())
            products = [outer(found[rows], found[columns], param.blocks) for rows, columns in pairs]
            grads[name] = sum(products, start=torch.zeros_like(given[name]))
    for name, formula in through_made(graph).items():
        known = given | {f"d:{made}": grads[made] for made in graph.params if graph.params[made].made is not None}
        grads[name] = grads[name] + make_matrix(formula, known.__getitem__, sizes)
    return {name: grad for name, grad in grads.items() if name in held or name in state}


def with_made(graph: Graph, given: Mapping[str, Tensor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """What is given, and the matrices that the graph makes of it."""
    known = dict(given)
    like = next(iter(given.values()))
    for name, param in graph.params.items():
        if param.made is not None and name not in known:
            known[name] = make_matrix(param.made, known.__getitem__, sizes, like)
    return known


def _whole(graph: Graph, name: str, given: Mapping[str, Tensor]) -> Tensor:
    """A matrix [R, C], whether or not it is kept as diagonal blocks."""
    blocks = graph.params[name].blocks
    return torch.block_diag(*given[name].chunk(blocks)) if blocks > 1 else given[name]


def _weighed(results: Iterable[Tensor]) -> Tensor:
    """One number that depends on every value of the results, on each differently."""
    return torch.stack([(r * torch.cos(torch.arange(r.numel()).reshape(r.shape))).sum() for r in results]).sum()


def _gradients(number: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of each leaf, zero where the number does not depend on it."""
    if not leaves or not number.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(number, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


@dataclass(frozen=True)
class _Run:
    """What a layer gave for a batch: y [B, T, F], the final states [L * D, B, H], and the gradients of the leaves."""

    y: Tensor
    state: tuple[Tensor, ...]
    grads: list[Tensor]

    @staticmethod
    def of(result: tuple[Tensor, Iterable[Tensor]], leaves: Sequence[Tensor]) -> _Run:
        y, state = result[0], tuple(result[1])
        return _Run(y, state, _gradients(_weighed([y, *state]), leaves))


@dataclass(frozen=True)
class _Batch:
    """What a layer is called with: x [B, T, I], the states, the side inputs [B, T, F]; all ask for a gradient."""

    x: Tensor
    state: list[Tensor]
    side: dict[str, Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        return [self.x, *self.state, *self.side.values()]

    def run(self, layer: Recurrent, lengths: Sequence[int] | None = None) -> tuple[Tensor, Any]:
        return layer(self.x, self.state, lengths, self.side)

    def steps(self, begin: int, end: int, state: Sequence[Tensor] | None = None) -> _Batch:
        """Some steps of the batch, from a state."""
        side = {name: array[:, begin:end] for name, array in self.side.items()}
        return _Batch(self.x[:, begin:end], list(self.state if state is None else state), side)

    def rows(self, begin: int, end: int) -> _Batch:
        """Some sequences of the batch."""
        side = {name: array[begin:end] for name, array in self.side.items()}
        return _Batch(self.x[begin:end], [array[:, begin:end] for array in self.state], side)

    def turned(self) -> _Batch:
        """The batch with time reversed."""
        return _Batch(self.x.flip(1), self.state, {name: array.flip(1) for name, array in self.side.items()})

    def to(self, dtype: torch.dtype) -> _Batch:
        def cast(array: Tensor) -> Tensor:
            return array.detach().to(dtype).requires_grad_()

        return _Batch(
            cast(self.x), [cast(array) for array in self.state], {name: cast(a) for name, a in self.side.items()}
        )


class _Check:
    """The parts of `check_cell`."""

    def __init__(self, cell: Cell, sizes: dict[str, int]) -> None:
        self.cell, self.graph = cell, cell.graph
        self.sizes = dict.fromkeys(self.graph.size_names, 5) | sizes
        if "hidden" not in self.graph.size_names:
            self.sizes["hidden"] = self.sizes["input"]
        for param in self.graph.params.values():
            for size in param.sizes:
                self.sizes[str(size)] = -(-self.sizes[str(size)] // param.blocks) * param.blocks
        self.side = {name: leaf for name, leaf in self.graph.inputs.items() if name != "x"}
        self.given = [name for name in self.side if name not in self.graph.draws]
        # A side input as wide as x fits the first layer only.
        self.depth = 1 if any(str(self.side[name].size) == "input" for name in self.given) else 2

    def layer(self, depth: int = 1, directions: int = 1, dtype: torch.dtype = torch.float64) -> Recurrent:
        made = Recurrent(
            self.cell,
            self.sizes["input"],
            self.sizes["hidden"],
            depth,
            bidirectional=directions == 2,
            sizes={name: self.sizes[name] for name in self.graph.size_names if name not in ("input", "hidden")},
            dtype=dtype,
        ).eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return made

    def batch(self, layer: Recurrent, time: int, rows: int = 3) -> _Batch:
        """A batch, with a state such as the cell comes to by itself."""
        with torch.no_grad():
            before = self._draw(layer, rows, 3)
            _, state = layer(before.x, None, None, before.side)
            state = [_nearby(array) for array in state]
        batch = self._draw(layer, rows, time)
        return _Batch(batch.x, [array.requires_grad_() for array in state], batch.side)

    def _draw(self, layer: Recurrent, rows: int, time: int) -> _Batch:
        x = torch.randn(rows, time, self.sizes["input"], dtype=torch.float64, requires_grad=True)
        return _Batch(x, [], {name: self.draw_side(name, rows, time).requires_grad_() for name in self.given})

    def draw_side(self, name: str, *shape: int) -> Tensor:
        """Something that could be a time gap, or the better part of a mask."""
        return 0.25 + torch.rand(*shape, self.width(self.side[name].size), dtype=torch.float64)

    def width(self, size: Size | None) -> int:
        return 1 if size is None else self.sizes[str(size)]

    def frozen(self) -> set[str]:
        """The parameters that a stop keeps from being trained: differences of values know nothing of a stop."""
        found: set[str] = set()
        for param in self.graph.params.values():
            formula = [] if param.made is None else toposort([param.made])
            if any(node.op == "stop" for node in formula):
                found |= {node.attr for node in formula if node.op == "matrix"}
        stopped = [node.args[0] for node in self.graph.nodes if node.op == "stop"]
        return found | {node.attr for node in stopped if node.op == "vector"}

    def equal(self, what: str, actual: _Run, expected: _Run, leaves: Sequence[str], far: Tolerance = SAME) -> None:
        assert_close(actual.y, expected.y, far, f"{self.cell.name}, {what}: y")
        for name, a, b in zip(self.graph.states, actual.state, expected.state, strict=True):
            assert_close(a, b, far, f"{self.cell.name}, {what}: the final state {name}")
        for name, a, b in zip(leaves, actual.grads, expected.grads, strict=True):
            assert_close(a, b, far, f"{self.cell.name}, {what}: the gradient of {name}")

    def leaves(self, layer: Recurrent) -> list[str]:
        """The names of what a layer is differentiated by: its inputs, its first states, its parameters."""
        return ["x", *self.graph.states, *self.given, *(name for name, _ in layer.named_parameters())]

    def step_gradient(self) -> None:
        """The backward step derived from the step, without any layer."""
        graph, rows = self.graph, 2

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64)

        def inputs() -> dict[str, Tensor]:
            return {"x": draw(rows, self.sizes["input"])} | {name: self.draw_side(name, rows) for name in self.side}

        state = {
            name: torch.full((rows, self.width(leaf.size)), graph.start[name], dtype=torch.float64)
            for name, leaf in graph.states.items()
        }
        params = {name: draw(*param.shape(self.sizes)) / 2 for name, param in graph.held.items()}
        for _ in range(3):
            _, state = evaluate_step(graph, inputs() | params, state, self.sizes)
        state = {name: _nearby(array).requires_grad_() for name, array in state.items()}
        given = {name: value.requires_grad_() for name, value in (inputs() | params).items()}
        outputs, new = evaluate_step(graph, given, state, self.sizes)
        outputs_grad = {name: draw(*value.shape) for name, value in outputs.items()}
        new_grad = {name: draw(*value.shape) for name, value in new.items()}

        def number() -> Tensor:
            outputs, new = evaluate_step(graph, given, state, self.sizes)
            parts = [(value * outputs_grad[name]).sum() for name, value in outputs.items()]
            return torch.stack(parts + [(value * new_grad[name]).sum() for name, value in new.items()]).sum()

        symbolic = derived_gradient(graph, given, state, outputs_grad, new_grad, self.sizes)
        leaves, frozen = given | state, self.frozen()
        for (name, leaf), expected in zip(leaves.items(), _gradients(number(), list(leaves.values())), strict=True):
            what = f"{self.cell.name}: the derived gradient of {name} in one step"
            assert_close(symbolic[name], expected, SAME, f"{what}, against torch")
            if name not in frozen:
                assert_close(symbolic[name], _differences(number, leaf), FINITE_DIFFERENCES, f"{what}, by differences")

    def step_by_step(self) -> None:
        """The layer against the step itself, run one time step after another; with and without gradients kept."""
        layer = self.layer()
        warm = self.batch(layer, time=4)
        cold = replace(warm, state=[array.requires_grad_() for array in layer.start_state(3)])
        for what, batch in (("from a running state", warm), ("from the start", cold)):
            leaves = [*batch.leaves, *layer.parameters()]
            actual = _Run.of(batch.run(layer), leaves)
            expected = _Run.of(self.plain(layer, batch), leaves)
            self.equal(f"step by step {what}", actual, expected, self.leaves(layer))
            with torch.no_grad():
                y, final = batch.run(layer)
            self.equal(f"without gradients, {what}", _Run(y, tuple(final), []), _Run(actual.y, actual.state, []), [])

    def plain(self, layer: Recurrent, batch: _Batch) -> tuple[Tensor, list[Tensor]]:
        """A layer's result, with nothing but the step and a loop."""
        now = dict(zip(self.graph.states, (array[0] for array in batch.state), strict=True))
        params: dict[str, Tensor] = {}
        for stack, members in self.graph.stacks.items():
            array = layer.get_parameter(f"layers.0.0.{stack}")
            rows = array.split([self.sizes[str(param.sizes[0])] for param in members])
            params |= {param.name: part for param, part in zip(members, rows, strict=True)}
        drawn = {
            name: batch.x.new_full((batch.x.shape[0], self.width(self.side[name].size)), draw.mean)
            for name, draw in self.graph.draws.items()
        }
        ys = []
        for t in range(batch.x.shape[1]):
            side = {name: array[:, t] for name, array in batch.side.items()}
            outputs, now = evaluate_step(self.graph, {"x": batch.x[:, t]} | side | drawn | params, now, self.sizes)
            ys.append(outputs["y"])
        return torch.stack(ys, 1), [array[None] for array in now.values()]

    def finite_differences(self) -> None:
        """The layer's gradient, and the gradient of that, against differences of the layer's values."""
        layer = self.layer()
        batch = self.batch(layer, time=3, rows=2)
        frozen = {f"layers.0.0.{param.family}" for name in self.frozen() if (param := self.graph.params[name])}
        kept = {name: weights.detach() for name, weights in layer.named_parameters() if name in frozen}
        names = [name for name, _ in layer.named_parameters() if name not in frozen]
        first, second = 1 + len(batch.state), 1 + len(batch.state) + len(batch.side)

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            side = dict(zip(batch.side, tensors[first:second], strict=True))
            weights = kept | dict(zip(names, tensors[second:], strict=True))
            y, final = torch.func.functional_call(layer, weights, (tensors[0], tensors[1:first], None, side))
            return tuple(result for result in (y, *final) if result.requires_grad)

        inputs = (*batch.leaves, *(layer.get_parameter(name) for name in names))
        step, far = FINITE_STEP, FINITE_DIFFERENCES
        try:
            if run(*inputs):
                gradcheck(run, inputs, eps=step, rtol=far.relative, atol=far.absolute)
                gradgradcheck(run, inputs, eps=step, rtol=far.relative, atol=far.absolute, fast_mode=True)
        except GradcheckError as error:
            raise AssertionError(f"{self.cell.name}: the layer's gradient, by differences: {error}") from error

    def chunks(self) -> None:
        layer = self.layer(self.depth)
        batch = self.batch(layer, time=5)
        leaves = [*batch.leaves, *layer.parameters()]
        whole = _Run.of(batch.run(layer), leaves)
        y1, middle = batch.steps(0, 2).run(layer)
        y2, final = batch.steps(2, 5, middle).run(layer)
        self.equal("in two parts", _Run.of((torch.cat([y1, y2], 1), final), leaves), whole, self.leaves(layer))

    def lengths(self) -> None:
        layer = self.layer(self.depth, directions=2)
        lengths = [3, 0, 5, 1]
        batch = self.batch(layer, time=5, rows=4)
        for array in (batch.x, *batch.side.values()):
            for row, steps in enumerate(lengths):
                array.data[row, steps:] = torch.nan
        leaves = [*batch.leaves, *layer.parameters()]
        together = _Run.of(batch.run(layer, lengths), leaves)
        ys, finals = [], []
        for row, steps in enumerate(lengths):
            y, final = batch.rows(row, row + 1).steps(0, steps).run(layer)
            ys.append(torch.nn.functional.pad(y, (0, 0, 0, 5 - steps)))
            finals.append(final)
        alone = _Run.of((torch.cat(ys), (torch.cat(parts, 1) for parts in zip(*finals, strict=True))), leaves)
        self.equal(f"lengths {lengths} in one batch, against each alone", together, alone, self.leaves(layer))

    def empty(self) -> None:
        """No steps: the state as it came. No sequences: nothing, in the right shapes. Both can be differentiated."""
        layer = self.layer(self.depth, directions=2)
        batch = self.batch(layer, time=4)
        width = layer.output_size
        leaves = [*batch.leaves, *layer.parameters()]
        nothing = [torch.zeros_like(leaf) for leaf in leaves]
        # A state of layers of unequal width is handed on without what lies beyond the width of each.
        kept_state = [array * mask for array, mask in zip(batch.state, self.within(layer), strict=True)]
        kept = _gradients(_weighed(kept_state), leaves)
        for what, lengths, part in (("T = 0", None, batch.steps(0, 0)), ("lengths of 0", [0, 0, 0], batch)):
            run = _Run.of(part.run(layer, lengths), leaves)
            still = _Run(batch.x.new_zeros(3, part.x.shape[1], width), tuple(kept_state), kept)
            self.equal(what, run, still, self.leaves(layer))
        none = batch.rows(0, 0)
        run = _Run.of(none.run(layer), leaves)
        self.equal("B = 0", run, _Run(batch.x.new_zeros(0, 4, width), tuple(none.state), nothing), self.leaves(layer))

    def within(self, layer: Recurrent) -> list[Tensor]:
        """For each state [L * D, 1, F], 1 where the layer has such a feature."""
        masks = []
        for size in (leaf.size for leaf in self.graph.states.values()):
            widths = torch.tensor([one.sizes[str(size)] for several in layer.layers for one in several])  # type: ignore[union-attr]
            within = torch.arange(int(widths.max())) < widths[:, None]
            masks.append(within[:, None].to(torch.float64))
        return masks

    def directions(self) -> None:
        both = self.layer(directions=2)
        batch = self.batch(both, time=4)
        leaves = [*batch.leaves, *both.parameters()]
        expected = _Run.of(batch.run(both), leaves)
        ys, finals = [], []
        for direction, turned in enumerate((batch, batch.turned())):
            one = self.layer()
            weights: dict[str, Tensor] = {
                name: both.get_parameter(name.replace("layers.0.0", f"layers.0.{direction}"))
                for name, _ in one.named_parameters()
            }
            start = [array[direction : direction + 1] for array in batch.state]
            y, final = torch.func.functional_call(one, weights, (turned.x, start, None, turned.side))
            ys.append(y if direction == 0 else y.flip(1))
            finals.append(final)
        apart = _Run.of((torch.cat(ys, 2), (torch.cat(parts) for parts in zip(*finals, strict=True))), leaves)
        self.equal("each direction by itself", apart, expected, self.leaves(both))

    def half(self) -> None:
        """In bfloat16 the layer gives what it gives in float64 for the same numbers, as far as bfloat16 goes."""
        layer = self.layer(dtype=torch.bfloat16)
        exact = self.layer()
        exact.load_state_dict(layer.state_dict())
        batch = self.batch(exact, time=4).to(torch.bfloat16)
        coarse = _Run.of(batch.run(layer), [])
        fine = _Run.of(batch.to(torch.float64).run(exact), [])
        self.equal("in bfloat16", coarse, fine, [], BFLOAT16)

    def not_a_number(self) -> None:
        """What is not a number stays in its sequence, and is not hidden there."""
        layer = self.layer(self.depth)
        batch = self.batch(layer, time=4)
        clean = _Run.of(batch.run(layer), [])
        batch.x.data[1, 2] = torch.nan
        y, state = batch.run(layer)
        others = [0, 2]
        assert_close(y[others], clean.y[others], SAME, f"{self.cell.name}, NaN in another sequence: y")
        for name, a, b in zip(self.graph.states, state, clean.state, strict=True):
            what = f"{self.cell.name}, NaN in another sequence: the final state {name}"
            assert_close(a[:, others], b[:, others], SAME, what)
        assert_close(y[1, :2], clean.y[1, :2], SAME, f"{self.cell.name}, NaN in a later step: y")


def _nearby(state: Tensor) -> Tensor:
    """A little off: a cell may come to rest exactly on a kink, as relu does at 0, where nothing has a gradient."""
    return state + 0.01 * torch.randn_like(state)


def _differences(number: Callable[[], Tensor], leaf: Tensor) -> Tensor:
    """The gradient of a number by central differences, moving each value of the leaf in its place."""
    found = torch.zeros_like(leaf)
    places, into = leaf.data.view(-1), found.data.view(-1)
    with torch.no_grad():
        for k, value in enumerate(places.tolist()):
            sides = []
            for moved in (value + FINITE_STEP, value - FINITE_STEP):
                places[k] = moved
                sides.append(number())
            places[k] = value
            into[k] = (sides[0] - sides[1]) / (2 * FINITE_STEP)
    return found
